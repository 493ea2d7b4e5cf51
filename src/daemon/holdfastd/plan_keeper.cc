// SPDX-License-Identifier: Apache-2.0
#include "daemon/holdfastd/plan_keeper.h"

#include <chrono>
#include <future>
#include <thread>

#include "base/log.h"
#include "daemon/holdfastd/daemon.h"
#include "daemon/holdfastd/role_steps.h"

namespace holdfast::daemon {

using control::PlanRunner;
using control::PlanState;

constexpr std::int64_t activation_patience_ms = 15'000;

Result<nlohmann::json> call_mirror_in_step(MirrorPort& mirror, const control::StepContext& step, const std::string& op,
                                           nlohmann::json arguments, const std::function<bool()>& give_up) {
  auto answer = std::make_shared<std::promise<Result<nlohmann::json>>>();
  auto future = answer->get_future();
  mirror.request(op, std::move(arguments), std::max(1000, step.timeout_ms()),
                 [answer](Result<nlohmann::json> r) { answer->set_value(std::move(r)); });
  while (future.wait_for(std::chrono::milliseconds(20)) != std::future_status::ready)
    if (step.cancelled() || (give_up && give_up()))
      return fail(ErrorCode::timeout, "holdfast-mirror has not finished '{}' in time", op);
  return future.get();
}

PlanKeeper::PlanKeeper(Daemon& daemon) : daemon_(daemon), starter_(std::make_unique<Worker>()) {}
PlanKeeper::~PlanKeeper() { stop(); }

void PlanKeeper::open(const std::string& dir) {
  const std::lock_guard lock(mutex_);
  if (!journal_) journal_ = control::open_plan_journal(dir);
}

void PlanKeeper::stop() {
  starter_.reset();
  Runner role, command;
  {
    const std::lock_guard lock(mutex_);
    role.swap(role_);
    command.swap(command_);
  }
  if (role) role->stop();
  if (command) command->stop();
}

std::string PlanKeeper::next_id(const std::string& kind) const { return control::make_plan_id(kind, wall_ms()); }

PlanKeeper::Runner PlanKeeper::make_runner(control::PlanSpec spec) {
  return std::make_shared<PlanRunner>(std::move(spec), *journal_, control::PlanTiming{},
                                      [this](const control::PlanStatus& status) { changed(status); });
}

// One line per step that begins or fails, and one at the end.
void PlanKeeper::changed(const control::PlanStatus& s) {
  std::string line = fmt::format("{} {}", s.kind, s.state);
  for (const auto& step : s.steps) {
    if (step.state == "running" || step.state == "undoing")
      line = fmt::format("{}: {} ({})", s.kind, step.name, step.state);
    if (step.state == "failed") line = fmt::format("{}: {} failed: {}", s.kind, step.name, step.detail);
  }
  const bool over = s.state == "done" || s.state == "reverted" || s.state == "halted";
  if (over)
    line = fmt::format("{} {} after {:.1f} s{}{}", s.kind, s.state, s.seconds, s.error.empty() ? "" : ": ", s.error);
  {
    const std::lock_guard lock(mutex_);
    if (line == last_line_) return;
    last_line_ = line;
  }
  log_info("plan {}: {}", s.id, line);
  if (over) daemon_.event(s.state == "done" ? "info" : "warning", "plan_" + s.state, s.actor, line);
}

namespace {

// It captures, but its applications do not come up; somebody else, or another point, is the way out.
bool waits_for_health(const control::PlanStatus& plan) {
  bool confirms = false, tried = false;
  for (const auto& step : plan.steps) {
    confirms = confirms || step.name == confirm_step;
    if (step.owner == "applications" && step.state == "running" && step.attempts > 1) tried = true;
  }
  return confirms && tried;
}

}  // namespace

// The first activation of a node takes a moment after init, join or a restart; whoever asks for something else meanwhile can wait for it.
void PlanKeeper::wait_for_activation() const {
  const std::int64_t until = steady_ms() + activation_patience_ms;
  const auto activates = [this] {
    if (role_starting_ > 0) return true;
    const std::lock_guard lock(mutex_);
    return role_ && !role_->finished() && role_->status().kind == "activation";
  };
  while (activates() && steady_ms() < until) std::this_thread::sleep_for(std::chrono::milliseconds(25));
}

Status PlanKeeper::start_command(control::PlanSpec spec, bool leaves_unhealthy) {
  wait_for_activation();
  Runner old, next;
  bool leaves = false;
  {
    const std::lock_guard lock(mutex_);
    if (!journal_) return fail(ErrorCode::unavailable, "this node is in no cluster yet");
    if (command_ && !command_->finished())
      return tl::unexpected(Error{ErrorCode::busy, fmt::format("another plan is running: {}", command_->status().kind),
                                  "holdfast status shows it; try again when it is done", 0});
    leaves = leaves_unhealthy && role_ && !role_->finished() && waits_for_health(role_->status());
    if (role_ && !role_->finished() && !leaves)
      return tl::unexpected(Error{ErrorCode::busy, "a change of roles is under way",
                                  "holdfast status shows it; try again when it is done", 0});
  }
  if (leaves) end_role("given up for " + spec.kind);
  next = make_runner(std::move(spec));
  HF_TRY(next->start());
  const std::lock_guard lock(mutex_);
  old = std::move(command_);
  command_ = next;
  return {};
}

void PlanKeeper::start_role(control::PlanSpec spec) {
  end_role("a newer epoch was won");
  Runner next = make_runner(std::move(spec));
  const Status started = next->start();
  if (!started) {
    daemon_.event("error", "plan_journal", "holdfastd",
                  "the promotion can't be journalled: " + started.error().to_string());
    daemon_.loop().post("no journal", [this] { daemon_.give_up_office("its plan can't be journalled", NodeId{}); });
    return;
  }
  const std::lock_guard lock(mutex_);
  role_ = next;
}

void PlanKeeper::abandon_role_plan(const std::string& reason) {
  // Its bodies see by themselves that the office is gone; stopping it waits for them, so that is the worker's business.
  if (starter_) starter_->post([this, reason] { end_role(reason); });
}

void PlanKeeper::end_role(const std::string& reason) {
  Runner old;
  {
    const std::lock_guard lock(mutex_);
    old.swap(role_);
  }
  if (!old) return;
  const std::string id = old->status().id;
  old->stop();
  old.reset();
  auto record = journal_->read(id);
  if (!record || record->is_final()) return;
  record->status.state = control::to_string(PlanState::halted);
  record->status.error = reason;
  if (const Status written = journal_->write(*record); !written)
    log_error("plan {}: {}", id, written.error().to_string());
}

void PlanKeeper::close_old_plans(const std::string& why, const std::string& except) {
  const auto records = journal_->list();
  if (!records) return;
  for (control::PlanRecord record : *records) {
    if (record.is_final() || record.status.id == except) continue;
    record.status.state = control::to_string(PlanState::halted);
    record.status.error = why;
    if (const Status written = journal_->write(record); !written)
      log_error("plan {}: {}", record.status.id, written.error().to_string());
  }
  (void)journal_->prune(50);
}

void PlanKeeper::promote(const PromotionOrder& order) {
  ++role_starting_;
  auto spec = std::make_shared<control::PlanSpec>(promotion_spec(order));
  starter_->post([this, spec] {
    bool first = false;
    {
      const std::lock_guard lock(mutex_);
      first = !role_ && !command_;
    }
    if (first) close_old_plans("interrupted by a restart of the node", "");
    start_role(std::move(*spec));
    --role_starting_;
  });
}

void PlanKeeper::resume_in_office(Epoch epoch) {
  starter_->post([this, epoch] { resume_open_plan(epoch); });
}

void PlanKeeper::resume_open_plan(Epoch epoch) {
  const auto records = journal_->list();
  std::optional<control::PlanRecord> open;
  if (records)
    for (const control::PlanRecord& r : *records)
      if (!r.is_final()) open = r;
  close_old_plans("interrupted by a restart of holdfastd", open ? open->status.id : "");
  if (!open) return;
  const auto value = [&](const char* key) {
    const auto it = open->values.find(key);
    return it == open->values.end() ? std::string() : it->second;
  };
  const control::PlanStatus& s = open->status;
  if (value("epoch") != std::to_string(epoch.value) ||
      (value("plan") != "promotion" && value("plan") != "switchover" && value("plan") != "rollback")) {
    close_old_plans("interrupted by a restart of holdfastd", "");
    return;
  }
  Runner runner;
  if (value("plan") == "promotion") {
    PromotionOrder order{epoch,
                         s.kind,
                         s.id,
                         s.from,
                         s.actor,
                         s.reason,
                         value("older") == "yes",
                         rollback_from_values(open->values),
                         value("confirm") == "yes"};
    runner = make_runner(promotion_spec(order));
  } else {
    const auto target = node_id_from_hex(value("target"));
    if (!target) return close_old_plans("its journal names no successor", "");
    SwitchoverOrder order{s.id, *target, s.to, s.from, s.actor, s.reason, epoch, {}};
    if (value("plan") == "rollback") order.back = rollback_from_values(open->values);
    if (value("plan") == "rollback" && !order.back) return close_old_plans("its journal names no point", "");
    runner = make_runner(order.back ? rollback_spec(order) : switchover_spec(order));
  }
  const bool is_role = value("plan") == "promotion";
  if (const Status resumed = runner->resume(std::move(*open)); !resumed) {
    log_error("plan {} can't be resumed: {}", s.id, resumed.error().to_string());
    return close_old_plans("it could not be resumed: " + resumed.error().message, "");
  }
  const std::lock_guard lock(mutex_);
  (is_role ? role_ : command_) = runner;
}

std::optional<control::PlanStatus> PlanKeeper::running() const {
  Runner role, command;
  {
    const std::lock_guard lock(mutex_);
    role = role_;
    command = command_;
  }
  if (command && !command->finished()) return command->status();
  if (role && !role->finished()) return role->status();
  return std::nullopt;
}

Status PlanKeeper::skip(const std::string& id, const std::string& step, const std::string& actor) {
  Runner role, command;
  {
    const std::lock_guard lock(mutex_);
    role = role_;
    command = command_;
  }
  for (const Runner& r : {command, role})
    if (r && !r->finished() && (id.empty() || r->status().id == id)) return r->skip(step, actor);
  return fail(ErrorCode::not_found, "no such plan is running here");
}

Result<std::vector<control::PlanStatus>> PlanKeeper::history() const {
  Runner role, command;
  {
    const std::lock_guard lock(mutex_);
    if (!journal_) return fail(ErrorCode::not_found, "this node is in no cluster yet, so there are no plans");
    role = role_;
    command = command_;
  }
  HF_ASSIGN(const std::vector<control::PlanRecord> records, journal_->list());
  std::vector<control::PlanStatus> plans;
  for (const control::PlanRecord& r : records) {
    plans.push_back(r.status);
    for (const Runner& live : {role, command})
      if (live && !live->finished() && live->status().id == r.status.id) plans.back() = live->status();
  }
  return plans;
}

void PlanKeeper::close_what_a_restart_cut_off(const std::string& active) {
  if (!starter_) return;
  starter_->post([this, active] {
    {
      const std::lock_guard lock(mutex_);
      if (role_ || command_) return;  // of this life: they know by themselves
    }
    close_old_plans("interrupted by a restart of holdfastd; " + active + " is the active", "");
  });
}

bool PlanKeeper::role_plan_running() const {
  Runner role;
  {
    const std::lock_guard lock(mutex_);
    role = role_;
  }
  return role_starting_ > 0 || (role && !role->finished());
}

Result<control::PlanStatus> PlanKeeper::find(const std::string& id) const {
  Runner role, command;
  {
    const std::lock_guard lock(mutex_);
    if (!journal_) return fail(ErrorCode::not_found, "this node is in no cluster yet, so there are no plans");
    role = role_;
    command = command_;
  }
  for (const Runner& r : {command, role})
    if (r && (id.empty() ? !r->finished() : r->status().id == id)) return r->status();
  HF_ASSIGN(const std::vector<control::PlanRecord> records, journal_->list());
  for (auto r = records.rbegin(); r != records.rend(); ++r)
    if (id.empty() || r->status.id == id) return r->status;
  return fail(ErrorCode::not_found, "there is no plan {}", id.empty() ? std::string("yet") : id);
}

}  // namespace holdfast::daemon
