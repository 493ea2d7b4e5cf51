// SPDX-License-Identifier: Apache-2.0
#include "platform/descriptors.h"

#include <fcntl.h>
#include <sys/mman.h>
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

Result<UniqueFd> nameless_file(std::string_view text) {
  UniqueFd fd(::memfd_create("holdfast", MFD_CLOEXEC));
  if (!fd || ::pwrite(fd.get(), text.data(), text.size(), 0) != static_cast<ssize_t>(text.size()))
    return fail_errno(errno, "cannot make a file in memory");
  return fd;
}

Result<std::string> read_whole(int fd, std::size_t most_bytes) {
  std::string text(most_bytes, '\0');
  const ssize_t n = ::pread(fd, text.data(), text.size(), 0);
  if (n < 0) return fail_errno(errno, "cannot read a file in memory");
  text.resize(static_cast<std::size_t>(n));
  return text;
}

Result<std::string> device_of(int fd) {
  struct stat st {};
  if (::fstat(fd, &st) < 0) return fail_errno(errno, "cannot stat a descriptor");
  return std::to_string(major(st.st_dev)) + ":" + std::to_string(minor(st.st_dev));
}

}  // namespace holdfast::platform
