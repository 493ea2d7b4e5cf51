// SPDX-License-Identifier: Apache-2.0
#include "platform/segment_store.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>

#include "platform/durable_file.h"
#include "platform/unique_fd.h"

namespace holdfast::platform {
namespace {

// A sync of a segment that was written before costs half of one whose blocks are new: those need a commit of the file system's journal. So what
// is given up is kept aside, as much of it as a busy active fills between two checkpoints, unless the disk gets full.
constexpr std::size_t max_spares = 32;
constexpr std::size_t first_spares = 4;
constexpr std::uint64_t keep_free_fraction = 8;

class File final : public ports::SegmentFile {
 public:
  File(UniqueFd fd, std::uint64_t size, std::string path) : fd_(std::move(fd)), size_(size), path_(std::move(path)) {}
  std::uint64_t size() const override { return size_; }

  Result<std::size_t> read_at(std::uint64_t offset, std::span<std::uint8_t> into) override {
    std::size_t done = 0;
    while (done < into.size()) {
      const ssize_t n = ::pread(fd_.get(), into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
      if (n == 0) break;
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail_errno(errno, "cannot read {}", path_);
      done += static_cast<std::size_t>(n);
    }
    return done;
  }

  Status write_at(std::uint64_t offset, std::span<const ByteView> pieces) override {
    std::array<iovec, 8> parts;
    std::size_t count = 0;
    for (const ByteView piece : pieces) {
      if (count == parts.size()) HF_TRY(write_parts(parts, std::exchange(count, 0), offset));
      if (!piece.empty()) parts[count++] = {const_cast<std::uint8_t*>(piece.data()), piece.size()};
    }
    return write_parts(parts, count, offset);
  }

  Status sync() override {
    if (::fdatasync(fd_.get()) != 0) return fail_errno(errno, "{} could not be made durable", path_);
    return {};
  }

 private:
  // Moves `offset` on.
  Status write_parts(std::span<iovec> parts, std::size_t count, std::uint64_t& offset) {
    for (iovec* part = parts.data(); count > 0;) {
      ssize_t n = ::pwritev(fd_.get(), part, static_cast<int>(count), static_cast<off_t>(offset));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail_errno(errno, "cannot write {}", path_);
      offset += static_cast<std::uint64_t>(n);
      for (; count > 0 && static_cast<std::size_t>(n) >= part->iov_len; ++part, --count)
        n -= static_cast<ssize_t>(part->iov_len);
      if (n > 0) {
        part->iov_base = static_cast<std::uint8_t*>(part->iov_base) + n;
        part->iov_len -= static_cast<std::size_t>(n);
      }
    }
    return {};
  }

  UniqueFd fd_;
  std::uint64_t size_;
  std::string path_;
};

std::string name_of(const char* prefix, std::uint64_t number) { return fmt::format("{}{:012}", prefix, number); }

}  // namespace

Result<std::unique_ptr<FolderSegmentStore>> FolderSegmentStore::open(const std::string& dir,
                                                                     std::uint64_t segment_bytes) {
  HF_TRY(make_private_dir(dir));
  std::unique_ptr<FolderSegmentStore> made(new FolderSegmentStore(dir));
  HF_ASSIGN(const auto segments, made->numbers("seg-"));
  HF_ASSIGN(const auto spares, made->numbers("spare-"));
  for (std::size_t n = spares.size(); segments.empty() && n < first_spares; ++n)
    HF_TRY(made->make_spare(segment_bytes));
  return made;
}

Result<std::unique_ptr<FolderSegmentStore>> FolderSegmentStore::open_scratch(
    const std::string& dir, std::function<std::uint64_t()> keep_free_bytes) {
  HF_TRY(make_private_dir(dir));
  std::unique_ptr<FolderSegmentStore> made(new FolderSegmentStore(dir));
  HF_TRY(made->remove_all());
  made->keep_free_bytes_ = std::move(keep_free_bytes);
  return made;
}

Status FolderSegmentStore::clear_scratch(const std::string& dir) {
  std::error_code error;
  std::filesystem::remove_all(dir, error);
  if (error) return fail_errno(error.value(), "cannot remove {}", dir);
  return {};
}

Status FolderSegmentStore::keep_free(std::uint64_t bytes) {
  struct statvfs fs {};
  if (::statvfs(dir_.c_str(), &fs) != 0) return fail_errno(errno, "cannot look at {}", dir_);
  const std::uint64_t free = static_cast<std::uint64_t>(fs.f_bavail) * fs.f_frsize, keep = keep_free_bytes_();
  if (free >= keep + bytes) return {};
  return fail(ErrorCode::no_space, "only {} MiB are free under {}, of which {} are kept", free >> 20, dir_, keep >> 20);
}

Result<std::vector<std::uint64_t>> FolderSegmentStore::numbers(const char* prefix) {
  DIR* stream = ::opendir(dir_.c_str());
  if (!stream) return fail_errno(errno, "cannot read {}", dir_);
  std::vector<std::uint64_t> found;
  while (const dirent* entry = ::readdir(stream)) {
    std::string_view name = entry->d_name;
    if (!name.starts_with(prefix)) continue;
    name.remove_prefix(std::strlen(prefix));
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (error == std::errc() && end == name.data() + name.size()) found.push_back(number);
  }
  ::closedir(stream);
  std::sort(found.begin(), found.end());
  return found;
}

Result<std::vector<std::uint64_t>> FolderSegmentStore::list() { return numbers("seg-"); }

Status FolderSegmentStore::make_spare(std::uint64_t bytes) {
  HF_ASSIGN(const auto spares, numbers("spare-"));
  const std::string path = dir_ + "/" + name_of("spare-", spares.empty() ? 1 : spares.back() + 1);
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd) return fail_errno(errno, "cannot make {}", path);
  const Bytes zeros(1U << 20);
  for (std::uint64_t at = 0; at < bytes; at += zeros.size())
    if (::pwrite(fd.get(), zeros.data(), std::min<std::uint64_t>(zeros.size(), bytes - at), static_cast<off_t>(at)) < 0)
      return fail_errno(errno, "cannot write {}", path);
  if (::fsync(fd.get()) != 0) return fail_errno(errno, "cannot make {} durable", path);
  return sync_dir(dir_);
}

Result<std::unique_ptr<ports::SegmentFile>> FolderSegmentStore::create(std::uint64_t number, std::uint64_t bytes) {
  const std::string path = dir_ + "/" + name_of("seg-", number);
  if (keep_free_bytes_) HF_TRY(keep_free(bytes));
  HF_ASSIGN(const auto spares, numbers("spare-"));
  for (const std::uint64_t spare : spares) {
    const std::string old = dir_ + "/" + name_of("spare-", spare);
    struct stat st {};
    if (::stat(old.c_str(), &st) != 0 || static_cast<std::uint64_t>(st.st_size) != bytes) {
      ::unlink(old.c_str());
      continue;
    }
    if (::rename(old.c_str(), path.c_str()) != 0) return fail_errno(errno, "cannot rename {}", old);
    break;
  }
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!fd) return fail_errno(errno, "cannot make {}", path);
  if (const int rc = ::posix_fallocate(fd.get(), 0, static_cast<off_t>(bytes)); rc != 0) {
    ::unlink(path.c_str());  // half of it would be taken for a damaged segment
    return fail_errno(rc, "cannot make room for {}", path);
  }
  if (!keep_free_bytes_) HF_TRY(sync_dir(dir_));
  return std::make_unique<File>(std::move(fd), bytes, path);
}

