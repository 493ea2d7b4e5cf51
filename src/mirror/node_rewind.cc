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
#include "base/log.h"
#include "mirror/node_log.h"

namespace holdfast::mirror {

Result<Rewind> NodeLog::make_rewind(const std::set<SetNumber>& sets) {
  Rewind::Trees trees;
  for (const auto& tree : applier_.trees())
    if (sets.contains(tree->set())) trees[tree->set()] = tree.get();
  if (trees.size() != sets.size())
    return fail(ErrorCode::refused, "a folder of that time is not configured here: only all of them go back together");
  return Rewind(*ports_.journal, std::move(trees));
}

// Locks of log and applier are held, the transition too.
Status NodeLog::rewind_held(const PastState& past, bool irreversible) {
  HF_ASSIGN(Rewind rewind, make_rewind(past.complete));
  if (Status synced = applier_.sync_held(); !synced) {
    fault(synced.error());
    return synced;
  }
  HF_ASSIGN(const RewindPlan plan, rewind.look(past.batch));
  HF_TRY(update_state([&](NodeState& s) {
    s.rewind = past;
    s.rewind->batch = plan.target.number;
    s.reversal = irreversible ? 0 : ports_.journal->next_number();
  }));
  const NodeState state = snapshot();
  Status said = irreversible ? ports_.journal->gap(0, "went back without a way forth")
                             : rewind.reverse(applier_.applied(), state.log_life, applier_.applied_time_ns());
  if (!said) {
    HF_TRY(update_state([](NodeState& s) { s.rewind.reset(); }));
    return said;
  }
  if (Status done = rewind.execute(); !done) {
    fault(done.error());
    return done;
  }
  return finish_rewind_held();
}

Status NodeLog::finish_rewind_held() {
  const PastState past = *snapshot().rewind;
  return restart_log_held(past.applied, [&](NodeState& s) {
    s.complete = past.complete;
    s.resyncing.clear();
    s.active_epoch = past.active_epoch;
    s.clean = past.clean;
    s.point.reset();
    s.rewind.reset();
    s.reversal = 0;
  });
}

// All that may refuse the way back, before anybody counts on it (I6).
Status NodeLog::look_at_point() {
  const NodeState state = snapshot();
  if (state.rewind) return fail(ErrorCode::busy, "its folders are on their way back to an earlier point");
  if (!state.point || !ports_.journal) return fail(ErrorCode::not_found, "it knows no consistent point");
  HF_ASSIGN(Rewind rewind, make_rewind(state.point->complete));
  HF_ASSIGN([[maybe_unused]] const RewindPlan plan, rewind.look(state.point->batch));
  return {};
}

Result<Position> NodeLog::rewind_to_point() {
  const auto no_append = receiver_.hold();
  const auto no_apply = applier_.hold();
  const NodeState state = snapshot();
  log_warning("going back to sequence {} of epoch {}, where the resynchronization began",
              state.point->applied.sequence.value, state.point->applied.epoch.value);
  HF_TRY(rewind_held(*state.point, true));
  return state.point->applied;
}

// A rewind that an earlier life did not finish. Without all of its folders it waits.
Status NodeLog::resume_rewind() {
  const NodeState state = snapshot();
  if (!state.rewind) return {};
  if (!ports_.journal)
    return fail(ErrorCode::refused, "this node was going back to an earlier point: that needs its undo history");
  const auto no_append = receiver_.hold();
  const auto no_apply = applier_.hold();
  bool begun = state.reversal == 0;
  for (const auto& b : ports_.journal->batches())
    if (b.number == state.reversal && b.head.why == BatchWhy::rewind && b.head.target == state.rewind->batch)
      begun = true;
  if (!begun) return update_state([](NodeState& s) { s.rewind.reset(); });
  auto rewind = make_rewind(state.rewind->complete);
  if (!rewind) return {};  // waits for the others
  log_info("going on with the way back to sequence {}", state.rewind->applied.sequence.value);
  Status done = rewind->read_again(state.rewind->batch);
  if (done) done = rewind->execute();
  if (!done) {
    fault(done.error());
    return done;
  }
  return finish_rewind_held();
}

Result<Position> NodeLog::rewind(std::uint64_t batch, bool irreversible) {
  const std::lock_guard one(transition_mutex_);
  {
    const std::lock_guard lock(mutex_);
    if (!fault_.empty()) return fail(ErrorCode::unavailable, "this node has stopped: {}", fault_);
    if (role_ == Role::active || role_ == Role::fenced || state_.active_epoch != Epoch(0))
      return fail(ErrorCode::refused, "only a passive that follows the log goes back");
    if (!ports_.journal) return fail(ErrorCode::refused, "this node keeps no undo history");
    if (!complete_locked()) return fail(ErrorCode::refused, "this node holds no complete copy");
  }
  receiver_.disconnect();
  HF_TRY(drain());  // redo must be over
  const auto no_append = receiver_.hold();
  const auto no_apply = applier_.hold();
  if (applier_.applied().sequence < log_.durable()) return fail(ErrorCode::busy, "the log went on: try again");
  PastState past;
  past.batch = batch;
  past.complete = snapshot().complete;
  bool found = false;
  for (const auto& b : ports_.journal->batches())
    if (b.number == batch) past.applied = b.head.before, found = true;
  if (!found) return fail(ErrorCode::not_found, "the undo history holds no point {}", batch);
  HF_TRY(rewind_held(past, irreversible));
  changed();
  return past.applied;
}

}  // namespace holdfast::mirror
