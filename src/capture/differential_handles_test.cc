// SPDX-License-Identifier: Apache-2.0
// Other ways to an object than its name: handles, descriptors of paths, constrained look-ups, other roots; and what is told about it.
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <map>

#include "capture/differential_cases.h"

namespace holdfast::capture {
namespace {

struct Handle {
  file_handle head;
  char room[128];
};

Handle handle_of(Trace& t, const char* what, int at, const char* name, int flags = 0) {
  Handle handle{};
  handle.head.handle_bytes = sizeof handle.room;
  int mount = 0;
  t.call(what, name_to_handle_at(at, name, &handle.head, &mount, flags));
  return handle;
}

// The kernel forgets what it knows of this file system: it does at any remount. (A bare folder is none, and stays as it is.)
void forget_all(Trace& t) { (void)mount(nullptr, t.at("").c_str(), nullptr, MS_REMOUNT, nullptr); }

void handles(Trace& t) {
  t.call("mkdir", mkdir(t.at("d").c_str(), 0755));
  t.put("d/f", "by handle");
  t.call("symlink", symlink("f", t.at("d/s").c_str()));
  const int root = open(t.at("").c_str(), O_RDONLY | O_DIRECTORY), folder = open(t.at("d").c_str(), O_RDONLY);
  Handle top = handle_of(t, "of the root", root, "", AT_EMPTY_PATH), d = handle_of(t, "of a folder", root, "d");
  Handle f = handle_of(t, "of a file", folder, "f"), s = handle_of(t, "of a link", folder, "s");
  handle_of(t, "of nothing", folder, "none");
  Handle small{};
  t.call("no room", name_to_handle_at(folder, "f", &small.head, nullptr, 0));
  int mount = 0;
  t.call("no room", name_to_handle_at(folder, "f", &small.head, &mount, 0));
  const auto opened = [&](const char* what, Handle& handle, int flags) {
    const int fd = t.opened(what, open_by_handle_at(root, &handle.head, flags));
    t.stat_fd(what, fd);
    return fd;
  };
  const int by_handle = opened("file", f, O_RDWR);
  char text[16] = {};
  t.call("read", read(by_handle, text, sizeof text));
  t.note("{}", text);
  t.call("write", pwrite(by_handle, "BY", 2, 0));
  close(by_handle);
  close(opened("folder", d, O_RDONLY | O_DIRECTORY));
  close(opened("root", top, O_RDONLY));
  close(opened("link", s, O_PATH));
  opened("link for reading", s, O_RDONLY);
  t.call("moved", rename(t.at("d/f").c_str(), t.at("g").c_str()));
  close(opened("after a rename", f, O_RDONLY));
  const int held = open(t.at("g").c_str(), O_RDONLY);
  t.call("unlinked", unlink(t.at("g").c_str()));
  close(held);
  // Its end is a moment after its last use.
  for (int i = 0, fd = 0; i < 5000 && fd >= 0; ++i, usleep(1000)) {
    fd = open_by_handle_at(root, &f.head, O_RDONLY);
    if (fd >= 0) close(fd);
  }
  opened("after its end", f, O_RDONLY);
  t.put("g", "another");
  opened("the old one", f, O_RDONLY);
  Handle nonsense = f;
  std::memset(nonsense.room, 0x55, sizeof nonsense.room);
  opened("nonsense", nonsense, O_RDONLY);
  t.as_user(1000, 1000, {}, [&](Trace& u) {
    u.opened("by a user", open_by_handle_at(root, &d.head, O_RDONLY));
    handle_of(u, "a user's handle", root, "d");
  });
  close(root);
  close(folder);
  t.content("g");
}

void numbers_stay(Trace& t) {
  t.call("mkdir", mkdir(t.at("d").c_str(), 0755));
  t.put("d/f", "x");
  t.call("link", link(t.at("d/f").c_str(), t.at("d/g").c_str()));
  t.call("symlink", symlink("f", t.at("d/s").c_str()));
  const auto numbers = [&] {
    std::map<std::string, ino_t> out;
    struct stat st;
    for (const char* n : {"", "d", "d/f", "d/g", "d/s"}) out[n] = lstat(t.at(n).c_str(), &st) == 0 ? st.st_ino : 0;
    return out;
  };
  const auto first = numbers();
  t.note("same file: {}, others differ: {}", first.at("d/f") == first.at("d/g"), first.at("d") != first.at("d/f"));
  t.call("replaced", truncate(t.at("d/f").c_str(), 1000));
  t.call("renamed", rename(t.at("d/g").c_str(), t.at("d/h").c_str()));
  t.call("renamed", rename(t.at("d/h").c_str(), t.at("d/g").c_str()));
  t.note("stay: {}", numbers() == first);
  forget_all(t);
  t.note("stay after they were forgotten: {}", numbers() == first);
  t.content("d/s");
}

void paths_as_descriptors(Trace& t) {
  t.call("mkdir", mkdir(t.at("d").c_str(), 0755));
  t.put("d/f", "through a path");
  t.call("symlink", symlink("d/f", t.at("s").c_str()));
  const int file = t.opened("file", open(t.at("d/f").c_str(), O_PATH)),
            folder = t.opened("d", open(t.at("d").c_str(), O_PATH));
  const int link = t.opened("link", open(t.at("s").c_str(), O_PATH | O_NOFOLLOW));
  char text[32] = {};
  t.call("read", read(file, text, sizeof text));
  t.call("write", write(file, "x", 1));
  t.call("chmod", fchmod(file, 0600));
  t.call("chown", fchownat(file, "", 0, 0, AT_EMPTY_PATH));
  t.call("truncate", ftruncate(file, 1));
  t.call("fsync", fsync(file));
  t.call("ioctl", ioctl(file, FIONREAD, text));
  t.stat_fd("file", file);
  t.stat_fd("link", link);
  const int opened = t.opened("below", openat(folder, "f", O_RDWR));
  close(opened);
  t.call("made below", mkdirat(folder, "sub", 0700));
  t.call("at a file", mkdirat(file, "sub", 0700));
  t.call("renamed", renameat(folder, "sub", folder, "sub2"));
  const int again = t.opened("opened by proc", open(fmt::format("/proc/self/fd/{}", file).c_str(), O_RDWR));
  t.call("read", read(again, text, sizeof text));
  t.note("{}", text);
  close(again);
  t.call("chmod by proc", chmod(fmt::format("/proc/self/fd/{}", file).c_str(), 0640));
  t.call("dup", dup(file) >= 0 ? 0 : -1);
  t.call("flags", fcntl(file, F_GETFL));
  const int creator = t.opened("path with create", open(t.at("never").c_str(), O_PATH | O_CREAT, 0600));
  for (const int fd : {file, folder, link, creator}) close(fd);
  t.stat("d/f");
}

void constrained_look_ups(Trace& t) {
  t.call("mkdir", mkdir(t.at("d").c_str(), 0755));
  t.put("d/f", "x");
  t.put("outside", "x");
  t.call("up", symlink("../outside", t.at("d/up").c_str()));
  t.call("absolute", symlink(t.at("d/f").c_str(), t.at("d/absolute").c_str()));
  t.call("rooted", symlink("/f", t.at("d/rooted").c_str()));
  t.call("beside", symlink("f", t.at("d/beside").c_str()));
  const int folder = open(t.at("d").c_str(), O_PATH | O_DIRECTORY);
  const auto look = [&](const char* name, std::uint64_t resolve, std::uint64_t flags = O_RDONLY,
                        std::uint64_t mode = 0) {
    open_how how{};
    how.flags = flags;
    how.mode = mode;
    how.resolve = resolve;
    const int fd = static_cast<int>(syscall(SYS_openat2, folder, name, &how, sizeof how));
    t.opened(fmt::format("{} {:x}", name, resolve), fd);
    if (fd >= 0) close(fd);
  };
  for (const std::uint64_t resolve : {0, RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV,
                                      RESOLVE_NO_MAGICLINKS, RESOLVE_BENEATH | RESOLVE_IN_ROOT, 0x1000})
    for (const char* name : {"f", "up", "rooted", "beside", "../outside", "./f", "none"}) look(name, resolve);
  look("absolute", RESOLVE_BENEATH);
  look("absolute", RESOLVE_IN_ROOT);
  look("f", RESOLVE_CACHED);
  look("made", RESOLVE_BENEATH, O_CREAT | O_RDWR, 0600);
  look("made", 0, O_CREAT | O_RDWR, 077777);
  look("made", 0, O_RDONLY, 0600);
  look("made", 0, O_RDONLY | (1ULL << 40));
  t.call("out by dots", faccessat(folder, "../outside", F_OK, 0));
  close(folder);
  t.call("unlink", unlink(t.at("d/absolute").c_str()));  // says where it lies
}

void other_roots(Trace& t) {
  t.call("mkdir", mkdir(t.at("jail").c_str(), 0755));
  t.put("jail/f", "inside");
  t.put("outside", "outside");
  t.call("rooted", symlink("/f", t.at("jail/s").c_str()));
  t.child([](Trace& u) {
    u.call("chroot", chroot(u.at("jail").c_str()));
    u.call("into", chdir("/"));
    u.call("up", access("../outside", F_OK));
    u.call("inside", access("/f", F_OK));
    u.call("by link", access("/s", F_OK));
    u.call("mkdir", mkdir("/made", 0755));
    u.opened("create", open("/new", O_CREAT | O_RDWR, 0600));
    u.call("proc is not there", access("/proc/self", F_OK));
  });
  t.child([](Trace& u) {
    u.call("own mounts", unshare(CLONE_NEWNS));
    const int tree = static_cast<int>(syscall(SYS_open_tree, AT_FDCWD, u.at("jail").c_str(), OPEN_TREE_CLONE));
    u.opened("a detached clone", tree);
    u.call("read in it", faccessat(tree, "f", R_OK, 0));
    u.opened("create in it", openat(tree, "by-clone", O_CREAT | O_RDWR, 0600));
  });
  t.stat("jail/made");
  t.stat("jail/by-clone");
}

void facts(Trace& t) {
  t.put("f", pattern(10'000, 3));
  t.call("mkdir", mkdir(t.at("d").c_str(), 0755));
  t.call("symlink", symlink("f", t.at("s").c_str()));
  for (const char* n : {"f", "d", "s"}) {
    struct statx x {};
    const unsigned wanted = STATX_BASIC_STATS | STATX_BTIME;
    t.call("statx", statx(AT_FDCWD, t.at(n).c_str(), AT_SYMLINK_NOFOLLOW, wanted, &x));
    t.note("{}: all told {}, links {}, mode {:o}, block size {}", n, (x.stx_mask & wanted) == wanted, x.stx_nlink,
           x.stx_mode, x.stx_blksize);
    t.note("born before it was changed: {}", x.stx_btime.tv_sec <= x.stx_mtime.tv_sec);
    t.call("forced", statx(AT_FDCWD, t.at(n).c_str(), AT_SYMLINK_NOFOLLOW | AT_STATX_FORCE_SYNC, wanted, &x));
    t.call("cached", statx(AT_FDCWD, t.at(n).c_str(), AT_SYMLINK_NOFOLLOW | AT_STATX_DONT_SYNC, wanted, &x));
    t.call("unknown", statx(AT_FDCWD, t.at(n).c_str(), 0x40000000, wanted, &x));
  }
  struct statx x {};
  t.call("direct", statx(AT_FDCWD, t.at("f").c_str(), 0, 0x2000 /* STATX_DIOALIGN */, &x));
  t.note("alignment of O_DIRECT told: {}", (x.stx_mask & 0x2000) != 0);
  t.note("knows flags: {}", (x.stx_attributes_mask & STATX_ATTR_IMMUTABLE) != 0);
  struct statvfs vfs;
  t.call("statvfs", statvfs(t.at("f").c_str(), &vfs));
  t.note("block {} fragment {} names {} flags {:x}", vfs.f_bsize, vfs.f_frsize, vfs.f_namemax, vfs.f_flag);
  t.note("free at most {}: {}, files {}", "all",
         vfs.f_bavail <= vfs.f_bfree && vfs.f_bfree<vfs.f_blocks, vfs.f_files> 0);
  struct statfs fs;
  t.call("statfs", statfs(t.at("f").c_str(), &fs));
  t.note("type of FUSE: {}, has an id: {}", fs.f_type == 0x65735546,
         fs.f_fsid.__val[0] != 0 || fs.f_fsid.__val[1] != 0);
  t.call("of nothing", statfs(t.at("none").c_str(), &fs));
  for (const int name : {_PC_LINK_MAX, _PC_NAME_MAX, _PC_PATH_MAX, _PC_CHOWN_RESTRICTED, _PC_NO_TRUNC})
    t.call("pathconf", pathconf(t.at("f").c_str(), name) > 0 ? 0 : -1);
}

void controls(Trace& t) {
  t.put("f", pattern(10'000, 3));
  t.call("mkdir", mkdir(t.at("d").c_str(), 0755));
  t.call("fifo", mkfifo(t.at("p").c_str(), 0600));
  const int file = open(t.at("f").c_str(), O_RDWR), folder = open(t.at("d").c_str(), O_RDONLY),
            pipe = open(t.at("p").c_str(), O_RDWR);
  t.call("seek", lseek(file, 100, SEEK_SET));
  for (const auto& [name, fd] : {std::pair{"file", file}, {"folder", folder}, {"fifo", pipe}}) {
    int number = 0;
    t.call(fmt::format("{} FIONREAD", name), ioctl(fd, FIONREAD, &number));
    t.note("{}", number);
    t.call("FIOCLEX", ioctl(fd, FIOCLEX));
    t.call("FIGETBSZ", ioctl(fd, FIGETBSZ, &number));
    t.note("{}", number);
    t.call("TCGETS", ioctl(fd, 0x5401, &number));
    t.call("unknown", ioctl(fd, _IOWR('x', 99, int), &number));
    loff_t size = 0;
    t.call("FIOQSIZE", ioctl(fd, 0x5460, &size));
    number = 0;
    t.call("flags", ioctl(fd, FS_IOC_GETFLAGS, &number));
    t.note("immutable or append-only: {}", number & (FS_IMMUTABLE_FL | FS_APPEND_FL));
    t.call("the same flags", ioctl(fd, FS_IOC_SETFLAGS, &number));
    fsxattr more{};
    t.call("extended flags", ioctl(fd, FS_IOC_FSGETXATTR, &more));
    t.note("{:x} project {}", more.fsx_xflags & (FS_XFLAG_IMMUTABLE | FS_XFLAG_APPEND), more.fsx_projid);
    t.call("the same extended flags", ioctl(fd, FS_IOC_FSSETXATTR, &more));
  }
  int flags = 0;
  t.call("flags", ioctl(file, FS_IOC_GETFLAGS, &flags));
  flags |= FS_IMMUTABLE_FL;
  t.call("make immutable", ioctl(file, FS_IOC_SETFLAGS, &flags));
  flags = (flags & ~FS_IMMUTABLE_FL) | FS_APPEND_FL;
  t.call("make append-only", ioctl(file, FS_IOC_SETFLAGS, &flags));
  t.call("and back", ioctl(file, FS_IOC_SETFLAGS, &(flags &= ~FS_APPEND_FL)));
  flags |= FS_NODUMP_FL;
  t.call("not to be dumped", ioctl(file, FS_IOC_SETFLAGS, &flags));
  t.as_user(1000, 1000, {}, [](Trace& u) {
    const int fd = open(u.at("f").c_str(), O_RDONLY);
    int own = 0;
    u.call("flags of another's", ioctl(fd, FS_IOC_GETFLAGS, &own));
    u.call("the same flags", ioctl(fd, FS_IOC_SETFLAGS, &own));
  });
  alignas(8) char room[sizeof(fiemap) + 4 * sizeof(fiemap_extent)] = {};
  auto* map = reinterpret_cast<fiemap*>(room);
  map->fm_length = ~0ULL;
  map->fm_flags = FIEMAP_FLAG_SYNC;
  map->fm_extent_count = 4;
  t.call("FIEMAP", ioctl(file, FS_IOC_FIEMAP, map));
  t.call("FIBMAP", ioctl(file, FIBMAP, &(flags = 0)) == 0 ? 0 : -1);
  long version = 0;
  t.call("generation", ioctl(file, FS_IOC_GETVERSION, &version));
  for (const int fd : {file, folder, pipe}) close(fd);
}

void made_durable(Trace& t) {
  t.call("mkdir", mkdir(t.at("d").c_str(), 0755));
  t.put("d/f", "x");
  t.call("fifo", mkfifo(t.at("p").c_str(), 0600));
  const int folder = open(t.at("d").c_str(), O_RDONLY | O_DIRECTORY), reader = open(t.at("d/f").c_str(), O_RDONLY);
  const int pipe = open(t.at("p").c_str(), O_RDWR), path = open(t.at("d/f").c_str(), O_PATH);
  for (const auto& [name, fd] : {std::pair{"folder", folder}, {"reader", reader}, {"fifo", pipe}, {"path", path}}) {
    t.call(fmt::format("fsync {}", name), fsync(fd));
    t.call("fdatasync", fdatasync(fd));
    t.call("syncfs", syncfs(fd));
    t.call("sync_file_range", sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE));
  }
  t.call("unlink", unlink(t.at("d/f").c_str()));
  t.call("fsync of what has no name", fsync(reader));
  t.call("rmdir", rmdir(t.at("d").c_str()));
  t.call("fsync of a removed folder", fsync(folder));
  for (const int fd : {folder, reader, pipe, path}) close(fd);
}

}  // namespace

std::vector<Case> handle_cases() {
  return {{"handles", handles},
          {"numbers_stay", numbers_stay},
          {"paths_as_descriptors", paths_as_descriptors},
          {"constrained_look_ups", constrained_look_ups},
          {"other_roots", other_roots},
          {"facts", facts},
          {"controls", controls},
          {"made_durable", made_durable}};
}

}  // namespace holdfast::capture
