// SPDX-License-Identifier: Apache-2.0
#include "platform/live_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "log/ship.h"
#include "platform/object_xattrs.h"
#include "platform/open_child.h"
#include "platform/read_aside.h"
#include "platform/read_once.h"
#include "platform/stat_attributes.h"

namespace holdfast::platform {

struct PosixLiveTree::Opened {
  FileHandle handle;
  UniqueFd file;
  std::unique_ptr<ReadOnce> once;  // has the descriptor then
  int fd() const { return once ? once->fd() : file.get(); }
};

namespace {

constexpr off_t read_ahead_bytes = 128 * 1024;  // from there on the kernel does it by itself
constexpr std::size_t most_soon = 256, most_begun = 4, most_listed = 128;

// Not one that only names its file, for want of a better one.
bool is_readable(int fd) { return (::fcntl(fd, F_GETFL) & O_PATH) == 0; }

class Object final : public ports::LiveObject {
 public:
  // `st`: as it is, and stays while the object is locked.
  Object(PosixLiveTree::Opened& opened, const struct stat& st, SetNumber set, const FileId& id, FileIndex& index)
      : opened_(opened), st_(st), set_(set), id_(id), index_(index) {}
  std::vector<std::pair<FileId, UniqueFd>> listed;  // the first of the files that were opened for a listing

  Result<ports::NodeAttributes> attributes() override { return attributes_of(st_); }

  Result<Bytes> xattrs() override { return read_all_xattrs(opened_.fd()); }

  Result<std::string> target() override {
    std::string target(4096, '\0');
    const ssize_t n = ::readlinkat(opened_.fd(), "", target.data(), target.size());
    if (n < 0) return fail_errno(errno, "cannot read the link {}", id_.to_hex());
    target.resize(static_cast<std::size_t>(n));
    return target;
  }

  Result<ports::TreeListing> list(std::uint64_t cookie, std::size_t max_entries, std::size_t max_bytes) override {
    UniqueFd own(::openat(opened_.fd(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOATIME));
    DIR* stream = own ? ::fdopendir(own.release()) : nullptr;
    if (!stream) return fail_errno(errno, "cannot read the folder {}", id_.to_hex());
    if (cookie != 0) ::seekdir(stream, static_cast<long>(cookie));
    ports::TreeListing listing;
    std::vector<std::tuple<ino_t, std::string, unsigned char>> names;
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
      names.emplace_back(entry->d_ino, name, entry->d_type);
      bytes += 16 + 3 + 2 + name.size();
    }
    listing.cookie = static_cast<std::uint64_t>(::telldir(stream));
    ::closedir(stream);
    if (error != 0) return fail_errno(error, "cannot read the folder {}", id_.to_hex());
    std::sort(names.begin(), names.end());
    for (auto& [ino, name, type] : names) {
      note_object_opened();
      UniqueFd child = open_child(opened_.fd(), name.c_str(), type);
      if (!child && errno == ENOENT) continue;
      struct stat st {};
      if (!child || ::fstatat(child.get(), "", &st, AT_EMPTY_PATH) != 0)
        return fail_errno(errno, "cannot open \"{}\"", name);
      HF_ASSIGN(const FileId id, index_.identify(child.get(), st, set_));
      if (S_ISREG(st.st_mode) && listed.size() < most_listed && is_readable(child.get()))
        listed.emplace_back(id, std::move(child));
      listing.entries.push_back({std::move(name), id, st.st_mode & S_IFMT});
    }
    return listing;
  }

  Result<std::optional<ports::TreeEntry>> lookup(std::string_view name) override {
    using Found = std::optional<ports::TreeEntry>;
    if (id_.is_root() && name == ports::hidden_name) return Found{};
    const std::string child_name(name);
    const UniqueFd child = open_child(opened_.fd(), child_name.c_str());
    if (!child && errno == ENOENT) return Found{};
    struct stat st {};
    if (!child || ::fstatat(child.get(), "", &st, AT_EMPTY_PATH) != 0)
      return fail_errno(errno, "cannot open \"{}\"", name);
    HF_ASSIGN(const FileId id, index_.identify(child.get(), set_));
    return Found(ports::TreeEntry{child_name, id, st.st_mode & S_IFMT});
  }

  Result<FileId> parent() override {
    if (id_.is_root()) return FileId{};
    const UniqueFd above(::openat(opened_.fd(), "..", O_PATH | O_CLOEXEC));
    if (!above) return fail_errno(errno, "cannot open the folder that holds {}", id_.to_hex());
    return index_.identify(above.get(), set_);
  }

