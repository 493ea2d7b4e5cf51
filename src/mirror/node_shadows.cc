// SPDX-License-Identifier: Apache-2.0
// NodeLog's part of mirror/shadows.h: marks on their way through the log, the names that it gives by itself, what shadows hold and lose.
#include "base/log.h"
#include "mirror/node_log.h"
#include "mirror/utc_name.h"

namespace holdfast::mirror {
namespace {
constexpr std::int64_t told_again_ns = 3600LL * 1'000'000'000;
}  // namespace

Result<NodeLog::Mark> NodeLog::mark_shadow(const Shadow& shadow) {
  HF_TRY(check_shadow_name(shadow.name));
  const std::lock_guard one(transition_mutex_);
  Epoch epoch;
  {
    const std::lock_guard lock(mutex_);
    if (role_ != Role::active || ended_) return fail(ErrorCode::refused, "only the active marks a shadow for all");
    epoch = epoch_;
  }
  if (shadows_.find(shadow.name)) return fail(ErrorCode::exists, "there is a shadow '{}' already", shadow.name);
  HF_ASSIGN(const Sequence at, append_mark(log::Kind::shadow, 0, shadow_mark_name(shadow)));
  return Mark{{epoch, at}, ports_.times.realtime_ns()};
}

Result<Shadow> NodeLog::shadow_here(Shadow shadow) {
  HF_TRY(check_shadow_name(shadow.name));
  const std::lock_guard one(transition_mutex_);
  if (!history()) return fail(ErrorCode::refused, "this node keeps no undo history");
  {
    const std::lock_guard lock(mutex_);
    if (role_ == Role::active || role_ == Role::fenced)
      return fail(ErrorCode::refused, "this node leads an epoch: its history begins when it follows again");
    if (!complete_locked()) return fail(ErrorCode::refused, "this node holds no complete copy");
  }
  if (shadows_.find(shadow.name)) return fail(ErrorCode::exists, "there is a shadow '{}' already", shadow.name);
  const auto no_apply = applier_.hold();
  shadow.batch = ports_.journal->next_number();
  shadow.position = applier_.applied();
  shadow.time_ns = applier_.applied_time_ns() != 0 ? applier_.applied_time_ns() : ports_.times.realtime_ns();
  HF_ASSIGN(const Shadow added, shadows_.add(std::move(shadow)));
  ports_.journal->keep_from(shadows_.oldest_kept());
  return added;
}

Result<Shadow> NodeLog::keep_shadow(std::string_view name, bool keep) {
  HF_ASSIGN(const Shadow kept, shadows_.set_keep(name, keep));
  if (ports_.journal) ports_.journal->keep_from(shadows_.oldest_kept());
  return kept;
}

Status NodeLog::delete_shadow(std::string_view name) {
  HF_TRY(shadows_.remove(name));
  if (ports_.journal) ports_.journal->keep_from(shadows_.oldest_kept());
  return {};
}

// By the applier, which may pass the same mark again in a redo. What can't be noted is no reason to stop: it is a name.
Status NodeLog::note_shadow(const log::Record& r, std::uint64_t batch) {
  auto shadow = shadow_of_mark(r.name);
  if (!shadow || batch == 0 || !history()) return {};
  shadow->position = {r.epoch, r.sequence};
  if (const auto there = shadows_.find(shadow->name); there && there->position == shadow->position) return {};
  shadow->batch = batch;
  shadow->time_ns = r.time_ns;
  if (auto added = shadows_.add(*shadow); !added)
    log_error("the shadow '{}' is not kept here: {}", shadow->name, added.error().to_string());
  ports_.journal->keep_from(shadows_.oldest_kept());
  return {};
}

// A consistent point is a shadow from its first moment: when the new copy is whole, it is where the old one can still be found (I5).
Status NodeLog::name_point(const NodeState& state) {
  if (!state.point || !history() || shadows_.at(state.point->applied, ShadowOrigin::automatic)) return {};
  const bool divergent = state.point->active_epoch != Epoch(0);
  const std::int64_t time = state.point_time_ns != 0 ? state.point_time_ns : ports_.times.realtime_ns();
  Shadow shadow;
  shadow.name = divergent ? fmt::format("{}-epoch-{}-divergent", config_.node_name, state.point->active_epoch.value)
                          : fmt::format("before-resync-{}", utc_name(time));
  shadow.batch = state.point->batch;
  shadow.position = state.point->applied;
  shadow.time_ns = time;
  shadow.origin = ShadowOrigin::automatic;
  if (auto added = shadows_.add(std::move(shadow)); !added)
    log_error("the point before the resynchronization gets no name: {}", added.error().to_string());
  return {};
}

void NodeLog::keep_shadows() {
  if (!ports_.journal) return;
  if (const std::int64_t until = hold_until_ns_; until != 0 && ports_.times.steady_ns() > until) hold_for_plan(0, 0);
  ports_.journal->keep_from(shadows_.oldest_kept());
  const auto shortened = tell_shortened();
  const std::uint64_t oldest = ports_.journal->oldest_batch();
  const std::string why =
      "its part of the undo history was given up" + (shortened ? ": " + shortened->why : std::string());
  auto dropped = shadows_.drop([&](const Shadow& s) { return s.batch < oldest; });
  if (!dropped) return log_error("{}", dropped.error().to_string());
  for (const Shadow& s : *dropped) {
    log_info("shadow '{}' is gone: {}", s.name, why);
    if (events_.shadow_dropped) events_.shadow_dropped(s, why);
  }
}

// Why the history was given up in part; since this was asked last, or before.
std::optional<UndoGap> NodeLog::tell_shortened() {
  const auto now = ports_.journal->take_shortened();
  if (!now) return ports_.journal->shortened();
  if (now->why == told_shortened_.why && now->made_ns - told_shortened_.made_ns < told_again_ns) return now;
  told_shortened_ = *now;
  if (events_.history_shortened) events_.history_shortened(now->why, ports_.journal->stats().oldest_time_ns);
  return now;
}

}  // namespace holdfast::mirror
