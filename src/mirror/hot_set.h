// SPDX-License-Identifier: Apache-2.0
// The hot set (R5): durable notes of what may differ between this active's disk and its peers, so that a node that was active and ended
// uncleanly has to be compared only there. What a change is about is noted before its data can reach the disk; a generation of notes is
// dropped when (all of them, in this order)
//   1. a later generation is open and nobody is in the older one any more,
//   2. the log was open then; its end is C: every change made under the dropped notes is at or before C,
//   3. the file systems below were synced after that (and the ids before),
//   4. every peer that could take over holds everything up to C, or its change map does, durably.
// So at every instant: what differs is noted. NodeLog drives this (node_hot.cc).
//
// Files of notes are never searched: in memory a table a generation, on disk slots in the order they came. Many notes at once are one write.
// Too many: the whole set is noted instead, with one slot that is kept for it; the peer is then compared in full after an unclean end.
// Threads: any.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

#include "mirror/hot_format.h"
#include "mirror/hot_gate.h"
#include "ports/segments.h"
#include "ports/times.h"

namespace holdfast::mirror {

struct HotSetOptions {
  std::uint32_t slots = 65536;      // a generation
  std::uint32_t kept_slots = 4608;  // of these: for whole sets and blocks of ids, when there are too many objects
  // More waits for notes than this within the window: from then on the set is noted as a whole (chmod -R of very many files).
  unsigned coarse_after = 512;
  std::int64_t coarse_window_ns = 2'000'000'000;
};
struct HotSetPorts {
  ports::SegmentFile& file;  // of hot_file_bytes(slots), nobody else's
  ports::Times& times;
  // An id with bytes 6 and 7 zero; no object has an id that is equal but for those two.
  std::function<Result<FileId>()> unused_block;
};
struct HotStatus {
  std::uint32_t generation = 0;
  std::uint32_t used = 0;   // slots, of the present generation and of the one that is being dropped
  std::uint32_t slots = 0;  // of one
  std::uint64_t commits = 0, notes = 0;
  std::vector<SetNumber> whole;
  bool releasing = false;  // an older generation is still noted
};

class HotSet final : public HotGate {
 public:
  // Reads what the last life left. A file without a sound header is made anew, as one that knows of no epoch.
  static Result<std::unique_ptr<HotSet>> open(HotSetPorts ports, HotSetOptions options = {});

  HotHeader header() const;
  // All that may differ: of the last life, until begin(); of a sealed epoch. ErrorCode::busy: a change is still under way and may add to it.
  Result<std::vector<HotNote>> notes() const;

  // --- an epoch of this node's; what was noted before is dropped. Nobody changes anything meanwhile.
  // What every tree is to carry, durably, before begin() is called with it.
  Result<HotMark> draw(Epoch epoch);
  Status begin(const HotMark& mark, Position covered);
  Status end(Position covered);  // everything is on the disk below, or with the successor who was told what is noted
  // The epoch is over for good (a fence): from now on nothing may be changed, enter() fails with ErrorCode::stale. What is noted stays noted. Until
  // the next begin(); after end() objects may be given ids again, for there is nothing that a note would be for.
  void seal();

  // --- turning to the next generation, in one thread
  struct Turn {
    HotMark mark;                                               // durable in every tree before drop()
    std::uint32_t generation() const { return mark.released; }  // that is to be dropped
  };
  // ErrorCode::stale: that epoch is over.
  Result<Turn> open_next(Epoch epoch);
  // What a tree is to carry that was added to the epoch, whichever of the generations that are open now is dropped next.
  HotMark mark_now() const;
  bool is_of(const HotMark& mark) const;  // the mark is of the epoch that is noted now, and not over
  // Nobody is in it any more; false: `stop` said so (asked again after wake()).
  bool wait_left_behind(const Turn& turn, const std::function<bool()>& stop) {
    return wait_left(turn.generation(), stop);
  }
  void wake();
  // ErrorCode::stale: the epoch has ended meanwhile; nothing was dropped.
  Status drop(const Turn& turn, Position covered);
  // Until there is something to do ahead of time: three quarters of the slots or of a block of ids are used, or wake(). At most `wait_ms`.
  // True: slots are getting scarce.
  bool wait_due(int wait_ms);
  bool scarce() const;     // three quarters of the slots of the present generation are used
  Status prepare_block();  // when the present one is nearly used up

  HotStatus status() const;

  // --- HotGate
  Result<FileId> fresh(SetNumber set) override;
  Status with_whole_set(SetNumber set, const std::function<Status()>& body) override;

 protected:
  Status note(SetNumber set, Objects objects) override;

 private:
  struct Generation {
    std::uint32_t number = 0;  // 0: not in use
    std::uint32_t used = 0;
    std::unordered_map<HotNote, bool, HotNoteHash> notes;  // true: durable
    std::set<SetNumber> whole;                             // durable
  };
  struct Queued {
    std::uint32_t generation, slot;
    HotNote note;
  };
  struct Block {
    std::uint32_t generation = 0;
    FileId base;
    std::uint32_t next = 0;
  };
  using Lock = std::unique_lock<std::mutex>;
  struct Waits {
    std::int64_t since_ns = 0;
    unsigned count = 0;
  };

  HotSet(HotSetPorts ports, HotSetOptions options) : ports_(std::move(ports)), options_(options) {}
  Status recover();
  Status make_anew();
  // Whoever asked looks again whether it is still about the present generation.
  Status make_durable(Lock& lock, std::uint32_t number, std::vector<HotNote> wanted);
  bool is_durable(const Generation& g, const HotNote& note) const;
  bool queue(Generation& g, const HotNote& note);
  void write_queued(Lock& lock);
  Status write_slots(std::vector<Queued>& batch);
  Status write_header(Lock& lock, HotHeader header);  // by whoever holds the file
  void hold_file(Lock& lock);
  void give_file();
  bool too_many_waits(SetNumber set);
  std::uint32_t limit(HotKind kind) const;
  bool scarce_locked() const;
  Status use_block(Lock& lock, std::uint32_t generation);

  HotSetPorts ports_;
  const HotSetOptions options_;
  mutable std::mutex mutex_;  // everything below; never held over a system call
  std::condition_variable written_;
  bool writing_ = false;  // somebody uses the file
  HotHeader header_;
  std::uint32_t highest_ = 0, closing_ = 0;
  Generation generations_[2];
  std::vector<Queued> queue_;
  std::vector<HotNote> left_over_;  // of the last life
  bool sealed_ = false;
  std::map<SetNumber, Waits> waits_;
  std::optional<Error> failed_;  // final (I7)
  std::uint64_t commits_ = 0, notes_ = 0;

  std::mutex block_mutex_;  // taken alone, or inside mutex_
  Block block_;
  std::optional<Block> ahead_;

  std::mutex due_mutex_;  // taken alone, or inside the others
  std::condition_variable due_cv_;
  bool due_ = false;
};

}  // namespace holdfast::mirror
