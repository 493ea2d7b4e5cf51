// SPDX-License-Identifier: Apache-2.0
// Names that go, move and come to existing objects. What loses its last name while the kernel knows it is pinned first (R18).
#include <sys/sysmacros.h>

#include "capture/caller.h"
#include "capture/server.h"

#ifndef RENAME_WHITEOUT
#define RENAME_WHITEOUT (1 << 2)
#endif

namespace holdfast::capture {
namespace {

std::int64_t mtime_of(int fd) {
  struct stat st;
  return fstat(fd, &st) == 0 ? nanoseconds(st.st_mtim) : 0;
}

}  // namespace

// Before any lock is taken.
void Server::let_forgets_catch_up(Request& r) {
  if (!inodes_.too_many_pinned()) return;
  r.transport->wait_begins(r.queue);
  inodes_.wait_for_forgets();
  r.transport->wait_ends(r.queue);
}

bool Server::pin_before_loss(const Child& child, bool is_dir) {
  return !child.known || (!is_dir && child.st.st_nlink > 1) || inodes_.pin(*child.known);
}

void Server::after_loss(const Child& child, bool is_dir) {
  if (child.id.is_none() || (!is_dir && child.st.st_nlink > 1)) return;
  if (child.known)
    child.known->unlinked = true;  // the id goes with the last use, at FORGET
  else
    ids_.gone(options_.set, child.id);
}

Answer Server::rmdir(Request& r) { return remove_name(r, AT_REMOVEDIR); }

Answer Server::remove_name(Request& r, int at_flags) {
  Name name;
  if (const int error = name.take(r.args)) return -error;
  SharedDescriptor parent_path;
  const InodePtr parent = inode_of(r.head.nodeid, parent_path);
  if (!parent) return -ESTALE;
  if (hidden(*parent, name.c_str())) return -ENOENT;
  const int parent_fd = parent_path->get();
  const bool is_dir = at_flags & AT_REMOVEDIR;
  let_forgets_catch_up(r);
  HotGuard hot;
  if (const Answer no = note_hot(hot, *parent)) return no;
  Reservation held(log_);
  if (!take_space(r, held, {name.size()})) return -EIO;
  for (;;) {
    Child child, now;
    if (const int error = peek_child(parent_fd, name.c_str(), child)) return failed(error, "a look-up below failed");
    ObjectLocks::Guard guard = locks_.lock(parent->id, child.id);
    if (const int error = peek_child(parent_fd, name.c_str(), now)) return failed(error, "a look-up below failed");
    if (now.id != child.id) continue;  // another object took the name before we had its lock
    if (!pin_before_loss(now, is_dir)) return failed(errno, "opening a file before its removal failed");
    if (unlinkat(parent_fd, name.c_str(), at_flags) != 0) return failed(errno, "removing below failed");
    after_loss(now, is_dir);
    log::Record record = record_of(is_dir ? log::Kind::rmdir : log::Kind::unlink, now.id);
    record.parent = parent->id;
    record.name = name.view();
    record.parent_mtime_ns = mtime_of(parent_fd);
    append(held, record);
    return 0;
  }
}

Answer Server::rename(Request& r) { return rename_names(r, r.in<fuse::RenameIn>().new_parent, 0); }

Answer Server::rename2(Request& r) {
  const auto& in = r.in<fuse::Rename2In>();
  return rename_names(r, in.new_parent, in.flags);
}

// Locks both folders, what moves and what is replaced; looks again until names mean what was locked. 0 or errno.
int Server::lock_rename(const Inode& from, int from_fd, const Name& name, const Inode& to, int to_fd, const Name& name2,
                        unsigned flags, Child& moved, Child& replaced, ObjectLocks::Guard& guard) {
  for (;;) {
    if (const int error = peek_child(from_fd, name.c_str(), moved)) return error;
    int error = peek_child(to_fd, name2.c_str(), replaced);
    if (error && error != ENOENT) return error;
    ObjectLocks::Guard locked = locks_.lock(from.id, to.id, moved.id, replaced.id);
    Child moved_now, replaced_now;
    if (const int again = peek_child(from_fd, name.c_str(), moved_now)) return again;
    error = peek_child(to_fd, name2.c_str(), replaced_now);
    if (error && error != ENOENT) return error;
    if (moved_now.id != moved.id || replaced_now.id != replaced.id) continue;
    if ((flags & RENAME_NOREPLACE) && !replaced_now.id.is_none()) return EEXIST;
    moved = std::move(moved_now);
    replaced = std::move(replaced_now);
    guard.adopt(std::move(locked));
    return 0;
  }
}

// The device that stands for "nothing here" in overlays is an object of its own, with an id and a record of its own. It stands at `name` of
// `parent_fd`; the record says that it came to be at `as` of `parent`. None: that failed, and was told.
FileId Server::append_whiteout(Reservation& held, int parent_fd, const Name& name, const FileId& parent, const Name& as,
                               std::int64_t parent_mtime_ns) {
  const Descriptor fd(
      with_descriptors([&] { return openat(parent_fd, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC); }));
  struct stat st;
  const auto fresh = ids_.fresh();
  if (!fresh) {
    fault(fresh.error().sys_errno ? fresh.error().sys_errno : EIO, "a whiteout below got no id");
    return {};
  }
  const FileId id = *fresh;
  if (fd.get() < 0 || fstat(fd.get(), &st) != 0) {
    fault(errno, "a whiteout below is missing");
    return {};
  }
  if (auto bound = ids_.bind(fd.get(), options_.set, id); !bound) {
    fault(bound.error().sys_errno ? bound.error().sys_errno : EIO, "a whiteout below got no id");
    return {};
  }
  log::Record record = record_of(log::Kind::mknod, id);
  record.parent = parent;
  record.name = as.view();
  record.mode = st.st_mode;
  record.uid = st.st_uid;
  record.gid = st.st_gid;
  record.rdev = st.st_rdev;
  record.mtime_ns = nanoseconds(st.st_mtim);
  record.atime_ns = nanoseconds(st.st_atim);
  record.parent_mtime_ns = parent_mtime_ns;
  append(held, record);
  return id;
}

Answer Server::rename_names(Request& r, std::uint64_t new_parent, unsigned flags) {
  Name name, name2;
  if (const int error = name.take(r.args)) return -error;
  if (const int error = name2.take(r.args)) return -error;
  SharedDescriptor from_path, to_path;
  const InodePtr from = inode_of(r.head.nodeid, from_path), to = inode_of(new_parent, to_path);
  if (!from || !to) return -ESTALE;
  if (hidden(*from, name.c_str())) return -ENOENT;
  if (hidden(*to, name2.c_str())) return -EPERM;
  const int from_fd = from_path->get(), to_fd = to_path->get();
  const bool exchange = flags & RENAME_EXCHANGE, whiteout = flags & RENAME_WHITEOUT;
  if (inodes_.too_many_pinned() && faccessat(to_fd, name2.c_str(), F_OK, AT_SYMLINK_NOFOLLOW) == 0)
    let_forgets_catch_up(r);
  HotGuard hot;
  if (const Answer no = note_hot(hot, *from, *to)) return no;
  Reservation held(log_);
  const std::size_t names = name.size() + name2.size();
  if (!(whiteout ? take_space(r, held, {names, names}) : take_space(r, held, {names}))) return -EIO;
  Child moved, replaced;
  ObjectLocks::Guard guard;
  if (const int error = lock_rename(*from, from_fd, name, *to, to_fd, name2, flags, moved, replaced, guard))
    return failed(error, "a look-up below failed");
  if (moved.id == replaced.id && !exchange) return 0;  // two names of one file: POSIX leaves both
  const bool replaces = !exchange && !replaced.id.is_none(), replaces_dir = replaces && S_ISDIR(replaced.st.st_mode);
  if (replaces && !pin_before_loss(replaced, replaces_dir))
    return failed(errno, "opening a file before its replacement failed");
  {
    const AsCaller caller(whiteout ? r.head.uid : 0, whiteout ? r.head.gid : 0, {}, 0);
    if (renameat2(from_fd, name.c_str(), to_fd, name2.c_str(), flags) != 0)
      return failed(errno, "renaming below failed");
  }
  if (replaces) after_loss(replaced, replaces_dir);
  // A whiteout is two records. Where nothing is replaced it comes first, at the new name, and both change places: wherever a copy is cut off,
  // what an overlay hides below the old name stays hidden. (Else the old name is free for a moment.)
  FileId left;
  if (whiteout && !replaces) {
    left = append_whiteout(held, from_fd, name, to->id, name2, mtime_of(to_fd));
    if (left.is_none()) return -EIO;
  }
  log::Record record = record_of(log::Kind::rename, moved.id);
  record.parent = from->id;
  record.name = name.view();
  record.parent2 = to->id;
  record.name2 = name2.view();
  record.replaced = left.is_none() ? replaced.id : left;
  record.mode = moved.st.st_mode;
  record.flags = (exchange || !left.is_none() ? log::flag_rename_exchange : 0) |
                 (flags & RENAME_NOREPLACE && left.is_none() ? log::flag_rename_noreplace : 0);
  record.parent_mtime_ns = mtime_of(from_fd);
  record.parent2_mtime_ns = mtime_of(to_fd);
  append(held, record);
  if (whiteout && replaces) append_whiteout(held, from_fd, name, from->id, name, mtime_of(from_fd));
  guard.unlock();
  log_.moved(options_.set, moved.id);
  if (exchange) log_.moved(options_.set, replaced.id);
  if (!left.is_none()) log_.moved(options_.set, left);
  return 0;
}

Answer Server::link(Request& r) {
  const std::uint64_t old_node = r.in<fuse::LinkIn>().old_node;
  Name name;
  if (const int error = name.take(r.args)) return -error;
  SharedDescriptor parent_path, path;
  const InodePtr parent = inode_of(r.head.nodeid, parent_path), inode = inode_of(old_node, path);
  if (!parent || !inode) return -ESTALE;
  if (hidden(*parent, name.c_str())) return -EPERM;
  HotGuard hot;
  if (const Answer no = note_hot(hot, *parent)) return no;
  Reservation held(log_);
  if (!take_space(r, held, {name.size()})) return -EIO;
  ObjectLocks::Guard guard = locks_.lock(parent->id, inode->id);
  struct stat st;
  if (fstat(path->get(), &st) != 0) return failed(errno, "reading attributes below failed");
  if (const int error = peers_.more_links(st.st_nlink)) return -error;
  if (linkat(path->get(), "", parent_path->get(), name.c_str(), AT_EMPTY_PATH) != 0)
    return failed(errno, "linking below failed");
  inode->unlinked = false;
  inodes_.unpin(*inode);
  if (fstat(path->get(), &st) != 0) return fault(errno, "reading attributes below failed");
  log::Record record = record_of(log::Kind::link, inode->id);
  record.parent = parent->id;
  record.name = name.view();
  record.mode = st.st_mode;
  record.parent_mtime_ns = mtime_of(parent_path->get());
  append(held, record);
  guard.unlock();
  log_.moved(options_.set, inode->id);
  if (!inodes_.look_up(inode)) return -ESTALE;
  fuse::EntryOut out{};
  fill_entry(*inode, st, out);
  return put(r, out);
}

}  // namespace holdfast::capture
