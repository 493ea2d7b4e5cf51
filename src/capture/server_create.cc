// SPDX-License-Identifier: Apache-2.0
// New objects: made as the caller, named, given their id, recorded with what the file system below made of them.
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "capture/caller.h"
#include "capture/lower_xattrs.h"
#include "capture/server.h"
#include "log/xattrs.h"

namespace holdfast::capture {

struct Server::NewObject {
  log::Kind kind = log::Kind::create;
  Name name;
  std::uint32_t mode = 0, umask = 0, rdev = 0, flags = 0;
  std::array<char, 4096> target{};  // symlink
  std::size_t target_size = 0;
  Extensions extensions;
  bool orphan = false;  // O_TMPFILE
  // What came of it:
  FileId id;
  Descriptor fd;  // data descriptor of a regular file, else O_PATH
  LowerHandle handle;
  struct stat st {};
  Bytes xattrs;  // encoded
};

namespace {

constexpr std::size_t label_room = 512;
constexpr const char* default_acl = "system.posix_acl_default";

dev_t device_number(std::uint32_t kernel) {
  return makedev((kernel & 0xfff00) >> 8, (kernel & 0xff) | ((kernel >> 12) & 0xfff00));
}

int errno_of(const Error& error) { return error.sys_errno ? error.sys_errno : EIO; }

// Labels as the security module above wants them, where the one below did not set them itself.
void set_labels(int fd, ByteView labels) {
  while (labels.size() >= sizeof(fuse::SecurityContext)) {
    fuse::SecurityContext head;
    std::memcpy(&head, labels.data(), sizeof head);
    ByteView rest = labels.subspan(sizeof head);
    Name name;
    if (name.take(rest) != 0 || head.size > rest.size()) return;
    setxattr(ProcPath(fd).c_str(), name.c_str(), rest.data(), head.size, 0);
    const std::size_t whole = fuse::record_aligned(sizeof head + name.size() + 1 + head.size);
    if (whole > labels.size()) return;
    labels = labels.subspan(whole);
  }
}

}  // namespace

std::size_t Server::default_acl_bytes(Inode& parent, int parent_fd) {
  std::int32_t bytes = parent.default_acl_bytes.load();
  if (bytes < 0) {
    const ssize_t n = ::getxattr(ProcPath(parent_fd).c_str(), default_acl, nullptr, 0);
    bytes = n > 0 ? static_cast<std::int32_t>(n) : 0;
    parent.default_acl_bytes = bytes;
  }
  return static_cast<std::size_t>(bytes);
}

int Server::make_below(Request& r, int parent_fd, NewObject& object) {
  const AsCaller caller(r.head.uid, r.head.gid, object.extensions.group_list(), object.umask);
  const char* name = object.name.c_str();
  switch (object.kind) {
    case log::Kind::create: {
      const int keep = object.flags & (object.orphan ? O_EXCL : 0);
      const int flags = object.orphan ? O_TMPFILE | keep : O_CREAT | O_EXCL;
      object.fd = Descriptor(with_descriptors([&] {
        return openat(parent_fd, object.orphan ? "." : name, flags | O_RDWR | O_CLOEXEC | O_NOFOLLOW,
                      object.mode & 07777);
      }));
      return object.fd.get() < 0 ? errno : 0;
    }
    case log::Kind::mkdir:
      return mkdirat(parent_fd, name, object.mode & 07777) ? errno : 0;
    case log::Kind::symlink:
      return symlinkat(object.target.data(), parent_fd, name) ? errno : 0;
    default:
      return mknodat(parent_fd, name, object.mode, device_number(object.rdev)) ? errno : 0;
  }
}

// Identity and facts of what was just made. On failure the object has to go again.
int Server::finish_new(int parent_fd, NewObject& object) {
  if (object.fd.get() < 0)
    object.fd = Descriptor(
        with_descriptors([&] { return openat(parent_fd, object.name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC); }));
  const int fd = object.fd.get();
  if (fd < 0) return errno;
  if (auto bound = ids_.bind(fd, options_.set, object.id); !bound) return errno_of(bound.error());
  if (object.id.is_none()) {  // an id provider that derives ids from what is there
    const auto found = ids_.identify(fd, options_.set);
    if (!found) return errno_of(found.error());
    object.id = *found;
  }
  if (!object.extensions.labels.empty()) set_labels(fd, object.extensions.labels);
  if (const int error = handle_of(fd, object.handle)) return error;
  return fstat(fd, &object.st) ? errno : 0;
}

void Server::undo_new(int parent_fd, const NewObject& object) {
  if (!object.orphan) unlinkat(parent_fd, object.name.c_str(), object.kind == log::Kind::mkdir ? AT_REMOVEDIR : 0);
}

// Answers with EntryOut; a create adds OpenOut behind it.
Answer Server::make(Request& r, NewObject& object) {
  SharedDescriptor parent_path;
  const InodePtr parent = inode_of(r.head.nodeid, parent_path);
  if (!parent) return -ESTALE;
  if (!object.orphan && hidden(*parent, object.name.c_str())) return -EPERM;
  const int parent_fd = parent_path->get();
  const std::size_t inherited = default_acl_bytes(*parent, parent_fd);
  const bool look_for_xattrs = object.kind != log::Kind::symlink && (inherited || labels_);
  const std::size_t room = object.name.size() + object.target_size + 2 * inherited + (look_for_xattrs ? label_room : 0);
  HotGuard hot;
  if (const Answer no = note_hot(hot, *parent)) return no;
  const auto id = ids_.fresh();
  if (!id) return not_noted(id.error());
  object.id = *id;
  Reservation held(log_);
  if (!take_space(r, held, {room})) return -EIO;
  ObjectLocks::Guard guard = locks_.lock(parent->id, object.id);
  if (const int error = make_below(r, parent_fd, object)) return failed(error, "creating below failed");
  int error = finish_new(parent_fd, object);
  if (!error && look_for_xattrs) error = read_xattrs(object.fd.get(), object.xattrs);
  if (!error && object.name.size() + object.xattrs.size() > room)
    error = ENOSPC;                                                     // more labels than a file system inherits
  if (!error && look_for_xattrs) error = peers_.xattrs(object.xattrs);  // access lists that it inherits twice
  if (error) {
    undo_new(parent_fd, object);
    return failed(error, "creating below failed");
  }
  struct stat parent_st;
  if (fstat(parent_fd, &parent_st) != 0) return fault(errno, "reading attributes below failed");
  log::Record record = record_of(object.kind, object.id);
  record.parent = parent->id;
  record.name = object.name.view();
  record.flags = object.orphan ? log::flag_orphan : 0;
  record.mode = object.st.st_mode;
  record.uid = object.st.st_uid;
  record.gid = object.st.st_gid;
  record.rdev = object.st.st_rdev;
  record.mtime_ns = nanoseconds(object.st.st_mtim);
  record.atime_ns = nanoseconds(object.st.st_atim);
  record.parent_mtime_ns = nanoseconds(parent_st.st_mtim);
  record.payload = object.kind == log::Kind::symlink
                       ? as_bytes(std::string_view(object.target.data(), object.target_size))
                       : ByteView(object.xattrs);
  if (object.orphan) record.name = {};
  append(held, record);
  guard.unlock();

  const bool regular = object.kind == log::Kind::create;
  Descriptor path = regular ? Descriptor() : std::move(object.fd);
  if (object.orphan) path = Descriptor(fcntl(object.fd.get(), F_DUPFD_CLOEXEC, 3));
  const InodePtr inode =
      inodes_.add(object.id, object.st.st_ino, object.st.st_mode & S_IFMT, object.handle, std::move(path));
  hot.made(inode->hot);
  if (regular) inode->has_capability = 0;
  if (object.orphan) {
    inode->unlinked = true;
    inodes_.pin(*inode);
  }
  fuse::EntryOut entry{};
  fill_entry(*inode, object.st, entry);
  Answer size = put(r, entry);
  if (regular) {
    auto handle = std::make_unique<FileHandle>(inode, std::make_shared<Descriptor>(std::move(object.fd)),
                                               (object.flags & O_ACCMODE) != O_RDONLY);
    inodes_.adopt_data(*inode, handle->data, handle->write);
    const fuse::OpenOut opened{files_.add(std::move(handle)), fuse::fopen_keep_cache, 0};
    std::memcpy(r.reply.data() + size, &opened, sizeof opened);
    size += static_cast<Answer>(sizeof opened);
  }
  return size;
}

Answer Server::create(Request& r) {
  const auto& in = r.in<fuse::CreateIn>();
  NewObject object;
  object.extensions.parse(r);
  if (const int error = object.name.take(r.args)) return -error;
  object.mode = in.mode;
  object.umask = in.umask;
  object.flags = in.flags;
  return make(r, object);
}

Answer Server::tmpfile(Request& r) {
  const auto& in = r.in<fuse::CreateIn>();
  NewObject object;
  object.orphan = true;
  object.extensions.parse(r);
  object.mode = in.mode;
  object.umask = in.umask;
  object.flags = in.flags;
  return make(r, object);
}

Answer Server::mkdir(Request& r) {
  const auto& in = r.in<fuse::MkdirIn>();
  NewObject object;
  object.kind = log::Kind::mkdir;
  object.extensions.parse(r);
  if (const int error = object.name.take(r.args)) return -error;
  object.mode = in.mode;
  object.umask = in.umask;
  return make(r, object);
}

Answer Server::mknod(Request& r) {
  const auto& in = r.in<fuse::MknodIn>();
  NewObject object;
  object.kind = log::Kind::mknod;
  object.extensions.parse(r);
  if (const int error = object.name.take(r.args)) return -error;
  object.mode = in.mode;
  object.umask = in.umask;
  object.rdev = in.rdev;
  if (const int error = peers_.device(in.mode, device_number(in.rdev))) return -error;
  return make(r, object);
}

Answer Server::symlink(Request& r) {
  NewObject object;
  object.kind = log::Kind::symlink;
  object.extensions.parse(r);
  if (const int error = object.name.take(r.args)) return -error;
  const void* end = std::memchr(r.args.data(), 0, r.args.size());
  if (!end) return -EINVAL;
  object.target_size = static_cast<std::size_t>(static_cast<const std::uint8_t*>(end) - r.args.data());
  if (object.target_size >= object.target.size()) return -ENAMETOOLONG;
  if (const int error = peers_.link_target(object.target_size)) return -error;
  std::memcpy(object.target.data(), r.args.data(), object.target_size);
  return make(r, object);
}

}  // namespace holdfast::capture
