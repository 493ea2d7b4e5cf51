// SPDX-License-Identifier: Apache-2.0
#include "apps/health.h"

#include <algorithm>

#include <fmt/core.h>

namespace holdfast::apps {

const char* to_string(HealthState state) {
  switch (state) {
    case HealthState::stopped:
      return "stopped";
    case HealthState::starting:
      return "starting";
    case HealthState::healthy:
      return "healthy";
    case HealthState::suspect:
      return "suspect";
    case HealthState::restarting:
      return "restarting";
    case HealthState::failed:
      return "failed";
  }
  return "stopped";
}

const char* to_string(FailureAction action) {
  switch (action) {
    case FailureAction::alert:
      return "alert";
    case FailureAction::restart:
      return "restart";
    case FailureAction::switchover:
      return "switchover";
  }
  return "alert";
}

void Health::enter(HealthState state, std::int64_t now_ms) {
  if (state == state_) return;
  state_ = state;
  since_ms_ = now_ms;
}

std::vector<HealthAction> Health::on_probe_ok(std::int64_t now_ms) {
  failed_probes_ = 0;
  const bool came_back = state_ == HealthState::failed;
  if (state_ != HealthState::healthy && state_ != HealthState::suspect) healthy_since_ms_ = now_ms;
  enter(HealthState::healthy, now_ms);
  reason_.clear();
  if (failures_ > 0 && now_ms - healthy_since_ms_ >= config_.forget_after_ms) failures_ = 0;
  if (!came_back) return {};
  return {{FailureAction::alert, "the application works again without having been repaired"}};
}

std::vector<HealthAction> Health::on_failure(std::int64_t now_ms, const std::string& reason) {
  ++failures_;
  failed_probes_ = 0;
  reason_ = reason;
  const FailureRule none;
  const FailureRule& rule =
      config_.rules.empty() ? none
                            : config_.rules[std::min(static_cast<std::size_t>(failures_), config_.rules.size()) - 1];
  const std::string what = fmt::format("failure {}: {}", failures_, reason);
  if (rule.enabled && rule.action == FailureAction::restart) {
    enter(HealthState::restarting, now_ms);
    return {{FailureAction::alert, what + "; restarting it in place"}, {FailureAction::restart, what}};
  }
  enter(HealthState::failed, now_ms);
  if (rule.enabled && rule.action == FailureAction::switchover)
    return {{FailureAction::alert, what + "; switching over"}, {FailureAction::switchover, what}};
  if (rule.action == FailureAction::alert) return {{FailureAction::alert, what}};
  return {{FailureAction::alert, fmt::format("{}; automatic {} is off: repair it, or use make-active to move it", what,
                                             to_string(rule.action))}};
}

std::vector<HealthAction> Health::on_probe_failed(std::int64_t now_ms, const std::string& reason, bool gone) {
  reason_ = reason;
  if (!gone && state_ == HealthState::starting && now_ms - since_ms_ < config_.start_grace_ms) return {};
  ++failed_probes_;
  if (state_ == HealthState::healthy) enter(HealthState::suspect, now_ms);
  if (failed_probes_ < config_.probes_to_fail) return {};
  return on_failure(now_ms, reason);
}

// What each input does in each state; what is not listed is ignored.
std::vector<HealthAction> Health::step(std::int64_t now_ms, const HealthInput& input) {
  using Kind = HealthInput::Kind;
  const bool probed =
      state_ == HealthState::starting || state_ == HealthState::healthy || state_ == HealthState::suspect;
  switch (input.kind) {
    case Kind::started:
      failed_probes_ = 0;
      failures_ = 0;
      reason_.clear();
      enter(HealthState::starting, now_ms);
      return {};
    case Kind::stopped:
      failed_probes_ = 0;
      enter(HealthState::stopped, now_ms);
      return {};
    case Kind::probe_ok:
      return probed || state_ == HealthState::failed ? on_probe_ok(now_ms) : std::vector<HealthAction>{};
    case Kind::probe_failed:
    case Kind::gone:
      return probed ? on_probe_failed(now_ms, input.reason, input.kind == Kind::gone) : std::vector<HealthAction>{};
    case Kind::restart_done:
      // The grace of a start applies again: crash recovery takes its time.
      if (state_ == HealthState::restarting) enter(HealthState::starting, now_ms);
      return {};
    case Kind::restart_failed:
      return state_ == HealthState::restarting ? on_failure(now_ms, input.reason) : std::vector<HealthAction>{};
    case Kind::cleared:
      failures_ = 0;
      failed_probes_ = 0;
      reason_.clear();
      if (state_ == HealthState::failed || state_ == HealthState::suspect) enter(HealthState::starting, now_ms);
      return {};
  }
  return {};
}

}  // namespace holdfast::apps
