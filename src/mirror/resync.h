// SPDX-License-Identifier: Apache-2.0
// The active's side of a first copy or resynchronization of one set for one peer: a walk by id, each object shipped under its lock as records
// of the same log, addressed to the peer, while the application goes on. Children are queued by id, so moves don't matter; a live rename or
// link queues the object again if it was not shipped yet. An empty peer gets bytes; another gets hashes, and bytes where it says NAK.
// It outlives a connection: what it shipped waits in the peer's queue, and it waits for acknowledgements; the peer repeats NAKs that were not answered.
// Threads: run() in one; moved(), nak(), acked(), cancel() and progress() from any.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <unordered_set>
#include <vector>

#include "mirror/active_log.h"
#include "mirror/channel.h"
#include "ports/live_tree.h"

namespace holdfast::mirror {

constexpr std::size_t hash_chunk_bytes = 256 * 1024;
constexpr std::size_t data_chunk_bytes = 512 * 1024;
constexpr std::size_t listing_bytes = 64 * 1024;
constexpr std::size_t resync_window_bytes =
    std::size_t{16} << 20;  // shipped and not yet acknowledged; also at most a quarter of the ring

struct ResyncProgress {
  std::uint64_t done = 0, total = 0;  // objects; total grows as folders are read
  std::uint64_t bytes = 0;            // of content, shipped or compared
};

class Resync {
 public:
  Resync(ActiveLog& log, ports::LiveTree& tree, NodeId peer, SetNumber set, bool peer_empty);
  // ErrorCode::unavailable when cancelled. Returns when resync_end was appended.
  Status run();
  void moved(const FileId& id);
  void nak(const Nak& nak);
  void acked(const Ack& ack);
  void cancel();
  ResyncProgress progress() const;
  SetNumber set() const { return set_; }
  Sequence end() const { return last_; }  // of resync_end, once run() has succeeded

 private:
  enum class After { done, more };
  Status begin();
  Status walk();
  Result<bool> next(FileId& id);
  Status ship(const FileId& id);
  Status ship_folder(const FileId& id);
  void look_ahead(std::size_t came_nearer);
  Status ship_bytes_again(const Nak& nak);
  Result<After> append_extent(ports::LiveObject& object, const FileId& id, const ports::NodeAttributes& attributes,
                              std::uint64_t& offset, bool capable);
  Status append_bytes(ports::LiveObject& object, const FileId& id, const ports::NodeAttributes& attributes,
                      std::uint64_t offset, std::uint64_t length);
  Status append_capability(ports::LiveObject& object, const FileId& id);
  Status append_mark(log::Kind kind);
  // Space for one step, before any lock (R22): what append_* use comes out of it; the rest is given back when the step ends.
  Status reserve(std::vector<std::size_t> pieces);
  void append(log::Record& record, std::size_t piece);
  void give_back_rest();

  ActiveLog& log_;
  ports::LiveTree& tree_;
  const NodeId peer_;
  const SetNumber set_;
  bool peer_empty_;  // nothing is compared, and no holes are said

  std::vector<std::size_t> pieces_;  // reserved, not used yet
  Bytes buffer_;
  std::vector<FileId> stack_;
  std::unordered_set<FileId> shipped_;
  std::unordered_set<FileId> again_;  // the peer asked for all of it, so it has something there
  Sequence last_;                     // last record of ours

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool cancelled_ = false;
  std::deque<FileId> moved_;
  std::unordered_set<FileId> moved_once_;  // what is in moved_: a peer may be away for long
  std::deque<Nak> naks_;
  Ack ack_;
  std::uint64_t acks_ = 0;
  std::deque<std::pair<Sequence, std::size_t>> outstanding_;
  std::size_t outstanding_bytes_ = 0;
  ResyncProgress progress_;
};

}  // namespace holdfast::mirror
