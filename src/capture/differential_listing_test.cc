// SPDX-License-Identifier: Apache-2.0
// Listing folders while they change, at any place, with every type of entry.
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <set>

#include "capture/differential_cases.h"

namespace holdfast::capture {
namespace {

void fill(Trace& t, const std::string& folder, int from, int to) {
  t.call("mkdir", mkdir(t.at(folder).c_str(), 0755));
  for (int i = from; i < to; ++i)
    close(open(t.at(fmt::format("{}/file-{:05}", folder, i)).c_str(), O_CREAT | O_WRONLY, 0600));
}

std::vector<std::string> names_in(DIR* dir) {
  std::vector<std::string> out;
  while (const dirent* e = readdir(dir)) out.push_back(e->d_name);
  std::sort(out.begin(), out.end());
  return out;
}

void every_type(Trace& t) {
  t.put("regular", "");
  t.call("mkdir", mkdir(t.at("folder").c_str(), 0755));
  t.call("symlink", symlink("x", t.at("link").c_str()));
  t.call("fifo", mkfifo(t.at("fifo").c_str(), 0600));
  t.call("socket", mknod(t.at("socket").c_str(), S_IFSOCK | 0600, 0));
  t.call("character", mknod(t.at("character").c_str(), S_IFCHR | 0600, makedev(1, 3)));
  t.call("block", mknod(t.at("block").c_str(), S_IFBLK | 0600, makedev(7, 0)));
  for (int round = 0; round < 2; ++round) {
    DIR* dir = opendir(t.at("").c_str());
    std::map<std::string, int> types;
    while (const dirent* e = readdir(dir)) types[e->d_name] = e->d_type;
    closedir(dir);
    for (const auto& [name, type] : types) t.note("{} {}", name, type);
  }
}

void any_place(Trace& t) {
  fill(t, "many", 0, 400);
  DIR* dir = opendir(t.at("many").c_str());
  std::vector<std::pair<long, std::string>> places;
  for (;;) {
    const long at = telldir(dir);
    const dirent* e = readdir(dir);
    if (!e) break;
    places.emplace_back(at, e->d_name);
  }
  t.note("{} entries", places.size());
  int wrong = 0;
  for (std::size_t i = 0; i < places.size(); i += 7) {
    const auto& [at, name] = places[places.size() - 1 - i];
    seekdir(dir, at);
    const dirent* e = readdir(dir);
    if (!e || name != e->d_name) ++wrong;
  }
  t.note("{} wrong", wrong);
  // As it was, whatever is removed on the way.
  for (int i = 0; i < 400; i += 3) unlink(t.at(fmt::format("many/file-{:05}", i)).c_str());
  wrong = 0;
  for (std::size_t i = 0; i < places.size(); i += 5) {
    const auto& [at, name] = places[i];
    if (access(t.at("many/" + name).c_str(), F_OK) != 0) continue;
    seekdir(dir, at);
    const dirent* e = readdir(dir);
    if (!e || name != e->d_name) ++wrong;
  }
  t.note("{} wrong", wrong);
  rewinddir(dir);
  t.note("{} names", names_in(dir).size());
  fill(t, "many/sub", 0, 5);
  t.note("{} at the end", names_in(dir).size());
  rewinddir(dir);
  t.note("{} names", names_in(dir).size());
  closedir(dir);
}

void removed_while_read(Trace& t) {
  fill(t, "many", 0, 1500);
  DIR* dir = opendir(t.at("many").c_str());
  int removed = 0, failed = 0;
  while (const dirent* e = readdir(dir)) {
    if (e->d_name[0] == '.') continue;
    unlinkat(dirfd(dir), e->d_name, 0) == 0 ? ++removed : ++failed;
  }
  t.note("{} removed, {} not there", removed, failed);
  t.call("rmdir", rmdir(t.at("many").c_str()));
  rewinddir(dir);
  t.note("{} in what is gone", names_in(dir).size());
  closedir(dir);
}

void grown_while_read(Trace& t) {
  fill(t, "many", 0, 500);
  DIR* dir = opendir(t.at("many").c_str());
  std::multiset<std::string> seen;
  int next = 1000;
  while (const dirent* e = readdir(dir)) {
    seen.insert(e->d_name);
    if (seen.size() % 10 == 0 && next < 1040) {
      close(open(t.at(fmt::format("many/file-{:05}", next)).c_str(), O_CREAT | O_WRONLY, 0600));
      rename(t.at(fmt::format("many/file-{:05}", next)).c_str(), t.at(fmt::format("many/moved-{:05}", next)).c_str());
      ++next;
    }
  }
  int missing = 0, twice = 0;
  for (int i = 0; i < 500; ++i) {
    const auto count = seen.count(fmt::format("file-{:05}", i));
    missing += count == 0;
    twice += count > 1;
  }
  t.note("{} missing, {} twice", missing, twice);
  rewinddir(dir);
  const auto all = names_in(dir);
  t.note("{} now, first {}, last {}", all.size(), all.front(), all.back());
  closedir(dir);
}

void two_readers(Trace& t) {
  fill(t, "many", 0, 300);
  DIR* one = opendir(t.at("many").c_str());
  const int fd = open(t.at("many").c_str(), O_RDONLY | O_DIRECTORY);
  DIR* two = fdopendir(fd);
  int count = 0;
  for (;;) {
    const dirent* a = readdir(one);
    const std::string name = a ? a->d_name : "";
    const dirent* b = readdir(two);
    if (!a || !b) break;
    ++count;
    if (name != b->d_name) t.note("differ");
  }
  t.note("{} in step", count);
  closedir(one);
  closedir(two);
  const int raw = open(t.at("many").c_str(), O_RDONLY | O_DIRECTORY);
  char small[8];
  t.call("no room for one", syscall(SYS_getdents64, raw, small, sizeof small));
  char some[64];
  t.note("one by one: {}", syscall(SYS_getdents64, raw, some, sizeof some) > 0);
  t.call("of a file", syscall(SYS_getdents64, open(t.at("many/file-00000").c_str(), O_RDONLY), some, sizeof some));
  t.call("beyond the end", lseek(raw, 0, SEEK_END) >= 0 ? 0 : -1);
  close(raw);
  t.as_user(1000, 1000, {}, [](Trace& u) {
    DIR* dir = opendir(u.at("many").c_str());
    u.note("{} names", dir ? names_in(dir).size() : 0);
    if (dir) closedir(dir);
  });
  t.call("no look", chmod(t.at("many").c_str(), 0711));
  t.as_user(1000, 1000, {}, [](Trace& u) {
    u.call("list", opendir(u.at("many").c_str()) ? 0 : -1);
    u.call("pass", access(u.at("many/file-00000").c_str(), F_OK));
  });
  t.call("no pass", chmod(t.at("many").c_str(), 0744));
  t.as_user(1000, 1000, {}, [](Trace& u) {
    DIR* dir = opendir(u.at("many").c_str());
    u.note("{} names", dir ? names_in(dir).size() : 0);
    if (dir) closedir(dir);
    u.call("pass", access(u.at("many/file-00000").c_str(), F_OK));
  });
}

void working_folders(Trace& t) {
  t.call("mkdir", mkdir(t.at("d").c_str(), 0755));
  t.child([](Trace& u) {
    const auto here = [&] {
      char text[4096];
      const char* got = getcwd(text, sizeof text);
      u.note("here: {}", got ? std::string(got).substr(std::string(got).rfind('/')) : "nowhere");
    };
    u.call("into", chdir(u.at("d").c_str()));
    here();
    u.call("rename", rename(u.at("d").c_str(), u.at("renamed").c_str()));
    here();
    u.call("mkdir", mkdir("sub", 0755));
    u.call("rmdir", rmdir("sub"));
    const int fd = open(".", O_RDONLY | O_DIRECTORY);
    u.call("rmdir of where I am", rmdir(u.at("renamed").c_str()));
    here();
    u.opened("create", open("new", O_CREAT | O_RDWR, 0600));
    u.call("mkdir", mkdir("new", 0700));
    u.call("look", access(".", F_OK));
    u.call("up", access("..", F_OK));
    u.call("fsync", fsync(fd));
    u.stat_fd("gone", fd);
    u.call("chmod", fchmod(fd, 0700));
    u.call("back", fchdir(fd));
    u.call("link into it", linkat(AT_FDCWD, u.at("none").c_str(), fd, "x", 0));
    close(fd);
  });
}

}  // namespace

std::vector<Case> listing_cases() {
  return {{"every_type", every_type},
          {"any_place", any_place},
          {"removed_while_read", removed_while_read},
          {"grown_while_read", grown_while_read},
          {"two_readers", two_readers},
          {"working_folders", working_folders}};
}

}  // namespace holdfast::capture
