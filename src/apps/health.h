// SPDX-License-Identifier: Apache-2.0
// Health of one running application, as a pure state machine: probe results and ends of restarts go in, what to do comes out.
// 1st and 2nd failure: restart in place. 3rd: switchover, when that is turned on (off by default), else an alert and no further restarts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace holdfast::apps {

enum class HealthState {
  stopped,   // not supposed to run here
  starting,  // started, no probe has succeeded yet
  healthy,
  suspect,     // probes fail, not yet long enough to count as a failure
  restarting,  // a restart in place was asked for
  failed,      // repairs are used up; a switchover was asked for, or an administrator is needed
};
const char* to_string(HealthState state);

enum class FailureAction { alert, restart, switchover };
const char* to_string(FailureAction action);

// Row n: what follows the n-th failure; the last row serves for all later ones. A disabled row only alerts.
struct FailureRule {
  FailureAction action = FailureAction::alert;
  bool enabled = true;
};

struct HealthConfig {
  int probes_to_fail = 3;                  // failed probes in a row that make one failure
  std::int64_t start_grace_ms = 60'000;    // failed probes after a start do not count for this long (crash recovery)
  std::int64_t forget_after_ms = 600'000;  // healthy for this long: the failures before are forgotten
  std::vector<FailureRule> rules = {
      {FailureAction::restart, true}, {FailureAction::restart, true}, {FailureAction::switchover, false}};
};

struct HealthInput {
  // `gone`: a failed probe, because nothing of it runs any more; then there is no recovery to wait for either.
  enum class Kind { started, stopped, probe_ok, probe_failed, gone, restart_done, restart_failed, cleared };
  Kind kind = Kind::probe_ok;
  std::string reason;  // one line, with probe_failed, gone and restart_failed
};

struct HealthAction {
  FailureAction kind = FailureAction::alert;
  std::string text;  // one line for events and alerts
};

class Health {
 public:
  explicit Health(HealthConfig config = {}) : config_(std::move(config)) {}

  // `now_ms` never goes back. Inputs that make no sense in a state are ignored (a probe that ends after a stop).
  std::vector<HealthAction> step(std::int64_t now_ms, const HealthInput& input);
  void set_config(HealthConfig config) { config_ = std::move(config); }

  HealthState state() const { return state_; }
  int failures() const { return failures_; }  // counted since the last time they were forgotten
  const std::string& last_reason() const { return reason_; }
  std::int64_t since_ms() const { return since_ms_; }

 private:
  void enter(HealthState state, std::int64_t now_ms);
  std::vector<HealthAction> on_probe_ok(std::int64_t now_ms);
  std::vector<HealthAction> on_probe_failed(std::int64_t now_ms, const std::string& reason, bool gone);
  std::vector<HealthAction> on_failure(std::int64_t now_ms, const std::string& reason);

  HealthConfig config_;
  HealthState state_ = HealthState::stopped;
  std::int64_t since_ms_ = 0;
  std::int64_t healthy_since_ms_ = 0;
  int failed_probes_ = 0;
  int failures_ = 0;
  std::string reason_;
};

}  // namespace holdfast::apps
