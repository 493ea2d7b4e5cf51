// SPDX-License-Identifier: Apache-2.0
#include "platform/graveyard_purge.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <limits>
#include <string>

#include "platform/folder_stream.h"
#include "platform/posix_tree_parts.h"

namespace holdfast::platform {

using namespace posix_tree_parts;

namespace {

// Immutable, append-only: taken away, and given back as it ends where the object lives on by another name.
class Unflagged {
 public:
  explicit Unflagged(int path_fd, bool give_back = false) : give_back_(give_back) {
    struct stat st {};
    if (::fstatat(path_fd, "", &st, AT_EMPTY_PATH) != 0 || !(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))) return;
    fd_.reset(::open(proc_path(path_fd).c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    if (!fd_ || ::ioctl(fd_.get(), FS_IOC_GETFLAGS, &before_) != 0) return;
    if ((before_ & keeping) == 0) return;
    const unsigned int without = before_ & ~keeping;
    took_ = ::ioctl(fd_.get(), FS_IOC_SETFLAGS, &without) == 0;
  }
  ~Unflagged() {
    if (took_ && give_back_) (void)::ioctl(fd_.get(), FS_IOC_SETFLAGS, &before_);
  }
  Unflagged(const Unflagged&) = delete;
  Unflagged& operator=(const Unflagged&) = delete;
  bool took() const { return took_; }

 private:
  static constexpr unsigned int keeping = FS_IMMUTABLE_FL | FS_APPEND_FL;
  UniqueFd fd_;
  unsigned int before_ = 0;
  const bool give_back_;
  bool took_ = false;
};

// Only a hint to the file system: what can't be cut is unlinked as it is. False: it has not become shorter.
bool shorten(int path_fd, const struct stat& st, std::size_t cost, std::size_t most) {
  const UniqueFd fd(::open(proc_path(path_fd).c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC));
  const auto part =
      static_cast<off_t>(static_cast<double>(st.st_size) * static_cast<double>(most) / static_cast<double>(cost));
  return fd && part > 0 && part < st.st_size && ::ftruncate(fd.get(), st.st_size - part) == 0;
}

}  // namespace

tl::unexpected<Error> GravePurge::cant(int error, int folder, const char* name) const {
  char place[PATH_MAX];
  const ssize_t n = ::readlink(proc_path(folder).c_str(), place, sizeof place);
  std::string where = n > 0 ? std::string(place, static_cast<std::size_t>(n)) : std::string();
  if (const auto own = where.find(ports::hidden_name); own != std::string::npos) where.erase(0, own);
  Error e = errno_error(error, fmt::format("set {}: \"{}/{}\" was deleted and can't be taken away", set_, where, name));
  switch (error) {
    case EPERM:
    case EACCES:
      e.code = ErrorCode::denied;
      e.hint = "is it swapped to, or does a security module keep it? It is tried again by itself";
      break;
    case EBUSY:
    case EXDEV:
    case ENOTEMPTY:
      e.code = ErrorCode::busy;
      e.hint = "something is mounted there: unmount it (findmnt shows where), it is tried again by itself";
      break;
    case ENOSPC:
    case EDQUOT:
      e.hint = "its file system has no room even for that: free space there, it is tried again by itself";
      break;
    case EUCLEAN:
    case EBADMSG:
      e.code = ErrorCode::corrupt;
      e.hint = "its file system is damaged: check it (fsck) as soon as this node can be stopped for that";
      break;
    default:
      break;
  }
  return tl::unexpected(std::move(e));
}

Result<bool> GravePurge::empty_some(int folder, std::uint64_t ino, std::size_t& most) {
  const FolderStream stream = read_folder(folder);
  if (!stream) return cant(errno, folder, ".");
  if (const auto at = go_on_.find(ino); at != go_on_.end()) ::seekdir(stream.get(), at->second);
  for (;;) {
    const long here = ::telldir(stream.get());
    errno = 0;
    const dirent* entry = ::readdir(stream.get());
    if (!entry && errno != 0) return cant(errno, folder, ".");
    if (!entry) return true;
    const std::string_view child = entry->d_name;
    if (child == "." || child == "..") continue;
    HF_ASSIGN(const bool gone, remove(::dirfd(stream.get()), entry->d_name, most));
    if (gone) continue;
    go_on_[ino] = here;
    return false;
  }
}

Status GravePurge::empty(int folder) {
  std::size_t all = std::numeric_limits<std::size_t>::max();
  struct stat st {};
  if (::fstatat(folder, "", &st, AT_EMPTY_PATH) != 0) return cant(errno, folder, ".");
  return empty_some(folder, st.st_ino, all).map([](bool) {});
}

Status GravePurge::unlink(int folder, const char* name, int fd, bool is_folder) {
  const int flags = is_folder ? AT_REMOVEDIR : 0;
  if (::unlinkat(folder, name, flags) == 0) return {};
  if (errno != EPERM) return cant(errno, folder, name);
  struct stat st {};
  const bool lives_on = !is_folder && ::fstatat(fd, "", &st, AT_EMPTY_PATH) == 0 && st.st_nlink > 1;
  const Unflagged object(fd, lives_on), above(folder);
  if (::unlinkat(folder, name, flags) == 0) return {};
  return cant(errno, folder, name);
}

Result<bool> GravePurge::remove(int folder, const char* name, std::size_t& most) {
  // What somebody mounted below a dead folder is his: no way leads there.
  const UniqueFd fd = open_in_folder(folder, name, O_PATH);
  if (!fd) {
    if (errno == ENOENT) return true;
    return cant(errno, folder, name);
  }
  struct stat st {};
  if (::fstatat(fd.get(), "", &st, AT_EMPTY_PATH) != 0) return cant(errno, folder, name);
  const bool is_folder = S_ISDIR(st.st_mode), last = is_folder || st.st_nlink == 1;
  bool went_on = false;
  if (is_folder) {
    went_on = go_on_.contains(st.st_ino);
    HF_ASSIGN(const bool empty, empty_some(fd.get(), st.st_ino, most));
    if (!empty) return false;
    go_on_.erase(st.st_ino);
  }
  if (most == 0) return false;
  std::size_t cost = 1;
  if (S_ISREG(st.st_mode) && last) cost += static_cast<std::size_t>(st.st_blocks) * 512 / cost_bytes;
  if (cost > most && shorten(fd.get(), st, cost, most)) {
    most = 0;
    return false;
  }
  most -= std::min(cost, most);
  if (!last) ++names_gone_;
  if (Status gone = unlink(folder, name, fd.get(), is_folder); !gone) {
    // What was there before the place where it went on was overlooked: once more, from the beginning.
    if (went_on && gone.error().code == ErrorCode::busy) return false;
    return tl::unexpected(std::move(gone).error());
  }
  // Not before: one that can't go keeps its id, and is known by it in the next life too.
  if (last) HF_TRY(gone_(fd.get()));
  return true;
}

}  // namespace holdfast::platform
