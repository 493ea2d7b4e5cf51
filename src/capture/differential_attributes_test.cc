// SPDX-License-Identifier: Apache-2.0
// Attributes: owners, modes, set-id bits, times, extended attributes, ACLs.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <sstream>

#include "capture/differential_cases.h"

namespace holdfast::capture {
namespace {

void touch(const std::string& path, mode_t mode = 0644) { close(open(path.c_str(), O_CREAT | O_WRONLY, mode)); }

void created_as_caller(Trace& t) {
  t.call("mkdir", mkdir(t.at("open").c_str(), 0777));
  t.call("chmod", chmod(t.at("open").c_str(), 01777));
  t.call("mkdir", mkdir(t.at("shared").c_str(), 0775));
  t.call("chown", chown(t.at("shared").c_str(), 0, 2000));
  t.call("chmod", chmod(t.at("shared").c_str(), 02775));
  t.call("mkdir", mkdir(t.at("closed").c_str(), 0700));
  t.as_user(1000, 1001, {2000, 3000}, [](Trace& u) {
    for (const mode_t mask : {0U, 022U, 077U}) {
      umask(mask);
      for (const std::string d : {"open", "shared", "closed"}) {
        const std::string at = fmt::format("{}/{:o}-", d, mask);
        u.opened("create", open(u.at(at + "file").c_str(), O_CREAT | O_RDWR, 06777));
        u.call("mkdir", mkdir(u.at(at + "dir").c_str(), 0777));
        u.call("fifo", mkfifo(u.at(at + "fifo").c_str(), 0666));
        u.call("symlink", symlink("x", u.at(at + "link").c_str()));
        u.opened("tmpfile", open(u.at(d).c_str(), O_TMPFILE | O_RDWR, 0666));
        for (const char* n : {"file", "dir", "fifo", "link"}) u.stat(at + n);
      }
    }
    u.call("chown away", chown(u.at("open/0-file").c_str(), 0, static_cast<gid_t>(-1)));
    u.call("chgrp to a group of mine", chown(u.at("open/0-file").c_str(), static_cast<uid_t>(-1), 3000));
    u.call("chgrp to a group not mine", chown(u.at("open/0-file").c_str(), static_cast<uid_t>(-1), 4000));
    u.stat("open/0-file");
  });
  t.as_user(1005, 1005, {}, [](Trace& u) {
    u.call("unlink in sticky", unlink(u.at("open/0-file").c_str()));
    u.call("rename in sticky", rename(u.at("open/0-file").c_str(), u.at("open/mine").c_str()));
    u.opened("create in shared", open(u.at("shared/no").c_str(), O_CREAT | O_RDWR, 0666));
    u.opened("read", open(u.at("open/77-file").c_str(), O_RDONLY));
    u.call("look into closed", access(u.at("closed/x").c_str(), F_OK));
  });
}

void set_id_bits(Trace& t) {
  for (const char* n : {"written", "truncated", "chowned", "opened", "kept", "allocated"}) {
    touch(t.at(n), 0777);
    t.call("chown", chown(t.at(n).c_str(), 1000, 1000));
    t.call("chmod", chmod(t.at(n).c_str(), 06777));
    t.stat(n);
  }
  int fd = open(t.at("kept").c_str(), O_WRONLY);
  t.call("root writes", write(fd, "r", 1));
  close(fd);
  t.stat("kept");
  t.as_user(1005, 1005, {}, [](Trace& u) {
    const int own = open(u.at("written").c_str(), O_WRONLY);
    u.call("write", write(own, "x", 1));
    close(own);
    u.stat("written");
    u.call("truncate", truncate(u.at("truncated").c_str(), 5));
    u.stat("truncated");
    close(open(u.at("opened").c_str(), O_WRONLY | O_TRUNC));
    u.stat("opened");
    const int allocated = open(u.at("allocated").c_str(), O_WRONLY);
    u.call("fallocate", fallocate(allocated, 0, 0, 4096));
    close(allocated);
    u.stat("allocated");
  });
  t.call("chown by root", chown(t.at("chowned").c_str(), 1001, static_cast<gid_t>(-1)));
  t.stat("chowned");
}

void file_capabilities(Trace& t) {
  const unsigned char capability[20] = {1, 0, 0, 2, 0, 4, 0, 0};  // revision 2, effective, CAP_NET_BIND_SERVICE
  const auto has = [&](const char* n) {
    t.call(std::string("capability of ") + n, getxattr(t.at(n).c_str(), "security.capability", nullptr, 0));
  };
  for (const char* n : {"written", "chowned", "truncated", "left"}) {
    touch(t.at(n), 0755);
    t.call("set", setxattr(t.at(n).c_str(), "security.capability", capability, sizeof capability, 0));
    has(n);
  }
  const int fd = open(t.at("written").c_str(), O_WRONLY);
  t.call("write", write(fd, "x", 1));
  t.call("fsync", fsync(fd));
  close(fd);
  t.call("chown", chown(t.at("chowned").c_str(), 1, 1));
  t.call("truncate", truncate(t.at("truncated").c_str(), 3));
  for (const char* n : {"written", "chowned", "truncated", "left"}) has(n);
}

void times(Trace& t) {
  const auto show = [&](const char* n) {
    struct stat st;
    lstat(t.at(n).c_str(), &st);
    t.note("{} mtime {}.{} atime {}.{}", n, st.st_mtim.tv_sec, st.st_mtim.tv_nsec, st.st_atim.tv_sec,
           st.st_atim.tv_nsec);
  };
  touch(t.at("f"));
  t.call("symlink", symlink("f", t.at("s").c_str()));
  t.call("mkdir", mkdir(t.at("d").c_str(), 0755));
  const timespec both[2] = {{1'000'000'001, 123'456'789}, {1'500'000'002, 987'654'321}};
  for (const char* n : {"f", "s", "d"}) {
    t.call("utimensat", utimensat(AT_FDCWD, t.at(n).c_str(), both, AT_SYMLINK_NOFOLLOW));
    show(n);
  }
  const timespec one[2] = {{0, UTIME_OMIT}, {-5, 500}};
  t.call("before 1970", utimensat(AT_FDCWD, t.at("f").c_str(), one, 0));
  show("f");
  const timespec now[2] = {{0, UTIME_OMIT}, {0, UTIME_NOW}};
  t.call("now", utimensat(AT_FDCWD, t.at("d").c_str(), now, 0));
  struct stat st;
  lstat(t.at("d").c_str(), &st);
  t.note("now: {}", std::abs(st.st_mtim.tv_sec - time(nullptr)) < 5);
  t.as_user(1000, 1000, {}, [&](Trace& u) {
    u.call("another's times", utimensat(AT_FDCWD, u.at("f").c_str(), both, 0));
    u.call("another's mode", chmod(u.at("f").c_str(), 0777));
  });
  const int fd = open(t.at("f").c_str(), O_WRONLY);
  t.call("write", write(fd, "x", 1));
  t.call("then set", futimens(fd, both));
  close(fd);
  show("f");
}

void extended_attributes(Trace& t) {
  touch(t.at("f"));
  t.call("symlink", symlink("f", t.at("s").c_str()));
  t.call("mkdir", mkdir(t.at("d").c_str(), 0755));
  const auto list = [&](Trace& u, const char* n) {
    char names[4096];
    const ssize_t size = llistxattr(u.at(n).c_str(), names, sizeof names);
    u.call("list", size);
    std::vector<std::string> sorted;
    for (ssize_t i = 0; i < size; i += static_cast<ssize_t>(std::strlen(names + i)) + 1) sorted.push_back(names + i);
    std::sort(sorted.begin(), sorted.end());
    for (const auto& name : sorted) u.note("{} has {}", n, name);
  };
  for (const char* n : {"f", "d", "s"})
    for (const char* a : {"user.a", "trusted.b", "security.c", "system.nonsense", "other.d"})
      t.call(fmt::format("set {} {}", n, a), lsetxattr(t.at(n).c_str(), a, "value", 5, 0));
  for (const char* n : {"f", "d", "s"}) list(t, n);
  t.call("create what is there", setxattr(t.at("f").c_str(), "user.a", "v", 1, XATTR_CREATE));
  t.call("replace what is not", setxattr(t.at("f").c_str(), "user.z", "v", 1, XATTR_REPLACE));
  char value[64];
  t.call("get", getxattr(t.at("f").c_str(), "user.a", value, sizeof value));
  t.call("size", getxattr(t.at("f").c_str(), "user.a", nullptr, 0));
  t.call("too small", getxattr(t.at("f").c_str(), "user.a", value, 2));
  t.call("list too small", listxattr(t.at("f").c_str(), value, 3));
  t.call("missing", getxattr(t.at("f").c_str(), "user.none", value, sizeof value));
  t.call("remove", removexattr(t.at("f").c_str(), "user.a"));
  t.call("remove again", removexattr(t.at("f").c_str(), "user.a"));
  t.call("empty value", setxattr(t.at("f").c_str(), "user.empty", "", 0, 0));
  t.call("long name", setxattr(t.at("f").c_str(), ("user." + std::string(251, 'n')).c_str(), "v", 1, 0));
  const std::string big(3000, 'v'), huge(70000, 'v');
  t.call("big", setxattr(t.at("f").c_str(), "user.big", big.data(), big.size(), 0));
  t.call("huge", setxattr(t.at("f").c_str(), "user.huge", huge.data(), huge.size(), 0));
  t.call("our id", getxattr(t.at("f").c_str(), "trusted.holdfast.id", value, sizeof value));
  t.as_user(1000, 1000, {}, [&](Trace& u) {
    list(u, "f");
    u.call("trusted", getxattr(u.at("f").c_str(), "trusted.b", nullptr, 0));
    u.call("another's", setxattr(u.at("f").c_str(), "user.x", "v", 1, 0));
  });
}

constexpr unsigned owner = 1, user = 2, group = 4, mask = 0x10, other = 0x20, none = ~0U;

void access_lists(Trace& t) {
  t.call("mkdir", mkdir(t.at("d").c_str(), 0755));
  const std::string inherited =
      access_list({{owner, 7, none}, {user, 7, 1000}, {group, 5, none}, {mask, 7, none}, {other, 0, none}});
  t.call("default acl", setxattr(t.at("d").c_str(), "system.posix_acl_default", inherited.data(), inherited.size(), 0));
  const std::string access_acl =
      access_list({{owner, 7, none}, {user, 7, 1000}, {group, 5, none}, {mask, 7, none}, {other, 5, none}});
  t.call("access acl", setxattr(t.at("d").c_str(), "system.posix_acl_access", access_acl.data(), access_acl.size(), 0));
  t.stat("d");
  t.as_user(1000, 1000, {}, [](Trace& u) {
    umask(077);
    u.opened("create", open(u.at("d/f").c_str(), O_CREAT | O_RDWR, 0666));
    u.call("mkdir", mkdir(u.at("d/sub").c_str(), 0777));
    u.call("fifo", mkfifo(u.at("d/fifo").c_str(), 0666));
    for (const char* n : {"d/f", "d/sub", "d/fifo"}) {
      u.stat(n);
      u.call("acl", getxattr(u.at(n).c_str(), "system.posix_acl_access", nullptr, 0));
      u.call("default", getxattr(u.at(n).c_str(), "system.posix_acl_default", nullptr, 0));
    }
  });
  t.as_user(1005, 1005, {},
            [](Trace& u) { u.opened("no right", open(u.at("d/new").c_str(), O_CREAT | O_RDWR, 0666)); });
  touch(t.at("g"), 0640);
  const std::string wider =
      access_list({{owner, 6, none}, {user, 6, 1005}, {group, 4, none}, {mask, 6, none}, {other, 0, none}});
  t.call("acl changes the mode", setxattr(t.at("g").c_str(), "system.posix_acl_access", wider.data(), wider.size(), 0));
  t.stat("g");
  t.as_user(1005, 1005, {}, [](Trace& u) { u.opened("by acl", open(u.at("g").c_str(), O_RDWR)); });
  t.call("chmod changes the mask", chmod(t.at("g").c_str(), 0600));
  t.as_user(1005, 1005, {}, [](Trace& u) { u.opened("masked", open(u.at("g").c_str(), O_RDWR)); });
  t.call("remove", removexattr(t.at("g").c_str(), "system.posix_acl_access"));
  t.stat("g");
  t.call("remove default", removexattr(t.at("d").c_str(), "system.posix_acl_default"));
  touch(t.at("d/plain"));
  t.stat("d/plain");
}

}  // namespace

std::vector<Case> attribute_cases() {
  return {{"created_as_caller", created_as_caller},     {"set_id_bits", set_id_bits},
          {"file_capabilities", file_capabilities},     {"times", times},
          {"extended_attributes", extended_attributes}, {"access_lists", access_lists}};
}

}  // namespace holdfast::capture
