// SPDX-License-Identifier: Apache-2.0
// Going back with a node's trees: NodeLog's part of mirror/rewind.h.
//
//   look                          refused here: nothing was touched
//   state.rewind = where to       from here on the node is not complete, applies nothing and is promoted by nobody
//   reversal R, or a gap          durable. With R announced and not written (a crash, a full disk): nothing was touched, state.rewind is cleared
//   execute                       a crash or a full disk here: again, from the top, by whoever finds state.rewind
//   the log begins anew there     state.rewind is cleared by the same store
//
// The gap is for a rewind whose other end is worth nothing (half a copy), or for which there is no room.
#include <algorithm>

#include "base/log.h"
#include "mirror/node_log.h"
#include "mirror/utc_name.h"

namespace holdfast::mirror {

void NodeLog::set_history(bool on) {
  const std::lock_guard one(transition_mutex_);
  wants_history_ = on;
  turn_history();
}

// The transition is held.
void NodeLog::turn_history() {
  const bool on = wants_history_;
  if (!ports_.journal || ports_.journal->on() == on) return;
  {
    const std::lock_guard lock(mutex_);
    if (!fault_.empty() || state_.rewind) return;
  }
  const Status turned = applier_.set_history(on);
  if (turned) {
    log_info("undo history: {}", on ? "on" : "off");
    keep_shadows();
    wake_applier();  // it sweeps what is left of it
    changed();
  } else if (turned.error().code == ErrorCode::no_space) {
    log_warning("no undo history yet: {}", turned.error().to_string());
  } else if (turned.error().code != ErrorCode::busy) {
    fault(turned.error());
  }
}

Result<Rewind> NodeLog::make_rewind(const std::set<SetNumber>& sets) {
  Rewind::Trees trees;
  for (const auto& tree : applier_.trees())
    if (sets.contains(tree->set())) trees[tree->set()] = tree.get();
  if (trees.size() != sets.size())
    return fail(ErrorCode::refused, "a folder of that time is not configured here: only all of them go back together");
  return Rewind(*ports_.journal, std::move(trees));
}

Result<PastState> NodeLog::past_of(std::uint64_t batch) const {
  const auto found = ports_.journal->first_from(batch);
  if (!found || found->number != batch) return fail(ErrorCode::not_found, "the undo history holds no point {}", batch);
  PastState past;
  past.batch = batch;
  past.applied = found->head.before;
  past.complete = snapshot().complete;
  if (found->head.unclean) {
    past.active_epoch = found->head.before.epoch;
    past.clean = false;
  }
  return past;
}

// Locks of log and applier are held, the transition too.
Status NodeLog::go_back_held(const WayBack& way) {
  HF_ASSIGN(Rewind rewind, make_rewind(way.past.complete));
  if (Status synced = applier_.sync_held(); !synced) {
    fault(synced.error());
    return synced;
  }
  HF_ASSIGN(const RewindPlan plan, rewind.look(way.past.batch));
  HF_TRY(rewind.check_room(!way.irreversible));
  HF_TRY(update_state([&](NodeState& s) {
    s.rewind = way.past;
    s.rewind->batch = plan.target.number;
    s.reversal = way.irreversible ? 0 : ports_.journal->next_number();
    s.rewind_for_epoch = way.for_epoch;
    s.rewind_plan = way.plan;
  }));
  const NodeState state = snapshot();
  Status said = way.irreversible ? ports_.journal->gap(0, "went back without a way forth")
                                 : rewind.reverse(applier_.applied(), state.log_life, applier_.applied_time_ns());
  if (!said) {
    HF_TRY(update_state([](NodeState& s) {
      s.rewind.reset();
      s.rewind_for_epoch = false;
      s.rewind_plan.clear();
    }));
    return said;
  }
  return executed(rewind.execute());
}

// Want of space is waited out: the intention stands, and the way is gone again from the top.
Status NodeLog::executed(Status done) {
  applier_.trees_changed_held();
  way_back_waits_for_space_ = !done && done.error().code == ErrorCode::no_space;
  if (!done && !way_back_waits_for_space_) fault(done.error());
  if (way_back_waits_for_space_) log_warning("the way back waits for space: {}", done.error().to_string());
  return done;
}

// With a way back that stands. Locks as above.
Status NodeLog::go_on_held() {
  const NodeState state = snapshot();
  HF_ASSIGN(Rewind rewind, make_rewind(state.rewind->complete));
  log_info("going on with the way back to sequence {}", state.rewind->applied.sequence.value);
  HF_TRY(rewind.read_again(state.rewind->batch));
  return executed(rewind.execute());
}

// After a way back that was to open an epoch, others may have gone on from where this node was: it is not complete there, and knows it as its point.
Status NodeLog::finish_rewind_held() {
  const NodeState state = snapshot();
  const PastState past = *state.rewind;
  const std::uint64_t next = ports_.journal->next_number();
  std::int64_t time = 0;
  if (const auto target = ports_.journal->first_from(past.batch)) time = ports_.journal->time_before(*target);
  // What was noted as active was about other trees than these.
  if (past.active_epoch != Epoch(0)) HF_TRY(end_hot(past.applied));
  return restart_log_held(past.applied, [&](NodeState& s) {
    s.complete = past.complete;
    s.resyncing.clear();
    s.active_epoch = past.active_epoch;
    s.clean = past.clean;
    s.point.reset();
    if (s.rewind_for_epoch) {
      s.complete.clear();
      s.point = past;
      s.point->batch = next;
      s.point_time_ns = time;
    }
    s.rewind.reset();
    s.reversal = 0;
    s.rewind_for_epoch = false;
    s.rewind_plan.clear();
  });
}

Result<Position> NodeLog::go_back_for_epoch(const PromoteOptions& options, Promotion& promotion) {
  if (!snapshot().rewind) {
    HF_TRY(drain());
    HF_TRY(applier_.checkpoint());  // nothing may store the position of before the way back after it
    if (options.given_up && options.given_up()) return fail(ErrorCode::stale, "the epoch is not wanted any more");
  }
  const auto no_append = receiver_.hold();
  const auto no_apply = applier_.hold();
  if (const NodeState state = snapshot(); state.rewind) {
    HF_TRY(go_on_held());
  } else {
    {
      const std::lock_guard lock(mutex_);
      HF_TRY(check_way_back(options));  // what was drained may have begun a resync
    }
    WayBack way;
    way.for_epoch = true;
    way.plan = options.plan;
    HF_ASSIGN(way.past, past_of(options.to_batch));
    log_warning("going back to sequence {} of epoch {}", way.past.applied.sequence.value, way.past.applied.epoch.value);
    Status gone = go_back_held(way);
    if (!gone && gone.error().code == ErrorCode::no_space && !snapshot().rewind) {
      way.irreversible = true;  // the epoch ends the way forth on this node anyway
      gone = go_back_held(way);
    }
    HF_TRY(gone);
  }
  const PastState past = *snapshot().rewind;
  if (const auto target = ports_.journal->first_from(past.batch))
    promotion.recovered_time_ns = ports_.journal->time_before(*target);
  promotion.went_back = WentBack{options.plan, past.applied, promotion.recovered_time_ns, Epoch(0)};
  return past.applied;
}

Status NodeLog::give_up_epoch() {
  const auto no_append = receiver_.hold();
  const auto no_apply = applier_.hold();
  return snapshot().rewind ? finish_rewind_held() : Status{};
}

// mutex_ is held. Of a set that was whole here once, half a copy is not nothing.
std::set<SetNumber> NodeLog::first_copies_locked() const {
  std::set<SetNumber> first;
  if (state_.rewind || state_.complete.empty() || state_.active_epoch != Epoch(0)) return first;
  for (const SetNumber set : sets_) {
    if ((state_.complete.contains(set) && !state_.resyncing.contains(set)) || state_.doubted.contains(set)) continue;
    if (state_.lost.contains(set) || (state_.point && state_.point->complete.contains(set))) return {};
    first.insert(set);
  }
  return first;
}

// By force, where there is no way back: first copies that did not come to their end are emptied; what was put in the place of a copy, a backup
// perhaps, stays as it stands. Half a copy of what was whole here once is neither.
bool NodeLog::leads_as_it_is_locked() const {
  if (state_.rewind || !all_known_are_here_locked()) return false;
  for (const SetNumber set : sets_) {
    if ((state_.complete.contains(set) && !state_.resyncing.contains(set)) || state_.doubted.contains(set)) continue;
    if (state_.lost.contains(set) || state_.complete.empty() || state_.active_epoch != Epoch(0)) return false;
  }
  return !state_.doubted.empty() || !first_copies_locked().empty();
}

// None of which there was a copy is left out because its folder could not be opened.
bool NodeLog::all_known_are_here_locked() const {
  return std::includes(sets_.begin(), sets_.end(), state_.complete.begin(), state_.complete.end()) &&
         std::includes(sets_.begin(), sets_.end(), state_.lost.begin(), state_.lost.end());
}

// Every set that is no first copy: the way back makes it whole, or it stands as somebody put it there.
bool NodeLog::point_has_all_locked() const {
  return all_known_are_here_locked() && std::all_of(sets_.begin(), sets_.end(), [&](SetNumber set) {
           return state_.point->complete.contains(set) || state_.doubted.contains(set) || !state_.lost.contains(set);
         });
}

// What is in a first copy that did not come to its end is a mixture: better nothing. It waits in limbo until the next start.
Status NodeLog::empty_first_copies() {
  std::set<SetNumber> whole;
  {
    const std::lock_guard lock(mutex_);
    whole = state_.complete;
    for (const SetNumber set : state_.resyncing) whole.erase(set);
    for (const SetNumber set : state_.doubted) {
      whole.insert(set);
      log_warning("set {}: taken as it stands in its folder, by an administrator's word", set);
    }
  }
  const auto no_apply = applier_.hold();
  for (const auto& tree : applier_.trees()) {
    if (whole.contains(tree->set())) continue;
    log_warning("set {}: its first copy did not come to its end: it is empty here", tree->set());
    const FileId root = FileId::root(tree->set());
    for (bool more = true; more;) {
      HF_ASSIGN(const auto chunk, tree->list(root, 0, 4096));
      for (const auto& entry : chunk.entries) HF_TRY(tree->bury(root, entry.name, entry.id, ports::Grave::limbo));
      more = !chunk.entries.empty();
    }
    HF_TRY(tree->sync());
  }
  return {};
}

Result<RewindPlan> NodeLog::look_back(std::uint64_t batch) {
  if (!history()) return fail(ErrorCode::refused, "this node keeps no undo history");
  HF_ASSIGN(const PastState past, past_of(batch));
  HF_ASSIGN(Rewind rewind, make_rewind(past.complete));
  HF_ASSIGN(const RewindPlan plan, rewind.look(batch));
  HF_TRY(rewind.check_room(false));
  return plan;
}

Result<std::unique_ptr<PastView>> NodeLog::look(std::uint64_t batch) {
  const std::lock_guard one(transition_mutex_);
  if (!history()) return fail(ErrorCode::refused, "this node keeps no undo history");
  if (snapshot().rewind) return fail(ErrorCode::busy, "its folders are on their way back to an earlier point");
  if (!snapshot().doubted.empty())
    return fail(ErrorCode::refused, "a folder of this node is not the one that its history is about: look on another");
  {
    const auto no_apply = applier_.hold();
    if (applier_.in_doubt_held())
      return fail(ErrorCode::busy, "this node still applies what it held when it was started: try again");
  }
  PastView::Trees trees;
  for (auto& tree : applier_.trees())
    if (history()->reaches(batch, tree->set())) trees[tree->set()] = std::move(tree);
  if (trees.empty()) return fail(ErrorCode::not_found, "there is no history from point {} on here", batch);
  return PastView::open(
      *history(), std::move(trees), [this] { return applier_.hold_to_look(); }, batch);
}

void NodeLog::hold_for_plan(std::uint64_t batch, std::int64_t until_ns) {
  if (!ports_.journal) return;
  hold_until_ns_ = batch == 0 ? 0 : until_ns;
  ports_.journal->pin("plan", batch);
}

// All that may refuse the way back, before anybody counts on it (I6).
Status NodeLog::look_at_point() {
  const NodeState state = snapshot();
  if (state.rewind) return fail(ErrorCode::busy, "its folders are on their way back to an earlier point");
  if (!state.point || !history()) return fail(ErrorCode::not_found, "it knows no consistent point");
  {
    const std::lock_guard lock(mutex_);
    if (!point_has_all_locked())
      return fail(ErrorCode::refused, "its consistent point lacks a folder that was whole once");
  }
  HF_ASSIGN(Rewind rewind, make_rewind(state.point->complete));
  HF_ASSIGN([[maybe_unused]] const RewindPlan plan, rewind.look(state.point->batch));
  return rewind.check_room(false);
}

Result<Position> NodeLog::rewind_to_point() {
  const auto no_append = receiver_.hold();
  const auto no_apply = applier_.hold();
  const NodeState state = snapshot();
  log_warning("going back to sequence {} of epoch {}, where the resynchronization began",
              state.point->applied.sequence.value, state.point->applied.epoch.value);
  HF_TRY(go_back_held({*state.point, true, false, {}}));
  HF_TRY(finish_rewind_held());
  return state.point->applied;
}

// A rewind that an earlier life did not finish. Without all of its folders it waits.
Status NodeLog::resume_rewind() {
  const NodeState state = snapshot();
  if (!state.rewind) return {};
  if (!history())
    return fail(ErrorCode::refused, "this node was going back to an earlier point: that needs its undo history");
  const auto no_append = receiver_.hold();
  const auto no_apply = applier_.hold();
  bool begun = state.reversal == 0;
  for (const auto& b : ports_.journal->batches())
    if (b.number == state.reversal && b.head.why == BatchWhy::rewind && b.head.target == state.rewind->batch)
      begun = true;
  if (!begun)
    return update_state([](NodeState& s) {
      s.rewind.reset();
      s.rewind_for_epoch = false;
      s.rewind_plan.clear();
    });
  if (!make_rewind(state.rewind->complete)) return {};  // waits for the other folders
  if (Status gone = go_on_held(); !gone)
    return gone.error().code == ErrorCode::no_space ? Status{} : gone;  // tried again
  return finish_rewind_held();
}

Result<Position> NodeLog::rewind(std::uint64_t batch, bool irreversible) {
  const std::lock_guard one(transition_mutex_);
  {
    const std::lock_guard lock(mutex_);
    if (!fault_.empty()) return fail(ErrorCode::unavailable, "this node has stopped: {}", fault_);
    if (role_ == Role::active || role_ == Role::fenced || state_.active_epoch != Epoch(0))
      return fail(ErrorCode::refused, "only a passive that follows the log goes back");
    if (!history()) return fail(ErrorCode::refused, "this node keeps no undo history");
    if (!complete_locked()) return fail(ErrorCode::refused, "this node holds no complete copy");
  }
  receiver_.disconnect();
  HF_TRY(drain());  // redo must be over
  const auto no_append = receiver_.hold();
  const auto no_apply = applier_.hold();
  if (applier_.applied().sequence < log_.durable()) return fail(ErrorCode::busy, "the log went on: try again");
  HF_ASSIGN(const PastState past, past_of(batch));
  const Position here = applier_.applied();
  const std::int64_t time = applier_.applied_time_ns();
  HF_TRY(go_back_held({past, irreversible, false, {}}));
  const std::uint64_t reversal = snapshot().reversal;
  HF_TRY(finish_rewind_held());
  if (reversal != 0) {
    auto named = shadows_.add(
        {fmt::format("before-rewind-{}", utc_name(time)), reversal, here, time, false, ShadowOrigin::automatic, false});
    if (!named) log_warning("no shadow of what was before: {}", named.error().to_string());
  }
  changed();
  return past.applied;
}

}  // namespace holdfast::mirror
