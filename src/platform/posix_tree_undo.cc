// SPDX-License-Identifier: Apache-2.0
// What undo and rewinds need of a tree: old values, graves with stamps, places.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <vector>

#include "log/record.h"
#include "log/xattrs.h"
#include "platform/folder_stream.h"
#include "platform/object_xattrs.h"
#include "platform/posix_tree.h"
#include "platform/posix_tree_parts.h"

namespace holdfast::platform {

using namespace posix_tree_parts;

namespace {

constexpr const char* buried_attribute = "trusted.holdfast.buried";

bool is_damage(int error) { return error == EUCLEAN || error == EBADMSG; }

std::string stamp_name(const std::string& grave) { return "s" + grave.substr(1); }

// Names in a folder that begin like this.
Result<std::vector<std::string>> names_like(int dir_fd, std::string_view prefix) {
  const FolderStream stream = read_folder(dir_fd);
  if (!stream) return fail_errno(errno, "cannot read the graveyard");
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(stream.get());
    if (!entry && errno != 0) return fail_errno(errno, "cannot read the graveyard");
    if (!entry) return names;
    if (std::string_view(entry->d_name).starts_with(prefix)) names.emplace_back(entry->d_name);
  }
}

}  // namespace

Result<Bytes> PosixTree::read_xattrs(const FileId& id) {
  HF_ASSIGN(Node * node, need(id));
  return read_all_xattrs(node->fd.get());
}

Result<std::uint64_t> PosixTree::seek(const FileId& id, std::uint64_t offset, int whence) {
  HF_ASSIGN(Node * node, need(id));
  const off_t at = ::lseek(node->fd.get(), static_cast<off_t>(offset), whence);
  if (at >= 0) return static_cast<std::uint64_t>(at);
  if (errno != ENXIO) return fail_errno(errno, "set {}: cannot look for holes in {}", set_, id.to_hex());
  HF_ASSIGN(const auto there, attributes(id));
  return there->size;
}
Result<std::uint64_t> PosixTree::next_data(const FileId& id, std::uint64_t offset) {
  return seek(id, offset, SEEK_DATA);
}
Result<std::uint64_t> PosixTree::next_hole(const FileId& id, std::uint64_t offset) {
  return seek(id, offset, SEEK_HOLE);
}

Status PosixTree::revive(const FileId& id, const ports::NewNode& node) {
  HF_ASSIGN(const auto why, in_grave(id));
  HF_ASSIGN(const auto there, attributes(id));
  if (!why || !there)
    return fail(ErrorCode::internal, "set {}: {} is not in the graveyard and can't be revived", set_, id.to_hex());
  if (((there->mode ^ node.mode) & S_IFMT) != 0)
    return fail(ErrorCode::corrupt, "set {}: the object {} was of another type here", set_, id.to_hex());
  ports::NodeAttributes to;
  to.mode = node.mode;
  to.uid = node.uid;
  to.gid = node.gid;
  to.atime_ns = node.atime_ns;
  to.mtime_ns = node.mtime_ns;
  // In this order: changes of size and owner take capabilities away, an ACL rewrites the mode's group bits.
  if (S_ISREG(node.mode)) HF_TRY(truncate(id, 0));
  HF_TRY(set_attributes(id, log::valid_owner, to));
  HF_TRY(replace_xattrs(id, node.xattrs));
  std::uint32_t valid = log::valid_mode;
  if (node.mtime_ns != 0) valid |= log::valid_mtime;
  if (node.atime_ns != 0) valid |= log::valid_atime;
  return set_attributes(id, valid, to);
}

// --- graves. The stamp is written before the object loses its name: file systems' journals keep that order, so a crash leaves no grave with an
// older stamp. An inode whose xattrs fill their block (ext4) has no room for it: then it stands beside the grave.

Status PosixTree::stamp_grave(int dir_fd, const std::string& name, const std::string& grave, std::uint64_t stamp) {
  const UniqueFd fd = open_path(dir_fd, name);
  if (!fd) return fail_errno(errno, "set {}: cannot look at \"{}\"", set_, name);
  if (platform::set_xattr(fd.get(), buried_attribute, &stamp, sizeof stamp) == 0) return {};
  if (errno != ENOSPC && errno != E2BIG) return fail_errno(errno, "set {}: cannot mark a deleted object", set_);
  const std::string beside = stamp_name(grave);
  if (::unlinkat(grave_.get(), beside.c_str(), 0) != 0 && errno != ENOENT)
    return fail_errno(errno, "set {}: cannot mark a deleted object", set_);
  if (::symlinkat(fmt::format("{}", stamp).c_str(), grave_.get(), beside.c_str()) != 0)
    return fail_errno(errno, "set {}: cannot mark a deleted object", set_);
  return {};
}

// The later of the two places: the object's own may be of an earlier burial.
Result<std::uint64_t> PosixTree::grave_stamp(int fd, const std::string& grave) {
  std::uint64_t own = 0, beside = 0;
  const ssize_t n = get_xattr(fd, buried_attribute, &own, sizeof own);
  if (n < 0 && errno != ENODATA) return fail_errno(errno, "set {}: cannot read a grave's mark", set_);
  if (n != sizeof own) own = 0;
  char target[24];
  const ssize_t length = ::readlinkat(grave_.get(), stamp_name(grave).c_str(), target, sizeof target);
  if (length < 0 && errno != ENOENT) return fail_errno(errno, "set {}: cannot read a grave's mark", set_);
  if (length > 0) std::from_chars(target, target + length, beside);
  return std::max(own, beside);
}

