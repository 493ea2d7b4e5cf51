// SPDX-License-Identifier: Apache-2.0
// Names: creating, renaming, linking, removing, listing.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "capture/differential_cases.h"

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE 2
#define RENAME_WHITEOUT 4
#endif

namespace holdfast::capture {
namespace {

void basics(Trace& t) {
  t.put("a", "hello");
  t.stat("a");
  t.content("a");
  t.opened("exclusive create of what is there", open(t.at("a").c_str(), O_CREAT | O_EXCL | O_RDWR, 0600));
  t.opened("open missing", open(t.at("missing").c_str(), O_RDONLY));
  t.opened("open missing again", open(t.at("missing").c_str(), O_RDONLY));
  t.call("mkdir d", mkdir(t.at("d").c_str(), 0750));
  t.call("mkdir d again", mkdir(t.at("d").c_str(), 0750));
  t.opened("open d for writing", open(t.at("d").c_str(), O_RDWR));
  t.opened("a as a folder", open(t.at("a").c_str(), O_RDONLY | O_DIRECTORY));
  t.call("stat below a file", access(t.at("a/x").c_str(), F_OK));
  t.call("symlink", symlink("a", t.at("s").c_str()));
  t.stat("s");
  t.content("s");
  t.opened("no follow", open(t.at("s").c_str(), O_RDONLY | O_NOFOLLOW));
  t.call("loop", symlink("loop", t.at("loop").c_str()));
  t.opened("open loop", open(t.at("loop").c_str(), O_RDONLY));
  t.call("rmdir of a file", rmdir(t.at("a").c_str()));
  t.call("unlink of a folder", unlink(t.at("d").c_str()));
  t.put("d/inside", "x");
  t.call("rmdir of a full folder", rmdir(t.at("d").c_str()));
  t.stat("d");
  const int fd = t.opened("truncate by open", open(t.at("a").c_str(), O_RDWR | O_TRUNC));
  close(fd);
  t.stat("a");
}

void long_names(Trace& t) {
  const std::string longest(255, 'n'), longer(256, 'n');
  t.put(longest, "1");
  t.stat(longest);
  t.opened("256 bytes", open(t.at(longer).c_str(), O_CREAT | O_RDWR, 0600));
  t.put(std::string("bytes \x01\xff\xc3\n!"), "2");
  std::string deep = "p";
  for (int i = 0; i < 20; ++i) {
    t.call("mkdir level", mkdir(t.at(deep).c_str(), 0755));
    deep += "/" + std::string(40, 'x');
  }
  t.call("access deep", access(t.at(deep).c_str(), F_OK));
  const std::string target(4000, 't');
  t.call("long symlink", symlink(target.c_str(), t.at("ls").c_str()));
  t.stat("ls");
}

void renames(Trace& t) {
  const auto rename2 = [&](const std::string& from, const std::string& to, unsigned flags) {
    t.call(fmt::format("rename {} {} {}", from, to, flags),
           renameat2(AT_FDCWD, t.at(from).c_str(), AT_FDCWD, t.at(to).c_str(), flags));
  };
  for (const char* d : {"d1", "d2", "full", "empty"}) t.call("mkdir", mkdir(t.at(d).c_str(), 0755));
  t.put("a", "aaa");
  t.put("b", "b");
  t.put("full/x", "x");
  rename2("a", "b", RENAME_NOREPLACE);
  rename2("a", "c", RENAME_NOREPLACE);
  rename2("c", "b", 0);
  t.content("b");
  t.stat("c");
  t.put("a", "again");
  rename2("a", "b", RENAME_EXCHANGE);
  t.content("a");
  t.content("b");
  rename2("a", "d1", RENAME_EXCHANGE);
  t.stat("a");
  t.stat("d1");
  rename2("d1", "a", RENAME_EXCHANGE);
  rename2("d1", "d2/moved", 0);
  t.stat("d1");
  t.stat("d2");
  rename2("full", "empty", 0);
  t.stat("empty");
  t.put("d2/y", "y");
  rename2("empty", "d2", 0);
  rename2("d2", "d2/moved/inside", 0);
  rename2("missing", "x", 0);
  rename2("b", "missing/x", 0);
  rename2("a", "d2", 0);
  rename2("d2", "a", 0);
  t.call("second name", link(t.at("b").c_str(), t.at("b2").c_str()));
  rename2("b", "b2", 0);
  t.stat("b");
  rename2("b", "w", RENAME_WHITEOUT);
  t.stat("b");
  t.content("w");
  t.call("remove the whiteout", unlink(t.at("b").c_str()));
}

void links(Trace& t) {
  t.put("a", "1");
  for (const char* n : {"b", "c"}) t.call("link", link(t.at("a").c_str(), t.at(n).c_str()));
  t.call("link onto", link(t.at("a").c_str(), t.at("b").c_str()));
  t.call("mkdir", mkdir(t.at("d").c_str(), 0755));
  t.call("link a folder", link(t.at("d").c_str(), t.at("dd").c_str()));
  t.call("link into", link(t.at("a").c_str(), t.at("d/e").c_str()));
  t.stat("a");
  t.call("symlink", symlink("a", t.at("s").c_str()));
  t.call("link of a symlink", linkat(AT_FDCWD, t.at("s").c_str(), AT_FDCWD, t.at("s2").c_str(), 0));
  t.stat("s2");
  t.call("unlink a", unlink(t.at("a").c_str()));
  t.stat("b");
  t.put("d/e", "two");
  t.content("c");
}

void unlinked_open(Trace& t) {
  t.put("a", "content");
  const int fd = t.opened("open", open(t.at("a").c_str(), O_RDWR));
  t.call("unlink", unlink(t.at("a").c_str()));
  t.stat_fd("unlinked", fd);
  t.call("write", pwrite(fd, "more", 4, 7));
  t.call("fsync", fsync(fd));
  t.call("truncate", ftruncate(fd, 9));
  t.call("chmod", fchmod(fd, 0600));
  char text[16] = {};
  t.call("read", pread(fd, text, sizeof text, 0));
  t.note("{}", text);
  t.stat_fd("unlinked", fd);
  t.put("a", "another");
  t.stat_fd("unlinked", fd);
  close(fd);
  t.put("b", "b");
  const int replaced = t.opened("open", open(t.at("a").c_str(), O_RDONLY));
  t.call("rename over", rename(t.at("b").c_str(), t.at("a").c_str()));
  t.call("read replaced", pread(replaced, text, sizeof text, 0));
  t.stat_fd("replaced", replaced);
  close(replaced);
  t.call("mkdir", mkdir(t.at("d").c_str(), 0755));
  const int dir = t.opened("open folder", open(t.at("d").c_str(), O_RDONLY | O_DIRECTORY));
  t.call("rmdir", rmdir(t.at("d").c_str()));
  t.opened("create in removed", openat(dir, "x", O_CREAT | O_RDWR, 0600));
  t.stat_fd("removed folder", dir);
  close(dir);
}

void tmpfiles(Trace& t) {
  int fd = t.opened("O_TMPFILE", open(t.at("").c_str(), O_TMPFILE | O_RDWR, 0640));
  t.call("write", write(fd, "kept", 4));
  t.stat_fd("orphan", fd);
  const std::string self = fmt::format("/proc/self/fd/{}", fd);
  t.call("link", linkat(AT_FDCWD, self.c_str(), AT_FDCWD, t.at("named").c_str(), AT_SYMLINK_FOLLOW));
  t.call("write after", write(fd, "+", 1));
  close(fd);
  t.content("named");
  t.stat("named");
  fd = t.opened("O_TMPFILE|O_EXCL", open(t.at("").c_str(), O_TMPFILE | O_RDWR | O_EXCL, 0640));
  t.call("write", write(fd, "lost", 4));
  t.call("link", linkat(AT_FDCWD, fmt::format("/proc/self/fd/{}", fd).c_str(), AT_FDCWD, t.at("never").c_str(),
                        AT_SYMLINK_FOLLOW));
  close(fd);
}

void special_files(Trace& t) {
  t.call("fifo", mkfifo(t.at("fifo").c_str(), 0620));
  t.call("socket", mknod(t.at("socket").c_str(), S_IFSOCK | 0600, 0));
  t.call("null", mknod(t.at("null").c_str(), S_IFCHR | 0666, makedev(1, 3)));
  t.call("block", mknod(t.at("block").c_str(), S_IFBLK | 0600, makedev(259, 70000)));
  t.call("regular", mknod(t.at("regular").c_str(), S_IFREG | 0604, 0));
  for (const char* n : {"fifo", "socket", "null", "block", "regular"}) t.stat(n);
  const int fd = t.opened("open null", open(t.at("null").c_str(), O_WRONLY));
  t.call("write null", write(fd, "x", 1));
  close(fd);
  t.as_user(1000, 1000, {},
            [](Trace& u) { u.call("device as user", mknod(u.at("no").c_str(), S_IFCHR | 0666, makedev(1, 3))); });
}

void listing(Trace& t) {
  t.call("mkdir", mkdir(t.at("many").c_str(), 0755));
  for (int i = 0; i < 700; ++i)
    close(open(t.at(fmt::format("many/file-{:04}-{}", i, std::string(i % 50, 'x'))).c_str(), O_CREAT | O_WRONLY, 0600));
  for (int round = 0; round < 2; ++round) {
    DIR* dir = opendir(t.at("many").c_str());
    std::set<std::string> names;
    int wrong_ino = 0, wrong_type = 0;
    long middle = 0;
    std::string after_middle;
    while (const dirent* e = readdir(dir)) {
      names.insert(e->d_name);
      struct stat st;
      if (std::strcmp(e->d_name, "..") != 0 && fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
          st.st_ino != e->d_ino)
        ++wrong_ino;
      if (e->d_type != (e->d_name[0] == '.' ? DT_DIR : DT_REG)) ++wrong_type;
      if (names.size() == 350) middle = telldir(dir);
      if (names.size() == 351) after_middle = e->d_name;
    }
    seekdir(dir, middle);
    const dirent* again = readdir(dir);
    t.note("{} names, {} wrong inodes, {} wrong types, seekdir works: {}", names.size(), wrong_ino, wrong_type,
           again && after_middle == again->d_name);
    closedir(dir);
    for (int i = 0; i < 700; i += 2)
      unlink(t.at(fmt::format("many/file-{:04}-{}", i, std::string(i % 50, 'x'))).c_str());
  }
  t.stat("many");
}

void hidden_folder_is_nowhere(Trace& t) {
  t.call("access", access(t.at(".holdfast").c_str(), F_OK));
  t.call("rmdir", rmdir(t.at(".holdfast").c_str()));
  DIR* dir = opendir(t.at("").c_str());
  int entries = 0;
  while (readdir(dir)) ++entries;
  closedir(dir);
  t.note("{} entries", entries);
  t.stat("");
}

}  // namespace

std::vector<Case> name_cases() {
  return {{"basics", basics},
          {"long_names", long_names},
          {"renames", renames},
          {"links", links},
          {"unlinked_open", unlinked_open},
          {"tmpfiles", tmpfiles},
          {"special_files", special_files},
          {"listing", listing},
          {"hidden_folder", hidden_folder_is_nowhere}};
}

}  // namespace holdfast::capture
