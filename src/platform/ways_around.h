// SPDX-License-Identifier: Apache-2.0
// Ways into a folder that lead past what is mounted over it: other mounts of its file system, here and in containers, overlays whose layers it
// holds, and files that the kernel itself has open. Whoever writes on such a way writes past the capture (R24). Any thread.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "platform/mounts.h"

namespace holdfast::platform {

// The mounts of other processes, one of each mount namespace that is not ours.
struct MountNamespace {
  int pid = 0;
  std::string command;
  std::vector<Mount> mounts;
};
std::vector<MountNamespace> other_mount_namespaces();

// `path` absolute and normalized, nothing of ours over it; `mounts`: of this namespace. Errors say what to do next.
Status check_other_mounts(const std::string& path, const std::vector<Mount>& mounts,
                          const std::vector<MountNamespace>& others);
// Layers of overlays in or around the folder.
Status check_overlays(const std::string& path, const std::vector<Mount>& mounts);
// Images of loop devices, swap files, exports of the kernel's NFS server.
Status check_kernel_users(const std::string& path);

// Parts of the above: the folders of an overlay's options, the first word of each line that is a path.
std::vector<std::string> overlay_layers(std::string_view options);
std::vector<std::string> first_paths(std::string_view text);

}  // namespace holdfast::platform
