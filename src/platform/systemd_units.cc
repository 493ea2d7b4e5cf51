// SPDX-License-Identifier: Apache-2.0
#include "platform/systemd_units.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <filesystem>
#include <utility>

#include "base/log.h"
#include "platform/cgroup.h"
#include "platform/durable_file.h"
#include "platform/unique_fd.h"

namespace holdfast::platform {
namespace {

using clock = std::chrono::steady_clock;

constexpr const char* service = "org.freedesktop.systemd1";
constexpr const char* manager_path = "/org/freedesktop/systemd1";
constexpr const char* manager = "org.freedesktop.systemd1.Manager";

constexpr std::string_view drop_in =
    "# Written by holdfast when the application was protected; `holdfast unprotect` removes it.\n"
    "# The unit starts only where its application is active: its data is read-only everywhere else.\n"
    "[Unit]\n"
    "ConditionPathExists={}\n"
    "Requires=holdfast-mirror.service\n"
    "After=holdfast-mirror.service\n";

struct BusError {
  sd_bus_error error = SD_BUS_ERROR_NULL;
  ~BusError() { sd_bus_error_free(&error); }
  std::string text(int r) const { return error.message != nullptr ? error.message : strerrordesc_np(-r); }
};

struct Message {
  sd_bus_message* m = nullptr;
  ~Message() { sd_bus_message_unref(m); }
};

struct Slot {
  sd_bus_slot* slot = nullptr;
  ~Slot() { sd_bus_slot_unref(slot); }
};

// What the JobRemoved signals said so far; ours may come before the call that made the job has returned.
struct Job {
  std::string path;
  std::vector<std::pair<std::string, std::string>> ended;  // job path, result
  const std::string* result() const {
    for (const auto& [ended_path, ended_result] : ended)
      if (ended_path == path) return &ended_result;
    return nullptr;
  }
};

int on_job_removed(sd_bus_message* message, void* data, sd_bus_error*) {
  const char *path = nullptr, *unit = nullptr, *result = nullptr;
  std::uint32_t id = 0;
  if (sd_bus_message_read(message, "uoss", &id, &path, &unit, &result) >= 0)
    static_cast<Job*>(data)->ended.emplace_back(path, result);
  return 0;
}

std::int64_t left_ms(clock::time_point deadline) {
  return std::max<std::int64_t>(0, std::chrono::ceil<std::chrono::milliseconds>(deadline - clock::now()).count());
}

Status job_result(const std::string& result, const char* method, const std::string& unit) {
  if (result == "done" || result == "skipped")
    return {};  // skipped: nothing had to be done, or a condition; start() looks at that
  if (result == "timeout")
    return fail(ErrorCode::timeout, "{} of {} timed out in systemd: see journalctl -u {}", method, unit, unit);
  if (result == "dependency")
    return fail(ErrorCode::unavailable,
                "{} of {} failed because a unit it needs failed: see systemctl list-dependencies {}", method, unit,
                unit);
  if (result == "canceled")
    return fail(ErrorCode::busy, "{} of {} was cancelled by somebody else's request for it", method, unit);
  return fail(ErrorCode::io, "{} of {} ended with \"{}\": see journalctl -u {}", method, unit, result, unit);
}

}  // namespace

Result<SystemdUnits> SystemdUnits::connect(UnitFolders folders) {
  SystemdUnits units(std::move(folders));
  HF_TRY(units.ensure_bus());
  return units;
}

SystemdUnits::SystemdUnits(SystemdUnits&& other) noexcept
    : folders_(std::move(other.folders_)), bus_(std::exchange(other.bus_, nullptr)) {}

SystemdUnits& SystemdUnits::operator=(SystemdUnits&& other) noexcept {
  std::swap(folders_, other.folders_);
  std::swap(bus_, other.bus_);
  return *this;
}

SystemdUnits::~SystemdUnits() { sd_bus_close_unref(bus_); }

Status SystemdUnits::ensure_bus() {
  if (bus_ != nullptr && sd_bus_is_open(bus_) > 0) return {};
  sd_bus_close_unref(bus_);
  bus_ = nullptr;
  // Through the message bus, as systemctl does for jobs; its private socket is no public interface.
  if (const int r = sd_bus_open_system(&bus_); r < 0)
    return fail_errno(-r, "cannot reach systemd over D-Bus (is dbus.service running?)");
  BusError error;
  // Without a subscription the manager sends no JobRemoved.
  const int r = sd_bus_call_method(bus_, service, manager_path, manager, "Subscribe", &error.error, nullptr, "");
  if (r < 0) return fail(ErrorCode::unavailable, "systemd does not answer on D-Bus: {}", error.text(r));
  return {};
}

Result<std::string> SystemdUnits::unit_path(const std::string& unit) {
  HF_TRY(ensure_bus());
  BusError error;
  Message reply;
  int r =
      sd_bus_call_method(bus_, service, manager_path, manager, "LoadUnit", &error.error, &reply.m, "s", unit.c_str());
  const char* path = nullptr;
  if (r >= 0) r = sd_bus_message_read(reply.m, "o", &path);
  if (r < 0) return fail(ErrorCode::unavailable, "systemd can't load {}: {}", unit, error.text(r));
  return std::string(path);
}

Result<UnitState> SystemdUnits::state(const std::string& unit) {
  HF_ASSIGN(const std::string path, unit_path(unit));
  const auto text = [&](const char* interface, const char* name) {
    char* value = nullptr;
    BusError error;
    if (sd_bus_get_property_string(bus_, service, path.c_str(), interface, name, &error.error, &value) < 0)
      return std::string();
    std::string result(value);
    free(value);
    return result;
  };
  constexpr const char* unit_interface = "org.freedesktop.systemd1.Unit";
  UnitState s;
  s.load = text(unit_interface, "LoadState");
  s.active = text(unit_interface, "ActiveState");
  s.sub = text(unit_interface, "SubState");
  if (s.load.empty() || s.active.empty())
    return fail(ErrorCode::unavailable, "systemd did not tell the state of {}", unit);
  int condition = 1;
  std::uint64_t condition_time = 0;
  BusError error;
  if (sd_bus_get_property_trivial(bus_, service, path.c_str(), unit_interface, "ConditionTimestampMonotonic",
                                  &error.error, 't', &condition_time) >= 0 &&
      condition_time != 0 &&
      sd_bus_get_property_trivial(bus_, service, path.c_str(), unit_interface, "ConditionResult", &error.error, 'b',
                                  &condition) >= 0)
    s.condition_ok = condition != 0;
  if (unit.ends_with(".service")) {
    s.result = text("org.freedesktop.systemd1.Service", "Result");
    s.cgroup = text("org.freedesktop.systemd1.Service", "ControlGroup");
  }
  return s;
}

Result<std::string> SystemdUnits::job(const std::string& unit) {
  HF_ASSIGN(const std::string path, unit_path(unit));
  BusError error;
  Message reply;
  int r = sd_bus_get_property(bus_, service, path.c_str(), "org.freedesktop.systemd1.Unit", "Job", &error.error,
                              &reply.m, "(uo)");
  if (r < 0) return fail_errno(-r, "systemd did not tell the job of {}: {}", unit, error.text(r));
  std::uint32_t id = 0;
  const char* job_path = nullptr;
  if (r = sd_bus_message_read(reply.m, "(uo)", &id, &job_path); r < 0)
    return fail_errno(-r, "systemd did not tell the job of {}", unit);
  if (id == 0) return std::string();
  char* value = nullptr;
  r = sd_bus_get_property_string(bus_, service, job_path, "org.freedesktop.systemd1.Job", "JobType", &error.error,
                                 &value);
  if (r < 0) return fail_errno(-r, "systemd did not tell the job of {}: {}", unit, error.text(r));
  std::string type(value);
  free(value);
  return type;
}

Status SystemdUnits::run_job(const char* method, const std::string& unit, int timeout_ms) {
  HF_TRY(ensure_bus());
  const auto deadline = clock::now() + std::chrono::milliseconds(timeout_ms);
  Job job;
  Slot slot;
  int r = sd_bus_match_signal(bus_, &slot.slot, service, manager_path, manager, "JobRemoved", on_job_removed, &job);
  if (r < 0) return fail_errno(-r, "cannot listen to systemd's jobs");
  BusError error;
  Message reply;
  r = sd_bus_call_method(bus_, service, manager_path, manager, method, &error.error, &reply.m, "ss", unit.c_str(),
                         "replace");
  const char* path = nullptr;
  if (r >= 0) r = sd_bus_message_read(reply.m, "o", &path);
  if (r < 0) {
    if (sd_bus_error_has_name(&error.error, "org.freedesktop.systemd1.NoSuchUnit"))
      return fail(ErrorCode::not_found, "there is no unit {} on this machine: install the application", unit);
    if (sd_bus_error_has_name(&error.error, "org.freedesktop.systemd1.UnitMasked"))
      return fail(ErrorCode::refused, "{} is masked: systemctl unmask {}", unit, unit);
    return fail(ErrorCode::unavailable, "{} of {} was refused by systemd: {}", method, unit, error.text(r));
  }
  job.path = path;
  while (job.result() == nullptr) {
    r = sd_bus_process(bus_, nullptr);
    if (r < 0) return fail_errno(-r, "lost the connection to systemd while waiting for {} of {}", method, unit);
    if (r > 0) continue;
    const std::int64_t left = left_ms(deadline);
    if (left == 0)
      return fail(ErrorCode::timeout, "{} of {} takes longer than {} ms: see systemctl status {}", method, unit,
                  timeout_ms, unit);
    sd_bus_wait(bus_, static_cast<std::uint64_t>(left) * 1000);
  }
  return job_result(*job.result(), method, unit);
}

Status SystemdUnits::start(const std::string& unit, int timeout_ms) {
  HF_TRY(run_job("StartUnit", unit, timeout_ms));
  // A start that a condition prevented counts as done for systemd, but nothing runs.
  HF_ASSIGN(const UnitState now, state(unit));
  if (!now.condition_ok && !now.running())
    return fail(ErrorCode::refused, "{} did not start: one of its conditions does not hold (systemctl status {})", unit,
                unit);
  if (now.active == "failed")
    return fail(ErrorCode::io, "{} failed right after its start ({}): see journalctl -u {}", unit, now.result, unit);
  return {};
}

Status SystemdUnits::stop(const std::string& unit, int timeout_ms) { return run_job("StopUnit", unit, timeout_ms); }

Status SystemdUnits::restart(const std::string& unit, int timeout_ms) {
  HF_TRY(run_job("RestartUnit", unit, timeout_ms));
  HF_ASSIGN(const UnitState now, state(unit));
  if (!now.condition_ok && !now.running())
    return fail(ErrorCode::refused, "{} did not start again: one of its conditions does not hold", unit);
  return {};
}

Status SystemdUnits::reset_failed(const std::string& unit) {
  HF_TRY(ensure_bus());
  BusError error;
  const int r = sd_bus_call_method(bus_, service, manager_path, manager, "ResetFailedUnit", &error.error, nullptr, "s",
                                   unit.c_str());
  if (r < 0) return fail(ErrorCode::unavailable, "cannot clear the failure of {}: {}", unit, error.text(r));
  return {};
}

Status SystemdUnits::kill_and_wait(const std::string& unit, int timeout_ms) {
  const auto deadline = clock::now() + std::chrono::milliseconds(timeout_ms);
  HF_ASSIGN(const UnitState now, state(unit));
  if (now.cgroup.empty()) return {};
  const Cgroup group(now.cgroup);
  if (!group.kill_all()) {
    // No cgroup.kill here: systemd does it, process by process.
    BusError error;
    const int r = sd_bus_call_method(bus_, service, manager_path, manager, "KillUnit", &error.error, nullptr, "ssi",
                                     unit.c_str(), "all", SIGKILL);
    if (r < 0 && now.running()) return fail(ErrorCode::unavailable, "cannot kill {}: {}", unit, error.text(r));
  }
  HF_TRY(group.wait_empty(static_cast<int>(left_ms(deadline)), unit));
  // Also ends a pending automatic restart.
  return stop(unit, static_cast<int>(std::max<std::int64_t>(1'000, left_ms(deadline))));
}

std::string SystemdUnits::drop_in_path(const std::string& unit) const {
  return folders_.drop_ins + "/" + unit + ".d/50-holdfast.conf";
}

bool SystemdUnits::is_protected(const std::string& unit) const { return access(drop_in_path(unit).c_str(), F_OK) == 0; }

Status SystemdUnits::daemon_reload() {
  HF_TRY(ensure_bus());
  BusError error;
  const int r = sd_bus_call_method(bus_, service, manager_path, manager, "Reload", &error.error, nullptr, "");
  if (r < 0) return fail(ErrorCode::unavailable, "systemd can't reload its units: {}", error.text(r));
  return {};
}

Result<bool> SystemdUnits::protect_units(const std::vector<std::string>& units) {
  const std::string text = fmt::format(fmt::runtime(drop_in), folders_.enabled_flag);
  bool changed = false;
  for (const std::string& unit : units) {
    const std::string path = drop_in_path(unit);
    if (const Result<Bytes> now = read_file(path); now && as_text(*now) == text) continue;
    const std::string folder = path.substr(0, path.rfind('/'));
    if (mkdir(folder.c_str(), 0755) != 0 && errno != EEXIST) return fail_errno(errno, "cannot create {}", folder);
    HF_TRY(sync_dir(folders_.drop_ins));
    HF_TRY(write_file_durably(path, as_bytes(text), 0644));
    changed = true;
  }
  if (changed) HF_TRY(daemon_reload());
  return changed;
}

Result<bool> SystemdUnits::unprotect_units(const std::vector<std::string>& units) {
  bool changed = false;
  for (const std::string& unit : units) {
    const std::string path = drop_in_path(unit);
    if (!is_protected(unit)) continue;
    HF_TRY(remove_file_durably(path));
    rmdir(path.substr(0, path.rfind('/')).c_str());  // stays when the administrator has drop-ins of their own in it
    changed = true;
  }
  if (changed) HF_TRY(daemon_reload());
  return changed;
}

Status SystemdUnits::enable_applications() {
  const UniqueFd fd(open(folders_.enabled_flag.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644));
  if (!fd) return fail_errno(errno, "cannot create {}", folders_.enabled_flag);
  return {};
}

Status SystemdUnits::disable_applications() {
  if (unlink(folders_.enabled_flag.c_str()) != 0 && errno != ENOENT)
    return fail_errno(errno, "cannot remove {}", folders_.enabled_flag);
  return {};
}

bool SystemdUnits::applications_enabled() const { return access(folders_.enabled_flag.c_str(), F_OK) == 0; }

bool systemd_is_running() { return sd_booted() > 0; }

}  // namespace holdfast::platform
