// SPDX-License-Identifier: Apache-2.0
// The graveyard, and what a resync does to names.
//
//   .holdfast/grave/{d,o,l}-<id>   deleted, orphan, limbo: the object
//   .holdfast/grave/s-<id>         symlink to the stamp of d-<id>, where the object had no room for it (posix_tree_undo.cc)
#include <dirent.h>
#include <linux/fs.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "platform/open_child.h"
#include "platform/posix_tree.h"
#include "platform/posix_tree_parts.h"

namespace holdfast::platform {

using namespace posix_tree_parts;

Result<std::string> PosixTree::grave_name(const FileId& id, ports::Grave why) const {
  return fmt::format("{}-{}", corner(why), id.to_hex());
}

Result<std::optional<ports::Grave>> PosixTree::in_grave(const FileId& id) {
  for (const auto why : {ports::Grave::deleted, ports::Grave::orphan, ports::Grave::limbo}) {
    struct stat st {};
    HF_ASSIGN(const std::string name, grave_name(id, why));
    if (::fstatat(grave_.get(), name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0) return std::optional(why);
    if (errno != ENOENT) return fail_errno(errno, "set {}: cannot look into the graveyard", set_);
  }
  return std::optional<ports::Grave>{};
}

Status PosixTree::bury(const FileId& dir, std::string_view name, const FileId& id, ports::Grave why) {
  HF_ASSIGN(Node * folder, need(dir));
  std::string target;
  if (id.is_none())
    target = fmt::format("{}-{}", corner(why), index_.fresh().to_hex());
  else {
    HF_ASSIGN(target, grave_name(id, why));
  }
  if (why == ports::Grave::deleted && burial_stamp_ != 0)
    HF_TRY(stamp_grave(folder->fd.get(), text(name), target, burial_stamp_));
  if (rename_at(folder->fd.get(), text(name), grave_.get(), target, 0) != 0)
    return fail_errno(errno, "set {}: cannot move \"{}\" out of the tree", set_, name);
  return {};
}

Status PosixTree::exhume(const FileId& id, ports::Grave from, const FileId& dir, std::string_view name) {
  HF_ASSIGN(Node * folder, need(dir));
  HF_ASSIGN(const std::string source, grave_name(id, from));
  if (rename_at(grave_.get(), source, folder->fd.get(), text(name), RENAME_NOREPLACE) != 0) {
    Error e = errno_error(
        errno, fmt::format("set {}: cannot take {} back from the graveyard as \"{}\"", set_, id.to_hex(), name));
    if (e.sys_errno == EINVAL) e.code = ErrorCode::invalid;
    return tl::unexpected(std::move(e));
  }
  return {};
}

Status PosixTree::purge(ports::Grave what) {
  UniqueFd own(::openat(grave_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  DIR* stream = own ? ::fdopendir(own.release()) : nullptr;
  if (!stream) return fail_errno(errno, "set {}: cannot read the graveyard", set_);
  std::size_t all = std::numeric_limits<std::size_t>::max();
  Result<bool> gone = true;
  while (gone) {
    const dirent* entry = ::readdir(stream);
    if (!entry) break;
    const bool wanted = entry->d_name[0] == corner(what) && entry->d_name[1] == '-';
    const bool stamp = what == ports::Grave::deleted && entry->d_name[0] == 's' && entry->d_name[1] == '-';
    if (wanted || stamp) gone = dead_.remove(grave_.get(), entry->d_name, all);
  }
  ::closedir(stream);
  return gone.map([](bool) {});
}

// --- resync

Status PosixTree::adopt(const FileId& dir, std::string_view name, const FileId& id) {
  HF_ASSIGN(Node * folder, need(dir));
  const int folder_fd = folder->fd.get();
  Looked looked = std::exchange(looked_, {});
  struct stat st {};
  const bool same = looked.dir == dir && looked.name == name;
  // It is compared next, and stays open as find() would open it; not a program that runs.
  UniqueFd writable(same && looked.type == S_IFREG ? ::openat(folder_fd, looked.name.c_str(),
                                                              O_RDWR | O_NOFOLLOW | O_NOATIME | O_NONBLOCK | O_CLOEXEC)
                                                   : -1);
  if (writable && ::fstat(writable.get(), &st) == 0 && st.st_ino == looked.ino) {
    HF_TRY(index_.bind(writable.get(), set_, id, S_IFREG));
    Node node;
    node.fd = std::move(writable);
    node.type = S_IFREG;
    node.ino = st.st_ino;
    remember(id, std::move(node));
    return {};
  }
  if (!same || ::fstatat(folder_fd, looked.name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0 || st.st_ino != looked.ino)
    looked.fd = open_child(folder_fd, text(name).c_str());
  if (!looked.fd) return fail_errno(errno, "set {}: cannot open \"{}\"", set_, name);
  return index_.bind(looked.fd.get(), set_, id);
}

// Where a folder stands: its parent is "..", its name the entry there with its inode number.
Result<std::pair<UniqueFd, std::string>> PosixTree::locate_folder(Node& node) {
  UniqueFd parent(::openat(node.fd.get(), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOATIME));
  DIR* stream = parent ? ::fdopendir(::dup(parent.get())) : nullptr;
  if (!stream) return fail_errno(errno, "set {}: cannot find a folder's place", set_);
  std::string name;
  while (name.empty()) {
    const dirent* entry = ::readdir(stream);
    if (!entry) break;
    if (entry->d_ino == node.ino && std::strcmp(entry->d_name, ".") != 0 && std::strcmp(entry->d_name, "..") != 0)
      name = entry->d_name;
  }
  ::closedir(stream);
  if (name.empty()) return fail(ErrorCode::corrupt, "set {}: a folder is not in its parent", set_);
  return std::pair{std::move(parent), std::move(name)};
}

Status PosixTree::bring(const FileId& id, const FileId& dir, std::string_view name) {
  HF_ASSIGN(const std::optional<ports::Grave> grave, in_grave(id));
  if (grave) return exhume(id, *grave, dir, name);
  HF_ASSIGN(Node * node, need(id));
  if (node->type != S_IFDIR) return link(id, dir, name);
  HF_ASSIGN(auto where, locate_folder(*node));
  HF_ASSIGN(Node * folder, need(dir));
  if (rename_at(where.first.get(), where.second, folder->fd.get(), text(name), RENAME_NOREPLACE) != 0) {
    Error e = errno_error(errno, fmt::format("set {}: cannot move the folder {} to \"{}\"", set_, id.to_hex(), name));
    if (e.sys_errno == EINVAL) e.code = ErrorCode::invalid;
    return tl::unexpected(std::move(e));
  }
  return {};
}

Status PosixTree::set_aside(const FileId& folder) {
  HF_ASSIGN(Node * node, need(folder));
  HF_ASSIGN(auto where, locate_folder(*node));
  HF_ASSIGN(const std::string target, grave_name(folder, ports::Grave::limbo));
  if (rename_at(where.first.get(), where.second, grave_.get(), target, 0) != 0)
    return fail_errno(errno, "set {}: cannot set the folder {} aside", set_, folder.to_hex());
  return {};
}

// The graveyard counts: what lies there is found by its id, and has contents.
Result<bool> PosixTree::is_empty() {
  HF_ASSIGN(const auto listing, list(FileId::root(set_), 0, 1));
  if (!listing.entries.empty()) return false;
  UniqueFd own(::openat(grave_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  DIR* stream = own ? ::fdopendir(own.release()) : nullptr;
  if (!stream) return fail_errno(errno, "set {}: cannot read the graveyard", set_);
  bool empty = true;
  while (const dirent* entry = ::readdir(stream)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") empty = false;
  }
  ::closedir(stream);
  return empty;
}

}  // namespace holdfast::platform
