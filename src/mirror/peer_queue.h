// SPDX-License-Identifier: Apache-2.0
// What one peer still has to be sent, from its last acknowledgement to the end of the log. It lives in the ring; what a peer that is slow or
// away makes too much for the ring is written to disk (spool()); what is too much for that too is only noted by what it changed (the map).
//
//     acknowledged | spill: first .. last (disk) | ring: from the cursor's release on .. published
//     acknowledged | noted in the map .. folded  | ring: from the cursor's release on .. published        (mode map: no spill)
//
// Invariant Q: the cursor's release is exactly the first record that is neither acknowledged, nor on disk, nor in the map. So the reader goes
// from disk to ring without a gap: "is the next one on disk?" is asked under the same mutex under which the spooler moves that boundary.
// The application waits for none of this but for the spooler's writes, and not for long for those (LogRing::expire).
//
// Threads: begin/end by who changes the role; resume/restart/take/wait by the one thread that serves the session; acked by its reader of
// acknowledgements; spool by the one spooler; the rest from any. Lock order: transition, sender, queue, ring; never held over a system call.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "log/spill_queue.h"
#include "mirror/change_sink.h"
#include "mirror/log_ring.h"

namespace holdfast::mirror {

class PeerQueue {
 public:
  // lost: nothing is kept for the peer (not begun, or given up): it is resynchronized as a whole.
  enum class Mode { lost, ring, disk, map };
  using OpenStore = std::function<Result<std::unique_ptr<ports::SegmentStore>>()>;
  // `open_store` makes the folder of the spill, when it is first needed; it must come empty. Null: none.
  // `sink` null: there is no map, and what is given up is lost.
  PeerQueue(LogRing& ring, NodeId peer, std::string name, OpenStore open_store, ChangeSink* sink = nullptr,
            std::uint64_t segment_bytes = log::default_segment_bytes);
  ~PeerQueue();
  // Of all segments of the spill; 0: none. Then a peer that is not connected is given up when it keeps the ring full.
  void set_limit(std::uint64_t bytes) { limit_bytes_ = bytes; }

  // The ring's epoch has just been opened at `base`: everything from there on is kept, whether the peer is connected or not.
  // `noted_since`: the map has every change after it up to `base` already: begins in mode map.
  void begin(Position base, std::optional<Position> noted_since = {});
  // The epoch is over, or the peer is none any more: nothing is kept.
  void end();

  // --- one session
  enum class Source {
    queue,  // take() gives the record after the position, and all that follow
    map,    // what follows the position was given up, but the map has it: resume_from_map()
    stale,  // the peer has another history, or one that is not here any more: restart()
  };
  Source resume(Position position);
  // From the end of the log on, for a peer that is made equal by other means.
  Position restart();
  struct Covered {  // every change after `since` up to `to` is in the map
    Position since, to;
  };
  std::optional<Covered> covered() const;
  // In mode map: as restart(), from covered().to on. The sink keeps what it has until settled(). ErrorCode::stale: not in mode map any more.
  Result<Position> resume_from_map();
  // What is taken is folded too, up to `sequence` (the resync_begin of a partial resynchronization; max until it is known).
  void fold_taken_until(Sequence sequence);
  // The sink keeps what it has, and is given, until settled(), whatever the peer is sent from the queue.
  void keep_noted();
  void settled();  // the peer is whole again
  void pause();    // the session has ended

  struct Batch {
    std::uint32_t count = 0;  // 0: nothing there now
    Sequence first, last;
    bool carries_ids = false;  // ids must be durable before it leaves (R25)
  };
  // The next records, up to `max_bytes` (at least one), instead of what is in `out`. ErrorCode::stale: the queue was given up.
  Result<Batch> take(std::size_t max_bytes, Bytes& out);
  LogRing::Wake wait(int wait_ms, int linger_ms, std::size_t enough_bytes);  // as LogRing::wait
  void kick();
  void acked(Sequence sequence);  // the peer holds everything up to here; only of what was taken

  // --- spooler
  // One step: at most one batch from the ring to the disk or into the map. True: there is more to do at once.
  bool spool();
  bool is_busy() const;  // there is, or may soon be, something to do, though nothing presses

  struct Status {
    Mode mode = Mode::lost;
    std::uint64_t ring_bytes = 0, disk_bytes = 0;
    std::size_t disk_segments = 0;
    std::string given_up;  // why, in modes map and lost; empty: it never began
    bool is_given_up() const { return (mode == Mode::lost || mode == Mode::map) && !given_up.empty(); }
  };
  Status status() const;

 private:
  enum class Todo { nothing, spill, fold, give_up };
  Todo todo() const;
  bool spill_next(const LogRing::Batch& batch, Position before, std::uint64_t generation);
  bool open_spill();
  void remove_given_up();
  void note_detached();
  LogRing::Retries give_up(const Error& why);
  LogRing::Retries lose(std::string why);
  LogRing::Retries start_at(std::shared_ptr<LogRing::Cursor> cursor, Position position);
  bool resume_on_disk(Position position);
  bool in_map(Position position) const;
  void empty_spill();
  void nothing_is_owed();
  void fold(ByteView records, Position before);
  bool is_given_up() const { return mode_ == Mode::map && next_ <= released_.sequence; }
  bool on_disk(Sequence sequence) const {
    return spill_ && !spill_->empty() && sequence <= spill_->back().last.sequence;
  }
  Result<Batch> take_from_disk(std::unique_lock<std::mutex>& lock, Bytes& out);

  LogRing& ring_;
  const NodeId peer_;
  const std::string name_;
  const OpenStore open_store_;
  ChangeSink* const sink_;
  const std::uint64_t segment_bytes_;
  std::atomic<std::uint64_t> limit_bytes_{0};

  mutable std::mutex mutex_;
  Mode mode_ = Mode::lost;
  std::uint64_t generation_ =
      0;  // of what take and spool look at without the mutex: begin, end and every new place count
  std::shared_ptr<LogRing::Cursor> cursor_;
  bool connected_ = false, disk_said_ = false;  // once a session: a slow one comes and goes
  Sequence next_;                               // to be taken
  Position released_;                           // the last one before the cursor's release
  Position began_;                              // the last one before the epoch's first
  struct Sent {
    Position last;
    std::uint64_t end;
  };
  std::deque<Sent> sent_;                   // taken from the ring, not acknowledged
  std::unique_ptr<log::SpillQueue> spill_;  // made once, by the spooler
  std::optional<Position> noted_since_;     // the map has what is between this and `released_`
  bool sink_keeps_ = false;
  Sequence fold_taken_until_;
  std::string given_up_;
  // spooler's
  Bytes buffer_;
  bool store_failed_ = false, remove_failed_ = false;
};
const char* to_string(PeerQueue::Mode mode);

}  // namespace holdfast::mirror
