// SPDX-License-Identifier: Apache-2.0
#include "capture/directory.h"

#include <dirent.h>
#include <sys/syscall.h>

#include <cerrno>

namespace holdfast::capture {
namespace {

constexpr std::size_t buffer_bytes = 32 * 1024;

constexpr std::size_t name_offset = 19;  // linux_dirent64: no padding before d_name

}  // namespace

int DirectoryHandle::seek(std::int64_t cookie) {
  if (cookie != 0 && cookie == position_ && !buffer_.empty()) return 0;  // from the start means: look again
  if (lseek(fd_.get(), cookie, SEEK_SET) < 0) return errno;
  position_ = cookie;
  at_ = end_ = 0;
  return 0;
}

int DirectoryHandle::fill() {
  if (buffer_.empty()) buffer_.resize(buffer_bytes);
  const long n = syscall(SYS_getdents64, fd_.get(), buffer_.data(), buffer_.size());
  if (n < 0) return -errno;
  at_ = 0;
  end_ = static_cast<std::size_t>(n);
  return n > 0;
}

int DirectoryHandle::peek(DirectoryEntry& out) {
  if (at_ == end_) {
    if (const int got = fill(); got <= 0) return got;
  }
  const char* raw = buffer_.data() + at_;
  std::memcpy(&out.lower_ino, raw, 8);
  std::memcpy(&out.next, raw + 8, 8);
  std::memcpy(&out.type, raw + 18, 1);
  out.name = raw + name_offset;
  return 1;
}

void DirectoryHandle::advance() {
  const char* raw = buffer_.data() + at_;
  std::uint16_t length;
  std::memcpy(&position_, raw + 8, 8);
  std::memcpy(&length, raw + 16, 2);
  at_ += length;
}

}  // namespace holdfast::capture
