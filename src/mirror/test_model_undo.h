// SPDX-License-Identifier: Apache-2.0
// For tests only: the part of ModelRun that goes back: to the start of any batch, forth again by the rewind's own batch, with crashes in between.
// Included by mirror/test_model.h. Role changes and points in mid-resync are kept as mirror/node_log.cc and node_rewind.cc do.
#pragma once

#include "mirror/test_model.h"

namespace holdfast::mirror::testing {

inline Status ModelRun::restart_log(Position base, const std::function<void(NodeState&)>& change) {
  const NodeState before = state_;
  if (journal_) HF_TRY(applier_->sync_held());
  HF_TRY(store([&](NodeState& s) {
    change(s);
    ++s.log_life;
    s.applied = base;
    s.restarting = true;
    if (journal_ && journal_->on() && !s.point && !before.complete.empty() && s.complete.empty())
      s.point = PastState{journal_->next_number(), applier_->applied(), Epoch(0), true, before.complete};
  }));
  HF_TRY(log_->reset(base));
  HF_TRY(applier_->jump_held(jump_head(state_)));
  HF_TRY(store([](NodeState& s) { s.restarting = false; }));
  return applier_->begin_held(state_);
}

// The active of the next epoch has another past: it never saw the last changes that are in this tree, and made some that this node never saw.
inline Status ModelRun::restart_elsewhere() {
  fuse_.left = UINT64_MAX;
  while (last() > log_->end().sequence) HF_TRY(send(8));
  for (bool more = true; more;) {
    HF_ASSIGN(more, apply());
  }
  HF_TRY(applier_->checkpoint());
  auto past = history_.begin();
  std::advance(past, history_.size() - 1 - pick(static_cast<unsigned>(std::min<std::size_t>(history_.size(), 6))));
  model_ = past->second;
  shipper_.reset();
  walk_.reset();
  application_.close_all();
  const bool as_a_copy = !with_undo_ && pick(4) == 0;
  const auto pasts = all_pasts_;
  produce(pick(30));
  all_pasts_ = pasts;  // these are in no log
  epoch_ = epoch_.next();
  base_ = {epoch_, Sequence(last().value + (pick(2) ? 1'000'000 : 0))};
  epoch_ = epoch_.next();
  records_.clear();
  history_.clear();
  remember();
  note(fmt::format("-- another past, base {}", base_.sequence.value));
  if (!as_a_copy && pick(2)) fuse_.left = pick(5);
  const auto forget = [](NodeState& s) {
    s.complete.clear();
    s.resyncing.clear();
  };
  Status restarted = restart_log(base_, forget);
  if (!fuse_.burnt) {
    fuse_.left = UINT64_MAX;
    if (as_a_copy) tree_->forget_ids();
    return restarted;
  }
  told_ = false;  // where it stands means nothing here before it is
  HF_TRY(survives(restarted));
  told_ = true;
  fuse_.left = UINT64_MAX;
  if (state_.applied == base_) return {};
  return restart_log(base_, forget);  // it was never told: told again, as the next session does
}

inline Status ModelRun::turn_history() {
  const bool was = journal_->on();
  const Status turned = applier_->set_history(wants_history_);
  if (was != journal_->on()) note(fmt::format("-- the history is {}", journal_->on() ? "on" : "off"));
  return !turned && turned.error().code == ErrorCode::busy ? Status{} : turned;
}

inline Status ModelRun::finish_rewind() {
  const PastState past = *state_.rewind;
  return restart_log(past.applied, [&](NodeState& s) {
    s.complete = past.complete;
    s.resyncing.clear();
    s.point.reset();
    s.rewind.reset();
    s.reversal = 0;
  });
}

inline Status ModelRun::rewind_steps(const UndoBatch& to) {
  Rewind rewind(*journal_, {{set, tree_.get()}});
  HF_TRY(applier_->sync_held());
  HF_ASSIGN(const RewindPlan plan, rewind.look(to.number));
  HF_TRY(store([&](NodeState& s) {
    s.rewind = PastState{plan.target.number, to.head.before, Epoch(0), true, {set}};
    s.reversal = journal_->next_number();
  }));
  HF_TRY(rewind.reverse(applier_->applied(), state_.log_life, applier_->applied_time_ns()));
  HF_TRY(rewind.execute());
  applier_->trees_changed_held();
  return finish_rewind();
}

inline Status ModelRun::resume_rewind() {
  if (!state_.rewind) return {};
  bool begun = false;
  for (const auto& b : journal_->batches())
    if (b.number == state_.reversal && b.head.why == BatchWhy::rewind && b.head.target == state_.rewind->batch)
      begun = true;
  note(fmt::format("-- a rewind to batch {} is {}", state_.rewind->batch, begun ? "gone on with" : "forgotten"));
  if (!begun) return store([](NodeState& s) { s.rewind.reset(); });
  Rewind rewind(*journal_, {{set, tree_.get()}});
  HF_TRY(rewind.read_again(state_.rewind->batch));
  HF_TRY(rewind.execute());
  applier_->trees_changed_held();
  return finish_rewind();
}

inline Status ModelRun::rewind(const UndoBatch& to) {
  note(fmt::format("-- back to batch {}, sequence {}", to.number, to.head.before.sequence.value));
  ++report_.rewinds;
  shipper_.reset();
  if (fuse_.left > 1000 && pick(2)) fuse_.left = pick(pick(2) ? 20 : 200);
  HF_TRY(survives(rewind_steps(to)));
  HF_TRY(compare());
  return {};
}

// As mirror/node_shadows.cc does.
inline Status ModelRun::note_shadow(const log::Record& r, std::uint64_t batch) {
  auto shadow = shadow_of_mark(r.name);
  if (!shadow || batch == 0) return {};
  shadow->position = {r.epoch, r.sequence};
  if (const auto there = shadows_->find(shadow->name); there && there->position == shadow->position) return {};
  shadow->batch = batch;
  return shadows_->add(*shadow).map([](const Shadow&) {});
}

// The batch behind a mark begins where the mark is, whatever crashes and redos came between.
inline Status ModelRun::check_shadows() const {
  for (const Shadow& s : shadows_->list()) {
    if (!journal_ || !journal_->on() || !journal_->is_reachable(s.batch)) continue;
    const auto point = journal_->first_from(s.batch);
    if (!point ? applier_->applied() != s.position : point->head.before != s.position)
      return fail(ErrorCode::internal, "the shadow of sequence {} is at {}", s.position.sequence.value,
                  (point ? point->head.before : applier_->applied()).sequence.value);
  }
  return {};
}

inline Status ModelRun::go_back() {
  HF_TRY(check_shadows());
  for (bool more = true; more && !fuse_.burnt;) {
    auto applied = apply();
    more = applied && *applied;
    if (!applied) HF_TRY(survives(tl::unexpected(std::move(applied).error())));
  }
  if (!complete() || applier_->applied().sequence < log_->durable()) return {};
  const Position here = applier_->applied();
  std::vector<UndoBatch> points;
  for (const auto& b : journal_->batches())
    if (b.head.why != BatchWhy::resume && b.head.sets.contains(set) && journal_->reaches(b.number, set))
      points.push_back(b);
  if (points.empty()) return {};
  HF_TRY(rewind(points[pick(static_cast<unsigned>(points.size()))]));
  // From a point of this past the active goes on. Forth again otherwise: by the batch that holds what the rewind overwrote.
  if (of_this_past(applier_->applied()) && pick(2)) return {};
  for (int attempt = 0; applier_->applied() != here && attempt < 50; ++attempt) {
    const auto batches = journal_->batches();
    const auto forth = std::find_if(batches.rbegin(), batches.rend(), [&](const auto& b) {
      return b.head.why == BatchWhy::rewind && b.head.before == here;
    });
    if (forth == batches.rend() || !journal_->reaches(forth->number, set)) break;
    HF_TRY(rewind(*forth));
  }
  if (of_this_past(applier_->applied())) return {};
  if (undo_bytes_ > 1) return fail(ErrorCode::internal, "the way back from a rewind is lost");
  fuse_.left = UINT64_MAX;
  return restart_log(base_, [](NodeState& s) { s.complete.clear(); });
}

// Nothing is left over, but for what the history may need.
inline Status ModelRun::check_graves() {
  for (bool more = true; more;) {
    HF_ASSIGN(const auto swept, applier_->sweep(3));
    more = swept.more;
  }
  for (const auto why : {ports::Grave::deleted, ports::Grave::orphan, ports::Grave::limbo}) {
    HF_ASSIGN(const auto graves, tree_->graves(why));
    for (const auto& g : graves)
      // Without a history what a repair displaced waits in limbo for the next start.
      if (const bool displaced = !with_undo_ && ever_damaged_ && why == ports::Grave::limbo;
          !displaced && (!with_undo_ || why != ports::Grave::deleted || g.stamp < journal_->oldest_batch()))
        return fail(ErrorCode::internal, "{} objects are left in corner {} of the graveyard, stamp {}", graves.size(),
                    static_cast<int>(why), g.stamp);
  }
  return {};
}

}  // namespace holdfast::mirror::testing
