// SPDX-License-Identifier: Apache-2.0
// Names and making of objects. Data and attributes: posix_tree_data.cc; graveyard and resync: posix_tree_grave.cc; undo: posix_tree_undo.cc.
#include "platform/posix_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "base/log.h"
#include "log/record.h"
#include "log/xattrs.h"
#include "platform/object_xattrs.h"
#include "platform/open_child.h"
#include "platform/posix_tree_parts.h"
#include "platform/tree_probe.h"

namespace holdfast::platform {

using namespace posix_tree_parts;

namespace {

// More than a batch stages (mirror/applier.h) or a listing's chunk names (log/ship.h); and, where descriptors abound, more than a batch of
// small files touches: one that does not fit is opened twice for each of them.
constexpr std::size_t least_cached_nodes = 800, most_cached_nodes = 4096;

std::size_t nodes_to_cache() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return least_cached_nodes;
  return std::clamp<std::size_t>(limit.rlim_cur / 16, least_cached_nodes, most_cached_nodes);
}

Result<UniqueFd> make_folder(int dir, const char* name) {
  if (::mkdirat(dir, name, 0700) != 0 && errno != EEXIST) return fail_errno(errno, "cannot make {}", name);
  UniqueFd fd(::openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "cannot open {}", name);
  return fd;
}

}  // namespace

Result<std::unique_ptr<PosixTree>> PosixTree::open(UniqueFd root, SetNumber set, FileIndex& index) {
  std::unique_ptr<PosixTree> made(new PosixTree(std::move(root), set, index));
  HF_TRY(made->prepare());
  return made;
}

PosixTree::PosixTree(UniqueFd root, SetNumber set, FileIndex& index)
    : root_(std::move(root)), set_(set), index_(index), cached_nodes_(nodes_to_cache()), dead_(set, [this](int fd) {
        return index_.id_of(fd).map([&](const FileId& id) {
          if (id.is_none()) return;
          drop(id);
          index_.forget(id);
        });
      }) {}

Status PosixTree::prepare() {
  struct stat before {};
  ::fstat(root_.get(), &before);
  HF_ASSIGN(hidden_, make_folder(root_.get(), text(ports::hidden_name).c_str()));
  if (::fchmod(hidden_.get(), 0700) != 0 || ::fchown(hidden_.get(), 0, 0) != 0)
    return fail_errno(errno, "cannot own {}", ports::hidden_name);
  HF_ASSIGN(grave_, make_folder(hidden_.get(), "grave"));
  HF_ASSIGN(staging_, make_folder(hidden_.get(), "new"));
  HF_TRY(dead_.empty(staging_.get()));
  HF_ASSIGN(limits_, limits_of_tree(hidden_.get(), staging_.get()));
  for (const ports::Mark which : {ports::Mark::checkpoint, ports::Mark::hot}) {
    HF_ASSIGN(const Bytes there, mark(which));
    if (!there.empty()) continue;
    // Later there may be no space for a first one; nor is there perhaps now, and then it is made when there is.
    if (Status made = set_mark(which, Bytes(ports::mark_bytes)); !made && made.error().code != ErrorCode::no_space)
      return made;
  }
  const FileId root_id = FileId::root(set_);
  // A tree that was protected before and an index that does not know it: the index was lost, and is made anew by a walk (R25).
  HF_ASSIGN(const FileId carried, FileIndex::carried_id(root_.get()));
  HF_ASSIGN(const auto indexed, index_.find(root_id));
  if (carried == root_id && !indexed) {
    log_info("set {}: the file index does not know this folder: it is made anew by a walk", set_);
    HF_ASSIGN(const std::size_t found, index_.rebuild(root_.get(), set_));
    log_info("set {}: {} objects indexed", set_, found);
  }
  if (indexed) {
    HF_ASSIGN(const FileHandle now, handle_of(root_.get(), S_IFDIR));
    another_ = carried != root_id || !(now == *indexed);
  }
  if (!another_) HF_TRY(bind_root());
  const timespec times[2] = {{0, UTIME_OMIT}, before.st_mtim};
  ::futimens(root_.get(), times);
  return {};
}

