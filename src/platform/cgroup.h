// SPDX-License-Identifier: Apache-2.0
// A control group by its path in systemd's tree: kill everything in it, wait until it is empty. Any thread.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace holdfast::platform {

class Cgroup {
 public:
  // `path` as systemd's ControlGroup property has it: "/system.slice/x.service".
  explicit Cgroup(const std::string& path);

  // SIGKILL to all, atomically with forks (kernel 5.14, cgroup v2). False where that does not exist; a group that is gone is a success.
  bool kill_all() const;
  // A group that is gone is empty. `timeout` says how many processes are left; `what` names it in the error.
  Status wait_empty(int timeout_ms, const std::string& what) const;
  std::vector<int> processes() const;  // with those of groups inside

 private:
  std::string folder_;  // that systemd uses, "" if none was found
  bool v2_ = false;
};

}  // namespace holdfast::platform
