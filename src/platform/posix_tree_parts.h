// SPDX-License-Identifier: Apache-2.0
// What the files of PosixTree share.
#pragma once

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <string>

#include <fmt/core.h>

#include "platform/unique_fd.h"
#include "ports/tree.h"

namespace holdfast::platform::posix_tree_parts {

inline std::string text(std::string_view s) { return std::string(s); }
inline std::string proc_path(int fd) { return fmt::format("/proc/self/fd/{}", fd); }

inline char corner(ports::Grave why) {
  return why == ports::Grave::deleted ? 'd' : why == ports::Grave::orphan ? 'o' : 'l';
}

inline int rename_at(int dir, const std::string& name, int dir2, const std::string& name2, unsigned flags) {
  return static_cast<int>(::syscall(SYS_renameat2, dir, name.c_str(), dir2, name2.c_str(), flags));
}

// An empty or older descriptor table must not follow a symlink out of the tree: every name is taken with O_NOFOLLOW, relative to its folder.
inline UniqueFd open_path(int dir, const std::string& name) {
  return UniqueFd(::openat(dir, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
}

}  // namespace holdfast::platform::posix_tree_parts
