// SPDX-License-Identifier: Apache-2.0
// Calls that must fail, and with what; renames with flags; read-only mounts; the edges of the folder.
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <climits>
#include <filesystem>

#include "capture/differential_cases.h"

namespace holdfast::capture {
namespace {

constexpr unsigned noreplace = 1, exchange = 2, whiteout = 4;

void rename_to(Trace& t, const std::string& from, const std::string& to, unsigned flags = 0) {
  t.call(fmt::format("rename {} {} {}", from.substr(0, 20), to.substr(0, 20), flags),
         renameat2(AT_FDCWD, t.at(from).c_str(), AT_FDCWD, t.at(to).c_str(), flags));
}

void wrong_paths(Trace& t) {
  t.put("f", "text");
  t.call("mkdir", mkdir(t.at("d").c_str(), 0755));
  t.call("mkdir", mkdir(t.at("d/e").c_str(), 0755));
  const std::string longest(255, 'l'), longer(256, 'l');
  t.call("mkdir 256", mkdir(t.at(longer).c_str(), 0755));
  t.call("symlink 256", symlink("f", t.at(longer).c_str()));
  t.call("mknod 256", mknod(t.at(longer).c_str(), S_IFREG | 0600, 0));
  t.call("link 256", link(t.at("f").c_str(), t.at(longer).c_str()));
  rename_to(t, "f", longer);
  t.call("unlink 256", unlink(t.at(longer).c_str()));
  t.call("stat 256", access(t.at(longer).c_str(), F_OK));
  std::string deep = "d";
  while (t.at(deep).size() < PATH_MAX) deep += "/../d";
  t.call("path too long", access(t.at(deep).c_str(), F_OK));
  for (const std::size_t size : {1023U, 1024U, 1025U, 4094U, 4095U, 4096U}) {
    const std::string target(size, 's'), name = fmt::format("s{}", size);
    t.call(fmt::format("symlink of {}", size), symlink(target.c_str(), t.at(name).c_str()));
    t.call("gone", unlink(t.at(name).c_str()));
  }
  t.call("empty symlink", symlink("", t.at("s").c_str()));
  t.call("chain", symlink("f", t.at("c0").c_str()));
  for (int i = 1; i <= 41; ++i)
    if (symlink(fmt::format("c{}", i - 1).c_str(), t.at(fmt::format("c{}", i)).c_str()) != 0) t.note("no link {}", i);
  t.call("40 links", access(t.at("c39").c_str(), F_OK));
  t.call("41 links", access(t.at("c40").c_str(), F_OK));
  t.call("a file as a folder", access(t.at("f/x").c_str(), F_OK));
  t.call("a file with a slash", access(t.at("f/").c_str(), F_OK));
  t.opened("create with a slash", open(t.at("new/").c_str(), O_CREAT | O_RDWR, 0600));
  t.opened("create a folder", open(t.at("d").c_str(), O_CREAT | O_RDWR, 0600));
  t.opened("create with O_DIRECTORY", open(t.at("new").c_str(), O_CREAT | O_DIRECTORY | O_RDONLY, 0600));
  t.opened("create below nothing", open(t.at("no/new").c_str(), O_CREAT | O_RDWR, 0600));
  t.opened("truncate a folder", open(t.at("d").c_str(), O_RDONLY | O_TRUNC));
  t.call("truncate a folder", truncate(t.at("d").c_str(), 0));
  const int folder = open(t.at("d").c_str(), O_RDONLY);
  char byte = 0;
  t.call("read a folder", read(folder, &byte, 1));
  t.call("write a folder", write(folder, &byte, 1));
  t.call("truncate an open folder", ftruncate(folder, 0));
  close(folder);
  t.call("mkdir with a slash", mkdir(t.at("slash/").c_str(), 0755));
  t.call("mkdir over a file", mkdir(t.at("f").c_str(), 0755));
  t.call("mkdir dot", mkdir(t.at("d/.").c_str(), 0755));
  t.call("rmdir dot", rmdir(t.at("d/.").c_str()));
  t.call("rmdir dots", rmdir(t.at("d/e/..").c_str()));
  t.call("rmdir full", rmdir(t.at("d").c_str()));
  t.call("rmdir missing", rmdir(t.at("none").c_str()));
  t.call("unlink a folder", unlink(t.at("d").c_str()));
  t.call("unlink with a slash", unlink(t.at("f/").c_str()));
  t.call("mknod of no type", mknod(t.at("odd").c_str(), 0604, 0));
  t.call("mknod of a folder", mknod(t.at("odd2").c_str(), S_IFDIR | 0700, 0));
  t.call("link of nothing", link(t.at("none").c_str(), t.at("x").c_str()));
  t.call("link below a file", link(t.at("f").c_str(), t.at("f/x").c_str()));
  t.call("dangling", symlink("made-by-open", t.at("dangling").c_str()));
  t.opened("exclusive through a link", open(t.at("dangling").c_str(), O_CREAT | O_EXCL | O_RDWR, 0644));
  t.opened("through a dangling link", open(t.at("dangling").c_str(), O_CREAT | O_RDWR, 0644));
  t.stat("made-by-open");
  char text[8] = "xxxxxxx";
  t.call("long", symlink("0123456789", t.at("cut").c_str()));
  t.call("readlink cut", readlink(t.at("cut").c_str(), text, 4));
  t.note("{}", std::string(text, 7));
  t.call("no room", readlink(t.at("cut").c_str(), text, 0));
  t.call("no link", readlink(t.at("f").c_str(), text, 4));
  const int link_fd = open(t.at("cut").c_str(), O_PATH | O_NOFOLLOW);
  t.call("by descriptor", readlinkat(link_fd, "", text, 7));
  t.note("{}", std::string(text, 7));
  close(link_fd);
}

void rename_flags(Trace& t) {
  for (const char* d : {"d", "e", "full", "target"}) t.call("mkdir", mkdir(t.at(d).c_str(), 0755));
  for (const char* f : {"f", "g", "full/x", "target/y"}) t.put(f, f);
  t.call("link", link(t.at("f").c_str(), t.at("f2").c_str()));
  for (const unsigned flags : {noreplace, exchange, noreplace | exchange, exchange | whiteout, 64U}) {
    rename_to(t, "f", "f", flags);
    rename_to(t, "f", "f2", flags);
    rename_to(t, "none", "f", flags);
    rename_to(t, "f", "none", flags);
    rename_to(t, "d", "f", flags);
    rename_to(t, "d", "full", flags);
    rename_to(t, "full", "full/in", flags);
    rename_to(t, "full/x", "full", flags);
  }
  rename_to(t, "d", "d/.", 0);
  rename_to(t, "d/.", "h", 0);
  rename_to(t, "d/..", "h", 0);
  rename_to(t, "g/", "h", 0);
  rename_to(t, "e/", "h/", 0);
  rename_to(t, "full", "target", 0);
  rename_to(t, "full", "target", exchange);
  for (const char* n : {"d", "e", "f", "f2", "g", "h", "full", "full/x", "full/y", "target", "target/x"}) t.stat(n);
  rename_to(t, "g", "f2", whiteout);
  rename_to(t, "full", "none", whiteout);
  rename_to(t, "g", "again", 0);
  t.stat("again");
  t.stat("full");
  t.content("f2");
  t.call("mkdir", mkdir(t.at("own").c_str(), 0777));
  t.call("chmod", chmod(t.at("own").c_str(), 0777));
  t.as_user(1000, 1000, {}, [](Trace& u) {
    u.put("own/a", "a");
    rename_to(u, "own/a", "own/b", whiteout);
    u.stat("own/a");
    rename_to(u, "own/b", "own/a", exchange);
    u.stat("own/a");
    u.call("remove a whiteout", unlink(u.at("own/b").c_str()));
  });
}

// The folder is a file system of its own, so what lies beside it is across a border.
void borders(Trace& t) {
  t.put("f", "text");
  t.call("mkdir", mkdir(t.at("d").c_str(), 0755));
  t.call("rename out", rename(t.at("f").c_str(), t.beside("f").c_str()));
  t.call("rename in", rename(t.beside("f").c_str(), t.at("f").c_str()));
  t.call("link out", link(t.at("f").c_str(), t.beside("g").c_str()));
  t.call("folder out", rename(t.at("d").c_str(), t.beside("d").c_str()));
  t.call("folder in", rename(t.beside("d").c_str(), t.at("d").c_str()));
  t.call("to another disk", rename(t.at("f").c_str(), "/dev/shm/never-made"));
  t.call("link to another disk", link(t.at("f").c_str(), "/dev/shm/never-made"));
  unlink(t.beside("g").c_str());
}

void read_only_binds(Trace& t) {
  t.call("mkdir", mkdir(t.at("d").c_str(), 0777));
  t.put("d/f", "text");
  t.child([](Trace& u) {
    u.call("own mounts", unshare(CLONE_NEWNS));
    const std::string d = u.at("d");
    u.call("bind", mount(d.c_str(), d.c_str(), nullptr, MS_BIND, nullptr));
    u.call("read-only", mount(nullptr, d.c_str(), nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOEXEC, nullptr));
    u.opened("create", open(u.at("d/new").c_str(), O_CREAT | O_RDWR, 0600));
    u.opened("create what is there", open(u.at("d/f").c_str(), O_CREAT | O_RDONLY, 0600));
    u.opened("write", open(u.at("d/f").c_str(), O_WRONLY));
    u.opened("truncate", open(u.at("d/f").c_str(), O_RDONLY | O_TRUNC));
    u.call("mkdir", mkdir(u.at("d/new").c_str(), 0700));
    u.call("mkdir there", mkdir(u.at("d/f").c_str(), 0700));
    u.call("unlink", unlink(u.at("d/f").c_str()));
    u.call("unlink missing", unlink(u.at("d/none").c_str()));
    u.call("rename", rename(u.at("d/f").c_str(), u.at("d/g").c_str()));
    u.call("rename out", rename(u.at("d/f").c_str(), u.at("g").c_str()));
    u.call("chmod", chmod(u.at("d/f").c_str(), 0600));
    u.call("times", utimensat(AT_FDCWD, u.at("d/f").c_str(), nullptr, 0));
    u.call("access", access(u.at("d/f").c_str(), W_OK));
    u.content("d/f");
    u.call("a folder on top", mount("t", u.at("d").c_str(), "tmpfs", 0, nullptr));
    u.put("d/hidden", "x");
    u.call("away", umount2(u.at("d").c_str(), 0));
    u.call("rmdir of a mount point", rmdir(u.at("d").c_str()));
  });
  t.stat("d");
}

// The folder as the upper layer of an overlay, as containers have it.
void overlays(Trace& t) {
  for (const char* d : {"low", "low/d", "up", "work", "merged"}) t.call("mkdir", mkdir(t.at(d).c_str(), 0755));
  for (const char* f : {"low/gone", "low/moved", "low/changed", "low/d/f", "low/replaced"}) t.put(f, f);
  t.child([](Trace& u) {
    u.call("own mounts", unshare(CLONE_NEWNS));
    const std::string options =
        fmt::format("lowerdir={},upperdir={},workdir={}", u.at("low"), u.at("up"), u.at("work"));
    u.call("overlay", mount("overlay", u.at("merged").c_str(), "overlay", 0, options.c_str()));
    u.call("unlink", unlink(u.at("merged/gone").c_str()));
    rename_to(u, "merged/moved", "merged/here");
    rename_to(u, "merged/changed", "merged/replaced");
    u.put("merged/new", "new");
    u.call("chmod", chmod(u.at("merged/d/f").c_str(), 0600));
    u.call("unlink in a folder", unlink(u.at("merged/d/f").c_str()));
    u.call("rmdir", rmdir(u.at("merged/d").c_str()));
    u.call("mkdir over it", mkdir(u.at("merged/d").c_str(), 0700));
    for (const char* n : {"gone", "moved", "here", "changed", "replaced", "new", "d", "d/f"})
      u.stat(std::string("merged/") + n);
    u.content("merged/replaced");
    u.call("sync", fsync(open(u.at("merged/new").c_str(), O_RDONLY)));
  });
  for (const char* n : {"gone", "moved", "here", "changed", "replaced", "new", "d", "d/f"})
    t.stat(std::string("up/") + n);
  for (const char* d : {"up", "work"})
    std::filesystem::remove_all(t.at(d));  // what is there says which objects it stands for
}

void odd_names(Trace& t) {
  t.call("mkdir", mkdir(t.at("n").c_str(), 0755));
  std::string all;
  for (int c = 1; c < 256; ++c)
    if (c != '/') all.push_back(static_cast<char>(c));
  std::vector<std::string> names = {"...",       " ",         "\n",         ".hidden",
                                    "-rf",       "\xff\xfe",  "\xc3\xa4",   "a\xcc\x88",
                                    "%s%n",      ".holdfast", all,          std::string(255, '\x80'),
                                    "new\nline", "tab\t",     "back\\slash"};
  for (const char c : all)
    if (c != '.') names.push_back(std::string(1, c));
  int wrong = 0;
  for (const auto& name : names) {
    const std::string at = t.at("n/") + name;
    const int fd = open(at.c_str(), O_CREAT | O_EXCL | O_WRONLY, 0600);
    if (fd < 0 && name != " " && name != "\n") ++wrong;  // twice in the list
    if (fd >= 0) close(fd);
    if (symlink(name.c_str(), t.at("n/link").c_str()) != 0 || access(t.at("n/link").c_str(), F_OK) != 0) ++wrong;
    unlink(t.at("n/link").c_str());
  }
  t.note("{} wrong", wrong);
  t.stat("n");
  t.call("upper", access(t.at("n/A").c_str(), F_OK));
  t.call("case is kept apart", access(t.at("n/.HIDDEN").c_str(), F_OK));
}

}  // namespace

std::vector<Case> error_cases() {
  return {{"wrong_paths", wrong_paths},         {"rename_flags", rename_flags}, {"borders", borders},
          {"read_only_binds", read_only_binds}, {"overlays", overlays},         {"odd_names", odd_names}};
}

}  // namespace holdfast::capture
