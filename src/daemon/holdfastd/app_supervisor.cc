// SPDX-License-Identifier: Apache-2.0
#include "daemon/holdfastd/app_supervisor.h"

#include <algorithm>
#include <chrono>
#include <set>

#include "base/log.h"
#include "platform/postgresql_probe.h"
#include "platform/systemd_units.h"

namespace holdfast::daemon {
namespace {

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

std::vector<std::string> units_of(const std::vector<apps::Application>& applications) {
  std::vector<std::string> units;
  for (const auto& r : apps::start_order(applications)) units.push_back(r.unit);
  return units;
}

}  // namespace

AppSupervisor::AppSupervisor(std::string node, Events events) : node_(std::move(node)), events_(std::move(events)) {
  thread_ = std::thread([this] { run(); });
}

AppSupervisor::~AppSupervisor() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void AppSupervisor::set_node(std::string node) {
  const std::lock_guard lock(mutex_);
  node_ = std::move(node);
}

void AppSupervisor::leave_alone(const std::string& name) {
  const std::lock_guard lock(mutex_);
  if (const auto it = apps_.find(name); it != apps_.end())
    it->second.health.step(now_ms(), {apps::HealthInput::Kind::stopped, ""});
}

std::vector<apps::Application> AppSupervisor::list() const {
  const std::lock_guard lock(mutex_);
  std::vector<apps::Application> all;
  for (const std::string& name : order_) all.push_back(apps_.at(name).application);
  return all;
}

Status AppSupervisor::configure(const std::vector<apps::Application>& applications) {
  const std::vector<std::string> before = units_of(list()), after = units_of(applications);
  {
    const std::lock_guard lock(mutex_);
    std::map<std::string, Watched> next;
    order_.clear();
    for (const apps::Application& a : applications) {
      order_.push_back(a.name);
      Watched& w = next[a.name];
      const auto old = apps_.find(a.name);
      if (old != apps_.end()) w = std::move(old->second);
      w.application = a;
      // Folders alone: nothing will be started, so on the active it serves from now on.
      if (old == apps_.end() && a.resources.empty() && running_)
        w.health.step(now_ms(), {apps::HealthInput::Kind::started, ""});
    }
    apps_ = std::move(next);
  }
  HF_ASSIGN(auto systemd, platform::SystemdUnits::connect());
  if (!after.empty()) HF_TRY(systemd.protect_units(after));
  std::vector<std::string> gone;
  for (const std::string& unit : before)
    if (std::find(after.begin(), after.end(), unit) == after.end()) gone.push_back(unit);
  if (!gone.empty()) HF_TRY(systemd.unprotect_units(gone));
  return {};
}

Status AppSupervisor::rest(const std::vector<apps::Application>& applications) {
  HF_ASSIGN(auto systemd, platform::SystemdUnits::connect());
  if (systemd.applications_enabled()) return kill();
  HF_TRY(systemd.disable_applications());
  return stop_units(apps::stop_order(applications), [](const std::string& text) { log_info("{}", text); });
}

Status AppSupervisor::stop_units(const std::vector<apps::Resource>& resources, const Say& say) {
  HF_ASSIGN(auto systemd, platform::SystemdUnits::connect());
  for (const apps::Resource& r : resources) {
    HF_ASSIGN(const platform::UnitState state, systemd.state(r.unit));
    if (!state.exists() || (!state.running() && state.active != "deactivating")) continue;
    say("stopping " + r.unit);
    const Status stopped = systemd.stop(r.unit, r.stop_timeout_ms);
    if (!stopped) {
      log_warning("{} did not stop, it is killed: {}", r.unit, stopped.error().message);
      HF_TRY(systemd.kill_and_wait(r.unit, 10'000));
    }
  }
  return {};
}

Status AppSupervisor::start(const Say& say, const Cancelled& cancelled) {
  const auto applications = list();
  {
    const std::lock_guard lock(mutex_);
    activity_ = "starting";
  }
  const auto body = [&]() -> Status {
    HF_ASSIGN(auto systemd, platform::SystemdUnits::connect());
    HF_TRY(systemd.enable_applications());
    for (const apps::Resource& r : apps::start_order(applications)) {
      if (cancelled()) return fail(ErrorCode::timeout, "not started in time: {}", r.unit);
      say("starting " + r.unit);
      (void)systemd.reset_failed(r.unit);
      HF_TRY(systemd.start(r.unit, r.start_timeout_ms));
    }
    return {};
  };
  const Status started = body();
  {
    const std::lock_guard lock(mutex_);
    activity_.clear();
  }
  if (!started) return started;
  running_ = true;
  tell_all(apps::HealthInput::Kind::started);
  return {};
}

void AppSupervisor::adopt_running() {
  running_ = true;
  tell_all(apps::HealthInput::Kind::started);
}

Status AppSupervisor::stop(const Say& say, const Cancelled&) {
  running_ = false;
  tell_all(apps::HealthInput::Kind::stopped);
  {
    const std::lock_guard lock(mutex_);
    activity_ = "stopping";
  }
  const auto body = [&]() -> Status {
    HF_ASSIGN(auto systemd, platform::SystemdUnits::connect());
    HF_TRY(systemd.disable_applications());
    return stop_units(apps::stop_order(list()), say);
  };
  const Status stopped = body();
  const std::lock_guard lock(mutex_);
  activity_.clear();
  return stopped;
}

Status AppSupervisor::kill() {
  running_ = false;
  tell_all(apps::HealthInput::Kind::stopped);
  HF_ASSIGN(auto systemd, platform::SystemdUnits::connect());
  HF_TRY(systemd.disable_applications());
  Status verdict;
  for (const apps::Resource& r : apps::stop_order(list())) {
    const Status killed = systemd.kill_and_wait(r.unit, 15'000);
    if (!killed) verdict = killed;
    (void)systemd.reset_failed(r.unit);
  }
  return verdict;
}

Result<bool> AppSupervisor::all_gone() {
  HF_ASSIGN(auto systemd, platform::SystemdUnits::connect());
  for (const apps::Resource& r : apps::stop_order(list())) {
    HF_ASSIGN(const platform::UnitState state, systemd.state(r.unit));
    if (state.exists() && (state.running() || state.active == "deactivating")) return false;
  }
  return true;
}

Status AppSupervisor::confirm(const Say& say, const Cancelled& cancelled) {
  for (const apps::Application& a : list()) {
    if (a.resources.empty()) continue;
    for (;;) {
      const Outcome outcome = check(a);
      if (outcome.ok) break;
      say(fmt::format("{}: {}", a.name, outcome.reason));
      if (cancelled()) return fail(ErrorCode::timeout, "{} is not healthy: {}", a.name, outcome.reason);
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, std::chrono::milliseconds(200));  // a probe is asked again; it tells nobody by itself
    }
    say(a.name + " is healthy");
  }
  return {};
}

Result<bool> AppSupervisor::quiesce(int timeout_ms) {
  bool all = true;
  const bool up = running_;
  for (const apps::Application& a : list()) {
    if (!up || a.resources.empty()) continue;  // nothing of it is in memory
    if (apps::quiesce_of(a.plugin) == apps::QuiesceKind::none) all = false;
    if (apps::quiesce_of(a.plugin) != apps::QuiesceKind::postgresql_checkpoint) continue;
    for (const apps::PostgresqlInstance& p : a.postgresql)
      HF_TRY(platform::checkpoint_postgresql(probe_of(p, timeout_ms)));
  }
  return all;
}

platform::PostgresqlProbe AppSupervisor::probe_of(const apps::PostgresqlInstance& p, int timeout_ms) const {
  platform::PostgresqlProbe probe;
  probe.port = p.port;
  probe.owner = p.owner;
  probe.timeout_ms = timeout_ms;
  probe.node = node_;
  return probe;
}

void AppSupervisor::tell_all(apps::HealthInput::Kind kind) {
  {
    const std::lock_guard lock(mutex_);
    for (auto& [name, w] : apps_) {
      w.health.step(now_ms(), {kind, ""});
      w.next_check_ms = 0;
      w.resources.clear();
      w.detail.clear();
    }
  }
  changed_.notify_all();
}

void AppSupervisor::run() {
  for (;;) {
    std::string due;
    apps::Application application;
    {
      std::unique_lock lock(mutex_);
      for (;;) {
        if (stopping_) return;
        std::int64_t next = now_ms() + 1000;
        due.clear();
        for (auto& [name, w] : apps_) {
          if (!running_) break;
          if (w.next_check_ms <= now_ms()) due = name;
          next = std::min(next, w.next_check_ms);
        }
        if (!due.empty()) break;
        changed_.wait_for(lock, std::chrono::milliseconds(std::max<std::int64_t>(1, next - now_ms())));
      }
      Watched& w = apps_.at(due);
      w.next_check_ms = now_ms() + w.application.check_interval_ms;
      application = w.application;
    }
    const Outcome outcome = check(application);
    if (running_) take(due, outcome);
  }
}

AppSupervisor::Outcome AppSupervisor::check(const apps::Application& a) const {
  Outcome o;
  o.ok = true;
  auto systemd = platform::SystemdUnits::connect();
  if (!systemd) return {false, false, systemd.error().message, {}, {}};
  for (const apps::Resource& r : a.resources) {
    const auto state = systemd->state(r.unit);
    const bool up = state && state->active == "active";
    o.resources.push_back({r.unit, "unit",
                           up      ? "running"
                           : state ? state->active
                                   : "unknown",
                           state ? state->sub : state.error().message});
    if (up || !o.ok) continue;
    o.ok = false;
    o.gone = state && !state->running();
    o.reason = fmt::format("{} is {}", r.unit, state ? state->active : state.error().message);
  }
  if (!o.ok || a.probe != apps::ProbeKind::postgresql_write) return o;
  for (const apps::PostgresqlInstance& p : a.postgresql) {
    const auto health = platform::probe_postgresql(probe_of(p, a.check_timeout_ms));
    o.resources.push_back({fmt::format("write to {}/{}", p.version, p.name), "probe", health ? "ok" : "failed",
                           health ? fmt::format("commit {:.1f} ms", health->commit_ms) : health.error().message});
    if (health) {
      for (const std::string& w : apps::unprotected_locations(a, health->tablespaces)) o.warnings.push_back(w);
    } else if (o.ok) {
      o.ok = false;
      o.reason = fmt::format("a write to PostgreSQL {}/{} failed: {}", p.version, p.name, health.error().message);
    }
  }
  return o;
}

void AppSupervisor::take(const std::string& name, const Outcome& outcome) {
  std::vector<apps::HealthAction> actions;
  {
    const std::lock_guard lock(mutex_);
    const auto it = apps_.find(name);
    if (it == apps_.end()) return;
    it->second.resources = outcome.resources;
    it->second.warnings = outcome.warnings;
    it->second.detail = outcome.reason;
    using Kind = apps::HealthInput::Kind;
    actions = it->second.health.step(now_ms(), {outcome.ok     ? Kind::probe_ok
                                                : outcome.gone ? Kind::gone
                                                               : Kind::probe_failed,
                                                outcome.reason});
  }
  act(name, actions);
}

void AppSupervisor::act(const std::string& name, const std::vector<apps::HealthAction>& actions) {
  for (const apps::HealthAction& action : actions) {
    events_.event(action.kind == apps::FailureAction::alert ? "error" : "warning", name + ": " + action.text);
    if (action.kind == apps::FailureAction::restart) restart(name);
    if (action.kind == apps::FailureAction::switchover) events_.switchover_wanted(name, action.text);
  }
}

void AppSupervisor::restart(const std::string& name) {
  apps::Application application;
  {
    const std::lock_guard lock(mutex_);
    if (!running_) return;
    application = apps_.at(name).application;
  }
  const auto body = [&]() -> Status {
    HF_TRY(stop_units(apps::stop_order({application}), [](const std::string&) {}));
    HF_ASSIGN(auto systemd, platform::SystemdUnits::connect());
    for (const apps::Resource& r : application.resources) {
      if (!running_) return fail(ErrorCode::busy, "the applications are being stopped");
      (void)systemd.reset_failed(r.unit);
      HF_TRY(systemd.start(r.unit, r.start_timeout_ms));
    }
    return {};
  };
  const Status done = body();
  std::vector<apps::HealthAction> actions;
  {
    const std::lock_guard lock(mutex_);
    const auto it = apps_.find(name);
    if (it == apps_.end() || !running_) return;
    using Kind = apps::HealthInput::Kind;
    actions = it->second.health.step(now_ms(), done ? apps::HealthInput{Kind::restart_done, ""}
                                                    : apps::HealthInput{Kind::restart_failed, done.error().message});
  }
  events_.event(done ? "info" : "warning",
                done ? name + " was restarted in place" : name + " could not be restarted: " + done.error().message);
  act(name, actions);
}

std::vector<control::ApplicationStatus> AppSupervisor::status() const {
  const std::lock_guard lock(mutex_);
  std::vector<control::ApplicationStatus> all;
  for (const std::string& name : order_) {
    const Watched& w = apps_.at(name);
    control::ApplicationStatus s;
    s.name = name;
    s.plugin = w.application.plugin;
    s.detail = w.detail;
    s.resources = w.resources;
    s.on = node_;
    using apps::HealthState;
    const HealthState h = w.health.state();
    s.state = !activity_.empty()          ? activity_
              : h == HealthState::stopped ? "stopped"
              : h == HealthState::failed  ? "failed"
                                          : "running";
    s.health = h == HealthState::healthy                                 ? "healthy"
               : h == HealthState::failed                                ? "error"
               : h == HealthState::stopped || h == HealthState::starting ? "unknown"
                                                                         : "warning";
    all.push_back(std::move(s));
  }
  return all;
}

std::vector<control::Alert> AppSupervisor::alerts() const {
  const std::lock_guard lock(mutex_);
  std::vector<control::Alert> all;
  for (const auto& [name, w] : apps_) {
    for (const std::string& text : w.warnings)
      all.push_back({"warning", "unprotected_data", name + ": " + text, "", 0});
    if (running_ && w.health.state() == apps::HealthState::failed)
      all.push_back({"error", "application_failed", name + ": " + w.health.last_reason(),
                     "journalctl, then holdfast make-active on another node", 0});
  }
  return all;
}

}  // namespace holdfast::daemon
