// SPDX-License-Identifier: Apache-2.0
#include "platform/live_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "log/ship.h"
#include "platform/object_xattrs.h"
#include "platform/open_child.h"
#include "platform/read_aside.h"

namespace holdfast::platform {
namespace {

constexpr off_t read_ahead_bytes = 128 * 1024;  // from there on the kernel does it by itself

std::int64_t nanoseconds(const timespec& t) { return t.tv_sec * 1'000'000'000LL + t.tv_nsec; }

class Object final : public ports::LiveObject {
 public:
  Object(UniqueFd fd, SetNumber set, const FileId& id, FileIndex& index)
      : fd_(std::move(fd)), set_(set), id_(id), index_(index) {}

  Result<ports::NodeAttributes> attributes() override {
    struct stat st {};
    if (::fstatat(fd_.get(), "", &st, AT_EMPTY_PATH) != 0) return fail_errno(errno, "cannot stat {}", id_.to_hex());
    ports::NodeAttributes a;
    a.mode = st.st_mode;
    a.uid = st.st_uid;
    a.gid = st.st_gid;
    a.rdev = st.st_rdev;
    a.size = static_cast<std::uint64_t>(st.st_size);
    a.links = st.st_nlink;
    a.atime_ns = nanoseconds(st.st_atim);
    a.mtime_ns = nanoseconds(st.st_mtim);
    return a;
  }

  Result<Bytes> xattrs() override { return read_all_xattrs(fd_.get()); }

  Result<std::string> target() override {
    std::string target(4096, '\0');
    const ssize_t n = ::readlinkat(fd_.get(), "", target.data(), target.size());
    if (n < 0) return fail_errno(errno, "cannot read the link {}", id_.to_hex());
    target.resize(static_cast<std::size_t>(n));
    return target;
  }

  Result<ports::TreeListing> list(std::uint64_t cookie, std::size_t max_entries, std::size_t max_bytes) override {
    UniqueFd own(::openat(fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOATIME));
    DIR* stream = own ? ::fdopendir(own.release()) : nullptr;
    if (!stream) return fail_errno(errno, "cannot read the folder {}", id_.to_hex());
    if (cookie != 0) ::seekdir(stream, static_cast<long>(cookie));
    ports::TreeListing listing;
    std::vector<std::pair<ino_t, std::string>> names;
    std::size_t bytes = 0;
    int error = 0;
    while (names.size() < max_entries && bytes + log::max_ship_entry_bytes <= max_bytes) {
      errno = 0;
      const dirent* entry = ::readdir(stream);
      if (!entry) {
        error = errno;
        listing.end = true;
        break;
      }
      const std::string_view name = entry->d_name;
      if (name == "." || name == ".." || (id_.is_root() && name == ports::hidden_name)) continue;
      names.emplace_back(entry->d_ino, name);
      bytes += 16 + 3 + 2 + name.size();
    }
    listing.cookie = static_cast<std::uint64_t>(::telldir(stream));
    ::closedir(stream);
    if (error != 0) return fail_errno(error, "cannot read the folder {}", id_.to_hex());
    std::sort(names.begin(), names.end());
    for (auto& [ino, name] : names) {
      note_object_opened();
      const UniqueFd child = open_child(fd_.get(), name.c_str());
      if (!child && errno == ENOENT) continue;
      struct stat st {};
      if (!child || ::fstatat(child.get(), "", &st, AT_EMPTY_PATH) != 0)
        return fail_errno(errno, "cannot open \"{}\"", name);
      HF_ASSIGN(const FileId id, index_.identify(child.get(), set_));
      listing.entries.push_back({std::move(name), id, st.st_mode & S_IFMT});
    }
    return listing;
  }

  Result<std::optional<ports::TreeEntry>> lookup(std::string_view name) override {
    using Found = std::optional<ports::TreeEntry>;
    if (id_.is_root() && name == ports::hidden_name) return Found{};
    const std::string child_name(name);
    const UniqueFd child = open_child(fd_.get(), child_name.c_str());
    if (!child && errno == ENOENT) return Found{};
    struct stat st {};
    if (!child || ::fstatat(child.get(), "", &st, AT_EMPTY_PATH) != 0)
      return fail_errno(errno, "cannot open \"{}\"", name);
    HF_ASSIGN(const FileId id, index_.identify(child.get(), set_));
    return Found(ports::TreeEntry{child_name, id, st.st_mode & S_IFMT});
  }

  Result<FileId> parent() override {
    if (id_.is_root()) return FileId{};
    const UniqueFd above(::openat(fd_.get(), "..", O_PATH | O_CLOEXEC));
    if (!above) return fail_errno(errno, "cannot open the folder that holds {}", id_.to_hex());
    return index_.identify(above.get(), set_);
  }

  Result<std::size_t> read(std::uint64_t offset, std::span<std::uint8_t> into) override {
    std::size_t done = 0;
    while (done < into.size()) {
      const ssize_t n = ::pread(fd_.get(), into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
      if (n == 0) break;
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail_errno(errno, "cannot read {}", id_.to_hex());
      done += static_cast<std::size_t>(n);
    }
    return done;
  }

  Result<std::size_t> read_aside(std::uint64_t offset, std::span<std::uint8_t> into) override {
    const std::int64_t n = platform::read_aside(fd_.get(), offset, into);
    if (n < 0) return fail_errno(static_cast<int>(-n), "cannot read {}", id_.to_hex());
    return static_cast<std::size_t>(n);
  }

  Result<std::uint64_t> next_data(std::uint64_t offset) override { return seek(offset, SEEK_DATA); }
  Result<std::uint64_t> next_hole(std::uint64_t offset) override { return seek(offset, SEEK_HOLE); }

 private:
  Result<std::uint64_t> seek(std::uint64_t offset, int whence) {
    const off_t at = ::lseek(fd_.get(), static_cast<off_t>(offset), whence);
    if (at >= 0) return static_cast<std::uint64_t>(at);
    if (errno != ENXIO) return fail_errno(errno, "cannot look for holes in {}", id_.to_hex());
    HF_ASSIGN(const auto a, attributes());
    return a.size;
  }

  UniqueFd fd_;
  SetNumber set_;
  FileId id_;
  FileIndex& index_;
};

}  // namespace

void PosixLiveTree::add(SetNumber set, UniqueFd root) {
  const std::unique_lock lock(mutex_);
  roots_[set] = std::make_shared<UniqueFd>(std::move(root));
}

void PosixLiveTree::remove(SetNumber set) {
  const std::unique_lock lock(mutex_);
  roots_.erase(set);
}

std::shared_ptr<UniqueFd> PosixLiveTree::root_of(SetNumber set) const {
  const std::shared_lock lock(mutex_);
  const auto it = roots_.find(set);
  return it == roots_.end() ? nullptr : it->second;
}

void PosixLiveTree::will_read(SetNumber set, const FileId& id) {
  const auto root = root_of(set);
  const auto handle = root ? index_.find(id) : Result<std::optional<FileHandle>>{};
  if (!handle || !*handle || (*handle)->type_bits != S_IFREG) return;
  const auto fd = open_by_handle(root->get(), **handle, O_RDONLY | O_NOATIME);
  if (fd && *fd) ::posix_fadvise(fd->get(), 0, read_ahead_bytes, POSIX_FADV_WILLNEED);
}

Status PosixLiveTree::with_object(SetNumber set, const FileId& id,
                                  const std::function<Status(ports::LiveObject&)>& body) {
  const auto root = root_of(set);
  if (!root) return fail(ErrorCode::unavailable, "set {} is not here", set);
  HF_ASSIGN(const std::optional<FileHandle> handle, index_.find(id));
  if (!handle) return fail(ErrorCode::not_found, "{} is gone", id.to_hex());
  Status status;
  with_locked_(set, id, [&] {
    const int flags = handle->type_bits == S_IFREG   ? O_RDONLY | O_NOATIME
                      : handle->type_bits == S_IFDIR ? O_RDONLY | O_DIRECTORY | O_NOATIME
                                                     : O_PATH | O_NOFOLLOW;
    auto fd = open_by_handle(root->get(), *handle, flags);
    if (!fd) {
      status = tl::unexpected(std::move(fd).error());
      return;
    }
    struct stat st {};
    if (!*fd || ::fstatat(fd->get(), "", &st, AT_EMPTY_PATH) != 0 || st.st_nlink == 0) {
      status = fail(ErrorCode::not_found, "{} is gone", id.to_hex());
      return;
    }
    Object object(std::move(*fd), set, id, index_);
    status = body(object);
  });
  return status;
}

}  // namespace holdfast::platform
