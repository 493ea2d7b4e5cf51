// SPDX-License-Identifier: Apache-2.0
// Times: who may set which, what moves them; extended attributes by class and size.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "capture/differential_cases.h"

namespace holdfast::capture {
namespace {

struct statx look(const std::string& path) {
  struct statx x {};
  if (statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &x) != 0) x.stx_mask = 0;
  return x;
}

bool equal(const statx_timestamp& a, const statx_timestamp& b) {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

// The coarse clock of the kernel has passed the present, so what happens next can be told from what was.
void tick() {
  timespec present{}, coarse{};
  clock_gettime(CLOCK_REALTIME, &present);
  do clock_gettime(CLOCK_REALTIME_COARSE, &coarse);
  while (coarse.tv_sec < present.tv_sec || (coarse.tv_sec == present.tv_sec && coarse.tv_nsec <= present.tv_nsec));
}

void what_moves_times(Trace& t) {
  t.call("mkdir", mkdir(t.at("d").c_str(), 0755));
  t.put("d/f", pattern(10'000, 1));
  t.call("sync", fsync(open(t.at("d/f").c_str(), O_RDONLY)));
  const auto watch = [&](const char* what, const auto& change) {
    tick();
    const struct statx f = look(t.at("d/f")), d = look(t.at("d"));
    change();
    const struct statx f2 = look(t.at("d/f")), d2 = look(t.at("d"));
    t.note("{}: file mtime {} ctime {} btime {}; folder mtime {} ctime {} btime {}", what,
           !equal(f.stx_mtime, f2.stx_mtime), !equal(f.stx_ctime, f2.stx_ctime), !equal(f.stx_btime, f2.stx_btime),
           !equal(d.stx_mtime, d2.stx_mtime), !equal(d.stx_ctime, d2.stx_ctime), !equal(d.stx_btime, d2.stx_btime));
  };
  const std::string f = t.at("d/f"), g = t.at("d/g");
  const int fd = open(f.c_str(), O_RDWR);
  watch("nothing", [] {});
  watch("write", [&] { (void)!pwrite(fd, "x", 1, 0); });
  watch("fsync", [&] { fsync(fd); });
  watch("write of nothing", [&] { (void)!pwrite(fd, "", 0, 0); });
  watch("truncate", [&] { (void)!ftruncate(fd, 5000); });
  watch("truncate to the same", [&] { (void)!ftruncate(fd, 5000); });
  watch("truncate by name to the same", [&] { (void)!truncate(f.c_str(), 5000); });
  watch("open with truncation", [&] { close(open(f.c_str(), O_WRONLY | O_TRUNC)); });
  watch("open with truncation of nothing", [&] { close(open(f.c_str(), O_WRONLY | O_TRUNC)); });
  watch("allocate", [&] { fallocate(fd, 0, 0, 20'000); });
  watch("punch", [&] { fallocate(fd, 3, 0, 4096); });
  watch("chmod", [&] { chmod(f.c_str(), 0600); });
  watch("chmod to the same", [&] { chmod(f.c_str(), 0600); });
  watch("chown to the same", [&] { (void)!chown(f.c_str(), 0, 0); });
  watch("attribute", [&] { setxattr(f.c_str(), "user.x", "v", 1, 0); });
  watch("attribute gone", [&] { removexattr(f.c_str(), "user.x"); });
  watch("link", [&] { (void)!link(f.c_str(), g.c_str()); });
  watch("unlink", [&] { unlink(g.c_str()); });
  watch("rename away and back", [&] {
    rename(f.c_str(), g.c_str());
    rename(g.c_str(), f.c_str());
  });
  watch("create", [&] { close(open(g.c_str(), O_CREAT | O_WRONLY, 0600)); });
  watch("open what is there", [&] { close(open(g.c_str(), O_CREAT | O_WRONLY, 0600)); });
  watch("folder made", [&] { mkdir(t.at("d/sub").c_str(), 0700); });
  watch("folder gone", [&] { rmdir(t.at("d/sub").c_str()); });
  watch("orphan", [&] { close(open(t.at("d").c_str(), O_TMPFILE | O_RDWR, 0600)); });
  watch("failure", [&] { rmdir(t.at("d").c_str()); });
  watch("mapped write", [&] {
    char* map = static_cast<char*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    if (map == MAP_FAILED) return;
    *map = 'm';
    msync(map, 4096, MS_SYNC);
    munmap(map, 4096);
  });
  watch("set the change time", [&] {
    const timespec now[2] = {{0, UTIME_OMIT}, {0, UTIME_OMIT}};
    futimens(fd, now);
  });
  close(fd);
}

void who_sets_times(Trace& t) {
  t.put("shared", "x", 0666);
  t.call("chmod", chmod(t.at("shared").c_str(), 0666));
  t.put("closed", "x", 0644);
  t.put("own", "x", 0444);
  t.call("chown", chown(t.at("own").c_str(), 1000, 1000));
  t.call("symlink", symlink("own", t.at("s").c_str()));
  t.call("chown", lchown(t.at("s").c_str(), 1000, 1000));
  constexpr timespec set{1'000'000'000, 999'999'999}, now{0, UTIME_NOW}, omit{0, UTIME_OMIT}, wrong{0, 1'000'000'000};
  t.as_user(1000, 1000, {}, [&](Trace& u) {
    for (const char* n : {"shared", "closed", "own", "s"}) {
      const auto both = [&](const char* what, timespec a, timespec m) {
        const timespec times[2] = {a, m};
        u.call(fmt::format("{} {}", n, what), utimensat(AT_FDCWD, u.at(n).c_str(), times, AT_SYMLINK_NOFOLLOW));
      };
      both("now", now, now);
      both("set", set, set);
      both("now and omit", now, omit);
      both("omit and now", omit, now);
      both("set and now", set, now);
      both("omit", omit, omit);
      both("wrong", set, wrong);
      u.call("no times", utimensat(AT_FDCWD, u.at(n).c_str(), nullptr, 0));
    }
  });
  const auto show = [&](const char* n) {
    const struct statx x = look(t.at(n));
    t.note("{}: {}.{} {}.{}", n, x.stx_atime.tv_sec, x.stx_atime.tv_nsec, x.stx_mtime.tv_sec, x.stx_mtime.tv_nsec);
  };
  for (const timespec& at : {timespec{1, 1}, timespec{-1, 999'999'999}, timespec{-2'147'483'648, 0},
                             timespec{2'147'483'648, 5}, timespec{4'294'967'296, 7}, timespec{8'000'000'000, 0},
                             timespec{20'000'000'000, 0}, timespec{-5'000'000'000, 0}}) {
    const timespec times[2] = {at, at};
    t.call("set", utimensat(AT_FDCWD, t.at("own").c_str(), times, 0));
    show("own");
  }
  const int reader = open(t.at("own").c_str(), O_RDONLY);
  const timespec times[2] = {set, {5, 5}};
  t.call("by a reader", futimens(reader, times));
  t.call("on a link by name", utimensat(AT_FDCWD, t.at("s").c_str(), times, 0));
  const int path = open(t.at("own").c_str(), O_PATH);
  t.call("by a path", futimens(path, times));
  show("own");
  close(path);
  close(reader);
  const int fd = open(t.at("shared").c_str(), O_RDWR);
  t.call("write", pwrite(fd, "later", 5, 0));
  t.call("set", futimens(fd, times));
  t.call("fsync", fsync(fd));
  show("shared");
  t.call("write", pwrite(fd, "later", 5, 0));
  t.call("set by name", utimensat(AT_FDCWD, t.at("shared").c_str(), times, 0));
  close(fd);
  show("shared");
}

void access_times(Trace& t) {
  t.put("f", pattern(5000, 1));
  t.call("mkdir", mkdir(t.at("d").c_str(), 0755));
  t.call("symlink", symlink("f", t.at("s").c_str()));
  const timespec old[2] = {{1'000'000'000, 0},
                           {1'100'000'000, 0}};  // read before it was changed: the next reading counts
  for (const char* n : {"f", "d", "s"}) t.call("age", utimensat(AT_FDCWD, t.at(n).c_str(), old, AT_SYMLINK_NOFOLLOW));
  const auto show = [&](const char* n) {
    t.note("reading {} counts: {}", n, look(t.at(n)).stx_atime.tv_sec != 1'000'000'000);
  };
  char text[8];
  const int fd = open(t.at("f").c_str(), O_RDONLY);
  t.call("read", read(fd, text, 8));
  close(fd);
  show("f");
  t.call("readlink", readlink(t.at("s").c_str(), text, 1));
  show("s");
  const int folder = open(t.at("d").c_str(), O_RDONLY | O_DIRECTORY);
  char room[512];
  t.note("listed {}", syscall(SYS_getdents64, folder, room, sizeof room) > 0);
  close(folder);
  show("d");
}

void attributes_by_class(Trace& t) {
  t.put("f", "x");
  t.call("mkdir", mkdir(t.at("d").c_str(), 0777));
  t.call("chmod", chmod(t.at("d").c_str(), 01777));
  t.call("symlink", symlink("f", t.at("s").c_str()));
  t.call("fifo", mkfifo(t.at("p").c_str(), 0666));
  t.call("device", mknod(t.at("c").c_str(), S_IFCHR | 0666, makedev(1, 3)));
  t.call("socket", mknod(t.at("k").c_str(), S_IFSOCK | 0666, 0));
  const auto all = [](Trace& u) {
    for (const char* n : {"f", "d", "s", "p", "c", "k"})
      for (const char* a : {"user.a", "trusted.a", "security.a", "system.a", "system.posix_acl_access", "user.", "a",
                            "", "trusted.overlay.opaque", "security.selinux", "security.ima"}) {
        const std::string path = u.at(n);
        u.call(fmt::format("{} set {}", n, a), lsetxattr(path.c_str(), a, "value", 5, 0));
        char value[64];
        u.call("get", lgetxattr(path.c_str(), a, value, sizeof value));
        u.call("remove", lremovexattr(path.c_str(), a));
        u.call("remove again", lremovexattr(path.c_str(), a));
      }
  };
  all(t);
  t.as_user(1000, 1000, {}, all);
  t.call("writable", chmod(t.at("f").c_str(), 0666));
  t.as_user(1000, 1000, {}, [](Trace& u) {
    u.call("writer sets", setxattr(u.at("f").c_str(), "user.w", "1", 1, 0));
    const int reader = open(u.at("f").c_str(), O_RDONLY);
    u.call("by a reader's descriptor", fsetxattr(reader, "user.w", "2", 1, 0));
    u.call("get", fgetxattr(reader, "user.w", nullptr, 0));
  });
  t.call("closed", chmod(t.at("f").c_str(), 0));
  t.as_user(1000, 1000, {}, [](Trace& u) {
    u.call("get without right", getxattr(u.at("f").c_str(), "user.w", nullptr, 0));
    u.call("list without right", listxattr(u.at("f").c_str(), nullptr, 0) >= 0 ? 0 : -1);
  });
  const int path = open(t.at("f").c_str(), O_PATH);
  t.call("by a path", fsetxattr(path, "user.w", "3", 1, 0));
  close(path);
}

void attributes_by_size(Trace& t) {
  t.put("f", "x");
  const std::string f = t.at("f");
  for (const std::size_t size : {0U, 1U, 100U, 3000U, 3900U, 5000U, 20'000U, 65'536U, 65'537U}) {
    const std::string value(size, 'v');
    t.call(fmt::format("value of {}", size), setxattr(f.c_str(), "user.v", value.data(), size, 0));
    t.call("its size", getxattr(f.c_str(), "user.v", nullptr, 0));
    std::string back(70'000, 0);
    t.call("its value", getxattr(f.c_str(), "user.v", back.data(), back.size()));
    t.call("without room", getxattr(f.c_str(), "user.v", back.data(), 50));
    t.call("remove", removexattr(f.c_str(), "user.v"));
  }
  for (const std::size_t size : {250U, 251U}) {
    const std::string name = "user." + std::string(size - 0, 'n');
    t.call(fmt::format("name of {}", name.size()), setxattr(f.c_str(), name.c_str(), "v", 1, 0));
    t.call("get", getxattr(f.c_str(), name.c_str(), nullptr, 0));
    t.call("remove", removexattr(f.c_str(), name.c_str()));
  }
  t.call("create", setxattr(f.c_str(), "user.c", "1", 1, XATTR_CREATE));
  t.call("create again", setxattr(f.c_str(), "user.c", "2", 1, XATTR_CREATE));
  t.call("replace", setxattr(f.c_str(), "user.c", "3", 1, XATTR_REPLACE));
  t.call("both", setxattr(f.c_str(), "user.c", "4", 1, XATTR_CREATE | XATTR_REPLACE));
  t.call("both of none", setxattr(f.c_str(), "user.e", "4", 1, XATTR_CREATE | XATTR_REPLACE));
  t.call("unknown flag", setxattr(f.c_str(), "user.c", "5", 1, 8));
  for (int i = 0; i < 40; ++i)
    if (setxattr(f.c_str(), fmt::format("user.many-{}", i).c_str(), "12345678", 8, 0) != 0) t.note("{} refused", i);
  std::string list(4096, 0);
  t.call("list", listxattr(f.c_str(), list.data(), list.size()));
  t.call("size of the list", listxattr(f.c_str(), nullptr, 0));
  t.call("list without room", listxattr(f.c_str(), list.data(), 10));
  for (int i = 0; i < 40; i += 2) removexattr(f.c_str(), fmt::format("user.many-{}", i).c_str());
  t.call("list", listxattr(f.c_str(), list.data(), list.size()));
  t.call("unlinked", unlink(t.at("f").c_str()));
  t.call("of nothing", setxattr(f.c_str(), "user.c", "1", 1, 0));
}

}  // namespace

std::vector<Case> clock_cases() {
  return {{"what_moves_times", what_moves_times},
          {"who_sets_times", who_sets_times},
          {"access_times", access_times},
          {"attributes_by_class", attributes_by_class},
          {"attributes_by_size", attributes_by_size}};
}

}  // namespace holdfast::capture
