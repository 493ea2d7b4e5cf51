// SPDX-License-Identifier: Apache-2.0
// Who may do what, and what new objects and changed ones get: groups, set-group-id folders, masks, sticky folders, set-id bits.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <numeric>

#include "capture/differential_cases.h"

namespace holdfast::capture {
namespace {

void folder(Trace& t, const char* name, unsigned uid, unsigned gid, unsigned mode) {
  t.call(fmt::format("mkdir {}", name), mkdir(t.at(name).c_str(), 0700));
  t.call("chown", chown(t.at(name).c_str(), uid, gid));
  t.call("chmod", chmod(t.at(name).c_str(), mode));
}

void file(Trace& t, const std::string& name, unsigned uid, unsigned gid, unsigned mode) {
  t.put(name, "text");
  t.call("chown", chown(t.at(name).c_str(), uid, gid));
  t.call("chmod", chmod(t.at(name).c_str(), mode));
}

void supplementary_groups(Trace& t) {
  folder(t, "by", 0, 3000, 0070);
  folder(t, "last", 0, 3039, 0070);
  file(t, "read", 0, 3001, 0040);
  file(t, "kept", 1000, 3000, 0755);
  const auto tries = [](Trace& u) {
    u.opened("read by group", open(u.at("read").c_str(), O_RDONLY));
    u.opened("write by group", open(u.at("read").c_str(), O_WRONLY));
    for (const std::string d : {"by/", "last/"}) {
      u.opened("create " + d, open(u.at(d + "f").c_str(), O_CREAT | O_RDWR, 0660));
      u.call("mkdir", mkdir(u.at(d + "d").c_str(), 0770));
      u.call("link", link(u.at(d + "f").c_str(), u.at(d + "l").c_str()));
      u.call("rename", rename(u.at(d + "l").c_str(), u.at(d + "m").c_str()));
      u.call("unlink", unlink(u.at(d + "m").c_str()));
      u.stat(d + "f");
    }
    u.call("access", access(u.at("read").c_str(), R_OK));
    u.call("effective access", faccessat(AT_FDCWD, u.at("read").c_str(), R_OK | W_OK, AT_EACCESS));
    u.call("set-group-id for a group of mine", chmod(u.at("kept").c_str(), 02755));
    u.stat("kept");
  };
  std::vector<unsigned> many(40);
  std::iota(many.begin(), many.end(), 3000);
  t.as_user(1000, 1000, {}, tries);
  t.as_user(1000, 1000, {3001}, tries);
  t.as_user(1000, 1000, many, tries);
  t.as_user(1001, 3000, {}, tries);
}

void set_group_id_folders(Trace& t) {
  folder(t, "shared", 0, 2000, 02777);
  for (const std::vector<unsigned>& groups : {std::vector<unsigned>{}, std::vector<unsigned>{2000}}) {
    t.as_user(1000, 1000, groups, [&](Trace& u) {
      umask(0);
      const std::string at = fmt::format("shared/{}-", groups.size());
      u.opened("create", open(u.at(at + "file").c_str(), O_CREAT | O_RDWR, 02775));
      u.opened("create not executable", open(u.at(at + "plain").c_str(), O_CREAT | O_RDWR, 02664));
      u.call("mkdir", mkdir(u.at(at + "dir").c_str(), 0775));
      u.call("mkdir deeper", mkdir(u.at(at + "dir/sub").c_str(), 01700));
      u.call("fifo", mknod(u.at(at + "fifo").c_str(), S_IFIFO | 02777, 0));
      u.call("symlink", symlink("x", u.at(at + "link").c_str()));
      const int fd = u.opened("orphan", open(u.at("shared").c_str(), O_TMPFILE | O_RDWR, 02770));
      u.stat_fd("orphan", fd);
      u.call("mine", mkdir(u.at(at + "other").c_str(), 0755));
      u.call("chgrp", chown(u.at(at + "other").c_str(), static_cast<uid_t>(-1), 1000));
      u.call("inherit no more", chmod(u.at(at + "dir").c_str(), 0700));
      for (const char* n : {"file", "plain", "dir", "dir/sub", "fifo", "link", "other"}) u.stat(at + n);
    });
  }
}

void bind_socket(Trace& t, const std::string& name) {
  const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{AF_UNIX, {}};
  const std::string path = t.at(name);
  const std::size_t slash = path.rfind('/');
  t.call("into the folder", chdir(path.substr(0, slash).c_str()));
  path.substr(slash + 1).copy(address.sun_path, sizeof address.sun_path - 1);
  t.call("bind " + name, bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address));
  close(fd);
  t.call("out again", chdir("/"));
}

void masks_and_default_lists(Trace& t) {
  for (const char* d : {"plain", "listed", "wide"}) folder(t, d, 0, 0, 0777);
  const std::string narrow =
      access_list({{1, 7, ~0U}, {2, 6, 1000}, {4, 5, ~0U}, {8, 7, 2000}, {0x10, 7, ~0U}, {0x20, 0, ~0U}});
  const std::string wide = access_list({{1, 7, ~0U}, {4, 7, ~0U}, {0x20, 7, ~0U}});
  t.call("list", setxattr(t.at("listed").c_str(), "system.posix_acl_default", narrow.data(), narrow.size(), 0));
  t.call("wide", setxattr(t.at("wide").c_str(), "system.posix_acl_default", wide.data(), wide.size(), 0));
  t.as_user(1000, 1000, {2000}, [](Trace& u) {
    for (const mode_t mask : {0U, 027U, 0777U}) {
      umask(mask);
      for (const std::string d : {"plain", "listed", "wide"}) {
        const std::string at = fmt::format("{}/{:o}-", d, mask);
        u.opened("create", open(u.at(at + "file").c_str(), O_CREAT | O_RDWR, 0666));
        u.opened("create closed", open(u.at(at + "closed").c_str(), O_CREAT | O_RDWR, 0));
        u.call("mkdir", mkdir(u.at(at + "dir").c_str(), 0777));
        u.call("fifo", mkfifo(u.at(at + "fifo").c_str(), 0640));
        u.call("symlink", symlink("x", u.at(at + "link").c_str()));
        bind_socket(u, at + "socket");
        const int fd = u.opened("orphan", open(u.at(d).c_str(), O_TMPFILE | O_RDWR, 0666));
        u.stat_fd("orphan", fd);
        u.call("its list", fgetxattr(fd, "system.posix_acl_access", nullptr, 0));
        for (const char* n : {"file", "closed", "dir", "fifo", "link", "socket"}) {
          u.stat(at + n);
          u.call("list", lgetxattr(u.at(at + n).c_str(), "system.posix_acl_access", nullptr, 0));
          u.call("inherited", lgetxattr(u.at(at + n).c_str(), "system.posix_acl_default", nullptr, 0));
        }
      }
    }
  });
}

void sticky_folders(Trace& t) {
  folder(t, "all", 1005, 0, 01777);
  file(t, "all/root", 0, 0, 0644);
  file(t, "all/first", 1000, 1000, 0644);
  folder(t, "all/full", 1000, 1000, 0755);
  folder(t, "all/second", 1001, 1001, 0777);
  const auto tries = [](Trace& u) {
    u.put(fmt::format("all/own-{}", geteuid()), "x");
    const std::string own = fmt::format("all/own-{}", geteuid());
    u.call("rmdir another's", rmdir(u.at("all/full").c_str()));
    u.call("rename another's", rename(u.at("all/first").c_str(), u.at("all/taken").c_str()));
    u.call("rename onto another's", rename(u.at(own).c_str(), u.at("all/first").c_str()));
    u.call("move into a folder", rename(u.at(own).c_str(), u.at("all/second/moved").c_str()));
    u.call("exchange", renameat2(AT_FDCWD, u.at(own).c_str(), AT_FDCWD, u.at("all/root").c_str(), 2));
    u.call("unlink root's", unlink(u.at("all/root").c_str()));
    u.call("hard link to root's", link(u.at("all/root").c_str(), u.at("all/hard").c_str()));
    u.opened("create over root's", open(u.at("all/root").c_str(), O_CREAT | O_WRONLY, 0644));
    u.call("remove own", unlink(u.at(own).c_str()));
  };
  for (const unsigned uid : {1000U, 1001U, 1005U}) t.as_user(uid, uid, {}, tries);
  for (const char* n : {"all", "all/root", "all/first", "all/full", "all/second", "all/hard", "all/second/moved"})
    t.stat(n);
}

// Every way to change a file that someone else could run.
void privileges_killed(Trace& t) {
  const auto changes = [](Trace& u, const std::string& who) {
    const auto with = [&](const char* n, const auto& change) {
      const std::string name = who + "-" + n;
      const int fd = open(u.at(name).c_str(), O_RDWR);
      change(fd, name);
      close(fd);
      u.stat(name);
    };
    with("pwrite", [&](int fd, const auto&) { u.call("pwrite", pwrite(fd, "x", 1, 2)); });
    with("append", [&](int, const auto& name) {
      const int own = open(u.at(name).c_str(), O_WRONLY | O_APPEND);
      u.call("append", write(own, "x", 1));
      close(own);
    });
    with("sync", [&](int, const auto& name) {
      const int own = open(u.at(name).c_str(), O_WRONLY | O_DSYNC);
      u.call("sync", write(own, "x", 1));
      close(own);
    });
    with("ftruncate", [&](int fd, const auto&) { u.call("ftruncate", ftruncate(fd, 1)); });
    with("extend", [&](int fd, const auto&) { u.call("extend", ftruncate(fd, 100)); });
    with("same", [&](int fd, const auto&) { u.call("same size", ftruncate(fd, 4)); });
    with("zero", [&](int fd, const auto&) { u.call("zero", fallocate(fd, 0x10, 0, 3)); });
    with("copied", [&](int fd, const auto&) {
      loff_t from = 0, to = 10;
      u.call("copy", copy_file_range(fd, &from, fd, &to, 3, 0));
    });
    with("mapped", [&](int fd, const auto&) {
      char* map = static_cast<char*>(mmap(nullptr, 4, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
      if (map == MAP_FAILED) return u.note("not mapped");
      *map = 'm';
      u.call("msync", msync(map, 4, MS_SYNC));
      munmap(map, 4);
    });
    with("times", [&](int fd, const auto&) { u.call("times", futimens(fd, nullptr)); });
    with("moved", [&](int, const auto& name) { u.call("move", rename(u.at(name).c_str(), u.at(name).c_str())); });
  };
  const auto prepare = [&](const std::string& who, unsigned mode) {
    for (const char* n :
         {"pwrite", "append", "sync", "ftruncate", "extend", "same", "zero", "copied", "mapped", "times", "moved"}) {
      t.put(who + "-" + n, "text");
      if (chown(t.at(who + "-" + n).c_str(), 1000, 1000) != 0 || chmod(t.at(who + "-" + n).c_str(), mode) != 0)
        t.note("not prepared");
    }
  };
  prepare("other", 06777);
  prepare("marked", 02666);  // set-group-id without execution is a mark, no privilege
  prepare("root", 06777);
  prepare("owner", 06775);
  t.as_user(1005, 1005, {}, [&](Trace& u) { changes(u, "other"); });
  t.as_user(1005, 1005, {}, [&](Trace& u) { changes(u, "marked"); });
  t.as_user(1000, 1000, {}, [&](Trace& u) { changes(u, "owner"); });
  t.child([&](Trace& u) { changes(u, "root"); });
  folder(t, "d", 1000, 1000, 06777);
  t.call("chown of a folder", chown(t.at("d").c_str(), 1001, 1001));
  t.stat("d");
}

void chown_of_nothing(Trace& t) {
  for (const char* n : {"owner", "other", "root"}) file(t, n, 1000, 1000, 06755);
  const auto change = [](Trace& u, const char* n) {
    u.call("chown to nobody new", chown(u.at(n).c_str(), static_cast<uid_t>(-1), static_cast<gid_t>(-1)));
    u.stat(n);
  };
  t.as_user(1000, 1000, {}, [&](Trace& u) { change(u, "owner"); });
  t.as_user(1005, 1005, {}, [&](Trace& u) { change(u, "other"); });
  t.child([&](Trace& u) { change(u, "root"); });
  for (const char* n : {"owner", "other", "root"}) t.call("gone", unlink(t.at(n).c_str()));
}

void capabilities_killed(Trace& t) {
  const unsigned char capability[20] = {1, 0, 0, 2, 0, 4, 0, 0};  // revision 2, effective, CAP_NET_BIND_SERVICE
  const auto make = [&](const char* n) {
    t.put(n, "text", 0777);
    t.call("mode", chmod(t.at(n).c_str(), 0777));
    t.call("set", setxattr(t.at(n).c_str(), "security.capability", capability, sizeof capability, 0));
  };
  for (const char* n : {"pwrite", "ftruncate", "opened", "zero", "moved", "linked", "timed", "chmodded", "chowned"})
    make(n);
  t.as_user(1005, 1005, {}, [&](Trace& u) {
    const auto fd_of = [&](const char* n) { return open(u.at(n).c_str(), O_RDWR); };
    u.call("pwrite", pwrite(fd_of("pwrite"), "x", 1, 0));
    u.call("ftruncate", ftruncate(fd_of("ftruncate"), 2));
    u.opened("truncating open", open(u.at("opened").c_str(), O_WRONLY | O_TRUNC));
    u.call("zero", fallocate(fd_of("zero"), 0x10, 0, 3));
    u.call("set by a user", setxattr(u.at("pwrite").c_str(), "security.capability", capability, sizeof capability, 0));
    u.call("remove by a user", removexattr(u.at("moved").c_str(), "security.capability"));
  });
  t.call("move", rename(t.at("moved").c_str(), t.at("moved2").c_str()));
  t.call("link", link(t.at("linked").c_str(), t.at("linked2").c_str()));
  t.call("times", utimensat(AT_FDCWD, t.at("timed").c_str(), nullptr, 0));
  t.call("chmod", chmod(t.at("chmodded").c_str(), 0700));
  t.call("chown to nobody new", chown(t.at("chowned").c_str(), static_cast<uid_t>(-1), static_cast<gid_t>(-1)));
  for (const char* n : {"pwrite", "ftruncate", "opened", "zero", "moved2", "linked2", "timed", "chmodded", "chowned"})
    t.call(fmt::format("capability of {}", n), getxattr(t.at(n).c_str(), "security.capability", nullptr, 0));
}

void modes_of_open(Trace& t) {
  folder(t, "own", 1000, 1000, 0777);
  file(t, "own/readable", 0, 0, 0444);
  file(t, "own/closed", 1000, 1000, 0);
  t.as_user(1000, 1000, {}, [](Trace& u) {
    umask(0);
    const int fd = u.opened("create what can't be opened", open(u.at("own/none").c_str(), O_CREAT | O_RDWR, 0));
    u.call("write it", write(fd, "x", 1));
    u.opened("open again", open(u.at("own/none").c_str(), O_RDONLY));
    const int only = u.opened("create read-only", open(u.at("own/only").c_str(), O_CREAT | O_RDWR, 0444));
    u.call("write it", write(only, "x", 1));
    u.opened("open for writing", open(u.at("own/only").c_str(), O_WRONLY));
    u.opened("create what is there", open(u.at("own/only").c_str(), O_CREAT | O_WRONLY, 0666));
    u.opened("truncate root's", open(u.at("own/readable").c_str(), O_RDONLY | O_TRUNC));
    u.opened("without access time", open(u.at("own/readable").c_str(), O_RDONLY | O_NOATIME));
    u.opened("own closed file", open(u.at("own/closed").c_str(), O_RDONLY));
    u.call("chmod it", chmod(u.at("own/closed").c_str(), 0600));
    u.opened("own opened file", open(u.at("own/closed").c_str(), O_RDONLY));
    u.call("replace root's", rename(u.at("own/only").c_str(), u.at("own/readable").c_str()));
    u.call("sticky bit of a file", chmod(u.at("own/none").c_str(), 01600));
    u.stat("own/none");
  });
  t.child([](Trace& u) {
    u.opened("root reads what is closed", open(u.at("own/none").c_str(), O_RDWR));
    if (setresuid(1000, 0, 0) != 0) u.note("no other user");
    u.call("access asks for the real user", access(u.at("own").c_str(), W_OK));
    u.call("faccessat for the effective", faccessat(AT_FDCWD, u.at("own/none").c_str(), R_OK, AT_EACCESS));
  });
}

}  // namespace

std::vector<Case> rights_cases() {
  return {{"supplementary_groups", supplementary_groups},
          {"set_group_id_folders", set_group_id_folders},
          {"masks_and_default_lists", masks_and_default_lists},
          {"sticky_folders", sticky_folders},
          {"privileges_killed", privileges_killed},
          {"chown_of_nothing", chown_of_nothing},
          {"capabilities_killed", capabilities_killed},
          {"modes_of_open", modes_of_open}};
}

}  // namespace holdfast::capture
