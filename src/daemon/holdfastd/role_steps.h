// SPDX-License-Identifier: Apache-2.0
// Bodies that the plans of role changes share: what the old active does of a switchover or a rollback, and what both sides wait for.
// Private to the .cc files of the plans. Bodies run in a plan's own threads.
#pragma once

#include <chrono>
#include <string>
#include <thread>

#include "control/plan.h"
#include "daemon/holdfastd/daemon.h"
#include "daemon/holdfastd/plan_keeper.h"

namespace holdfast::daemon {

constexpr auto look_again = std::chrono::milliseconds(25);

// Its name tells a plan that waits for health from one that does not.
inline constexpr const char* confirm_step = "the applications are healthy";

// Steps of an office end when it ends; what they would do belongs to whoever holds the next one.
Status still_in_office(Daemon& d, Epoch epoch);

// Opens the gate and adds the addresses, as soon as there is a lease.
Status appear(Daemon& d, Epoch epoch, control::StepContext& step);

// How long going back over so much may take.
int going_back_ms(std::uint64_t data_bytes);

// Other nodes' state comes in with their summaries; it can only be looked at.
template <class Predicate>
Status wait_until(const control::StepContext& step, const char* what, Predicate holds) {
  for (;;) {
    const Result<bool> now = holds();
    if (!now) return tl::unexpected(now.error());
    if (*now) return {};
    if (step.cancelled()) return fail(ErrorCode::timeout, "{} took too long", what);
    std::this_thread::sleep_for(look_again);
  }
}

// What the old active and its plan know of the successor.
struct Switchover {
  Daemon& d;
  SwitchoverOrder order;

  Epoch value_epoch() const;
  NodeId active() const;
  bool handed_over() const { return value_epoch() > order.epoch && active() == order.target; }
  bool overtaken() const { return value_epoch() > order.epoch && active() != order.target; }
  bool in_office() const;
  Result<bool> epoch_is_recorded() const;
  // A word of the successor's newest summary; empty when it says nothing.
  std::string successor_says(const char* member) const;
  nlohmann::json successor_summary() const;

  Status stop_applications(control::StepContext& step) const;
  Status start_applications_again(control::StepContext& step) const;
  Status drain(control::StepContext& step) const;
  Status end_capture(control::StepContext& step) const;
  // Nothing follows the end of an epoch: after the unmount this node can only win the next one.
  Status capture_again(control::StepContext& step) const;
  Status successor_applies(control::StepContext& step) const;
  Status hand_over(control::StepContext& step) const;
  Status successor_captures(control::StepContext& step) const;
  Status become_passive(control::StepContext& step) const;
  Status successor_starts(control::StepContext& step) const;

  // Of a rollback (order.back).
  Status mark_way_back(control::StepContext& step) const;
  Status unmark_way_back(control::StepContext& step) const;
  Status end_capture_and_remember(control::StepContext& step) const;
  Status successor_can_go_back(control::StepContext& step) const;
  Status order_and_hand_over(control::StepContext& step) const;
  Status take_order_back(control::StepContext& step) const;
  Status successor_goes_back(control::StepContext& step) const;
  Status successor_serves(control::StepContext& step) const;
};

}  // namespace holdfast::daemon
