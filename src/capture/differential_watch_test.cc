// SPDX-License-Identifier: Apache-2.0
// What local users hear of changes: inotify, fanotify, dnotify.
#include <fcntl.h>
#include <poll.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <map>

#include "capture/differential_cases.h"

namespace holdfast::capture {
namespace {

// Everything that is told now, one line an event.
void hear(Trace& t, int fd, const std::map<int, std::string>& watches) {
  alignas(inotify_event) char room[65'536];
  std::map<unsigned, int> cookies;
  for (ssize_t n; (n = read(fd, room, sizeof room)) > 0;) {
    for (char* at = room; at < room + n;) {
      const auto* e = reinterpret_cast<const inotify_event*>(at);
      const int cookie =
          e->cookie ? cookies.try_emplace(e->cookie, static_cast<int>(cookies.size()) + 1).first->second : 0;
      t.note("{}: {:x} {} {}", watches.contains(e->wd) ? watches.at(e->wd) : "?", e->mask, e->len ? e->name : "",
             cookie);
      at += sizeof *e + e->len;
    }
  }
  t.note("no more");
}

void inotify_events(Trace& t) {
  for (const char* d : {"d", "e"}) t.call("mkdir", mkdir(t.at(d).c_str(), 0755));
  t.put("d/f", "text");
  t.put("d/old", "text");
  const int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  std::map<int, std::string> watches;
  for (const char* n : {"d", "e", "d/f"}) watches[inotify_add_watch(fd, t.at(n).c_str(), IN_ALL_EVENTS)] = n;
  const auto after = [&](const char* what, const auto& change) {
    change();
    t.note("after {}", what);
    hear(t, fd, watches);
  };
  after("create", [&] { close(open(t.at("d/new").c_str(), O_CREAT | O_WRONLY, 0600)); });
  after("mkdir", [&] { mkdir(t.at("d/sub").c_str(), 0700); });
  after("write", [&] {
    const int f = open(t.at("d/f").c_str(), O_RDWR);
    (void)!pwrite(f, "more", 4, 0);
    char text[4];
    (void)!pread(f, text, 4, 0);
    fsync(f);
    close(f);
  });
  after("truncate", [&] { (void)!truncate(t.at("d/f").c_str(), 1); });
  after("truncating open", [&] { close(open(t.at("d/f").c_str(), O_WRONLY | O_TRUNC)); });
  after("allocate", [&] {
    const int f = open(t.at("d/f").c_str(), O_RDWR);
    fallocate(f, 0, 0, 5000);
    close(f);
  });
  after("chmod", [&] { chmod(t.at("d/f").c_str(), 0640); });
  after("attribute", [&] { setxattr(t.at("d/f").c_str(), "user.a", "v", 1, 0); });
  after("times", [&] { utimensat(AT_FDCWD, t.at("d/f").c_str(), nullptr, 0); });
  after("link", [&] { (void)!link(t.at("d/f").c_str(), t.at("e/g").c_str()); });
  after("rename", [&] { rename(t.at("d/new").c_str(), t.at("e/moved").c_str()); });
  after("rename over", [&] { rename(t.at("e/moved").c_str(), t.at("d/old").c_str()); });
  after("exchange", [&] { renameat2(AT_FDCWD, t.at("d/old").c_str(), AT_FDCWD, t.at("e/g").c_str(), 2); });
  after("list", [&] { close(open(t.at("d").c_str(), O_RDONLY | O_DIRECTORY)); });
  after("mapped write", [&] {
    const int f = open(t.at("d/f").c_str(), O_RDWR);
    void* map = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0);
    if (map != MAP_FAILED) {
      std::memcpy(map, "m", 1);
      msync(map, 4096, MS_SYNC);
      munmap(map, 4096);
    }
    close(f);
  });
  after("unlink one of two names", [&] { unlink(t.at("d/f").c_str()); });
  after("unlink the last", [&] { unlink(t.at("d/old").c_str()); });
  after("rmdir", [&] {
    rmdir(t.at("d/sub").c_str());
    unlink(t.at("e/g").c_str());
    rmdir(t.at("e").c_str());
  });
  after("failures", [&] {
    mkdir(t.at("d").c_str(), 0700);
    close(open(t.at("d/none").c_str(), O_RDONLY));
  });
  close(fd);
}

void dnotify_events(Trace& t) {
  t.call("mkdir", mkdir(t.at("d").c_str(), 0755));
  t.child([](Trace& u) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGIO);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    const int fd = open(u.at("d").c_str(), O_RDONLY | O_DIRECTORY);
    u.call("notify", fcntl(fd, F_NOTIFY, DN_CREATE | DN_MULTISHOT));
    u.put("d/f", "x");
    const timespec patience{5, 0};
    u.call("told", sigtimedwait(&set, nullptr, &patience) > 0 ? 1 : -1);
    close(fd);
  });
}

std::string name_of(const fanotify_event_metadata* event) {
  const char* at = reinterpret_cast<const char*>(event) + event->metadata_len;
  const char* end = reinterpret_cast<const char*>(event) + event->event_len;
  if (at >= end) return "";
  const auto* info = reinterpret_cast<const fanotify_event_info_fid*>(at);
  const auto* handle = reinterpret_cast<const file_handle*>(info->handle);
  if (info->hdr.info_type != FAN_EVENT_INFO_TYPE_DFID_NAME) return "no name";
  return reinterpret_cast<const char*>(handle->f_handle) + handle->handle_bytes;
}