  Result<std::size_t> read(std::uint64_t offset, std::span<std::uint8_t> into) override {
    if (!opened_.once && S_ISREG(st_.st_mode) && static_cast<std::uint64_t>(st_.st_size) >= read_once_least_bytes)
      opened_.once = std::make_unique<ReadOnce>(std::move(opened_.file), static_cast<std::uint64_t>(st_.st_size));
    if (opened_.once) {
      const std::int64_t n = opened_.once->read(offset, into);
      if (n < 0) return fail_errno(static_cast<int>(-n), "cannot read {}", id_.to_hex());
      return static_cast<std::size_t>(n);
    }
    std::size_t done = 0;
    while (done < into.size()) {
      const ssize_t n =
          ::pread(opened_.fd(), into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
      if (n == 0) break;
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return fail_errno(errno, "cannot read {}", id_.to_hex());
      done += static_cast<std::size_t>(n);
    }
    return done;
  }

  Result<std::size_t> read_aside(std::uint64_t offset, std::span<std::uint8_t> into) override {
    const std::int64_t n = platform::read_aside(opened_.fd(), offset, into);
    if (n < 0) return fail_errno(static_cast<int>(-n), "cannot read {}", id_.to_hex());
    return static_cast<std::size_t>(n);
  }

  Result<std::uint64_t> next_data(std::uint64_t offset) override { return seek(offset, SEEK_DATA); }
  Result<std::uint64_t> next_hole(std::uint64_t offset) override { return seek(offset, SEEK_HOLE); }

 private:
  Result<std::uint64_t> seek(std::uint64_t offset, int whence) {
    const off_t at = ::lseek(opened_.fd(), static_cast<off_t>(offset), whence);
    if (at >= 0) return static_cast<std::uint64_t>(at);
    if (errno != ENXIO) return fail_errno(errno, "cannot look for holes in {}", id_.to_hex());
    return static_cast<std::uint64_t>(st_.st_size);
  }

  PosixLiveTree::Opened& opened_;
  const struct stat st_;
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
  {
    const std::unique_lock lock(mutex_);
    roots_.erase(set);
  }
  reads_end(set);
}

std::shared_ptr<UniqueFd> PosixLiveTree::root_of(SetNumber set) const {
  const std::shared_lock lock(mutex_);
  const auto it = roots_.find(set);
  return it == roots_.end() ? nullptr : it->second;
}

// Files are closed after the lock is released: the last descriptor of one that was deleted frees all of it.
void PosixLiveTree::reads_end(SetNumber set) {
  std::vector<Kept> closed;
  Listed listed;
  const std::lock_guard lock(kept_mutex_);
  if (const auto it = listed_.find(set); it != listed_.end()) {
    listed = std::move(it->second);
    listed_.erase(it);
  }
  for (auto* kept : {&soon_, &begun_})
    std::erase_if(*kept, [&](Kept& k) {
      if (k.set != set) return false;
      closed.push_back(std::move(k));
      return true;
    });
}

void PosixLiveTree::keep(std::deque<Kept>& where, std::size_t most, Kept what) {
  Kept closed;
  const std::lock_guard lock(kept_mutex_);
  if (!root_of(what.set)) return;  // removed meanwhile
  if (where.size() == most) {
    closed = std::move(where.front());
    where.pop_front();
  }
  where.push_back(std::move(what));
}

std::shared_ptr<PosixLiveTree::Opened> PosixLiveTree::take(SetNumber set, const FileId& id) {
  const std::lock_guard lock(kept_mutex_);
  for (auto* kept : {&begun_, &soon_}) {
    const auto it = std::find_if(kept->begin(), kept->end(), [&](const Kept& k) { return k.id == id && k.set == set; });
    if (it == kept->end()) continue;
    std::shared_ptr<Opened> opened = std::move(it->opened);
    kept->erase(it);
    return opened;
  }
  return nullptr;
}

UniqueFd PosixLiveTree::take_listed(SetNumber set, const FileId& id) {
  const std::lock_guard lock(kept_mutex_);
  Listed& listed = listed_[set];  // from now on those of this set are kept
  const auto it = std::find_if(listed.begin(), listed.end(), [&](const auto& one) { return one.first == id; });
  return it == listed.end() ? UniqueFd() : std::move(it->second);
}

void PosixLiveTree::will_read(SetNumber set, const FileId& id) {
  const auto root = root_of(set);
  const auto handle = root ? index_.find(id) : Result<std::optional<FileHandle>>{};
  if (!handle || !*handle || (*handle)->type_bits != S_IFREG) return;
  Result<UniqueFd> fd = take_listed(set, id);
  if (!*fd) fd = open_by_handle(root->get(), **handle, O_RDONLY | O_NOATIME);
  if (!fd || !*fd) return;
  ::posix_fadvise(fd->get(), 0, read_ahead_bytes, POSIX_FADV_WILLNEED);
  keep(soon_, most_soon, {set, id, std::make_shared<Opened>(Opened{**handle, std::move(*fd), nullptr})});
}

Status PosixLiveTree::with_object(SetNumber set, const FileId& id,
                                  const std::function<Status(ports::LiveObject&)>& body) {
  const auto root = root_of(set);
  if (!root) return fail(ErrorCode::unavailable, "set {} is not here", set);
  std::shared_ptr<Opened> opened = take(set, id);  // first: of what is gone nothing stays open
  HF_ASSIGN(const std::optional<FileHandle> handle, index_.find(id));
  if (!handle) return fail(ErrorCode::not_found, "{} is gone", id.to_hex());
  if (opened && opened->handle != *handle) opened = nullptr;
  Status status;
  Listed listed;
  with_locked_(set, id, [&] {
    if (!opened) {
      const int flags = handle->type_bits == S_IFREG   ? O_RDONLY | O_NOATIME
                        : handle->type_bits == S_IFDIR ? O_RDONLY | O_DIRECTORY | O_NOATIME
                                                       : O_PATH | O_NOFOLLOW;
      auto fd = open_by_handle(root->get(), *handle, flags);
      if (!fd) {
        status = tl::unexpected(std::move(fd).error());
        return;
      }
      if (*fd) opened = std::make_shared<Opened>(Opened{*handle, std::move(*fd), nullptr});
    }
    struct stat st {};
    if (!opened || ::fstatat(opened->fd(), "", &st, AT_EMPTY_PATH) != 0 || st.st_nlink == 0) {
      opened = nullptr;
      status = fail(ErrorCode::not_found, "{} is gone", id.to_hex());
      return;
    }
    Object object(*opened, st, set, id, index_);
    status = body(object);
    listed = std::move(object.listed);
  });
  if (!listed.empty()) {
    const std::lock_guard lock(kept_mutex_);
    if (const auto it = listed_.find(set); it != listed_.end()) it->second.swap(listed);
  }
  if (opened && opened->once) keep(begun_, most_begun, {set, id, std::move(opened)});
  return status;
}

}  // namespace holdfast::platform
