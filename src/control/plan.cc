// SPDX-License-Identifier: Apache-2.0
#include "control/plan.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include "base/check.h"
#include "base/log.h"

namespace holdfast::control {
namespace {

std::int64_t steady_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

std::int64_t system_wall_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

bool began(const std::string& state) {
  return state != to_string(StepState::pending) && state != to_string(StepState::skipped) &&
         state != to_string(StepState::undone);
}

}  // namespace

struct PlanRunner::Shared {
  Shared(PlanSpec sp, PlanJournal& j, PlanTiming t, Changed c)
      : spec(std::move(sp)), journal(j), timing(std::move(t)), changed(std::move(c)), live(spec.steps.size()) {}

  struct Live {
    std::int64_t began_ns = 0;  // 0 = no body runs
    double before_s = 0;        // spent in earlier attempts and before a restart
    bool was_running = false;   // at the restart
    bool retrying = false;
    bool skip = false;
  };

  const PlanSpec spec;
  PlanJournal& journal;
  PlanTiming timing;
  const Changed changed;

  std::mutex journal_mutex;  // held over a write, so that a later state never lands before an earlier one
  mutable std::mutex mutex;
  mutable std::condition_variable cv;
  PlanRecord record;
  std::vector<Live> live;
  std::int64_t began_ns = 0;
  double before_s = 0;
  bool stopping = false;
  bool abandon_background = false;  // a revert has begun: background steps give up
  bool ended = false;
  std::thread main;
  std::vector<std::thread> background;

  template <class Look>
  auto locked(Look look) const {
    const std::lock_guard lock(mutex);
    return look();
  }

