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

#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "log/spill_queue.h"
#include "mirror/log_ring.h"

namespace holdfast::mirror {

// Who notes what changed, for a peer whose queue was given up (change_set.h). One a peer; it outlives the queue.
// Every call comes with the queue's mutex held, so never two at once: memory only, no waiting, no call back into the queue.
class ChangeSink {
 public:
  virtual ~ChangeSink() = default;
  // Whole records (log::inspect has accepted them; decode with log::decode), in the order of the log, as this peer would have been sent them:
  // what is addressed to somebody else is a noop. Some may come twice: more is harmless. It happens
  //  - when they are written to the spill (so giving that up later costs no second reading),
  //  - in mode map when they leave the ring,
  //  - when they are taken, as long as fold_taken_until() says so.
  virtual void fold(ByteView records) = 0;
  // The peer has acknowledged everything that was folded since the last call: it needs none of it. Never between resume() == map and settled().
  virtual void forget() = 0;
};

class PeerQueue {
 public:
  // lost: nothing is kept for the peer (not begun, or given up): it is resynchronized as a whole.
  enum class Mode { lost, ring, disk, map };
  struct Settings {
    std::uint64_t limit_bytes = 0;  // of the spill; 0: none. A peer that the ring can't hold is given up then
    std::uint64_t segment_bytes = log::default_segment_bytes;
  };
  using OpenStore = std::function<Result<std::unique_ptr<ports::SegmentStore>>()>;
  // `store` makes the folder of the spill, when it is first needed; what is in it is removed. Null: none.
  // `sink` null: there is no map, and what is given up is lost.
  PeerQueue(LogRing& ring, NodeId peer, std::string name, OpenStore store, ChangeSink* sink = nullptr);
  ~PeerQueue();

  // The ring's epoch has just been opened at `base`: everything from there on is kept, whether the peer is connected or not.
  void begin(Position base);
  // The epoch is over, or the peer is none any more: nothing is kept.
  void end();
  void set_limit(std::uint64_t bytes);

  // --- one session
  enum class Source {
    queue,  // take() gives the record after the position, and all that follow
    map,    // what follows the position was given up, but the map has it all: see covered(), resume_from_map()
    stale,  // the peer has another history, or one that is not here any more
  };
  Source resume(Position position);
  // From the end of the log on, for a peer that is made equal by other means. ErrorCode::unavailable: no epoch is open.
  Result<Position> restart();
  // Mode map: every change after `since` up to `to` is in the sink.
  struct Covered {
    Position since, to;
  };
  std::optional<Covered> covered() const;
  // As restart(), but at covered().to. From now on the sink keeps what it has until settled().
  Result<Position> resume_from_map();
  // What is taken is folded too, up to `sequence` (the resync_begin of a partial resynchronization).
  void fold_taken_until(Sequence sequence);
  // The peer is whole again.
  void settled();

  struct Batch {
    std::uint32_t count = 0;  // 0: nothing there now
    Sequence first, last;
    bool carries_ids = false;  // ids must be durable before it leaves (R25)
  };
  // The next records, up to `max_bytes` (at least one), copied into `out`. ErrorCode::stale: the queue was given up; the session ends.
  Result<Batch> take(std::size_t max_bytes, Bytes& out);
  LogRing::Wake wait(int wait_ms, int linger_ms, std::size_t enough_bytes);  // as LogRing::wait
  void kick();
  // The peer holds everything up to here; only of what was taken.
  void acked(Sequence sequence);

  // --- spooler
  // One step: at most one batch from the ring to the disk or into the map. True: there is more to do at once.
  bool spool();

  struct Status {
    Mode mode = Mode::lost;
    std::uint64_t ring_bytes = 0, disk_bytes = 0;
    std::size_t disk_segments = 0;
    std::string given_up;  // mode map or lost: why; empty: it never began
  };
  Status status() const;
  Mode mode() const;
};
const char* to_string(PeerQueue::Mode mode);

}  // namespace holdfast::mirror
