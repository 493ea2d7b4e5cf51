// SPDX-License-Identifier: Apache-2.0
#include "platform/open_child.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

namespace holdfast::platform {

namespace {

UniqueFd open_as(int folder, const char* name, mode_t type) {
  // O_NONBLOCK: a pipe that has taken the file's name meanwhile must not hold us.
  const int readable = type == S_IFREG ? O_RDONLY | O_NONBLOCK : O_RDONLY | O_DIRECTORY;
  if (type == S_IFREG || type == S_IFDIR) {
    UniqueFd fd(::openat(folder, name, readable | O_NOATIME | O_NOFOLLOW | O_CLOEXEC));
    if (fd) return fd;
  }
  return UniqueFd(::openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
}

}  // namespace

UniqueFd open_child(int folder, const char* name) {
  struct stat st {};
  if (::fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) != 0) return {};
  return open_as(folder, name, st.st_mode & S_IFMT);
}

UniqueFd open_child(int folder, const char* name, unsigned char type) {
  return type == DT_UNKNOWN ? open_child(folder, name) : open_as(folder, name, DTTOIF(type));
}

}  // namespace holdfast::platform
