// SPDX-License-Identifier: Apache-2.0
// The active's log in memory: a fixed ring of encoded records, appended by capture, read by one cursor a peer (mirror/peer_queue.h).
//
//        tail: oldest record kept            release: oldest a cursor still needs          published   head
//   -----+-----------------------------------+--------------------------------------------+----------+-------
//        | history, kept while there is room | pinned                                     | being    | free
//        | (a peer may find its place in it) |                                            | copied   | (some reserved)
//   -----+-----------------------------------+--------------------------------------------+----------+-------
// Offsets are virtual and only grow; physical = offset % size. A record never wraps: a zero length means "go on at the start of the ring".
// The lock is held for the numbers and for small copies; big payloads are copied outside of it and published in order.
// What a cursor pins is moved to disk by the peer's queue when there is much of it (wait_pressure). A cursor that keeps the ring full and does not
// move all the same loses its place (expire).
// Threads: any, except that one cursor has one reader.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
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
  bool try_reserve(std::size_t bytes) { return try_reserve_all({&bytes, 1}); }
  bool try_reserve_all(std::span<const std::size_t> pieces);  // together or not at all
  void give_back(std::size_t bytes);
  void when_space(std::function<void()> retry);  // ask again after it: space may have come between

  // Gives it the next sequence. The reservation is consumed.
  Sequence append(const log::Record& record, std::size_t reserved_bytes);
  Sequence last_sequence() const { return Sequence(last_.load(std::memory_order_acquire)); }
  Position last_position() const;
  std::optional<Position> end_in(
      Epoch epoch) const;  // its last record, while it is open; then everything appended until now is kept
  // steady_ns of the append of `sequence` or of one shortly before it, never after.
  std::int64_t appended_at(Sequence sequence) const;

  // --- cursors
  class Cursor {
   public:
    bool attached() const { return attached_.load(); }

   private:
    friend class LogRing;
    std::atomic<bool> attached_{true};
    std::uint64_t release_ = 0, read_ = 0;  // under the ring's mutex from here
    std::uint64_t kicks_ = 0, seen_kicks_ = 0;
    enum class Sleep { no, till_much, till_anything } sleep_ = Sleep::no;  // what of an append wakes it
    std::uint64_t enough_ = 0;
    std::int64_t busy_at_ns_ = 0;  // when it last had something to read
    std::condition_variable wake_;
    std::int64_t moved_at_ns_ = 0;
  };
  // Who waited for space, to be called once no lock is held.
  using Retries = std::vector<std::function<void()>>;
  // A cursor that reads from the record after `position`. ErrorCode::stale: that place is not (or never was) in this ring.
  Result<std::shared_ptr<Cursor>> attach(Position position);
  // From the record after the last one, which `end` becomes.
  std::shared_ptr<Cursor> attach_end(Position& end);
  [[nodiscard]] Retries detach(const std::shared_ptr<Cursor>& cursor);
  // Read again from what is not released (a new connection), after `position`. ErrorCode::stale as in attach.
  Result<Retries> rewind(Cursor& cursor, Position position);
  void rewind_to_release(Cursor& cursor);
  enum class Wake { nothing, data, hurry };
  // Waits until there is something after the cursor and it has had `linger_ms` to gather company (less when `enough_bytes` are there), or
  // the cursor was kicked or detached; at most `wait_ms`. While records keep coming the reader sleeps by the clock, and appends wake nobody.
  Wake wait(Cursor& cursor, int wait_ms, int linger_ms, std::size_t enough_bytes);
  void kick(Cursor& cursor);
  // How many bytes the cursor still holds: unread and unreleased.
  std::uint64_t backlog(const Cursor& cursor) const;

  struct Batch {
    std::uint64_t end = 0;  // virtual offset after its records: pass to release()
    std::uint32_t count = 0;
    Position first, last;
    bool carries_ids = false;  // ids must be durable before it leaves (R25)
  };
  // Copies up to `max_bytes` (at least one record) to the end of `out`, from where the cursor reads, and moves that on; records addressed to
  // somebody else become no-ops (R26). Not while somebody else releases of this cursor.
  Batch take(Cursor& cursor, std::size_t max_bytes, NodeId reader, Bytes& out);
  // The same from the cursor's release on; the reader's place stays.
  Batch peek(const Cursor& cursor, std::size_t max_bytes, NodeId reader, Bytes& out) const;
  // A reader that has not come so far goes on from there.
  [[nodiscard]] Retries release(Cursor& cursor, std::uint64_t end);
  // Detaches cursors that kept the ring full without moving for `patience_ns`.
  void expire(std::int64_t patience_ns);

  // --- for who keeps cursors from pinning too much
  // Returns when a cursor holds more than half of the ring, or somebody asked for space in vain, since the last call; at most after `wait_ms`.
  void wait_pressure(int wait_ms);
  void end_wait();           // that of wait_pressure
  bool is_starving() const;  // somebody waits for space

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
  Result<std::uint64_t> pinnable(std::uint64_t at, Position position) const;
  // Whom to wake once the lock is given back: they need it first.
  class Wakeups;
  void publish(InFlight& entry, Wakeups& wakeups);
  void wake_readers(bool all, Wakeups& wakeups);
  void note_time(Sequence sequence);
  Retries take_waiters();
  Retries room_made();
  void note_pressure();
  Batch copy(std::uint64_t at, std::uint64_t until, std::size_t max_bytes, NodeId reader, Bytes& out) const;

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
  std::size_t starved_bytes_ = 0;  // what somebody asked for in vain since a cursor moved last
  std::int64_t starving_since_ns_ = 0;
  bool pressed_ = false, pressure_awaited_ = false;
  std::condition_variable pressure_;
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