  PlanStatus snapshot() const {  // mutex held
    PlanStatus out = record.status;
    const std::int64_t now = steady_ns();
    for (std::size_t i = 0; i < live.size(); ++i)
      if (live[i].began_ns != 0)
        out.steps[i].seconds = live[i].before_s + static_cast<double>(now - live[i].began_ns) / 1e9;
    if (!ended) out.seconds = before_s + static_cast<double>(now - began_ns) / 1e9;
    return out;
  }
};

bool StepContext::cancelled() const {
  if (steady_ns() >= deadline_ns_) return true;
  const std::lock_guard lock(runner_->s_->mutex);
  return runner_->s_->stopping || (runner_->s_->abandon_background && runner_->s_->spec.steps[step_].background &&
                                   runner_->s_->record.status.steps[step_].state == to_string(StepState::running));
}

void StepContext::say(std::string detail) {
  PlanStatus status;
  {
    const std::lock_guard lock(runner_->s_->mutex);
    runner_->s_->record.status.steps[step_].detail = std::move(detail);
    status = runner_->s_->snapshot();
  }
  if (runner_->s_->changed) runner_->s_->changed(status);
}

void StepContext::set(const std::string& key, std::string value) {
  const std::lock_guard lock(runner_->s_->mutex);
  runner_->s_->record.values[key] = std::move(value);
}

std::string StepContext::get(const std::string& key) const {
  const std::lock_guard lock(runner_->s_->mutex);
  const auto found = runner_->s_->record.values.find(key);
  return found == runner_->s_->record.values.end() ? std::string() : found->second;
}

PlanRunner::PlanRunner(PlanSpec spec, PlanJournal& journal, PlanTiming timing, Changed changed)
    : s_(std::make_unique<Shared>(std::move(spec), journal, std::move(timing), std::move(changed))) {
  if (!s_->timing.wall_ms) s_->timing.wall_ms = system_wall_ms;
  std::set<std::string> names;
  int epochs = 0;
  for (const StepSpec& step : s_->spec.steps) {
    CHECK(step.run != nullptr, "step {} has no body", step.name);
    CHECK(names.insert(step.name).second, "two steps are called {}", step.name);
    CHECK(!(step.records_epoch && step.background), "the epoch can't be recorded in the background");
    CHECK(!step.records_epoch || s_->spec.epoch_is_recorded != nullptr, "nobody to ask about the epoch of {}",
          step.name);
    epochs += step.records_epoch ? 1 : 0;
  }
  CHECK(epochs <= 1, "plan {} records {} epochs", s_->spec.kind, epochs);
}

PlanRunner::~PlanRunner() { stop(); }

Status PlanRunner::start() {
  const PlanSpec& spec = s_->spec;
  PlanRecord record;
  PlanStatus& p = record.status;
  p.id = spec.id, p.kind = spec.kind, p.state = to_string(PlanState::running), p.from = spec.from, p.to = spec.to;
  p.actor = spec.actor, p.reason = spec.reason, p.undo_with = spec.undo_with, p.started_ms = s_->timing.wall_ms();
  record.values = spec.values;
  for (const StepSpec& step : spec.steps) {
    p.steps.push_back(
        {step.name, step.owner, to_string(StepState::pending), 0, step.timeout_ms / 1000.0, 0, step.background, ""});
    if (step.records_epoch) record.values["epoch_step"] = step.name;
  }
  HF_TRY(s_->journal.write(record));  // before anything happens
  s_->record = std::move(record);
  launch(&PlanRunner::drive_forward);
  return {};
}

Status PlanRunner::resume(PlanRecord record) {
  const PlanSpec& spec = s_->spec;
  const auto& steps = record.status.steps;
  const bool same = record.status.id == spec.id && steps.size() == spec.steps.size() &&
                    std::equal(steps.begin(), steps.end(), spec.steps.begin(),
                               [](const auto& a, const auto& b) { return a.name == b.name; });
  if (!same)
    return tl::unexpected(Error{ErrorCode::corrupt,
                                fmt::format("plan {} was begun by a version with other steps", record.status.id),
                                "downgrade to that version to let it finish, or end it by hand", 0});
  for (std::size_t i = 0; i < steps.size(); ++i) {
    s_->live[i].before_s = steps[i].seconds;
    s_->live[i].was_running =
        steps[i].state == to_string(StepState::running) || steps[i].state == to_string(StepState::undoing);
  }
  s_->before_s = record.status.seconds;
  s_->record = std::move(record);
  std::optional<bool> epoch;
  if (spec.epoch_is_recorded)
    if (const auto answer = spec.epoch_is_recorded()) epoch = *answer;
  switch (decide_resume(s_->record, epoch)) {
    case ResumeDecision::finished:
      s_->ended = true;
      return {};
    case ResumeDecision::revert:
      launch(&PlanRunner::drive_revert);
      return {};
    case ResumeDecision::forward:
      if (epoch == true) s_->record.status.epoch_recorded = true;
      [[fallthrough]];
    case ResumeDecision::ask_again:  // drive_forward meets the running epoch step and settles it first
      launch(&PlanRunner::drive_forward);
      return {};
  }
  return {};
}

void PlanRunner::launch(void (PlanRunner::*drive)()) {
  s_->began_ns = steady_ns();
  s_->main = std::thread([this, drive] {
    (this->*drive)();
    for (std::thread& t : s_->background) t.join();
    {
      const std::lock_guard lock(s_->mutex);
      if (!s_->ended) s_->record.status.seconds = s_->snapshot().seconds;
      s_->ended = true;
    }
    s_->cv.notify_all();
  });
}

// Applies an edit to the record and makes it durable. false = the journal refuses and the plan has halted.
bool PlanRunner::change(const std::function<void(PlanRecord&)>& edit) {
  PlanStatus status;
  {
    const std::lock_guard journal_lock(s_->journal_mutex);
    PlanRecord copy;
    {
      const std::lock_guard lock(s_->mutex);
      if (s_->record.state() == PlanState::halted) return false;
      edit(s_->record);
      status = s_->snapshot();
      copy = s_->record;
      copy.status = status;
    }
    if (auto written = s_->journal.write(copy); !written) {
      halt(written.error());
      return false;
    }
  }
  s_->cv.notify_all();
  if (s_->changed) s_->changed(status);
  return true;
}

void PlanRunner::halt(const Error& error) {
  log_error("plan {} halts: its journal can't be written: {}", s_->spec.id, error.message);
  {
    const std::lock_guard lock(s_->mutex);
    s_->record.status.state = to_string(PlanState::halted);
    s_->record.status.error = error.message;
    s_->stopping = true;
  }
  s_->cv.notify_all();
}

Status PlanRunner::call(std::size_t i, const StepBody& body, bool resumed) {
  const StepSpec& step = s_->spec.steps[i];
  StepContext context;
  context.runner_ = this;
  context.step_ = i;
  context.plan_id_ = s_->spec.id;
  context.resumed_ = resumed;
  context.timeout_ms_ = step.timeout_ms;
  context.deadline_ns_ = steady_ns() + static_cast<std::int64_t>(step.timeout_ms) * 1'000'000;
  {
    const std::lock_guard lock(s_->mutex);
    context.attempt_ = s_->record.status.steps[i].attempts;
    s_->live[i].began_ns = steady_ns();
  }
  Status result = body(context);
  const bool late = steady_ns() >= context.deadline_ns_;
  {
    const std::lock_guard lock(s_->mutex);
    Shared::Live& live = s_->live[i];
    live.before_s += static_cast<double>(steady_ns() - live.began_ns) / 1e9;
    live.began_ns = 0;
    s_->record.status.steps[i].seconds = live.before_s;
  }
  // What succeeded late has succeeded: undoing it for lateness would only add a second change.
  if (!result && late && result.error().code != ErrorCode::timeout)
    return tl::unexpected(
        Error{ErrorCode::timeout,
              fmt::format("not finished within {:.1f} s: {}", step.timeout_ms / 1000.0, result.error().message),
              result.error().hint, 0});
  return result;
}

// Waits before the next attempt. false = don't try again: stopping, or an administrator skipped the step.
bool PlanRunner::back_off(std::size_t i, int failures) {
  std::int64_t wait_ms = s_->timing.first_retry_ms;
  for (int n = 1; n < failures && wait_ms < s_->timing.longest_retry_ms; ++n) wait_ms *= 2;
  wait_ms = std::min<std::int64_t>(wait_ms, s_->timing.longest_retry_ms);
  std::unique_lock lock(s_->mutex);
  Shared::Live& live = s_->live[i];
  live.retrying = true;
  s_->cv.wait_for(lock, std::chrono::milliseconds(wait_ms), [&] {
    return s_->stopping || live.skip || (s_->abandon_background && s_->spec.steps[i].background);
  });
  return !s_->stopping && !live.skip;
}

// The outcome of the epoch step is unknown: ask the register until it answers. true = recorded.
bool PlanRunner::settle_epoch(std::size_t i) {
  for (int failures = 1;; ++failures) {
    const auto answer = s_->spec.epoch_is_recorded();
    if (answer) return *answer;
    {
      const std::lock_guard lock(s_->mutex);
      s_->record.status.steps[i].detail = "can't tell whether the epoch is recorded: " + answer.error().message;
    }
    if (!back_off(i, failures)) return false;  // stopping: the caller looks at that first
  }
}

// Runs step i until it is done. false = the plan must not go on (revert, stop or halt; the caller tells by the record).
bool PlanRunner::run_step(std::size_t i) {
  const StepSpec& step = s_->spec.steps[i];
  bool resumed = s_->live[i].was_running;
  for (int failures = 0;;) {
    Status result;
    if (step.records_epoch && resumed) {
      // Never propose twice: what the first proposal did decides.
      if (!settle_epoch(i)) result = fail(ErrorCode::stale, "the epoch was not recorded before the restart");
    } else {
      if (!change([&](PlanRecord& r) {
            PlanStepStatus& s = r.status.steps[i];
            s.state = to_string(StepState::running), s.attempts += 1;
          }))
        return false;
      result = call(i, step.run, resumed);
      if (!result && step.records_epoch && settle_epoch(i)) result = {};
    }
    {
      const std::lock_guard lock(s_->mutex);
      if (!result && s_->stopping) return false;  // stays "running" in the journal: the resume decides
    }
    if (result)
      return change([&](PlanRecord& r) {
        r.status.steps[i].state = to_string(StepState::done);
        r.status.error.clear();
        if (step.records_epoch) r.status.epoch_recorded = true;
      });
    const std::string why = result.error().to_string();
    const bool forward_only = s_->locked([&] { return s_->record.status.epoch_recorded; });
    if (!forward_only) {
      change([&](PlanRecord& r) {
        r.status.steps[i].state = to_string(StepState::failed);
        r.status.steps[i].detail = why;
        r.status.error = step.name + ": " + why;
      });
      return false;
    }
    ++failures;
    const bool give_up = step.most_attempts > 0 && failures >= step.most_attempts;
    if (!change([&](PlanRecord& r) {
          r.status.steps[i].detail = why;
          r.status.error = step.name + ": " + why + (give_up ? "" : " (trying again)");
          if (give_up) {
            r.status.steps[i].state = to_string(StepState::failed);
            r.status.state = to_string(PlanState::abandoned);
          }
        }))
      return false;
    if (give_up) return false;
    if (!back_off(i, failures)) {
      const std::lock_guard lock(s_->mutex);
      if (!s_->live[i].skip || s_->stopping) return false;
      break;
    }
    resumed = true;  // a body that ran before looks before it leaps, restart or not
  }
  return change([&](PlanRecord& r) {
    r.status.steps[i].state = to_string(StepState::skipped);
    r.status.error.clear();
  });
}

// Tries until its time is over; a failure is shown, and is nobody else's concern.
void PlanRunner::run_background(std::size_t i) {
  const StepSpec& step = s_->spec.steps[i];
  const std::int64_t until = steady_ns() + static_cast<std::int64_t>(step.timeout_ms) * 1'000'000;
  for (int failures = 0;;) {
    if (!change([&](PlanRecord& r) { r.status.steps[i].attempts += 1; })) return;
    const Status result = call(i, step.run, s_->live[i].was_running || failures > 0);
    if (result) {
      change([&](PlanRecord& r) { r.status.steps[i].state = to_string(StepState::done); });
      return;
    }
    const bool stopping = s_->locked([&] { return s_->stopping; });
    if (stopping) return;
    const bool again = back_off(i, ++failures);
    const bool over = steady_ns() >= until;
    const bool skipped = s_->locked([&] { return s_->live[i].skip || s_->abandon_background; });
    if (!again && !skipped) return;
    if (!over && !skipped) continue;
    change([&](PlanRecord& r) {
      r.status.steps[i].state = to_string(StepState::failed);
      r.status.steps[i].detail = result.error().to_string();
    });
    return;
  }
}

void PlanRunner::drive_forward() {
  for (std::size_t i = 0; i < s_->spec.steps.size(); ++i) {
    const std::string state = s_->locked([&] { return s_->record.status.steps[i].state; });
    if (state == to_string(StepState::done) || state == to_string(StepState::skipped)) continue;
    if (s_->spec.steps[i].background) {
      if (state == to_string(StepState::failed)) continue;
      if (!change([&](PlanRecord& r) { r.status.steps[i].state = to_string(StepState::running); })) return;
      s_->background.emplace_back([this, i] { run_background(i); });
      continue;
    }
    if (run_step(i)) continue;
    const bool reverts = s_->locked(
        [&] { return !s_->stopping && s_->record.state() != PlanState::halted && !s_->record.status.epoch_recorded; });
    if (reverts) revert();
    return;
  }
  for (std::thread& t : s_->background) t.join();
  s_->background.clear();
  finish(PlanState::done);
}

void PlanRunner::drive_revert() { revert(); }

void PlanRunner::revert() {
  if (!change([&](PlanRecord& r) { r.status.state = to_string(PlanState::reverting); })) return;
  {
    const std::lock_guard lock(s_->mutex);
    s_->abandon_background = true;
  }
  s_->cv.notify_all();
  for (std::thread& t : s_->background) t.join();
  s_->background.clear();
  for (std::size_t i = s_->spec.steps.size(); i-- > 0;) {
    const bool undo = s_->locked([&] { return began(s_->record.status.steps[i].state); });
    if (undo && !undo_step(i)) return;
  }
  finish(PlanState::reverted);
}

bool PlanRunner::undo_step(std::size_t i) {
  const StepSpec& step = s_->spec.steps[i];
  if (step.undo) {
    if (!change([&](PlanRecord& r) { r.status.steps[i].state = to_string(StepState::undoing); })) return false;
    bool resumed = s_->live[i].was_running;
    for (int failures = 0;;) {
      const Status result = call(i, step.undo, resumed);
      if (result) break;
      const std::string why = result.error().to_string();
      {
        const std::lock_guard lock(s_->mutex);
        if (s_->stopping) return false;
      }
      if (!change([&](PlanRecord& r) { r.status.steps[i].detail = "undo: " + why; })) return false;
      if (!back_off(i, ++failures)) {
        const std::lock_guard lock(s_->mutex);
        if (!s_->live[i].skip || s_->stopping) return false;
        break;
      }
      resumed = true;
    }
  }
  return change([&](PlanRecord& r) { r.status.steps[i].state = to_string(StepState::undone); });
}

void PlanRunner::finish(PlanState state) {
  {
    // A stop that came while the last body ran doesn't matter: everything is done.
    const std::lock_guard lock(s_->mutex);
    if (s_->stopping && std::any_of(s_->record.status.steps.begin(), s_->record.status.steps.end(),
                                    [](const PlanStepStatus& s) { return s.state == to_string(StepState::running); }))
      return;
  }
  change([&](PlanRecord& r) { r.status.state = to_string(state); });
}

void PlanRunner::stop() {
  {
    const std::lock_guard lock(s_->mutex);
    s_->stopping = true;
  }
  s_->cv.notify_all();
  if (s_->main.joinable()) s_->main.join();
}

Status PlanRunner::skip(const std::string& step_name, const std::string& actor) {
  const std::lock_guard lock(s_->mutex);
  auto& steps = s_->record.status.steps;
  const auto found =
      std::find_if(steps.begin(), steps.end(), [&](const PlanStepStatus& s) { return s.name == step_name; });
  if (found == steps.end()) return fail(ErrorCode::not_found, "plan {} has no step \"{}\"", s_->spec.id, step_name);
  const auto i = static_cast<std::size_t>(found - steps.begin());
  const bool open = found->state == to_string(StepState::running) || found->state == to_string(StepState::undoing);
  if (!open || !s_->live[i].retrying || s_->spec.steps[i].records_epoch)
    return tl::unexpected(Error{ErrorCode::refused,
                                fmt::format("step \"{}\" is {} and not being retried", step_name, found->state),
                                "only a step that has failed and is tried again can be skipped", 0});
  s_->live[i].skip = true;
  found->detail += fmt::format(" (skipped by {})", actor);
  s_->cv.notify_all();
  return {};
}

PlanStatus PlanRunner::status() const {
  const std::lock_guard lock(s_->mutex);
  return s_->snapshot();
}

PlanState PlanRunner::wait() const {
  std::unique_lock lock(s_->mutex);
  s_->cv.wait(lock, [&] { return s_->ended; });
  return s_->record.state();
}

bool PlanRunner::finished() const {
  const std::lock_guard lock(s_->mutex);
  return s_->ended;
}

}  // namespace holdfast::control