Result<std::unique_ptr<ports::SegmentFile>> FolderSegmentStore::open(std::uint64_t number) {
  const std::string path = dir_ + "/" + name_of("seg-", number);
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  struct stat st {};
  if (!fd || ::fstat(fd.get(), &st) != 0) return fail_errno(errno, "cannot open {}", path);
  return std::make_unique<File>(std::move(fd), static_cast<std::uint64_t>(st.st_size), path);
}

Status FolderSegmentStore::remove(std::uint64_t number) {
  const std::string path = dir_ + "/" + name_of("seg-", number);
  HF_ASSIGN(const auto spares, numbers("spare-"));
  const std::string spare = dir_ + "/" + name_of("spare-", spares.empty() ? 1 : spares.back() + 1);
  struct statvfs fs {};
  const bool roomy = ::statvfs(dir_.c_str(), &fs) == 0 && fs.f_bavail > fs.f_blocks / keep_free_fraction;
  const bool keep = !keep_free_bytes_ && roomy && spares.size() < max_spares;
  const int rc = keep ? ::rename(path.c_str(), spare.c_str()) : ::unlink(path.c_str());
  if (rc != 0) return fail_errno(errno, "cannot give up {}", path);
  return keep_free_bytes_ ? Status{} : sync_dir(dir_);
}

// Spares too: after a reset sequences may begin lower than what their old bytes say.
Status FolderSegmentStore::remove_all() {
  for (const char* prefix : {"seg-", "spare-"}) {
    HF_ASSIGN(const auto found, numbers(prefix));
    for (const std::uint64_t number : found) {
      const std::string path = dir_ + "/" + name_of(prefix, number);
      if (::unlink(path.c_str()) != 0) return fail_errno(errno, "cannot remove {}", path);
    }
  }
  return sync_dir(dir_);
}

std::int64_t SystemTimes::realtime_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_REALTIME, &t);
  return t.tv_sec * 1'000'000'000LL + t.tv_nsec;
}
std::int64_t SystemTimes::steady_ns() {
  timespec t{};
  ::clock_gettime(CLOCK_BOOTTIME, &t);
  return t.tv_sec * 1'000'000'000LL + t.tv_nsec;
}

}  // namespace holdfast::platform
