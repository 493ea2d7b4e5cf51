// SPDX-License-Identifier: Apache-2.0
// Attributes and extended attributes. The kernel has checked who may (default_permissions); here only what the file system says counts.
#include <sys/xattr.h>

#include "capture/caller.h"
#include "capture/server.h"

namespace holdfast::capture {
namespace {

constexpr std::uint32_t any_time = fuse::set_atime | fuse::set_mtime;
constexpr std::size_t privilege_room = 32;  // a remove_xattr of security.capability

timespec time_of(std::uint32_t valid, std::uint32_t bit, std::uint32_t now_bit, std::uint64_t sec, std::uint32_t nsec) {
  if (!(valid & bit)) return {0, UTIME_OMIT};
  if (valid & now_bit) return {0, UTIME_NOW};
  return {static_cast<time_t>(sec), nsec};
}

bool is_hidden(std::string_view name) { return name.starts_with(hidden_attributes); }

std::uint32_t orphan_flag(const Inode& inode) { return inode.unlinked ? log::flag_orphan : 0; }

}  // namespace

int Server::truncate_below(Inode& inode, int path_fd, std::uint64_t size, bool by_descriptor, bool drop_privileges) {
  const WithoutFsetid ordinary(drop_privileges);
  // To the size it has: by descriptor the time moves, by name it does on some file systems.
  const SharedDescriptor open_data = by_descriptor ? inodes_.data(inode, true) : nullptr;
  const int result = open_data ? ftruncate(open_data->get(), static_cast<off_t>(size))
                               : ::truncate(ProcPath(path_fd).c_str(), static_cast<off_t>(size));
  return result ? errno : 0;
}

Answer Server::setattr(Request& r) {
  const auto in = r.in<fuse::SetattrIn>();
  SharedDescriptor path;
  const InodePtr inode = inode_of(r.head.nodeid, path);
  if (!inode) return -ESTALE;
  const int fd = path->get();
  const bool sizes = in.valid & fuse::set_size;
  // What the kernel sends before each fsync of a file that was written to: times change nothing else.
  const bool only_times = !(in.valid & (fuse::set_size | fuse::set_mode | fuse::set_uid | fuse::set_gid));
  if (const int error = sizes ? peers_.file_end(in.size) : 0) return -error;
  HotGuard hot;
  if (const Answer no = note_hot(hot, *inode)) return no;
  Reservation held(log_);
  if (!take_space(r, held, {0, 0, privilege_room, privilege_room})) return -EIO;
  ObjectLocks::Guard guard = locks_.lock(inode->id);
  struct stat before {};
  struct stat st;
  if (!only_times && fstat(fd, &before) != 0) return failed(errno, "reading attributes below failed");
  if (sizes || (in.valid & (fuse::set_uid | fuse::set_gid))) may_lose_capability(*inode, fd);
  std::uint32_t done = 0;
  int error = 0;
  if (in.valid & (fuse::set_uid | fuse::set_gid)) {
    const uid_t uid = in.valid & fuse::set_uid ? in.uid : static_cast<uid_t>(-1);
    const gid_t gid = in.valid & fuse::set_gid ? in.gid : static_cast<gid_t>(-1);
    error = fchownat(fd, "", uid, gid, AT_EMPTY_PATH) ? errno : 0;
    if (!error) done |= log::valid_owner | log::valid_mode;  // set-id bits may have gone
  }
  if (!error && (in.valid & fuse::set_mode)) {
    error = change_mode(fd, in.mode & 07777);
    if (!error) done |= log::valid_mode;
  }
  if (!error && sizes) {
    error = truncate_below(*inode, fd, in.size, in.valid & fuse::set_fh, in.valid & fuse::set_kill_suidgid);
    if (!error && options_.write_back &&
        !(in.valid & fuse::set_mtime)) {  // the kernel's time stands, and it is as it was
      const timespec times[2] = {{0, UTIME_OMIT}, before.st_mtim};
      if (utimensat(fd, "", times, AT_EMPTY_PATH) != 0) return fault(errno, "setting times below failed");
    }
    if (!error) {
      if (fstat(fd, &st) != 0) return fault(errno, "reading attributes below failed");
      log::Record record = record_of(log::Kind::truncate, inode->id);
      record.flags = orphan_flag(*inode);
      record.length = in.size;
      record.mtime_ns = nanoseconds(st.st_mtim);
      append(held, record);
    }
  }
  if (!error && (in.valid & any_time)) {
    const timespec times[2] = {
        peers_.time(time_of(in.valid, fuse::set_atime, fuse::set_atime_now, in.atime, in.atime_nsec)),
        peers_.time(time_of(in.valid, fuse::set_mtime, fuse::set_mtime_now, in.mtime, in.mtime_nsec))};
    error = utimensat(fd, "", times, AT_EMPTY_PATH) ? errno : 0;
    if (!error)
      done |= (in.valid & fuse::set_atime ? log::valid_atime : 0) | (in.valid & fuse::set_mtime ? log::valid_mtime : 0);
  }
  if (fstat(fd, &st) != 0) return fault(errno, "reading attributes below failed");
  if (done) {
    log::Record record = record_of(log::Kind::set_attributes, inode->id);
    record.flags = orphan_flag(*inode);
    record.valid = done;
    record.mode = st.st_mode;
    record.uid = st.st_uid;
    record.gid = st.st_gid;
    record.mtime_ns = nanoseconds(st.st_mtim);
    record.atime_ns = nanoseconds(st.st_atim);
    append(held, record);
  }
  if (!only_times) append_lost_privileges(held, *inode, fd, done & log::valid_mode ? st.st_mode : before.st_mode, st);
  guard.unlock();
  if (error) return failed(error, "setting attributes below failed");
  fuse::AttrOut out{};
  out.attr_valid = 365ULL * 86400;
  fill_attr(*inode, st, out.attr);
  return put(r, out);
}

Answer Server::getxattr(Request& r) {
  const std::uint32_t size = r.in<fuse::GetxattrIn>().size;
  Name name;
  if (const int error = name.take(r.args)) return -error;
  if (is_hidden(name.view())) return -ENODATA;
  // The kernel asks at the first write of each file, and at each change of its owner.
  const bool is_capability = name.view() == capability;
  if (is_capability)
    if (const InodePtr known = inodes_.find(r.head.nodeid); known && known->has_capability == 0) return -ENODATA;
  SharedDescriptor path;
  const InodePtr inode = inode_of(r.head.nodeid, path);
  if (!inode) return -ESTALE;
  const std::size_t room = std::min<std::size_t>(size, r.reply.size());
  const ssize_t n = ::getxattr(ProcPath(path->get()).c_str(), name.c_str(), r.reply.data(), room);
  if (n < 0) {
    const int error = errno;
    std::int8_t unknown = -1;  // what was set meanwhile stands
    if (is_capability && error == ENODATA) inode->has_capability.compare_exchange_strong(unknown, 0);
    return -error;
  }
  if (size) return n;
  return put(r, fuse::GetxattrOut{static_cast<std::uint32_t>(n), 0});
}

// The file system below lists trusted attributes to us; an ordinary caller must not see them.
Answer Server::listxattr(Request& r) {
  const std::uint32_t size = r.in<fuse::GetxattrIn>().size;
  SharedDescriptor path;
  if (!inode_of(r.head.nodeid, path)) return -ESTALE;
  char* const list = reinterpret_cast<char*>(r.reply.data());
  const ssize_t n = ::listxattr(ProcPath(path->get()).c_str(), list, 64 * 1024);
  if (n < 0) return -errno;
  std::size_t kept = 0;
  for (const char* name = list; name < list + n;) {
    const std::size_t length = std::strlen(name) + 1;
    if (!is_hidden(name) && (r.head.uid == 0 || !std::string_view(name).starts_with("trusted."))) {
      std::memmove(list + kept, name, length);
      kept += length;
    }
    name += length;
  }
  if (size == 0) return put(r, fuse::GetxattrOut{static_cast<std::uint32_t>(kept), 0});
  return kept > size ? Answer{-ERANGE} : static_cast<Answer>(kept);
}

Answer Server::setxattr(Request& r) {
  auto in = r.in<fuse::SetxattrIn>();
  if (!setxattr_ext_) in.setxattr_flags = 0;
  Name name;
  if (const int error = name.take(r.args)) return -error;
  if (is_hidden(name.view())) return -EPERM;
  const ByteView value = r.args.subspan(0, std::min<std::size_t>(in.size, r.args.size()));
  SharedDescriptor path;
  const InodePtr inode = inode_of(r.head.nodeid, path);
  if (!inode) return -ESTALE;
  const int fd = path->get();
  const ProcPath below(fd);
  HotGuard hot;
  if (const Answer no = note_hot(hot, *inode)) return no;
  Reservation held(log_);
  if (!take_space(r, held, {name.size() + value.size(), 0})) return -EIO;
  ObjectLocks::Guard guard = locks_.lock(inode->id);
  struct stat before, st;
  if (fstat(fd, &before) != 0) return failed(errno, "reading attributes below failed");
  if (const int error = peers_.set_xattr(fd, name.view(), value.size(), static_cast<int>(in.flags))) return -error;
  if (::setxattr(below.c_str(), name.c_str(), value.data(), value.size(), static_cast<int>(in.flags)) != 0)
    return failed(errno, "setting an extended attribute below failed");
  if (name.view() == "system.posix_acl_default") inode->default_acl_bytes = static_cast<std::int32_t>(value.size());
  if (name.view() == capability) inode->has_capability = 1;
  if (fstat(fd, &st) != 0) return fault(errno, "reading attributes below failed");
  if ((in.setxattr_flags & fuse::setxattr_acl_kill_sgid) && (st.st_mode & S_ISGID)) {
    if (const int error = change_mode(fd, st.st_mode & 07777 & ~static_cast<mode_t>(S_ISGID)))
      return fault(error, "clearing a set-group-id bit below failed");
    st.st_mode &= ~static_cast<mode_t>(S_ISGID);
  }
  log::Record record = record_of(log::Kind::set_xattr, inode->id);
  record.flags = orphan_flag(*inode);
  record.name = name.view();
  record.payload = value;
  append(held, record);
  if (st.st_mode != before.st_mode) {  // an access ACL carries the mode, too
    log::Record mode = record_of(log::Kind::set_attributes, inode->id);
    mode.flags = orphan_flag(*inode);
    mode.valid = log::valid_mode;
    mode.mode = st.st_mode;
    append(held, mode);
  }
  return 0;
}

Answer Server::removexattr(Request& r) {
  Name name;
  if (const int error = name.take(r.args)) return -error;
  if (is_hidden(name.view())) return -ENODATA;
  SharedDescriptor path;
  const InodePtr inode = inode_of(r.head.nodeid, path);
  if (!inode) return -ESTALE;
  HotGuard hot;
  if (const Answer no = note_hot(hot, *inode)) return no;
  Reservation held(log_);
  if (!take_space(r, held, {name.size()})) return -EIO;
  ObjectLocks::Guard guard = locks_.lock(inode->id);
  if (::removexattr(ProcPath(path->get()).c_str(), name.c_str()) != 0)
    return failed(errno, "removing an extended attribute below failed");
  if (name.view() == "system.posix_acl_default") inode->default_acl_bytes = 0;
  if (name.view() == capability) inode->has_capability = 0;
  log::Record record = record_of(log::Kind::remove_xattr, inode->id);
  record.flags = orphan_flag(*inode);
  record.name = name.view();
  append(held, record);
  return 0;
}

}  // namespace holdfast::capture
