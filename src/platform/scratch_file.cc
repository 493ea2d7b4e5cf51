// SPDX-License-Identifier: Apache-2.0
#include "platform/scratch_file.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <cerrno>

namespace holdfast::platform {
namespace {

constexpr std::uint64_t ask_again_bytes = 4ULL << 20;
constexpr std::uint64_t push_bytes = 4ULL << 20;  // twice that is dirty or on its way at most

// Not every file system (an overlay, say) makes files without a name: then it loses it before anything is in it.
UniqueFd unnamed(const std::string& dir) {
  UniqueFd fd(::open(dir.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (fd || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)) return fd;
  const std::string path = dir + "/scratch.tmp";
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return {};
  fd.reset(::open(path.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600));
  if (fd && ::unlink(path.c_str()) != 0) return {};
  return fd;
}

}  // namespace

Result<std::unique_ptr<ScratchFile>> ScratchFile::open(const std::string& dir, std::uint64_t keep_free_bytes) {
  UniqueFd fd = unnamed(dir);
  if (!fd) return fail_errno(errno, "cannot make a file in {}", dir);
  return std::unique_ptr<ScratchFile>(new ScratchFile(std::move(fd), keep_free_bytes));
}

Status ScratchFile::read(std::uint64_t offset, std::span<std::uint8_t> into) {
  while (!into.empty()) {
    const ssize_t n = ::pread(fd_.get(), into.data(), into.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail_errno(errno, "cannot read what was written to a view of the past");
    if (n == 0) break;  // nothing was written there yet
    offset += static_cast<std::uint64_t>(n);
    into = into.subspan(static_cast<std::size_t>(n));
  }
  std::fill(into.begin(), into.end(), std::uint8_t{0});
  return {};
}

Status ScratchFile::check_room(std::uint64_t bytes) {
  std::uint64_t unchecked = unchecked_bytes_.load();
  if (unchecked < ask_again_bytes && unchecked + bytes < ask_again_bytes) {
    unchecked_bytes_ += bytes;
    return {};
  }
  struct statvfs fs {};
  if (::fstatvfs(fd_.get(), &fs) != 0) return fail_errno(errno, "cannot ask for the free space under the state folder");
  if (std::uint64_t{fs.f_bavail} * fs.f_frsize < keep_free_bytes_ + bytes)
    return fail(ErrorCode::no_space, "the file system of the state folder has {} MiB left, and the log needs them",
                (std::uint64_t{fs.f_bavail} * fs.f_frsize) >> 20);
  unchecked_bytes_ = bytes;
  return {};
}

// The piece before is on the disk when the next one begins.
Status ScratchFile::push(std::uint64_t bytes) {
  if (unpushed_bytes_.fetch_add(bytes) + bytes < push_bytes) return {};
  unpushed_bytes_ = 0;
  if (::sync_file_range(fd_.get(), 0, 0, SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE) != 0)
    return fail_errno(errno, "what was written to a view of the past can't be stored");
  return {};
}

Status ScratchFile::write(std::uint64_t offset, ByteView bytes) {
  HF_TRY(check_room(bytes.size()));
  const std::uint64_t all = bytes.size();
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return fail_errno(n < 0 ? errno : ENOSPC, "cannot write to a view of the past");
    offset += static_cast<std::uint64_t>(n);
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
  return push(all);
}

Status ScratchFile::discard(std::uint64_t offset, std::uint64_t length) {
  if (::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(offset),
                  static_cast<off_t>(length)) != 0)
    return fail_errno(errno, "cannot give back what a view of the past took");
  return {};
}

}  // namespace holdfast::platform
