// SPDX-License-Identifier: Apache-2.0
// Names to inodes, attributes, and forgetting.
#include <sys/sysmacros.h>

#include "capture/server.h"

namespace holdfast::capture {
namespace {

// The tree below changes only through us, so what the kernel knows stays true until it asks us to change it.
constexpr std::uint64_t cache_seconds = 365ULL * 86400;

std::uint32_t kernel_device(dev_t dev) {  // the encoding of the kernel's new_encode_dev
  const std::uint32_t major_part = major(dev), minor_part = minor(dev);
  return (minor_part & 0xff) | (major_part << 8) | ((minor_part & ~0xffU) << 12);
}

int errno_of(const Error& error) { return error.sys_errno ? error.sys_errno : EIO; }

}  // namespace

void Server::fill_attr(const Inode& inode, const struct stat& st, fuse::Attr& out) const {
  out.ino = inode.shown_ino();
  out.size = static_cast<std::uint64_t>(st.st_size);
  out.blocks = static_cast<std::uint64_t>(st.st_blocks);
  out.atime = static_cast<std::uint64_t>(st.st_atim.tv_sec);
  out.mtime = static_cast<std::uint64_t>(st.st_mtim.tv_sec);
  out.ctime = static_cast<std::uint64_t>(st.st_ctim.tv_sec);
  out.atime_nsec = static_cast<std::uint32_t>(st.st_atim.tv_nsec);
  out.mtime_nsec = static_cast<std::uint32_t>(st.st_mtim.tv_nsec);
  out.ctime_nsec = static_cast<std::uint32_t>(st.st_ctim.tv_nsec);
  out.mode = st.st_mode;
  out.nlink = static_cast<std::uint32_t>(st.st_nlink) - (inode.nodeid == fuse::root_node ? root_hidden_links_ : 0);
  out.uid = st.st_uid;
  out.gid = st.st_gid;
  out.rdev = kernel_device(st.st_rdev);
  out.blksize = static_cast<std::uint32_t>(st.st_blksize);
  out.flags = 0;
}

void Server::fill_entry(const Inode& inode, const struct stat& st, fuse::EntryOut& out) const {
  out.nodeid = inode.nodeid;
  out.generation = inode.generation();
  out.entry_valid = out.attr_valid = cache_seconds;
  out.entry_valid_nsec = out.attr_valid_nsec = 0;
  fill_attr(inode, st, out.attr);
}

bool Server::hidden(const Inode& parent, const char* name) const {
  return parent.nodeid == fuse::root_node && hidden_folder == name;
}

InodePtr Server::inode_of(std::uint64_t nodeid, SharedDescriptor& path) {
  InodePtr inode = inodes_.find(nodeid);
  if (!inode) return nullptr;
  path = inodes_.path(*inode);
  return path ? inode : nullptr;
}

int Server::identify(int parent_fd, const char* name, struct stat& st, LowerHandle& handle, FileId& id,
                     Descriptor& path) {
  path = Descriptor(with_descriptors([&] { return openat(parent_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC); }));
  if (path.get() < 0 || fstat(path.get(), &st) != 0) return errno;
  if (st.st_dev != device_) return EXDEV;  // a subvolume or mount inside: its inode numbers are not ours
  if (const int error = handle_of(path.get(), handle)) return error;
  const auto found = ids_.identify(path.get(), options_.set);
  if (!found) return errno_of(found.error());
  id = *found;
  return 0;
}

int Server::look_up_child(int parent_fd, const char* name, InodePtr& out, struct stat& st) {
  if (fstatat(parent_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0) return errno;
  out = inodes_.find_lower(st.st_ino);
  if (out && st.st_dev == device_ && inodes_.look_up(out)) return 0;
  const std::lock_guard one_at_a_time(identify_mutexes_[st.st_ino % identify_mutexes_.size()]);
  LowerHandle handle;
  FileId id;
  Descriptor path;
  if (const int error = identify(parent_fd, name, st, handle, id, path)) return error;
  out = inodes_.add(id, st.st_ino, st.st_mode & S_IFMT, handle, std::move(path));
  return 0;
}

int Server::peek_child(int parent_fd, const char* name, Child& out) {
  out.known = nullptr;
  out.id = {};
  if (fstatat(parent_fd, name, &out.st, AT_SYMLINK_NOFOLLOW) != 0) return errno;
  out.known = inodes_.find_lower(out.st.st_ino);
  if (out.known) {
    out.id = out.known->id;
    return 0;
  }
  const std::lock_guard one_at_a_time(identify_mutexes_[out.st.st_ino % identify_mutexes_.size()]);
  LowerHandle handle;
  Descriptor path;
  return identify(parent_fd, name, out.st, handle, out.id, path);
}

int Server::open_exported(std::uint64_t nodeid, InodePtr& out, struct stat& st) {
  auto opened = ids_.open_by_prefix(options_.set, nodeid);
  if (!opened) return ESTALE;
  const Descriptor path(*opened);
  return look_up_child(path.get(), "", out, st) == 0 ? 0 : ESTALE;
}

Answer Server::lookup(Request& r) {
  Name name;
  if (const int error = name.take(r.args)) return -error;
  InodePtr child;
  struct stat st;
  fuse::EntryOut out{};
  SharedDescriptor path;
  const InodePtr parent = inode_of(r.head.nodeid, path);
  if (name.view() == "." || name.view() == "..") {  // only handles of exported files ask this
    int error = ESTALE;
    if (parent && S_ISDIR(parent->file_type))
      error = parent == root_ && name.size() == 2 ? ESTALE : look_up_child(path->get(), name.c_str(), child, st);
    else if (parent && name.size() == 1)
      error = fstat(path->get(), &st) == 0 && inodes_.look_up(parent) ? (child = parent, 0) : ESTALE;
    else if (!parent && name.size() == 1)
      error = open_exported(r.head.nodeid, child, st);
    if (error) return -error;
  } else {
    if (!parent) return -ESTALE;
    const int error = hidden(*parent, name.c_str()) ? ENOENT : look_up_child(path->get(), name.c_str(), child, st);
    if (error == ENOENT) {
      out.entry_valid = cache_seconds;  // node 0: remember that there is nothing
      return put(r, out);
    }
    if (error) return failed(error, "a look-up below failed");
  }
  fill_entry(*child, st, out);
  return put(r, out);
}

void Server::forget_one(std::uint64_t nodeid, std::uint64_t count) {
  const InodePtr gone = inodes_.forget(nodeid, count);
  if (gone && gone->unlinked) ids_.gone(options_.set, gone->id);
}

Answer Server::forget(Request& r) {
  forget_one(r.head.nodeid, r.in<fuse::ForgetIn>().nlookup);
  return no_answer;
}

Answer Server::batch_forget(Request& r) {
  const std::uint32_t count = r.in<fuse::BatchForgetIn>().count;
  for (std::uint32_t i = 0; i < count && (i + 1) * sizeof(fuse::ForgetOne) <= r.args.size(); ++i) {
    fuse::ForgetOne one;
    std::memcpy(&one, r.args.data() + i * sizeof one, sizeof one);
    forget_one(one.nodeid, one.nlookup);
  }
  return no_answer;
}

Answer Server::getattr(Request& r) {
  SharedDescriptor path;
  const InodePtr inode = inode_of(r.head.nodeid, path);
  if (!inode) return -ESTALE;
  struct stat st;
  if (fstat(path->get(), &st) != 0) return failed(errno, "reading attributes below failed");
  fuse::AttrOut out{};
  out.attr_valid = cache_seconds;
  fill_attr(*inode, st, out.attr);
  return put(r, out);
}

Answer Server::statx(Request& r) {
  static_assert(sizeof(struct statx) == sizeof(fuse::Statx));
  SharedDescriptor path;
  const InodePtr inode = inode_of(r.head.nodeid, path);
  if (!inode) return -ESTALE;
  struct statx stx;
  if (::statx(path->get(), "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &stx) != 0)
    return failed(errno, "reading attributes below failed");
  fuse::StatxOut out{};
  out.attr_valid = cache_seconds;
  std::memcpy(&out.stat, &stx, sizeof stx);
  out.stat.ino = inode->shown_ino();
  if (inode == root_) out.stat.nlink -= root_hidden_links_;
  return put(r, out);
}

Answer Server::readlink(Request& r) {
  SharedDescriptor path;
  if (!inode_of(r.head.nodeid, path)) return -ESTALE;
  const ssize_t n = readlinkat(path->get(), "", reinterpret_cast<char*>(r.reply.data()), 4096);
  return n < 0 ? failed(errno, "reading a symbolic link below failed") : n;
}

}  // namespace holdfast::capture