Status PosixTree::bind_root() {
  HF_TRY(index_.bind(root_.get(), set_, FileId::root(set_)));
  return index_.commit();
}

Status PosixTree::adopt_root() {
  if (!another_) return {};
  // What was indexed may still be there, outside of this folder: it must not be found, and brought here.
  HF_TRY(index_.forget_set(set_));
  HF_TRY(bind_root());
  another_ = false;
  return {};
}

PosixTree::Node& PosixTree::remember(const FileId& id, Node node) {
  while (nodes_.size() >= cached_nodes_) {
    auto oldest = std::prev(recent_.end());
    while (nodes_[*oldest].staged_file) {
      CHECK(oldest != recent_.begin(), "too many files in the making");
      --oldest;
    }
    nodes_.erase(*oldest);
    recent_.erase(oldest);
  }
  drop(id);
  recent_.push_front(id);
  node.place = recent_.begin();
  return nodes_[id] = std::move(node);
}

void PosixTree::drop(const FileId& id) {
  if (const auto it = nodes_.find(id); it != nodes_.end()) {
    recent_.erase(it->second.place);
    nodes_.erase(it);
  }
}

PosixTree::Node* PosixTree::opened(const FileId& id) {
  const auto it = nodes_.find(id);
  if (it == nodes_.end()) return nullptr;
  recent_.splice(recent_.begin(), recent_, it->second.place);
  return &it->second;
}

Result<PosixTree::Node*> PosixTree::find(const FileId& id) {
  if (Node* node = opened(id)) {
    // What was opened here before this node was the active may have lost its last name meanwhile: others changed the tree then.
    struct stat st {};
    if (!node->staged_file && ::fstat(node->fd.get(), &st) != 0)
      return fail_errno(errno, "cannot stat {}", id.to_hex());
    if (node->staged_file || st.st_nlink != 0) return node;
    drop(id);
  }
  HF_ASSIGN(const std::optional<FileHandle> handle, index_.find(id));
  if (!handle) return nullptr;
  const int flags = handle->type_bits == S_IFREG   ? O_RDWR | O_NOATIME | O_LARGEFILE
                    : handle->type_bits == S_IFDIR ? O_RDONLY | O_DIRECTORY | O_NOATIME
                                                   : O_PATH | O_NOFOLLOW;
  auto found = open_by_handle(root_.get(), *handle, flags);
  const bool runs =
      !found && found.error().sys_errno == ETXTBSY;  // somebody started it here: a passive's folder can be read
  if (runs) found = open_by_handle(root_.get(), *handle, O_RDONLY | O_NOATIME);
  HF_ASSIGN(UniqueFd fd, std::move(found));
  if (!fd) return nullptr;
  // Index and tree are not made durable together: one that is ahead of the tree (an adoption which a crash undid) says nothing (R25).
  HF_ASSIGN(const FileId carried, FileIndex::carried_id(fd.get()));
  if (carried != id) return nullptr;
  struct stat st {};
  if (::fstatat(fd.get(), "", &st, AT_EMPTY_PATH) != 0) return fail_errno(errno, "cannot stat {}", id.to_hex());
  // An inode without a name can still be opened by handle while something holds it; to the log it is gone.
  if (st.st_nlink == 0) return nullptr;
  Node node;
  node.fd = std::move(fd);
  node.type = st.st_mode & S_IFMT;
  node.ino = st.st_ino;
  node.read_only = runs;
  return &remember(id, std::move(node));
}

Result<PosixTree::Node*> PosixTree::need(const FileId& id) {
  HF_ASSIGN(Node * node, find(id));
  if (!node) return fail(ErrorCode::corrupt, "set {}: the object {} is not in the tree", set_, id.to_hex());
  return node;
}

Result<PosixTree::Node*> PosixTree::need_writable(const FileId& id) {
  HF_ASSIGN(Node * node, need(id));
  if (!node->read_only) return node;
  drop(id);
  HF_ASSIGN(node, need(id));
  if (!node->read_only) return node;
  return tl::unexpected(Error{
      ErrorCode::busy,
      fmt::format("set {}: the file {} is to be written, and is a program that runs on this node", set_, id.to_hex()),
      "end what was started from the protected folder here (fuser -v shows it)", ETXTBSY});
}

