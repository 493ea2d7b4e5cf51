// SPDX-License-Identifier: Apache-2.0
// The applier between batches: marks, checkpoints, graves, want of space.
#include <algorithm>
#include <limits>

#include "base/log.h"
#include "mirror/applier.h"
#include "mirror/file_type.h"
#include "mirror/tree_marks.h"

namespace holdfast::mirror {

using log::Kind;

Status Applier::mark(const log::Record& r) {
  switch (r.kind) {
    case Kind::epoch_begin:
      purge_orphans_ = true;
      return {};  // open files of earlier epochs are gone with their mounts
    case Kind::resync_begin:
      return begin_resync(r);
    case Kind::resync_end:
      return keep_limbo(r);
    case Kind::shadow:
      return note_shadow(r);
    default:
      return {};
  }
}

// This copy lacks something that the log now speaks of. It is no corruption, and no reason to stop for good: it is made whole by another
// resynchronization, and until then this node can be promoted where this batch began. Durable before anything else is done.
Status Applier::give_up(const log::Record& r, SetState& set) {
  log_warning(
      "set {}: sequence {} names a file ({}) that was made without a name before this copy was: the set is "
      "resynchronized",
      r.set, r.sequence.value, r.file.to_hex());
  const Position before = applied();
  HF_TRY(hooks_.update_state([&](NodeState& s) {
    if (undo_.on() && !s.point) {
      s.point = PastState{undo_.current_batch(), before, s.active_epoch, s.clean, s.complete};
      s.point_time_ns = applied_time_ns_;
    }
    if (s.point) kept_ = s.point->complete, kept_from_ = s.point->batch;
    s.complete.erase(r.set);
  }));
  set.complete = false;
  set.verify.forget();
  complete_.erase(r.set);
  hooks_.resync_broken();
  staged_[r.set] = {};
  return set.tree
      ->unstage();  // the rest of the batch is skipped; also when this finds no space, and the batch is done again
}

// Only a complete copy is compared; to any other the active will ship everything in any case.
Status Applier::verify(const log::Record& r, SetState* set, TreeBatch* batch) {
  if (!is_check(r.kind) && !is_repair(r.kind)) return {};
  if (!set || set->resync) {
    hooks_.differs({r.sequence, r.set, r.file, differs_not_compared, r.offset, r.length, {}});
    return {};
  }
  HF_TRY(VerifyApply(*batch, set->tree->raw(), set->verify, r.sequence > set->names.doubt_to, hooks_.differs).apply(r));
  const bool displaced = r.kind == Kind::repair_dir && (r.flags & log::flag_last_chunk) != 0;
  return displaced && undo_.on() ? settle_displaced(*set) : Status{};
}

// In mid-resync, and where there is no history, it is no point. Passed by in a redo it was noted before the batches after it began.
Status Applier::note_shadow(const log::Record& r) {
  if (!hooks_.shadow) return {};
  bool whole = undo_.on() && !sets_.empty() && r.sequence > plan_.pass_to;
  for (const auto& [number, set] : sets_) whole = whole && set.complete && !set.resync;
  if (whole) HF_TRY(undo_.sync());  // numbers of batches that a crash loses are given again
  return hooks_.shadow(r, whole ? undo_.next_batch() : 0);
}

// What the resync displaced stays for the history's sake, as part of this batch. Below a displaced folder there may be one more name of something
// that stands in the tree: such a link must not outlive the folder's place, or the object's link count lies, and its last name is not seen as
// the last (R16).
Status Applier::keep_limbo(const log::Record& r) {
  SetState* set = find(r.set);
  if (!set || !set->resync) return {};
  HF_ASSIGN(const bool lacks, lacks_contents(*set));
  if (lacks) set->memory.broken = true;
  if (set->memory.broken || !undo_.on() || !captured(r.set, *set)) return {};
  return settle_displaced(*set);
}

Status Applier::settle_displaced(SetState& set) {
  HF_ASSIGN(const auto displaced, set.tree->graves(ports::Grave::limbo));
  std::vector<FileId> folders;
  for (const auto& g : displaced) folders.push_back(g.id);
  while (!folders.empty()) {
    const FileId folder = folders.back();
    folders.pop_back();
    HF_ASSIGN(const auto there, set.tree->attributes(folder));
    if (!there || !is_folder(there->mode)) continue;
    std::vector<ports::TreeEntry> entries;
    for (std::uint64_t cookie = 0;;) {
      HF_ASSIGN(const auto chunk, set.tree->list(folder, cookie, 4096));
      entries.insert(entries.end(), chunk.entries.begin(), chunk.entries.end());
      if (chunk.end) break;
      cookie = chunk.cookie;
    }
    for (const auto& e : entries) {
      if (is_folder(e.mode)) {  // one that an active made and nobody was sent, before it died, may have lost its id
        HF_ASSIGN(const FileId id, e.id.is_none() ? set.tree->identify(folder, e.name) : Result<FileId>(e.id));
        if (!id.is_none()) folders.push_back(id);
        continue;
      }
      if (e.id.is_none()) continue;
      HF_ASSIGN(const auto child, set.tree->attributes(e.id));
      if (!child || child->links < 2) continue;
      const Status gone = set.tree->unlink(folder, e.name);  // below an immutable folder it stays, and goes with that
      if (!gone && !is_of_one_grave(gone.error())) return gone;
    }
  }
  HF_TRY(set.tree->settle_limbo(undo_.current_batch()));
  return set.graves.load(*set.tree);
}

Status Applier::begin_resync(const log::Record& r) {
  if (removed_.contains(r.set)) return {};  // nobody asks any more whether it is whole
  SetState* set = find(r.set);
  const bool was_whole = set && set->complete;
  const Position before = applied();
  const bool keeps = undo_.on() && (was_whole || kept_.contains(r.set));
  if (undo_.on() && set && !keeps) HF_TRY(undo_.gap(r.set, "the set is copied anew"));
  log_info("set {}: resynchronization begins at sequence {}", r.set, r.sequence.value);
  const bool partial = (r.flags & log::flag_partial_resync) != 0;
  bool doubted = false;
  HF_TRY(hooks_.update_state([&](NodeState& s) {
    doubted = s.doubted.contains(r.set);
    if (!partial) s.doubted.erase(r.set);
    if (keeps && !s.point) {  // this batch's start, which is now
      s.point = PastState{undo_.current_batch(), before, s.active_epoch, s.clean, s.complete};
      s.point_time_ns = applied_time_ns_;
    }
    if (s.point) kept_ = s.point->complete, kept_from_ = s.point->batch;
    s.complete.erase(r.set);
    s.resyncing.insert(r.set);
    resyncing_count_ = static_cast<int>(s.resyncing.size());
  }));
  if (set) {
    set->resync = true;
    set->complete = false;
    set->memory = {};
    set->memory.partial = partial;
    // What was done before a crash is not done again, and not asked for again. To another tree than was remembered what changed is not enough.
    set->memory.broken = partial && (r.sequence <= doubt_to_ || doubted);
    // A file that has no name now can't be shipped. Should it get one, it must come whole, so it must not be known here with what it had. Nothing
    // after this record was done before it is durable, so a redo, too, finds only files of before.
    HF_TRY(set->tree->purge(ports::Grave::orphan));
    HF_ASSIGN(const bool empty, set->tree->is_empty());
    if (empty && !set->memory.partial) hooks_.nak({r.set, FileId{}, 0, 0});
  }
  resyncing_.insert(r.set);
  complete_.erase(r.set);
  return {};
}

// A live record made something without its contents, or left a name out, after everything was shipped; it was asked for too late, or by nobody. What
// has no place in the tree any more needs none.
Result<bool> Applier::lacks_contents(SetState& set) {
  if (set.memory.relist.empty() && set.memory.made.empty()) return false;
  HF_ASSIGN(const auto displaced, set.tree->graves(ports::Grave::limbo));
  for (auto* lacking : {&set.memory.relist, &set.memory.made}) {
    for (const auto& grave : displaced) lacking->erase(grave.id);
    for (const FileId& id : *lacking) {
      HF_ASSIGN(const auto there, set.tree->attributes(id));
      if (there) return true;
    }
  }
  return false;
}

// After the checkpoint that covers it: complete becomes durable, then what was displaced goes.
Status Applier::end_resync(const log::Record& r) {
  SetState* set = find(r.set);
  if (!set || !set->resync) return {};
  if (set->memory.broken) {
    log_warning("set {}: a resynchronization that was interrupted here can't be completed; it begins anew", r.set);
    hooks_.resync_broken();
    return {};
  }
  const bool was_captured = captured(r.set, *set);
  HF_TRY(hooks_.update_state([&](NodeState& s) {
    s.complete.insert(r.set);
    s.resyncing.erase(r.set);
    // Whole again: the point is one of many now.
    if (s.point && s.resyncing.empty() &&
        std::includes(s.complete.begin(), s.complete.end(), s.point->complete.begin(), s.point->complete.end()))
      s.point.reset();
    if (!s.point) kept_.clear();
    resyncing_count_ = static_cast<int>(s.resyncing.size());
  }));
  set->resync = false;
  set->complete = true;
  set->memory = {};
  resyncing_.erase(r.set);
  complete_.insert(r.set);
  if (hooks_.whole) hooks_.whole(r.set);
  log_info("set {}: complete at sequence {}", r.set, r.sequence.value);
  return undo_.on() && was_captured ? Status{} : drop_limbo(*set);
}

// What can't go joins the deleted, and is tried again with them.
Status Applier::drop_limbo(SetState& set) {
  Status gone = set.tree->purge(ports::Grave::limbo);
  if (gone || !is_of_one_grave(gone.error())) return gone;
  return settle_displaced(set);
}

Status Applier::checkpoint() {
  const std::lock_guard work(work_mutex_);
  return checkpoint_now();
}

Status Applier::checkpoint_now() {
  const Position position = applied();
  if (!dirty_) return {};
  const CheckpointMark mark{log_life_, position.sequence};
  HF_ASSIGN(const std::set<SetNumber> marked,
            mark_held(mark));  // history too: else it would seem to lack what this covers
  HF_TRY(hooks_.update_state([&](NodeState& s) {
    s.applied = position;
    for (const SetNumber set : marked) s.marked[set] = mark;
  }));
  dirty_ = false;
  unsynced_bytes_ = 0;
  checkpoint_batch_ = undo_.current_batch();
  HF_TRY(log_.trim(position.sequence));
  for (;;) {
    give_up_graves(undo_.oldest_batch());
    HF_ASSIGN(const bool gave_up, undo_.keep_bounds(graves_held_, graves_inside_));
    if (!gave_up) break;
  }
  // Only right after the epoch's beginning: later there are new ones. What has to be left to a redo goes with the next epoch.
  if (purge_orphans_)
    for (auto& [number, set] : sets_)
      if (set.names.graves_are_old(position.sequence)) HF_TRY(set.tree->purge(ports::Grave::orphan));
  purge_orphans_ = false;
  return {};
}

bool Applier::in_doubt_held() const {
  Sequence doubt_to = doubt_to_;
  for (const auto& [number, set] : sets_) doubt_to = std::max(doubt_to, set.names.doubt_to);
  return applied().sequence < doubt_to;
}

// The trees may be ahead of where they stand, in a redo or in a slice that waits for space: what is done until they are not has no old values. So
// it is after a crash, too, for the gap that is written here is then the last thing that counts, or the first batch after it has all that was
// done since.
Status Applier::set_history(bool on) {
  const std::lock_guard work(work_mutex_);
  if (undo_.on() == on) return {};
  if (!on && undo_.pinned()) return fail(ErrorCode::busy, "the undo history is needed to go back");
  HF_TRY(checkpoint_now());
  HF_TRY(undo_.turn(on));
  again_ = batch_is_sealed_ = after_consistent_ = false;
  covered_.clear();
  covered_since_point_.clear();
  checkpoint_batch_ = undo_.current_batch();
  plan_ = {};
  Sequence doubt_to = std::max(doubt_to_, applied().sequence);
  for (auto& [number, set] : sets_) {
    set.tree->set_capturing(false);
    set.tree->burial_stamp(0);
    doubt_to = std::max(doubt_to, set.names.doubt_to);
    if (on) HF_TRY(set.graves.load(*set.tree));
  }
  if (on) plan_ = {doubt_to, {}, 0};
  uncovered_to_ = doubt_to;
  give_up_graves(undo_.oldest_batch());
  return {};
}

// All that was applied is durable. Without a history nothing is kept.
void Applier::give_up_graves(std::uint64_t below) {
  const Position position = applied();
  for (auto& [number, set] : sets_) {
    if (!set.names.graves_are_old(position.sequence)) continue;
    if (undo_.on())
      set.graves.give_up(below, undo_.current_batch());
    else
      set.graves.give_up_all();
  }
  note_graves();
}

Status Applier::load_graves() {
  if (!graves_stale_) return {};
  for (auto& [number, set] : sets_) HF_TRY(set.graves.load(*set.tree));
  graves_stale_ = false;
  return {};
}

void Applier::note_graves() {
  graves_held_ = {};
  graves_inside_.clear();
  std::size_t doomed = 0, aside = 0;
  std::string why;
  for (auto& [number, set] : sets_) {
    graves_held_ += set.graves.held();
    set.graves.add_inside(graves_inside_);
    doomed += set.graves.doomed();
    aside += set.graves.aside();
    if (set.graves.aside() != 0) why = set.graves.why_aside();
  }
  grave_bytes_ = graves_held_.bytes;
  doomed_graves_ = doomed;
  if (graves_aside_.exchange(aside) == 0 && aside == 0) return;
  const std::lock_guard lock(mutex_);
  why_aside_ = std::move(why);
}

// After a crash, and in an office, there is no checkpoint that would say what is not needed any more.
Result<Applier::Swept> Applier::sweep(std::size_t most, bool aside_again) {
  const std::lock_guard work(work_mutex_);
  HF_TRY(load_graves());
  if (!dirty_) give_up_graves(undo_.oldest_batch());
  bool more = false;
  Status purged;
  for (auto& [number, set] : sets_) {
    if (aside_again) set.graves.try_aside_again();
    if (purged) purged = set.graves.purge(*set.tree, most);
    more = more || set.graves.has_work();
  }
  note_graves();
  HF_TRY(purged);
  HF_ASSIGN(const bool shed, undo_.shed());
  HF_ASSIGN(const bool presses, graves_press());
  return Swept{more || shed, presses};
}

// Sets may share a file system.
Result<bool> Applier::graves_press() {
  std::uint64_t bytes = sweep_spare_bytes;
  for (const auto& [number, set] : sets_) bytes += set.graves.doomed_bytes();
  for (const auto& [number, set] : sets_) {
    if (set.graves.doomed() == 0) continue;
    HF_ASSIGN(const std::uint64_t free, set.tree->free_bytes());
    if (free < bytes) return true;
  }
  return false;
}

// Graves of batches that the last checkpoint covers, and that no batch needs from `below` on: no redo meets them, whatever else is in doubt. The
// newest covered one keeps its own: what is not captured is buried under its number.
Result<bool> Applier::purge_covered(std::uint64_t below) {
  bool any = false;
  for (auto& [number, set] : sets_) {
    if (applied().sequence >= uncovered_to_)
      set.graves.give_up(std::min(below, checkpoint_batch_), std::numeric_limits<std::uint64_t>::max());
    if (set.graves.doomed() == 0) continue;
    std::size_t all = std::numeric_limits<std::size_t>::max();
    HF_TRY(set.graves.purge(*set.tree, all));
    any = true;
    HF_TRY(set.tree->sync());  // only then the space is there
  }
  note_graves();
  return any;
}

bool Applier::covers_graves() const {
  if (applied().sequence < uncovered_to_) return false;
  for (const auto& [number, set] : sets_)
    if (set.graves.oldest() < checkpoint_batch_) return true;
  return false;
}

// A tree or the history found no space. False: wait for some. The slice is done again, as a redo would: its batch, if it was begun in earnest,
// is then the plan's batch m, and still open. What goes, and in this order: graves that nobody needs, the oldest history with its graves, what a
// checkpoint makes free to go, all history.
Result<bool> Applier::make_space(std::span<const log::Record> slice) {
  const bool history_starves = undo_.on() && undo_.starved();
  staged_.clear();
  for (auto& [number, set] : sets_) {
    HF_TRY(set.tree->unstage());
    set.memory.bare.clear();  // a listing may have been done in part
    set.names.settled = false;
    set.names.doubt_to = slice.back().sequence;
  }
  if (batch_is_sealed_) {
    plan_ = {Sequence(slice.front().sequence.value - 1), slice.back().sequence, 0};
    again_ = true;
  }
  // Without a history nothing more is given up here: what no checkpoint covers, a redo may meet.
  HF_ASSIGN(const bool purged, purge_covered(undo_.on() ? undo_.oldest_batch() : 0));
  if (purged) return true;
  if (!undo_.on()) return false;
  bool dropped = false;
  if (!undo_.hopeless()) {
    HF_ASSIGN(dropped, undo_.drop_oldest(history_starves ? "there was no space for it"
                                                         : "a protected folder had no space left"));
  }
  if (dropped) {
    HF_TRY(purge_covered(undo_.oldest_batch()));
    return true;
  }
  if (dirty_) {
    HF_TRY(checkpoint_now());
    return true;
  }
  if (undo_.pinned() || !(history_starves || covers_graves())) return false;
  // Rather no history than no copy.
  if (Status said = undo_.gap(0, history_starves ? "no space for the history" : "no space in the folder"); !said) {
    if (said.error().code == ErrorCode::no_space) return false;
    return tl::unexpected(std::move(said).error());
  }
  plan_ = {slice.back().sequence, {}, 0};
  again_ = batch_is_sealed_ = false;
  checkpoint_batch_ = std::min(checkpoint_batch_, undo_.current_batch());  // that of a void batch is given again
  for (bool more = true; more;) {
    HF_ASSIGN(more, undo_.shed());
  }
  HF_TRY(purge_covered(std::numeric_limits<std::uint64_t>::max()));
  return true;
}

Status Applier::sync_held() {
  HF_TRY(undo_.sync());
  for (auto& [number, set] : sets_) HF_TRY(set.tree->sync());
  return {};
}

Result<std::set<SetNumber>> Applier::mark_held(const CheckpointMark& mark) {
  std::set<SetNumber> marked;
  HF_TRY(undo_.sync());
  const Bytes value = encode(mark);
  for (auto& [number, set] : sets_) {
    const Status written = set.tree->set_mark(ports::Mark::checkpoint, value);
    if (written)
      marked.insert(number);
    else if (written.error().code != ErrorCode::no_space)
      return tl::unexpected(written.error());
    HF_TRY(set.tree->sync());
  }
  return marked;
}

Status Applier::jump_held(UndoHead head) {
  if (!undo_.on()) return {};
  head.first_time_ns = head.last_time_ns = applied_time_ns_;
  return undo_.jump(std::move(head));
}

// What was buried is of no use any more: no batch before the gap can be undone here. It goes later (sweep()): a takeover does not wait for it.
Status Applier::leave_history(std::string_view why) {
  const std::lock_guard work(work_mutex_);
  if (!undo_.on()) return {};
  HF_TRY(undo_.gap(0, why));
  give_up_graves(std::numeric_limits<std::uint64_t>::max());
  return {};
}

}  // namespace holdfast::mirror