void hear_fanotify(Trace& t, int fd) {
  alignas(fanotify_event_metadata) char room[16'384];
  for (ssize_t n; (n = read(fd, room, sizeof room)) > 0;) {
    auto left = static_cast<std::size_t>(n);
    for (auto* e = reinterpret_cast<fanotify_event_metadata*>(room); FAN_EVENT_OK(e, left);
         e = FAN_EVENT_NEXT(e, left)) {
      std::string name;
      if (e->fd >= 0) {
        char target[4096] = {};
        (void)!readlink(fmt::format("/proc/self/fd/{}", e->fd).c_str(), target, sizeof target - 1);
        name = std::string(target).substr(std::string(target).rfind('/'));
        close(e->fd);
      } else {
        name = name_of(e);
      }
      t.note("{:x} {}", e->mask, name);
    }
  }
  t.note("no more");
}

void fanotify_events(Trace& t) {
  t.call("mkdir", mkdir(t.at("d").c_str(), 0755));
  t.put("d/f", "text");
  const auto changes = [&] {
    const int f = open(t.at("d/f").c_str(), O_RDWR);
    (void)!pwrite(f, "more", 4, 0);
    close(f);
    close(open(t.at("d/new").c_str(), O_CREAT | O_WRONLY, 0600));
    rename(t.at("d/new").c_str(), t.at("d/moved").c_str());
    mkdir(t.at("d/sub").c_str(), 0700);
    rmdir(t.at("d/sub").c_str());
    unlink(t.at("d/moved").c_str());
  };
  const std::uint64_t by_descriptor = FAN_OPEN | FAN_MODIFY | FAN_CLOSE_WRITE | FAN_EVENT_ON_CHILD;
  const std::uint64_t by_name =
      FAN_CREATE | FAN_DELETE | FAN_MOVED_FROM | FAN_MOVED_TO | FAN_ATTRIB | FAN_ONDIR | by_descriptor;
  int fd = t.opened("group", fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK, O_RDONLY));
  t.call("mark a folder", fanotify_mark(fd, FAN_MARK_ADD, by_descriptor, AT_FDCWD, t.at("d").c_str()));
  changes();
  hear_fanotify(t, fd);
  close(fd);
  fd = t.opened("group with names", fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK | FAN_REPORT_DFID_NAME, 0));
  t.call("mark a folder for names", fanotify_mark(fd, FAN_MARK_ADD, by_name, AT_FDCWD, t.at("d").c_str()));
  changes();
  hear_fanotify(t, fd);
  close(fd);
}

// The whole file system and the whole mount: only its kinds of marks; whatever else happens on the disk would be heard, too.
void fanotify_marks(Trace& t) {
  t.put("f", "text");
  int fd = fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK, O_RDONLY);
  t.call("mark the mount", fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_MOUNT, FAN_OPEN, AT_FDCWD, t.at("f").c_str()));
  t.call("mark the file system",
         fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_OPEN, AT_FDCWD, t.at("f").c_str()));
  close(fd);
  fd = fanotify_init(FAN_CLASS_NOTIF | FAN_NONBLOCK | FAN_REPORT_FID, 0);
  t.call("mark the file system for handles",
         fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_CREATE, AT_FDCWD, t.at("f").c_str()));
  close(fd);
}

void permission_asked(Trace& t) {
  t.put("allowed", "text");
  t.put("denied", "text");
  const int fd = t.opened("group", fanotify_init(FAN_CLASS_CONTENT, O_RDONLY));
  for (const char* n : {"allowed", "denied"})
    t.call("mark", fanotify_mark(fd, FAN_MARK_ADD, FAN_OPEN_PERM, AT_FDCWD, t.at(n).c_str()));
  const pid_t child = fork();
  if (child == 0) {
    close(fd);
    const bool first = open(t.at("allowed").c_str(), O_RDONLY) >= 0;
    const bool second = open(t.at("denied").c_str(), O_RDONLY) < 0 && errno == EPERM;
    _exit(first && second ? 0 : 1);
  }
  for (int i = 0; i < 2; ++i) {
    fanotify_event_metadata event{};
    pollfd wait{fd, POLLIN, 0};
    if (poll(&wait, 1, 10'000) != 1 || read(fd, &event, sizeof event) != sizeof event) return t.note("nobody asked");
    const fanotify_response answer{event.fd, i == 0 ? std::uint32_t{FAN_ALLOW} : std::uint32_t{FAN_DENY}};
    t.call("answer", write(fd, &answer, sizeof answer));
    close(event.fd);
  }
  int status = -1;
  waitpid(child, &status, 0);
  t.note("as answered: {}", status == 0);
  close(fd);
}

}  // namespace

std::vector<Case> watch_cases() {
  return {{"inotify_events", inotify_events},
          {"dnotify_events", dnotify_events},
          {"fanotify_events", fanotify_events},
          {"fanotify_marks", fanotify_marks},
          {"permission_asked", permission_asked}};
}

}  // namespace holdfast::capture
