// SPDX-License-Identifier: Apache-2.0
#include "platform/durable_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>

namespace holdfast::platform {
namespace {

std::string folder_of(const std::string& path) {
  const std::string parent = std::filesystem::path(path).parent_path();
  return parent.empty() ? "." : parent;
}

class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

Status write_all(int fd, ByteView content, const std::string& path) {
  while (!content.empty()) {
    const ssize_t n = ::write(fd, content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "cannot write {}", path);
    content = content.subspan(static_cast<std::size_t>(n));
  }
  return {};
}

}  // namespace

Status sync_dir(const std::string& path) {
  const File dir(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (dir.get() < 0) return fail_errno(errno, "cannot open {}", path);
  if (::fsync(dir.get()) < 0) return fail_errno(errno, "cannot sync {}", path);
  return {};
}

Status write_file_durably(const std::string& path, ByteView content, mode_t mode) {
  const std::string temporary = path + ".new";
  {
    const File file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode));
    if (file.get() < 0) return fail_errno(errno, "cannot create {}", temporary);
    if (::fchmod(file.get(), mode) < 0) return fail_errno(errno, "cannot set the mode of {}", temporary);
    HF_TRY(write_all(file.get(), content, temporary));
    if (::fsync(file.get()) < 0) return fail_errno(errno, "cannot sync {}", temporary);
  }
  if (::rename(temporary.c_str(), path.c_str()) < 0) return fail_errno(errno, "cannot replace {}", path);
  return sync_dir(folder_of(path));
}

Result<Bytes> read_file(const std::string& path, std::size_t limit_bytes) {
  const File file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) return fail_errno(errno, "cannot open {}", path);
  Bytes content;
  std::uint8_t chunk[16384];
  for (;;) {
    const ssize_t n = ::read(file.get(), chunk, sizeof chunk);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "cannot read {}", path);
    if (n == 0) return content;
    if (content.size() + static_cast<std::size_t>(n) > limit_bytes)
      return fail(ErrorCode::invalid, "{} is larger than {} bytes", path, limit_bytes);
    content.insert(content.end(), chunk, chunk + n);
  }
}

Status append_durably(const std::string& path, ByteView content) {
  const bool existed = ::access(path.c_str(), F_OK) == 0;
  const File file(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (file.get() < 0) return fail_errno(errno, "cannot open {}", path);
  HF_TRY(write_all(file.get(), content, path));
  if (::fdatasync(file.get()) < 0) return fail_errno(errno, "cannot sync {}", path);
  return existed ? Status() : sync_dir(folder_of(path));
}

Status make_private_dir(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return fail_errno(error.value(), "cannot create {}", path);
  if (::chmod(path.c_str(), 0700) < 0) return fail_errno(errno, "cannot set the mode of {}", path);
  return {};
}

Status remove_file_durably(const std::string& path) {
  if (::unlink(path.c_str()) < 0) {
    if (errno == ENOENT) return {};
    return fail_errno(errno, "cannot remove {}", path);
  }
  return sync_dir(folder_of(path));
}

}  // namespace holdfast::platform
