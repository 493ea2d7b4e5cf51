// SPDX-License-Identifier: Apache-2.0
// Applies the receive log to the trees, in order, in batches. Phases of a batch:
//   1 read     whole groups from the log, durable ones only: the tree is never ahead of the log
//   2 undo     what the batch will overwrite is written and durable (mirror/undo.h); never again for a batch that has it (R21)
//   3 stage    new objects without a name, their ids committed to the index (R17, R25)
//   4 apply    in order; neighbouring writes joined; modification times restored at the end
// and every few seconds a checkpoint: sync the trees, remember the position, purge graves that nobody needs, trim the log. Redo starts there.
// Batches end after marks and at whole seconds of record time, so that each of these is a point the history can go back to.
//
// Want of space (R16) is no fault: history goes first, then apply waits, and the batch is done again as redo would.
// Threads: one runs step() and checkpoint(); add/remove of trees and the getters are safe from any.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <unordered_set>
#include <vector>

#include "log/segment_log.h"
#include "mirror/apply_verify.h"
#include "mirror/graves.h"
#include "mirror/node_state.h"
#include "mirror/undo.h"
#include "mirror/undo_tree.h"
#include "mirror/work_mutex.h"
#include "ports/tree.h"

namespace holdfast::mirror {

constexpr std::size_t apply_batch_bytes = std::size_t{4} << 20;
constexpr std::size_t apply_batch_creates = 256;
constexpr std::size_t most_covered_cells = 4'000'000;  // remembered from batch to batch in mid-resync
// Beside what deleted objects hold: with less than that left, they go as fast as they can.
constexpr std::uint64_t sweep_spare_bytes = std::uint64_t{1} << 30;

class Applier {
 public:
  struct Hooks {
    // Stores the state with these changes, durably.
    std::function<Status(const std::function<void(NodeState&)>&)> update_state;
    ResyncApply::NakSink nak;
    VerifyApply::Sink differs;
    std::function<void(std::uint64_t bytes)> applied;  // after each batch, with about how much it was
    std::function<void()>
        resync_broken;  // a set can't be completed by what the log holds: a new session must begin it anew
    // A shadow's mark was applied; `batch`: the history's next one begins there. 0: it is no point here.
    std::function<Status(const log::Record&, std::uint64_t batch)> shadow;
    std::function<void(SetNumber)> unknown_set;  // a record of a set that is not here yet: waits
    std::function<void(SetNumber)> whole;        // a resync made the set complete: nothing is asked any more
  };
  // `batch_bytes`: about how much of the log one step takes.
  Applier(log::SegmentLog& log, UndoWriter& undo, Hooks hooks, std::size_t batch_bytes = apply_batch_bytes,
          std::size_t most_covered = most_covered_cells)
      : log_(log), undo_(undo), hooks_(std::move(hooks)), batch_bytes_(batch_bytes), most_covered_(most_covered) {}

  // Where to go on, before the first step or after the log was reset.
  Status begin(const NodeState& state);
  Status add_tree(std::shared_ptr<ports::Tree> tree);
  void doubt(SetNumber set);        // nothing that is known of it holds for the tree that is about to be added
  void remove_tree(SetNumber set);  // its records are skipped from now on
  std::vector<std::shared_ptr<ports::Tree>> trees() const;
  // Runs `look` on each tree while nothing is being applied.
  Status for_each_tree(const std::function<Status(ports::Tree&)>& look);
  // Nothing is applied while this is held: for whoever replaces the log's content.
  std::unique_lock<WorkMutex> hold() { return std::unique_lock(work_mutex_); }
  // The same for who reads a little, again and again: apply goes first.
  WorkMutex::Look hold_to_look() { return WorkMutex::Look(work_mutex_); }
  Status begin_held(const NodeState& state);           // begin() for who holds it
  void trees_changed_held() { graves_stale_ = true; }  // by a rewind, which buries and brings back
  // A redo after a crash is under way: what was lost in it is not made good yet (held).
  bool in_doubt_held() const;
  // All that was applied is durable, and so is its history (held): before the log is replaced, and before a rewind.
  Status sync_held();
  // All that was done is durable, and every tree carries the mark; the sets that do. One that finds no space for it is as durable.
  Result<std::set<SetNumber>> mark_held(const CheckpointMark& mark);
  // The log is about to go on elsewhere, and the trees stay: the history says so (held). `head`: life, before, after, and the sets whose trees are
  // what some moment of the application left.
  Status jump_held(UndoHead head);
  // The trees are about to be changed past the history.
  Status leave_history(std::string_view why);
  // What nobody needs any more goes in small steps, in any role, beside everything else: about `most` deleted objects, and a piece of a history
  // that was left. `aside_again`: also those that could not go when it was tried.
  struct Swept {
    bool more = false;
    bool presses = false;  // the space that they hold may be needed before they are gone
  };
  Result<Swept> sweep(std::size_t most, bool aside_again = false);
  // Switches the history on or off, with what is applied now as its beginning. ErrorCode::busy: something needs it still.
  Status set_history(bool on);

  // One batch. False: nothing to do now (all applied, or a set is missing). An error is final (I7).
  Result<bool> step();
  // Everything applied becomes durable in the trees; then the log before it is given up.
  Status checkpoint();
  // Since the last checkpoint.
  std::uint64_t unsynced_bytes() const { return unsynced_bytes_.load(); }
  bool dirty() const { return dirty_.load(); }