// `made`: as the kernel made it. What is so already is left alone: each change costs the file system a journal entry.
Status PosixTree::dress(int fd, const struct stat& made, const ports::NewNode& node) const {
  if ((made.st_uid != node.uid || made.st_gid != node.gid) &&
      ::fchownat(fd, "", node.uid, node.gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0)
    return fail_errno(errno, "cannot set the owner of a new object");
  const bool lost_set_id = (made.st_mode & 06000) != 0;  // by the change of owner
  if (!S_ISLNK(node.mode) && ((made.st_mode ^ node.mode) & 07777 || lost_set_id) &&
      change_mode(fd, node.mode & 07777) != 0)
    return fail_errno(errno, "cannot set the mode of a new object");
  HF_ASSIGN(const auto list, log::decode_xattrs(node.xattrs));
  for (const auto& x : list) HF_TRY(give_xattr(fd, x.name, x.value, "of a new object"));
  if (node.mtime_ns == 0 && node.atime_ns == 0) return {};
  const auto to_timespec = [](std::int64_t ns) {
    timespec t{ns / 1'000'000'000, ns % 1'000'000'000};
    if (t.tv_nsec < 0) t.tv_nsec += 1'000'000'000, --t.tv_sec;
    return t;
  };
  const timespec times[2] = {node.atime_ns ? to_timespec(node.atime_ns) : timespec{0, UTIME_OMIT},
                             to_timespec(node.mtime_ns)};
  if (::utimensat(fd, "", times, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) != 0)
    return fail_errno(errno, "cannot set the times of a new object");
  return {};
}

Status PosixTree::stage_file(const FileId& id, const ports::NewNode& node) {
  // Nobody can open it as long as it has no name: most have their mode from the start.
  UniqueFd fd(::openat(staging_.get(), ".", O_TMPFILE | O_RDWR | O_CLOEXEC | O_NOATIME, node.mode & 0777));
  if (!fd) return fail_errno(errno, "cannot make a file (file system without O_TMPFILE?)");
  HF_TRY(index_.bind(fd.get(), set_, id, S_IFREG));
  struct stat st {};
  if (::fstat(fd.get(), &st) != 0) return fail_errno(errno, "cannot stat a new file");
  HF_TRY(dress(fd.get(), st, node));
  Node made;
  made.fd = std::move(fd);
  made.type = S_IFREG;
  made.ino = st.st_ino;
  made.staged_file = true;
  remember(id, std::move(made));
  return {};
}

// Folders, symlinks and special files have no O_TMPFILE: they are made under their id in the staging corner, then renamed.
Status PosixTree::stage_other(const FileId& id, const ports::NewNode& node) {
  const std::string name = id.to_hex();
  const mode_t type = node.mode & S_IFMT;
  int rc = 0;
  if (type == S_IFDIR)
    rc = ::mkdirat(staging_.get(), name.c_str(), 0700);
  else if (type == S_IFLNK)
    rc = ::symlinkat(text(node.target).c_str(), staging_.get(), name.c_str());
  else
    rc = ::mknodat(staging_.get(), name.c_str(), type | 0600, node.rdev);
  if (rc != 0 && errno == ENAMETOOLONG && type == S_IFLNK)
    return not_held(limits_, ports::Limit::link_target_bytes, id.to_hex());
  if (rc != 0 && errno == EINVAL && (type == S_IFCHR || type == S_IFBLK))
    return not_held(limits_,
                    major(node.rdev) > limits_.most(ports::Limit::device_major) ? ports::Limit::device_major
                                                                                : ports::Limit::device_minor,
                    fmt::format("{}:{}", major(node.rdev), minor(node.rdev)));
  if (rc != 0) return fail_errno(errno, "cannot make an object of type {:o}", type);
  UniqueFd fd = type == S_IFDIR ? UniqueFd(::openat(staging_.get(), name.c_str(),
                                                    O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NOATIME))
                                : open_path(staging_.get(), name);
  if (!fd) return fail_errno(errno, "cannot open a new object");
  HF_TRY(index_.bind(fd.get(), set_, id, type));
  struct stat st {};
  if (::fstatat(fd.get(), "", &st, AT_EMPTY_PATH) != 0) return fail_errno(errno, "cannot stat a new object");
  HF_TRY(dress(fd.get(), st, node));
  Node made;
  made.fd = std::move(fd);
  made.type = type;
  made.ino = st.st_ino;
  remember(id, std::move(made));
  return {};
}

Status PosixTree::stage(const FileId& id, const ports::NewNode& node) {
  return (node.mode & S_IFMT) == S_IFREG ? stage_file(id, node) : stage_other(id, node);
}

Status PosixTree::unstage() {
  std::vector<FileId> files;
  for (const auto& [id, node] : nodes_)
    if (node.staged_file) files.push_back(id);
  for (const FileId& id : files) {
    drop(id);
    index_.forget(id);
  }
  HF_TRY(dead_.empty(
      staging_.get()));  // the folder stays: this is asked for when the disk is full, and a new one would need room
  return index_.commit();
}

Status PosixTree::place(const FileId& id, const FileId& dir, std::string_view name) {
  HF_ASSIGN(Node * folder, need(dir));
  const int folder_fd = folder->fd.get();
  HF_ASSIGN(Node * node, need(id));
  const int rc = node->staged_file ? ::linkat(node->fd.get(), "", folder_fd, text(name).c_str(), AT_EMPTY_PATH)
                                   : rename_at(staging_.get(), id.to_hex(), folder_fd, text(name), RENAME_NOREPLACE);
  if (rc != 0)
    return fail_errno(errno, "set {}: cannot place {} as \"{}\" in {}", set_, id.to_hex(), name, dir.to_hex());
  node->staged_file = false;
  return {};
}

Status PosixTree::place_in_grave(const FileId& id, ports::Grave why) {
  HF_ASSIGN(Node * node, need(id));
  HF_ASSIGN(const std::string name, grave_name(id, why));
  const int rc = node->staged_file ? ::linkat(node->fd.get(), "", grave_.get(), name.c_str(), AT_EMPTY_PATH)
                                   : rename_at(staging_.get(), id.to_hex(), grave_.get(), name, RENAME_NOREPLACE);
  if (rc != 0) return fail_errno(errno, "set {}: cannot keep the nameless file {}", set_, id.to_hex());
  node->staged_file = false;
  return {};
}

Result<ports::Standing> PosixTree::at(const FileId& dir, std::string_view name, const FileId& expected) {
  HF_ASSIGN(Node * folder, need(dir));
  struct stat st {};
  if (::fstatat(folder->fd.get(), text(name).c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
    if (errno == ENOENT) return ports::Standing::absent;
    return fail_errno(errno, "set {}: cannot look at \"{}\"", set_, name);
  }
  if (expected.is_none()) return ports::Standing::other;
  HF_ASSIGN(Node * node, find(expected));
  return node && node->ino == st.st_ino ? ports::Standing::expected : ports::Standing::other;
}

Result<std::optional<ports::TreeEntry>> PosixTree::lookup(const FileId& dir, std::string_view name) {
  HF_ASSIGN(Node * folder, need(dir));
  looked_ = {};
  UniqueFd fd = open_child(folder->fd.get(), text(name).c_str());
  if (!fd) {
    if (errno == ENOENT) return std::optional<ports::TreeEntry>{};
    return fail_errno(errno, "set {}: cannot look at \"{}\"", set_, name);
  }
  struct stat st {};
  if (::fstatat(fd.get(), "", &st, AT_EMPTY_PATH) != 0)
    return fail_errno(errno, "set {}: cannot stat \"{}\"", set_, name);
  HF_ASSIGN(const FileId id, index_.id_of(fd.get()));
  if (id.is_none()) looked_ = {dir, text(name), st.st_ino, st.st_mode & S_IFMT, std::move(fd)};
  return std::optional(ports::TreeEntry{text(name), id, st.st_mode & S_IFMT});
}

Result<ports::TreeListing> PosixTree::list(const FileId& dir, std::uint64_t cookie, std::size_t max_entries) {
  HF_ASSIGN(Node * folder, need(dir));
  UniqueFd own(::openat(folder->fd.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOATIME));
  if (!own) return fail_errno(errno, "set {}: cannot open the folder {}", set_, dir.to_hex());
  DIR* stream = ::fdopendir(own.release());
  if (!stream) return fail_errno(errno, "set {}: cannot read the folder {}", set_, dir.to_hex());
  if (cookie != 0) ::seekdir(stream, static_cast<long>(cookie));
  ports::TreeListing listing;
  while (listing.entries.size() < max_entries) {
    errno = 0;
    const dirent* entry = ::readdir(stream);
    if (!entry) {
      listing.end = true;
      break;
    }
    const std::string_view name = entry->d_name;
    if (name == "." || name == ".." || (dir.is_root() && name == ports::hidden_name)) continue;
    listing.entries.push_back({text(name), {}, 0});
  }
  const int error = errno;
  listing.cookie = static_cast<std::uint64_t>(::telldir(stream));
  ::closedir(stream);
  if (listing.end && error != 0) return fail_errno(error, "set {}: cannot read the folder {}", set_, dir.to_hex());
  for (auto& entry : listing.entries) {
    HF_ASSIGN(const auto found, lookup(dir, entry.name));
    if (found) entry = *found;
  }
  return listing;
}

Status PosixTree::for_each_name(const FileId& dir, const std::function<void(std::string_view)>& see) {
  HF_ASSIGN(Node * folder, need(dir));
  UniqueFd own(::openat(folder->fd.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOATIME));
  if (!own) return fail_errno(errno, "set {}: cannot open the folder {}", set_, dir.to_hex());
  DIR* stream = ::fdopendir(own.release());
  if (!stream) return fail_errno(errno, "set {}: cannot read the folder {}", set_, dir.to_hex());
  errno = 0;
  while (const dirent* entry = ::readdir(stream)) {
    const std::string_view name = entry->d_name;
    if (name != "." && name != ".." && !(dir.is_root() && name == ports::hidden_name)) see(name);
    errno = 0;
  }
  const int error = errno;
  ::closedir(stream);
  if (error != 0) return fail_errno(error, "set {}: cannot read the folder {}", set_, dir.to_hex());
  return {};
}

Status PosixTree::link(const FileId& id, const FileId& dir, std::string_view name) {
  HF_ASSIGN(Node * folder, need(dir));
  const int folder_fd = folder->fd.get();
  HF_ASSIGN(Node * node, need(id));
  if (::linkat(AT_FDCWD, proc_path(node->fd.get()).c_str(), folder_fd, text(name).c_str(), AT_SYMLINK_FOLLOW) != 0)
    return fail_errno(errno, "set {}: cannot link {} as \"{}\"", set_, id.to_hex(), name);
  return {};
}

Status PosixTree::unlink(const FileId& dir, std::string_view name) {
  HF_ASSIGN(Node * folder, need(dir));
  if (::unlinkat(folder->fd.get(), text(name).c_str(), 0) != 0)
    return fail_errno(errno, "set {}: cannot remove \"{}\"", set_, name);
  return {};
}

Status PosixTree::rename(const FileId& dir, std::string_view name, const FileId& dir2, std::string_view name2,
                         std::uint32_t flags) {
  HF_ASSIGN(Node * folder, need(dir));
  const int from = folder->fd.get();
  HF_ASSIGN(Node * folder2, need(dir2));
  unsigned how = 0;
  if (flags & log::flag_rename_noreplace) how |= RENAME_NOREPLACE;
  if (flags & log::flag_rename_exchange) how |= RENAME_EXCHANGE;
  if (rename_at(from, text(name), folder2->fd.get(), text(name2), how) != 0) {
    Error e = errno_error(errno, fmt::format("set {}: cannot rename \"{}\" to \"{}\"", set_, name, name2));
    if (e.sys_errno == EINVAL) e.code = ErrorCode::invalid;
    return tl::unexpected(std::move(e));
  }
  return {};
}

}  // namespace holdfast::platform
