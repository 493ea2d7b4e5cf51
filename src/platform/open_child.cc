// SPDX-License-Identifier: Apache-2.0
#include "platform/open_child.h"

#include <fcntl.h>
#include <sys/stat.h>

namespace holdfast::platform {

UniqueFd open_child(int folder, const char* name) {
  struct stat st {};
  if (::fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) != 0) return {};
  // O_NONBLOCK: a pipe that has taken the file's name meanwhile must not hold us.
  const int readable = S_ISREG(st.st_mode) ? O_RDONLY | O_NONBLOCK : S_ISDIR(st.st_mode) ? O_RDONLY | O_DIRECTORY : 0;
  if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) {
    UniqueFd fd(::openat(folder, name, readable | O_NOATIME | O_NOFOLLOW | O_CLOEXEC));
    if (fd) return fd;
  }
  return UniqueFd(::openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
}

}  // namespace holdfast::platform
