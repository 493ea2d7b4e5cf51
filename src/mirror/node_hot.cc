// SPDX-License-Identifier: Apache-2.0
// The hot set of a leading node: begun with its epoch, turned to the next generation from time to time, sealed by a fence (mirror/hot_set.h).
#include <fmt/core.h>

#include "base/log.h"
#include "mirror/node_log.h"
#include "mirror/tree_marks.h"

namespace holdfast::mirror {
namespace {

constexpr int hot_look_ms = 1000;
// While a set is noted as a whole (its first copy gave ids to all of it, or too much was changed at once) this active's return would cost a
// comparison of all of it: such notes go the sooner.
constexpr int coarse_generations_are_shorter = 12;
constexpr std::uint64_t sync_ahead_bytes = std::uint64_t{32} << 20;

// Of a copy under way: what it wrote goes to the disk while it goes on, and the next checkpoint, which it does wait for, finds little to write.
Status sync_ahead(const Applier& applier, ports::IdBarrier& ids) {
  if (!applier.resyncing() || applier.unsynced_bytes() < sync_ahead_bytes) return {};
  if (Status done = ids.make_ids_durable(); !done && done.error().code != ErrorCode::no_space) return done;
  for (const auto& tree : applier.trees()) HF_TRY(tree->sync());
  return {};
}

}  // namespace

Status NodeLog::open_hot() {
  if (!ports_.hot) return {};
  HF_ASSIGN(hot_, HotSet::open({*ports_.hot, ports_.times, ports_.unused_block}, config_.hot));
  active_.set_hot(hot_.get());
  return {};
}

// What may differ after the epoch that this node led and did not hand over; nothing: there are no notes of that very epoch. Notes are read before
// what they are relative to: should a generation just be dropped, the list is longer than need be, never shorter.
Result<std::shared_ptr<const HotLeft>> NodeLog::left_by(Epoch led) const {
  std::shared_ptr<const HotLeft> none;
  if (!hot_ || led == Epoch(0) || hot_->header().epoch != led) return none;
  HF_ASSIGN(const std::vector<HotNote> notes, hot_->notes());
  const HotHeader header = hot_->header();
  if (header.epoch != led || header.drawn == 0) return none;
  ChangeSet changes = changes_of(notes);
  // What its last comparison found to differ on a peer is in no note, and this node's successor does not know of it.
  for (const SetNumber set : snapshot().complete)
    if (compared_.any_open(set)) changes.note_set(set);
  auto left = std::make_shared<HotLeft>(HotLeft{led, header.covered, changes.encode()});
  if (left->entries.size() > max_listed) return none;
  return std::shared_ptr<const HotLeft>(std::move(left));
}

// Of a node that led and did not hand over, what it surely has of that epoch: its notes are dropped when the disk has what they were about.
Position NodeLog::position_led(const NodeState& state) const {
  Position at{state.active_epoch, state.applied.sequence};
  if (!hot_) return at;
  const HotHeader header = hot_->header();
  if (header.epoch == state.active_epoch && header.covered.epoch == header.epoch) at = std::max(at, header.covered);
  return at;
}

// Before anything is captured in it. What an epoch that ended uncleanly left in the page cache only, perhaps acknowledged long ago, is noted
// nowhere as soon as the notes of that epoch are dropped: it has to be on the disk first.
Status NodeLog::begin_hot(Epoch epoch, Position base) {
  if (!hot_) return {};
  const std::lock_guard lock(marks_mutex_);
  auto mark = hot_->draw(epoch);
  Status done = mark ? mark_trees_locked(*mark) : tl::unexpected(mark.error());
  if (!done && done.error().code == ErrorCode::no_space) {
    log_warning("epoch {}: {}: after an unclean end of it this node is compared as a whole", epoch.value,
                done.error().to_string());
    mark->drawn = 0;
    done = applier_.for_each_tree([](ports::Tree& tree) { return tree.sync(); });
  }
  if (done) done = hot_->begin(*mark, base);
  if (!done) fault(done.error());
  return done;
}

// All that was done to the trees is on their disks, and the mark says so.
Status NodeLog::mark_trees_locked(const HotMark& mark) {
  for (const auto& tree : applier_.trees()) {
    if (mark.drawn != 0) HF_TRY(tree->set_mark(ports::Mark::hot, encode(mark)));
    HF_TRY(tree->sync());
  }
  return {};
}

Status NodeLog::end_hot(Position end) {
  if (!hot_) return {};
  Status done = hot_->end(end);
  if (!done) fault(done.error());
  return done;
}

bool NodeLog::leads(Epoch epoch) const {
  const std::lock_guard lock(mutex_);
  return role_ == Role::active && !ended_ && epoch_ == epoch && !stopped_ && fault_.empty();
}

bool NodeLog::everybody_covers(Sequence end, bool but_who_is_away) const {
  for (const auto& s : senders())
    if (!s->covers(end) && !(but_who_is_away && s->is_away())) return false;
  return true;
}

// False: no space. ErrorCode::stale: the epoch is over, and its successor's marks are there.
Result<bool> NodeLog::mark_trees(const HotMark& mark) {
  const std::lock_guard lock(marks_mutex_);
  if (!hot_->is_of(mark)) return fail(ErrorCode::stale, "epoch {} has ended", mark.epoch.value);
  const Status marked = mark_trees_locked(mark);
  if (marked || marked.error().code == ErrorCode::no_space) return marked.has_value();
  return tl::unexpected(marked.error());
}

Status NodeLog::turn_hot(Epoch epoch) {
  HF_ASSIGN(const HotSet::Turn turn, hot_->open_next(epoch));
  const auto over = [&] { return !leads(epoch); };
  if (!hot_->wait_left_behind(turn, over)) return fail(ErrorCode::stale, "the epoch has ended");
  // All changes under the older notes have been appended by now; to this log, if it is still open: what a fence refused is in nobody's log.
  const std::optional<Position> end = active_.ring().end_in(epoch);
  if (!end) return fail(ErrorCode::stale, "the epoch has ended");
  HF_TRY(ports_.ids.make_ids_durable());
  // Whoever is away keeps notes from being dropped for as long as there is room for more: they would be what it is spared the whole comparison by.
  // That it lacks what was dropped then its own position tells (hot_return.h). So does a tree that has no space for its mark.
  HF_ASSIGN(bool marked, mark_trees(turn.mark));
  std::unique_lock lock(mutex_, std::defer_lock);
  while (!marked || !everybody_covers(end->sequence, hot_->scarce())) {
    ++progress_waits_;
    lock.lock();
    progress_cv_.wait_for(lock, std::chrono::milliseconds(hot_look_ms));  // a peer's acknowledgement; a role that ends
    lock.unlock();
    --progress_waits_;
    if (over()) return fail(ErrorCode::stale, "the epoch has ended");
    HF_TRY(hot_->prepare_block());
    HF_TRY(ports_.ids.make_ids_durable());  // nobody is sent any meanwhile
    if (!marked) {
      HF_ASSIGN(marked, mark_trees(turn.mark));
    }
  }
  return hot_->drop(turn, *end);
}

void NodeLog::run_hot() {
  if (!hot_) return;
  std::int64_t turned_ns = ports_.times.steady_ns();
  Epoch epoch;
  for (;;) {
    const bool scarce = hot_->wait_due(hot_look_ms);
    bool leads = false;
    {
      const std::lock_guard lock(mutex_);
      if (stopped_ || !fault_.empty()) return;
      leads = role_ == Role::active && !ended_;
      if (leads && std::exchange(epoch, epoch_) != epoch_) turned_ns = ports_.times.steady_ns();
    }
    if (!leads) {
      if (Status synced = sync_ahead(applier_, ports_.ids); !synced) return fault(synced.error());
      continue;
    }
    Status done = hot_->prepare_block();
    const HotStatus hot = hot_->status();
    const std::int64_t due_ns = config_.hot_generation_ns / (hot.whole.empty() ? 1 : coarse_generations_are_shorter);
    if (done && (scarce || ports_.times.steady_ns() - turned_ns >= due_ns)) {
      if (hot.used > 1) done = turn_hot(epoch);  // more than the block of ids: something was changed
      turned_ns = ports_.times.steady_ns();
    }
    if (!done && done.error().code != ErrorCode::stale) return fault(done.error());
  }
}

}  // namespace holdfast::mirror
