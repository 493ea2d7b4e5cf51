// SPDX-License-Identifier: Apache-2.0
// The passive's side of the data channel: checks what comes, appends it to the receive log, makes it durable in groups, acknowledges.
// One thread reads, appends and syncs: while it syncs, the next batches gather in the socket, so a group is as big as the disk is slow.
// Threads: serve() in one thread a connection (a newer one ends the older); seal() and the rest from any.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "log/segment_log.h"
#include "mirror/channel.h"
#include "mirror/open_questions.h"
#include "ports/stream.h"

namespace holdfast::mirror {

constexpr std::size_t unsynced_limit_bytes = std::size_t{4} << 20;
constexpr std::uint64_t default_receive_limit_bytes = std::uint64_t{4} << 30;

class Receiver {
 public:
  struct Hooks {
    // May this active connect, and what do we tell it? An error's message goes to the peer.
    std::function<Result<Welcome>(const Hello&)> admit;
    // ErrorCode::stale: a later epoch than `epoch` was promised meanwhile; nothing was touched.
    // Forget the log, all sets are incomplete; durable. ErrorCode::busy: a drained tree was asked for, and this one is not yet.
    // The welcome: what this session's active was told, and decides by.
    std::function<Status(const Start& start, Epoch epoch, const Welcome& told)> restart;
    std::function<void()> logged;  // something new is durable
    std::function<Sequence()> applied;
    std::function<std::uint64_t()> backlog_bytes;  // logged and not applied
    std::function<void(const Error&)> fault;       // our own disk failed: final (I7)
    // The disk under the log is full (then the error's words), or is not any more. The active is held up meanwhile; it goes on by itself.
    std::function<void(const std::string& full)> full;
    MemberLimits* limits = nullptr;  // null: nothing is said of them, nor heard
  };
  Receiver(log::SegmentLog& log, Hooks hooks, std::uint64_t limit_bytes = default_receive_limit_bytes)
      : log_(log), hooks_(std::move(hooks)), limit_bytes_(limit_bytes) {}

  // Until the connection ends. The stream should time out when idle: the active sends something every half second.
  // `identity`: the name in the peer's certificate, which must be the node id it claims.
  Status serve(std::shared_ptr<ports::ByteStream> stream, const std::string& identity);
  // R1: nothing below `epoch` is appended or acknowledged after this returned; everything that was appended is durable. The position is read
  // after that. `record` stores the promise durably.
  Result<Position> seal(Epoch epoch, const std::function<Status()>& record);
  void disconnect();  // ends the present session
  // Sent before any acknowledgement that covers its record, and at the start of each later session until a record that answers it was appended:
  // a connection may break under it.
  void nak(const Nak& nak);
  void settled(SetNumber set);  // it is whole: what was asked of it is of no interest any more
  void differs(
      const Differs& differs);  // as nak(), once. Without a session: dropped; a new one begins what asked for it anew
  void send_ack();              // now; a no-op without a session
  void space_freed();           // the applier moved on
  void set_limit(std::uint64_t bytes) { limit_bytes_ = bytes; }
  std::uint64_t limit() const { return limit_bytes_; }
  NodeId connected_to() const;
  Epoch sealed() const { return Epoch(sealed_.load()); }
  void set_sealed(Epoch epoch) { sealed_ = epoch.value; }
  std::uint64_t appended_bytes() const { return appended_bytes_.load(); }
  // For whoever replaces the log's content: no append happens while this is held.
  std::unique_lock<std::mutex> hold() const { return std::unique_lock(append_mutex_); }
  std::unique_lock<std::mutex> try_hold() const { return std::unique_lock(append_mutex_, std::try_to_lock); }

 private:
  Status session(ports::ByteStream& stream, const std::string& identity);
  Status take_batch(ByteView payload, Epoch epoch);
  Status append(ByteView records, const BatchHead& batch, Position last, Epoch epoch);
  Status wait_for_room();
  Status sync_and_ack();
  Status refuse(ports::ByteStream& stream, const Error& why);

  log::SegmentLog& log_;
  Hooks hooks_;
  std::atomic<std::uint64_t> limit_bytes_;
  std::mutex serve_mutex_;           // one session at a time
  mutable std::mutex append_mutex_;  // the append lock of R1
  mutable std::mutex mutex_;         // current_, answers_
  std::mutex ack_mutex_;             // order of naks and acks on the wire
  std::uint64_t said_limits_ = 0;    // under ack_mutex_: the version that this session's active was told; 0: none
  std::condition_variable space_;
  std::shared_ptr<ports::ByteStream> current_;
  NodeId from_;
  bool welcomed_ = false;
  std::deque<Bytes> answers_;  // NAKs and what differs, as frames, not sent in this session
  OpenQuestions questions_;
  std::atomic<std::uint64_t> sealed_{0}, appended_bytes_{0};
  std::size_t unsynced_bytes_ = 0;
};

}  // namespace holdfast::mirror
