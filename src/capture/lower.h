// SPDX-License-Identifier: Apache-2.0
// Small tools for the file system below: owned descriptors, paths of O_PATH descriptors, file handles.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <memory>

#include "base/result.h"

namespace holdfast::capture {

class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  Descriptor(Descriptor&& other) noexcept : fd_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  int get() const { return fd_; }
  int release() {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }

 private:
  int fd_;
};
using SharedDescriptor = std::shared_ptr<Descriptor>;

// "/proc/self/fd/N": follows to exactly the object of the descriptor, symbolic links themselves included. No allocation.
class ProcPath {
 public:
  explicit ProcPath(int fd) {
    std::memcpy(text_, "/proc/self/fd/", 14);
    *std::to_chars(text_ + 14, text_ + sizeof text_ - 1, fd).ptr = 0;
  }
  const char* c_str() const { return text_; }

 private:
  char text_[32];
};

// A handle of the file system below; opens the object whatever its name is now.
struct LowerHandle {
  std::int32_t type = 0;
  std::uint8_t size = 0;
  std::array<std::uint8_t, 43> bytes{};
};
inline constexpr const char* capability = "security.capability";
// As chmod(2), of the object that a descriptor of any kind stands for. 0, or the errno.
int change_mode(int fd, mode_t mode);
// 0, or the errno.
int handle_of(int fd, LowerHandle& out);
inline bool no_descriptors_left(int error) { return error == EMFILE || error == ENFILE; }
// A new descriptor or -1 and errno. `mount_fd`: any descriptor on that mount.
int open_handle(int mount_fd, const LowerHandle& handle, int flags);

inline std::int64_t nanoseconds(const timespec& t) { return std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec; }

}  // namespace holdfast::capture