// Each of the folder's objects with a name of its own counts: all but the last names of others were taken away when it came here.
Status PosixTree::sum_below(int fd, ports::GraveEntry& sum) const {
  const FolderStream stream = read_folder(fd);
  if (!stream) return fail_errno(errno, "set {}: cannot read a dead folder", set_);
  const int folder = ::dirfd(stream.get());
  for (;;) {
    errno = 0;
    const dirent* entry = ::readdir(stream.get());
    if (!entry && errno != 0) return fail_errno(errno, "set {}: cannot read a dead folder", set_);
    if (!entry) return {};
    const std::string_view name = entry->d_name;
    if (name == "." || name == "..") continue;
    struct stat st {};
    if (::fstatat(folder, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
      if (is_damage(errno)) continue;
      return fail_errno(errno, "set {}: cannot stat a dead object", set_);
    }
    sum.allocated_bytes += static_cast<std::uint64_t>(st.st_blocks) * 512;
    ++sum.objects;
    if (!S_ISDIR(st.st_mode)) continue;
    const UniqueFd child = open_path(folder, entry->d_name);
    if (!child) return fail_errno(errno, "set {}: cannot read a dead folder", set_);
    HF_TRY(sum_below(child.get(), sum));
  }
}

Result<std::vector<ports::GraveEntry>> PosixTree::graves(ports::Grave what) {
  HF_ASSIGN(const auto names, names_like(grave_.get(), std::string{corner(what), '-'}));
  std::vector<ports::GraveEntry> all;
  for (const auto& name : names) {
    const auto id = FileId::from_hex(std::string_view(name).substr(2));
    if (!id) continue;  // nothing of ours
    const UniqueFd fd = open_path(grave_.get(), name);
    struct stat st {};
    if (!fd || ::fstatat(fd.get(), "", &st, AT_EMPTY_PATH) != 0) {
      if (!is_damage(errno)) return fail_errno(errno, "set {}: cannot look into the graveyard", set_);
      all.push_back({*id, 0, 0, 0});
      continue;
    }
    HF_ASSIGN(const std::uint64_t stamp, grave_stamp(fd.get(), name));
    ports::GraveEntry grave{*id, stamp, static_cast<std::uint64_t>(st.st_blocks) * 512, 1};
    if (what == ports::Grave::deleted && S_ISDIR(st.st_mode)) HF_TRY(sum_below(fd.get(), grave));
    all.push_back(grave);
  }
  return all;
}

Result<bool> PosixTree::purge_one(ports::Grave what, const FileId& id, std::uint64_t stamp, std::size_t& most) {
  HF_ASSIGN(const std::string name, grave_name(id, what));
  const UniqueFd fd = open_path(grave_.get(), name);
  if (!fd && errno == ENOENT) return true;
  if (!fd) return dead_.cant(errno, grave_.get(), name.c_str());
  const auto own = grave_stamp(fd.get(), name);
  if (!own) return dead_.cant(own.error().sys_errno, grave_.get(), name.c_str());
  if (stamp != 0 && *own != stamp) return true;
  HF_ASSIGN(const bool gone, dead_.remove(grave_.get(), name.c_str(), most));
  if (!gone) return false;
  std::size_t one = 1;
  return dead_.remove(grave_.get(), stamp_name(name).c_str(), one);
}

Status PosixTree::settle_limbo(std::uint64_t stamp) {
  HF_ASSIGN(const auto names, names_like(grave_.get(), "l-"));
  for (const auto& name : names) {
    const std::string target = "d" + name.substr(1);
    if (stamp != 0) HF_TRY(stamp_grave(grave_.get(), name, target, stamp));
    if (rename_at(grave_.get(), name, grave_.get(), target, 0) != 0)
      return fail_errno(errno, "set {}: cannot move a displaced object within the graveyard", set_);
  }
  return {};
}

// --- places and ids

Result<std::optional<std::pair<FileId, std::string>>> PosixTree::place_of(const FileId& folder) {
  using Place = std::optional<std::pair<FileId, std::string>>;
  if (folder.is_root()) return Place{};
  HF_ASSIGN(Node * node, need(folder));
  HF_ASSIGN(auto where, locate_folder(*node));
  struct stat parent {
  }, grave{}, staging{};
  if (::fstat(where.first.get(), &parent) != 0 || ::fstat(grave_.get(), &grave) != 0 ||
      ::fstat(staging_.get(), &staging) != 0)
    return fail_errno(errno, "set {}: cannot find a folder's place", set_);
  if (parent.st_ino == grave.st_ino || parent.st_ino == staging.st_ino) return Place{};
  HF_ASSIGN(const FileId id, make_known(where.first.get()));
  return Place(std::pair{id, std::move(where.second)});
}

Result<FileId> PosixTree::identify(const FileId& dir, std::string_view name) {
  HF_ASSIGN(Node * folder, need(dir));
  const UniqueFd fd = open_path(folder->fd.get(), text(name));
  if (!fd && errno == ENOENT) return FileId{};
  if (!fd) return fail_errno(errno, "set {}: cannot look at \"{}\"", set_, name);
  return make_known(fd.get());
}

// Whoever asks writes the id into a history that outlives a crash: the object must carry it after one, and the index know it.
Result<FileId> PosixTree::make_known(int fd) {
  HF_ASSIGN(FileId id, index_.id_of(fd));
  if (!id.is_none()) return id;
  HF_ASSIGN(id, index_.identify(fd, set_));
  HF_TRY(sync());
  HF_TRY(index_.commit());
  return id;
}

Result<std::uint64_t> PosixTree::free_bytes() {
  struct statvfs fs {};
  if (::fstatvfs(root_.get(), &fs) != 0) return fail_errno(errno, "set {}: cannot ask for free space", set_);
  return std::uint64_t{fs.f_bavail} * fs.f_frsize;
}

}  // namespace holdfast::platform
