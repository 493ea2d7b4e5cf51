// SPDX-License-Identifier: Apache-2.0
#include "platform/descriptors.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cerrno>

namespace holdfast::platform {

Result<UniqueFd> duplicate(int fd) {
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
  if (!copy) return fail_errno(errno, "cannot duplicate a descriptor");
  return copy;
}

Result<UniqueFd> open_file(const std::string& path, int flags) {
  UniqueFd fd(::open(path.c_str(), flags | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "cannot open {}", path);
  return fd;
}

Result<std::string> device_of(int fd) {
  struct stat st {};
  if (::fstat(fd, &st) < 0) return fail_errno(errno, "cannot stat a descriptor");
  return std::to_string(major(st.st_dev)) + ":" + std::to_string(minor(st.st_dev));
}

}  // namespace holdfast::platform
