// SPDX-License-Identifier: Apache-2.0
// Who keeps a file system from being unmounted: open files, working and root folders, mappings, mounts in other namespaces.
#pragma once

#include <string>
#include <vector>

#include <sys/types.h>

namespace holdfast::capture {

struct Holder {
  pid_t pid = 0;
  std::string command;  // as in /proc/PID/comm
  std::string what;     // a path it holds, or "mount namespace"
};

// `device`: "major:minor" of the file system. Never touches the file system itself, so it works while that hangs.
std::vector<Holder> find_holders(const std::string& device);
// Processes (one a namespace) that have the file system mounted in a mount namespace of their own which an unmount here doesn't reach.
// Services with private folders usually get our unmounts passed on (propagation) and are not holders.
std::vector<Holder> find_foreign_mounts(const std::string& device);

// Processes that have something of the real tree at `path` open, mapped or as a working folder, from before it was covered: they would go
// on writing beneath the mount. `device`: of the file system of the real tree.
std::vector<Holder> find_tree_holders(const std::string& device, const std::string& path);

}  // namespace holdfast::capture
