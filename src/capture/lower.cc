// SPDX-License-Identifier: Apache-2.0
#include "capture/lower.h"

#include <sys/syscall.h>

#include <atomic>
#include <cerrno>

namespace holdfast::capture {
namespace {

struct HandleBuffer {
  alignas(struct file_handle) std::uint8_t raw[sizeof(struct file_handle) + MAX_HANDLE_SZ] = {};
  struct file_handle* get() {
    return reinterpret_cast<struct file_handle*>(raw);
  }
  std::uint8_t* bytes() { return raw + sizeof(struct file_handle); }
};

}  // namespace

int change_mode(int fd, mode_t mode) {
  constexpr long fchmodat2 = 452;  // since Linux 6.6, of x86-64 and arm64 alike; Debian 12's headers don't know it
  static std::atomic<bool> is_known{true};
  if (is_known.load(std::memory_order_relaxed)) {
    if (syscall(fchmodat2, fd, "", mode, AT_EMPTY_PATH) == 0) return 0;
    if (errno != ENOSYS) return errno;
    is_known = false;
  }
  return ::chmod(ProcPath(fd).c_str(), mode) ? errno : 0;
}

int handle_of(int fd, LowerHandle& out) {
  HandleBuffer buffer;
  buffer.get()->handle_bytes = MAX_HANDLE_SZ;
  int mount_id;
  if (name_to_handle_at(fd, "", buffer.get(), &mount_id, AT_EMPTY_PATH) != 0) return errno;
  if (buffer.get()->handle_bytes > out.bytes.size()) return EOVERFLOW;
  out.type = buffer.get()->handle_type;
  out.size = static_cast<std::uint8_t>(buffer.get()->handle_bytes);
  std::memcpy(out.bytes.data(), buffer.bytes(), out.size);
  return 0;
}

int open_handle(int mount_fd, const LowerHandle& handle, int flags) {
  HandleBuffer buffer;
  buffer.get()->handle_bytes = handle.size;
  buffer.get()->handle_type = handle.type;
  std::memcpy(buffer.bytes(), handle.bytes.data(), handle.size);
  return open_by_handle_at(mount_fd, buffer.get(), flags);
}

}  // namespace holdfast::capture
