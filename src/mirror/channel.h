// SPDX-License-Identifier: Apache-2.0
// The data channel: framed messages over a mutually authenticated TLS 1.3 stream (docs/formats/channel.md).
//
//   0    1    2        4            8            12           16
//   +----+----+--------+------------+------------+------------+----------------------+
//   |type| 0  | 0      | length u32 | crc32c u32 | 0          | payload, length bytes|
//   +----+----+--------+------------+------------+------------+----------------------+
// The checksum covers bytes 0..8 and the payload; of a batch only the payload's first 24 bytes, because records carry their own.
//
//   active (dials)                                passive (listens)
//   hello  versions, kinds, cluster, epoch   ->
//                                            <-   welcome  version, position, sets   | refuse reason
//                                            <-   changed  what of its trees may differ, of an active that ended uncleanly
//   heartbeat, while it looks at that        ->
//   start  restart?, base                    ->
//   batch, heartbeat                         ->
//                                            <-   ack durable+applied, nak, differs, heartbeat
// Lengths are never trusted; anything unexpected ends the connection, never the process.
#pragma once

#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/types.h"
#include "log/segment.h"
#include "mirror/member_limits.h"
#include "ports/change_store.h"
#include "ports/stream.h"

namespace holdfast::mirror {

constexpr std::uint16_t channel_version_min = 1, channel_version_max = 1;
constexpr std::size_t frame_head_bytes = 16;
constexpr std::size_t batch_head_bytes = 24;
constexpr std::size_t max_batch_bytes = std::size_t{1} << 20;  // a batch is this, or one record
constexpr std::size_t max_frame_bytes = log::max_group_bytes + batch_head_bytes;
constexpr std::size_t max_sets = 4096;

// What a node can do beside the version; a bit that both ends name is used.
constexpr std::uint32_t feature_partial_resync = 1;  // start 2, resync_begin with flag_partial_resync
constexpr std::uint32_t feature_hot_return = 2;      // an active that died says what of its tree may differ

enum class FrameType : std::uint8_t { hello = 1, welcome, start, batch, ack, nak, heartbeat, refuse, changed, differs };
// A node says of no more keys that they may differ: then of whole sets.
constexpr std::uint32_t max_listed = std::uint32_t{1} << 18;

struct FrameHead {
  FrameType type = FrameType::refuse;
  std::uint32_t length = 0, crc = 0;
};
struct Hello {
  std::uint16_t version_min = channel_version_min, version_max = channel_version_max;
  std::uint8_t highest_kind = 0;  // of records
  std::string cluster_id;
  NodeId node;
  Epoch epoch;
  std::uint32_t features = 0;
};
struct PeerSetState {
  SetNumber set = 0;
  bool complete = false, empty = false;
  bool doubted = false;  // something else stands there than what was remembered: what changed is not enough
};
struct Welcome {
  std::uint16_t version = channel_version_max;
  std::uint8_t highest_kind = 0;
  NodeId node;
  Position position;       // last durable record of its log
  bool clean = true;       // false: its tree may hold changes nobody else has (an active that was fenced or died)
  std::uint64_t life = 0;  // changes when its process starts anew
  std::vector<PeerSetState> sets;
  std::uint32_t features = 0;
  // Not clean, and both know feature_hot_return: the epoch that it led, and up to where its trees are as that epoch's log says but for what is
  // listed (mirror/hot_set.h). Epoch 0: it does not know what may differ.
  Epoch led;
  Position covered;
  std::uint32_t listed = 0;                 // keys in the frames `changed` that follow
  std::vector<ports::ChangeEntry> entries;  // these; in no welcome
};
struct Start {
  bool restart = false;  // forget your log: it begins anew after `base`, and all sets are resynchronized
  Position base;
  // With restart: your trees must be exactly what your position says, for only what changed since comes. Apply all you hold first, or refuse.
  bool drained = false;
};
struct BatchHead {
  std::uint32_t count = 0;
  Sequence first, last;
};
struct Ack {
  Sequence durable, applied;
  std::vector<ToldLimits> limits =
      {};  // of the passive's own folders: in the first of a session, and when they changed
};
// These bytes differ from what a ship_hash said; length 0: the object itself is not known here, or not its contents, and must be shipped again.
constexpr std::uint64_t nak_with_parent =
    1;  // as offset, length 0: a folder that was taken from its place, which must be named again too
constexpr std::uint64_t nak_contents =
    2;  // a file that its ship_node has just made; perhaps all that follows it is on its way
struct Nak {
  SetNumber set = 0;
  FileId file;
  std::uint64_t offset = 0, length = 0;
  auto operator<=>(const Nak&) const = default;
};
// What a check_* record says is not so here. Leaves before any acknowledgement that covers the record, so an `applied` without one means equal.
// Bits of `what`.
constexpr std::uint32_t differs_mode = 1, differs_owner = 2, differs_mtime = 4, differs_size = 8, differs_xattrs = 16,
                        differs_target = 32, differs_contents = 64, differs_missing = 128, differs_name_missing = 256,
                        differs_name_extra = 512, differs_name_other = 1024, differs_type = 2048,
                        differs_unreadable = 4096, differs_not_compared = 8192;
struct Differs {
  Sequence sequence;  // of the record
  SetNumber set = 0;
  FileId file;
  std::uint32_t what = 0;
  std::uint64_t offset = 0, length = 0;
  std::string name;  // differs_name_*: one of them
};
struct Heartbeat {
  std::int64_t time_ns = 0;             // sender's wall clock
  std::vector<ToldLimits> limits = {};  // of everybody, as far as the active knows: the same
};
struct Refuse {
  std::string reason;  // one line for people
};

// ErrorCode::corrupt when it is not one.
Result<FrameHead> decode_frame_head(ByteView head);
Status check_frame(const FrameHead& head, ByteView payload);
Result<Hello> decode_hello(ByteView payload);
Result<Welcome> decode_welcome(ByteView payload);
// Appends to `entries`; what they say is checked by ChangeSet::add().
Status decode_changed(ByteView payload, std::vector<ports::ChangeEntry>& entries);
Result<Start> decode_start(ByteView payload);
Result<BatchHead> decode_batch_head(ByteView payload);
Result<Ack> decode_ack(ByteView payload);
Result<Nak> decode_nak(ByteView payload);
Result<Differs> decode_differs(ByteView payload);
Result<Heartbeat> decode_heartbeat(ByteView payload);
Result<Refuse> decode_refuse(ByteView payload);

// Whole frames.
Bytes encode_frame(const Hello& m);
Bytes encode_frame(const Welcome& m);
// The next of `entries` from `from` on, as many as a frame takes; `from` moves on.
Bytes encode_changed(const std::vector<ports::ChangeEntry>& entries, std::size_t& from);
Bytes encode_frame(const Start& m);
Bytes encode_frame(const Ack& m);
Bytes encode_frame(const Nak& m);
Bytes encode_frame(const Differs& m);
Bytes encode_frame(const Heartbeat& m);
Bytes encode_frame(const Refuse& m);
// Frame and batch head only; `records_bytes` of records follow.
Bytes encode_batch_head(const BatchHead& m, std::size_t records_bytes);

// Reads one frame; the payload stays valid until the next call. One reading thread.
class FrameReader {
 public:
  explicit FrameReader(ports::ByteStream& stream) : stream_(stream) {}
  struct Frame {
    FrameType type;
    ByteView payload;
  };
  Result<Frame> next();

 private:
  ports::ByteStream& stream_;
  Bytes buffer_;
};

}  // namespace holdfast::mirror
