// SPDX-License-Identifier: Apache-2.0
// systemd over sd-bus: jobs with their results, states, and the drop-in that keeps protected units from starting by themselves (R24).
// Calls block up to their time limit; one object a thread (each has its own bus connection, re-made when systemd dropped it).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/result.h"

struct sd_bus;

namespace holdfast::platform {

struct UnitState {
  std::string load;          // "loaded", "not-found", "masked"
  std::string active;        // "active", "inactive", "failed", "activating", "deactivating"
  std::string sub;           // "running", "exited", "dead"
  std::string result;        // "success", "exit-code", ... of the last run (services)
  bool condition_ok = true;  // false: the last start was skipped by a Condition (so "started" did nothing)
  std::string cgroup;        // "/system.slice/x.service"; empty when it has none
  bool exists() const { return load == "loaded"; }
  bool running() const { return active == "active" || active == "activating" || active == "reloading"; }
};

// Units protected by Holdfast start only while this file exists: /run is empty after a boot, so nothing protected starts by itself.
inline constexpr const char* applications_enabled_path = "/run/holdfast/applications-enabled";

struct UnitFolders {  // other roots for tests
  std::string drop_ins = "/etc/systemd/system";
  std::string enabled_flag = applications_enabled_path;
};

class SystemdUnits {
 public:
  static Result<SystemdUnits> connect(UnitFolders folders = {});
  SystemdUnits(SystemdUnits&&) noexcept;
  SystemdUnits& operator=(SystemdUnits&&) noexcept;
  ~SystemdUnits();

  // Wait for the job's end. "done" is success; a start skipped by a condition is an error (`refused`), a job that outlasts the limit is
  // `timeout` and stays with systemd. Starting what runs and stopping what does not are successes.
  Status start(const std::string& unit, int timeout_ms);
  Status stop(const std::string& unit, int timeout_ms);
  Status restart(const std::string& unit, int timeout_ms);
  Result<UnitState> state(const std::string& unit);
  // What systemd is about to do with it: "start", "stop", "restart", ...; empty: nothing.
  Result<std::string> job(const std::string& unit);
  Status reset_failed(const std::string& unit);

  // SIGKILL to everything in the unit's control group, again until it is empty. Processes in D state outlast it: `timeout` names how many.
  // Works without a unit file's co-operation, and keeps systemd from restarting it (the flag file must be gone first).
  Status kill_and_wait(const std::string& unit, int timeout_ms);

  // Drop-in UNIT.d/50-holdfast.conf: starts only while the flag file exists, after and with holdfast-mirror.service. Survives restarts and
  // reboots. Both reload systemd once for all units and are idempotent; return true when something changed.
  Result<bool> protect_units(const std::vector<std::string>& units);
  Result<bool> unprotect_units(const std::vector<std::string>& units);
  bool is_protected(const std::string& unit) const;

  // Before the first start on the active; taken away before the applications are stopped for good.
  Status enable_applications();
  Status disable_applications();
  bool applications_enabled() const;

 private:
  explicit SystemdUnits(UnitFolders folders) : folders_(std::move(folders)) {}
  Status ensure_bus();
  Result<std::string> unit_path(const std::string& unit);
  Status run_job(const char* method, const std::string& unit, int timeout_ms);
  Status daemon_reload();
  std::string drop_in_path(const std::string& unit) const;
  UnitFolders folders_;
  sd_bus* bus_ = nullptr;
};

// Is systemd this machine's init?
bool systemd_is_running();

}  // namespace holdfast::platform
