// SPDX-License-Identifier: Apache-2.0
#include "platform/graveyard.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>

#include "platform/file_index.h"
#include "platform/folder_stream.h"
#include "platform/posix_tree_parts.h"

namespace holdfast::platform {

using namespace posix_tree_parts;

namespace {

const std::string graveyard_path = std::string(ports::hidden_name) + "/grave";

Result<struct stat> stat_of(int fd) {
  struct stat st {};
  if (::fstatat(fd, "", &st, AT_EMPTY_PATH) != 0) return fail_errno(errno, "cannot stat an object");
  return st;
}

}  // namespace

Result<bool> Graveyard::has_grave(const FileId& id, std::uint64_t ino) const {
  for (const auto why : {ports::Grave::deleted, ports::Grave::orphan, ports::Grave::limbo}) {
    struct stat st {};
    const std::string name = fmt::format("{}/{}-{}", graveyard_path, corner(why), id.to_hex());
    if (::fstatat(root_fd_, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) {
      if (st.st_ino == ino) return true;
    } else if (errno != ENOENT) {
      return fail_errno(errno, "cannot look into the graveyard");
    }
  }
  return false;
}

// Up to the root of all, or to the mirror's own folder.
Result<bool> Graveyard::folder_is_below(int fd, std::uint64_t ino) const {
  HF_ASSIGN(const struct stat root, stat_of(root_fd_));
  const UniqueFd hidden = open_path(root_fd_, std::string(ports::hidden_name));
  if (!hidden) return fail_errno(errno, "cannot look at the mirror's own folder");
  HF_ASSIGN(const struct stat own, stat_of(hidden.get()));
  UniqueFd at;
  while (ino != root.st_ino) {
    if (ino == own.st_ino) return true;
    UniqueFd up(::openat(at ? at.get() : fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!up) return fail_errno(errno, "cannot find a folder's place");
    HF_ASSIGN(const struct stat st, stat_of(up.get()));
    if (st.st_ino == ino) return fail(ErrorCode::corrupt, "a folder is its own parent");
    ino = st.st_ino;
    at = std::move(up);
  }
  return false;
}

// `graves`: of the graveyard itself, where only folders matter.
Status Graveyard::note_below(int folder, bool graves) {
  const FolderStream dir = read_folder(folder);
  if (!dir) return fail_errno(errno, "cannot read a dead folder");
  const int fd = ::dirfd(dir.get());
  while (const dirent* entry = ::readdir(dir.get())) {
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    if (graves && entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN) continue;
    const UniqueFd child = open_path(fd, std::string(name));
    if (!child && errno == ENOENT) continue;  // on its way out
    if (!child) return fail_errno(errno, "cannot look at a dead object");
    HF_ASSIGN(const struct stat st, stat_of(child.get()));
    if (S_ISDIR(st.st_mode)) {
      HF_TRY(note_below(child.get(), false));
      continue;
    }
    if (graves) continue;
    HF_ASSIGN(const FileId id, FileIndex::carried_id(child.get()));
    if (!id.is_none()) ++below_[id];
  }
  return {};
}

Result<bool> Graveyard::holds(int fd) {
  HF_ASSIGN(const FileId id, FileIndex::carried_id(fd));
  HF_ASSIGN(const bool grave, [&]() -> Result<bool> {
    HF_ASSIGN(const struct stat st, stat_of(fd));
    return has_grave(id, st.st_ino);
  }());
  if (grave) return true;
  // After that: what was taken away meanwhile has no name by now.
  HF_ASSIGN(const struct stat st, stat_of(fd));
  if (st.st_nlink == 0) return true;
  if (S_ISDIR(st.st_mode)) return folder_is_below(fd, st.st_ino);
  const std::lock_guard lock(mutex_);
  for (;;) {
    if (!noted_) {
      noted_at_ = names_gone();
      const UniqueFd graves = open_path(root_fd_, graveyard_path);
      if (!graves) return fail_errno(errno, "cannot look into the graveyard");
      HF_TRY(note_below(graves.get(), true));
      noted_ = true;
    }
    HF_ASSIGN(const struct stat now, stat_of(fd));
    if (now.st_nlink == 0) return true;
    const auto dead = below_.find(id);
    if (dead == below_.end() || dead->second < now.st_nlink) return false;
    // With the names that are gone by now, one that lives would seem to have dead ones only.
    if (names_gone() == noted_at_) return true;
    noted_ = false;
    below_.clear();
  }
}

void Graveyard::look_again() {
  const std::lock_guard lock(mutex_);
  noted_ = false;
  below_.clear();
}

}  // namespace holdfast::platform
