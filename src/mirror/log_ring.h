// SPDX-License-Identifier: Apache-2.0
// The active's log in memory: a fixed ring of encoded records, appended by capture, read by one cursor a peer, without copies.
//
//        tail: oldest record kept            release: oldest a cursor still needs          published   head
//   -----+-----------------------------------+--------------------------------------------+----------+-------
//        | history, kept while there is room | pinned                                     | being    | free
//        | (a peer may find its place in it) |                                            | copied   | (some reserved)
//   -----+-----------------------------------+--------------------------------------------+----------+-------
// Offsets are virtual and only grow; physical = offset % size. A record never wraps: a zero length means "go on at the start of the ring".
// The lock is held for the numbers and for small copies; big payloads are copied outside of it and published in order.
// A peer that holds the ring full loses its place (detached cursor) and must resynchronize. Here a later version spills to disk instead.
// Threads: any, except that one cursor has one reader.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "base/types.h"
#include "log/record_codec.h"
#include "ports/times.h"

namespace holdfast::mirror {

constexpr std::size_t default_ring_bytes = std::size_t{64} << 20;
constexpr std::size_t least_ring_bytes = std::size_t{8} << 20;

class LogRing {
 public:
  LogRing(std::size_t bytes, ports::Times& times);

  // A new epoch begins after `base`. What the ring holds stays when it ends at `base`, so that peers of the same history find their place.
  void open(Epoch epoch, Position base);
  // From now on appends only count: nothing is kept or sent. For a fenced epoch, whose stragglers must find a log that takes no harm.
  void close();
  bool is_open() const;

  // --- space (R22), `bytes` without overhead
  bool try_reserve(std::size_t bytes);
  void give_back(std::size_t bytes);
  void when_space(std::function<void()> retry);

  // Gives it the next sequence. The reservation is consumed.
  Sequence append(const log::Record& record, std::size_t reserved_bytes);
  Sequence last_sequence() const { return Sequence(last_.load(std::memory_order_acquire)); }
  Position last_position() const;
  // steady_ns of the append of `sequence` or of one shortly before it, never after.
  std::int64_t appended_at(Sequence sequence) const;

  // --- cursors
  class Cursor {
   public:
    bool attached() const { return attached_.load(); }

   private:
    friend class LogRing;
    std::atomic<bool> attached_{true};
    bool connected_ = false;  // under the ring's mutex from here
    std::uint64_t release_ = 0, read_ = 0;
    std::uint64_t kicks_ = 0, seen_kicks_ = 0;
    enum class Sleep { no, till_much, till_anything } sleep_ = Sleep::no;  // what of an append wakes it
    std::uint64_t enough_ = 0;
    std::int64_t busy_at_ns_ = 0;  // when it last had something to read
    std::condition_variable wake_;
    std::int64_t moved_at_ns_ = 0;
  };
  // A cursor that reads from the record after `position`. ErrorCode::stale: that place is not (or never was) in this ring.
  Result<std::shared_ptr<Cursor>> attach(Position position);
  void detach(const std::shared_ptr<Cursor>& cursor);
  // Read again from what is not released (a new connection), after `position`. ErrorCode::stale as in attach.
  Status rewind(Cursor& cursor, Position position);
  // Peers that are not connected give way at once when the ring is full; connected ones after `patience` without progress (see expire).
  void set_connected(Cursor& cursor, bool connected);
  enum class Wake { nothing, data, hurry };
  // Waits until there is something after the cursor and it has had `linger_ms` to gather company (less when `enough_bytes` are there), or
  // the cursor was kicked or detached; at most `wait_ms`. While records keep coming the reader sleeps by the clock, and appends wake nobody.
  Wake wait(Cursor& cursor, int wait_ms, int linger_ms, std::size_t enough_bytes);
  void kick(Cursor& cursor);
  // How many bytes the cursor still holds: unread and unreleased.
  std::uint64_t backlog(const Cursor& cursor) const;

  struct Batch {
    std::vector<ByteView> pieces;  // whole records, contiguous; valid until released
    std::uint64_t end = 0;         // virtual offset after them: pass to release()
    std::size_t bytes = 0;
    std::uint32_t count = 0;
    Sequence first, last;
    bool carries_ids = false;  // ids must be durable before it leaves (R25)
  };
  // Up to `max_bytes` (at least one record). Records addressed to somebody else become no-ops, made in `scratch` (R26).
  Batch take(Cursor& cursor, std::size_t max_bytes, NodeId reader, Bytes& scratch);
  void release(Cursor& cursor, std::uint64_t end);
  // Detaches cursors that kept the ring full without moving for `patience_ns`.
  void expire(std::int64_t patience_ns);

  std::size_t size_bytes() const { return size_; }
  std::size_t used_bytes() const;

 private:
  struct InFlight {
    std::uint64_t end;
    bool done;
  };
  std::uint64_t least_release() const;
  bool fits(std::size_t bytes) const;
  std::uint64_t place(std::size_t bytes);
  void make_room(std::uint64_t new_head);
  std::uint64_t skip_pad(std::uint64_t offset) const;
  Result<std::uint64_t> find(std::uint64_t from, Position base, Position position) const;
  // Whom to wake once the lock is given back: they need it first.
  class Wakeups;
  void publish(InFlight& entry, Wakeups& wakeups);
  void wake_readers(bool all, Wakeups& wakeups);
  void note_time(Sequence sequence);
  std::vector<std::function<void()>> take_waiters();

  const std::size_t size_;
  ports::Times& times_;
  std::unique_ptr<std::uint8_t[]> memory_;
  mutable std::mutex mutex_;
  Epoch epoch_;
  bool open_ = false;
  std::atomic<std::uint64_t> last_{0};
  Position base_;  // what the record at tail_ continues
  Position last_position_;
  std::uint64_t tail_ = 0, head_ = 0, published_ = 0;
  std::size_t reserved_ = 0;
  bool starving_ = false;  // somebody asked for space in vain since the last release
  std::deque<InFlight> in_flight_;
  std::vector<std::shared_ptr<Cursor>> cursors_;
  std::vector<std::function<void()>> space_waiters_;
  struct Stamp {
    std::uint64_t sequence;
    std::int64_t at_ns;
    std::uint64_t offset;  // where the record is, or the pad before it
  };
  std::deque<Stamp> stamps_;  // one every few milliseconds, ascending
};

}  // namespace holdfast::mirror
