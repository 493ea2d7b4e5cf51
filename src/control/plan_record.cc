// SPDX-License-Identifier: Apache-2.0
// What a plan's journal says, and what follows from it: no threads, no files.
#include <algorithm>
#include <ctime>
#include <random>

#include "control/plan.h"

namespace holdfast::control {

const char* to_string(StepState state) {
  switch (state) {
    case StepState::pending:
      return "pending";
    case StepState::running:
      return "running";
    case StepState::done:
      return "done";
    case StepState::failed:
      return "failed";
    case StepState::undoing:
      return "undoing";
    case StepState::undone:
      return "undone";
    case StepState::skipped:
      return "skipped";
  }
  return "?";
}

const char* to_string(PlanState state) {
  switch (state) {
    case PlanState::running:
      return "running";
    case PlanState::reverting:
      return "reverting";
    case PlanState::done:
      return "done";
    case PlanState::reverted:
      return "reverted";
    case PlanState::abandoned:
      return "abandoned";
    case PlanState::halted:
      return "halted";
  }
  return "?";
}

const char* to_string(ResumeDecision decision) {
  switch (decision) {
    case ResumeDecision::finished:
      return "finished";
    case ResumeDecision::forward:
      return "forward";
    case ResumeDecision::revert:
      return "revert";
    case ResumeDecision::ask_again:
      return "ask again";
  }
  return "?";
}

std::string make_plan_id(const std::string& kind, std::int64_t wall_ms) {
  const std::time_t seconds = wall_ms / 1000;
  std::tm t{};
  gmtime_r(&seconds, &t);
  std::random_device random;
  return fmt::format("{}-{:04}{:02}{:02}T{:02}{:02}{:02}-{:04x}", kind, t.tm_year + 1900, t.tm_mon + 1, t.tm_mday,
                     t.tm_hour, t.tm_min, t.tm_sec, random() & 0xffff);
}

PlanState PlanRecord::state() const {
  for (const PlanState s :
       {PlanState::running, PlanState::reverting, PlanState::done, PlanState::reverted, PlanState::abandoned})
    if (status.state == to_string(s)) return s;
  return PlanState::halted;
}

bool PlanRecord::is_final() const {
  const PlanState s = state();
  return s != PlanState::running && s != PlanState::reverting;
}

ResumeDecision decide_resume(const PlanRecord& record, std::optional<bool> epoch) {
  if (record.is_final()) return ResumeDecision::finished;
  // A revert was decided knowing that the epoch was not recorded; its undo may itself have won a later one.
  if (record.state() == PlanState::reverting) return ResumeDecision::revert;
  if (record.status.epoch_recorded || epoch == true) return ResumeDecision::forward;
  const auto name = record.values.find("epoch_step");
  const bool in_doubt =
      name != record.values.end() &&
      std::any_of(record.status.steps.begin(), record.status.steps.end(), [&](const PlanStepStatus& s) {
        return s.name == name->second && s.state == to_string(StepState::running);
      });
  return in_doubt && !epoch ? ResumeDecision::ask_again : ResumeDecision::revert;
}

}  // namespace holdfast::control