  Position applied() const;
  // What peers are told: a batch counts when all that belongs to it is done, clearing up after a resync included.
  Sequence announced() const { return Sequence(announced_.load()); }
  std::int64_t applied_time_ns() const {
    return applied_time_ns_.load();
  }  // wall clock of the active at the last applied record
  // The trees were changed past the log that is applied, up to this time; 0: not known.
  void changed_until(std::int64_t time_ns) { applied_time_ns_ = time_ns; }
  bool resyncing() const { return resyncing_count_.load() > 0; }
  bool waits_for_space() const { return waits_for_space_.load(); }
  bool waits_for_history() const { return waits_for_space_.load() && history_starves_.load(); }  // not for the folder
  std::uint64_t grave_bytes() const { return grave_bytes_.load(); }
  std::size_t doomed_graves() const { return doomed_graves_.load(); }  // that sweep() has still to take away
  std::size_t graves_aside() const { return graves_aside_.load(); }    // that could not go
  std::string why_aside() const {
    const std::lock_guard lock(mutex_);
    return why_aside_;
  }

 private:
  struct SetState {
    std::shared_ptr<UndoTree> tree;
    Graves graves;
    // Neither: it has no copy yet, and records before its resync_begin say nothing about what is here. They are skipped.
    bool complete = false, resync = false;
    ResyncMemory memory;
    NamesProgress names;
    VerifyMemory verify;
  };
  Result<Bytes> read_ahead(Sequence from);
  Status apply_slice(std::span<const log::Record> slice);
  Status open_batch(std::span<const log::Record> slice);
  Status begin_covering();
  Status foresee(std::span<const log::Record> slice);
  Status execute(std::span<const log::Record> slice);
  Status stage(std::span<const log::Record> slice);
  bool captured(SetNumber number, const SetState& set) const;
  Result<bool> make_space(std::span<const log::Record> slice);
  void give_up_graves(std::uint64_t below);
  void note_graves();
  Status load_graves();
  Result<bool> purge_covered(std::uint64_t below);
  Result<bool> graves_press();
  bool covers_graves() const;
  Status mark(const log::Record& record);
  Status verify(const log::Record& record, SetState* set, TreeBatch* batch);
  Status note_shadow(const log::Record& record);
  Status begin_resync(const log::Record& record);
  Status give_up(const log::Record& record, SetState& set);
  Status keep_limbo(const log::Record& record);
  Status settle_displaced(SetState& set);
  Status drop_limbo(SetState& set);
  Status end_resync(const log::Record& record);
  Result<bool> lacks_contents(SetState& set);
  std::size_t slice_end(std::span<const log::Record> records, std::size_t from) const;
  bool is_batch_m(Sequence first) const { return plan_.m_after && first > plan_.pass_to && first <= *plan_.m_after; }
  SetState* find(SetNumber set);
  Status checkpoint_now();
  Status adopt_state(SetNumber number, SetState& set);

  log::SegmentLog& log_;
  UndoWriter& undo_;
  Hooks hooks_;
  const std::size_t batch_bytes_, most_covered_;
  WorkMutex work_mutex_;      // held while a slice is applied or synced; taken before mutex_
  mutable std::mutex mutex_;  // for readers of sets_, removed_, applied_; writers hold both
  std::map<SetNumber, SetState> sets_;
  std::set<SetNumber> removed_, resyncing_, complete_;
  Position applied_;
  std::uint64_t log_life_ = 0;
  bool purge_orphans_ = false;
  Sequence doubt_to_;  // at begin(): the trees may be ahead of what is applied, up to here
  // --- undo
  RedoPlan plan_;
  Sequence uncovered_to_;         // history was switched on in a slice that was begun before: its graves bear no number
  Covered covered_;               // by the batch that is open
  bool batch_is_sealed_ = false;  // it may have been executed in part
  bool again_ = false;            // the batch of the plan is that open one, interrupted for want of space
  bool after_consistent_ = false;  // the last record was such a mark
  std::set<SetNumber> kept_,
      covered_since_point_;  // sets whose history is kept through a resync; that covered_ holds from kept_from_ on
  std::uint64_t kept_from_ = 0;
  std::uint64_t covered_began_ = 0;     // cells ever captured when covered_ was last emptied
  std::uint64_t checkpoint_batch_ = 0;  // graves of it and later ones may be needed by redo
  std::map<SetNumber, Staged> staged_;  // of the slice in work
  std::atomic<bool> waits_for_space_{false}, history_starves_{false};
  GravesHeld graves_held_;
  GravesInside graves_inside_;
  bool graves_stale_ = false;
  std::atomic<std::uint64_t> grave_bytes_{0};
  std::atomic<std::size_t> doomed_graves_{0}, graves_aside_{0};
  std::string why_aside_;  // under mutex_
  std::atomic<bool> dirty_{false};
  std::atomic<std::uint64_t> unsynced_bytes_{0};
  std::atomic<int> resyncing_count_{0};
  std::atomic<std::int64_t> applied_time_ns_{0};
  std::atomic<std::uint64_t> announced_{0};
};

}  // namespace holdfast::mirror
