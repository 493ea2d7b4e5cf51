// SPDX-License-Identifier: Apache-2.0
// Locks and leases, within a process and between processes.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>

#include "capture/differential_cases.h"

namespace holdfast::capture {
namespace {

struct flock range(short type, off_t start, off_t length) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = start;
  lock.l_len = length;
  return lock;
}

long take(int fd, int command, short type, off_t start, off_t length) {
  struct flock lock = range(type, start, length);
  return fcntl(fd, command, &lock);
}

void ask(Trace& t, const char* what, int fd, int command, off_t start, off_t length) {
  struct flock lock = range(F_WRLCK, start, length);
  t.call(what, fcntl(fd, command, &lock));
  t.note("type {} from {} length {} holder {}", lock.l_type, lock.l_start, lock.l_len,
         lock.l_type == F_UNLCK    ? "none"
         : lock.l_pid == getppid() ? "parent"
         : lock.l_pid == -1        ? "a file"
                                   : "other");
}

// Until that process waits for a lock of any kind. (Ten seconds are for ever.)
void await_waiter(pid_t pid) {
  const std::string wanted = fmt::format(" {} ", pid);
  for (int i = 0; i < 10'000; ++i, usleep(1000)) {
    std::ifstream in("/proc/locks");
    for (std::string line; std::getline(in, line);)
      if (line.find("->") != std::string::npos && line.find(wanted) != std::string::npos) return;
  }
}

void record_locks(Trace& t) {
  t.put("l", "lock me");
  const int fd = open(t.at("l").c_str(), O_RDWR);
  t.call("write lock", take(fd, F_SETLK, F_WRLCK, 0, 100));
  t.call("read lock in it", take(fd, F_SETLK, F_RDLCK, 40, 20));
  t.call("unlock a part", take(fd, F_SETLK, F_UNLCK, 45, 5));
  t.call("to the end", take(fd, F_SETLK, F_WRLCK, 1000, 0));
  t.child([](Trace& u) {
    const int own = open(u.at("l").c_str(), O_RDWR);
    ask(u, "first", own, F_GETLK, 0, 0);
    ask(u, "hole", own, F_GETLK, 45, 5);
    ask(u, "behind the hole", own, F_GETLK, 50, 3);
    ask(u, "between", own, F_GETLK, 100, 900);
    ask(u, "far", own, F_GETLK, 1LL << 40, 1);
    u.call("read where read", take(own, F_SETLK, F_RDLCK, 41, 2));
    u.call("write where read", take(own, F_SETLK, F_WRLCK, 41, 2));
    u.call("in the hole", take(own, F_SETLK, F_WRLCK, 45, 5));
    const int reader = open(u.at("l").c_str(), O_RDONLY);
    u.call("write lock of a reader", take(reader, F_SETLK, F_WRLCK, 46, 1));
    u.call("negative length", take(own, F_SETLK, F_WRLCK, 200, -50));
    u.call("before the start", take(own, F_SETLK, F_WRLCK, 0, -1));
    u.call("nonsense", take(own, F_SETLK, 99, 0, 1));
  });
  t.call("the other's are gone", take(fd, F_SETLK, F_WRLCK, 0, 0));
  close(open(t.at("l").c_str(), O_RDONLY));  // closing any descriptor gives all up
  t.child([](Trace& u) {
    const int own = open(u.at("l").c_str(), O_RDWR);
    u.call("given up by a close", take(own, F_SETLK, F_WRLCK, 0, 0));
  });
  close(fd);
}

void waiting_for_locks(Trace& t) {
  t.put("l", "lock me");
  int told[2];
  if (pipe(told) != 0) return t.note("no pipe");
  for (const bool by_exit : {false, true}) {
    for (const bool whole : {false, true}) {
      const pid_t holder = fork();
      if (holder == 0) {
        const int fd = open(t.at("l").c_str(), O_RDWR);
        const bool has = whole ? flock(fd, LOCK_EX) == 0 : take(fd, F_SETLK, F_WRLCK, 0, 10) == 0;
        if (write(told[1], has ? "y" : "n", 1) != 1) _exit(1);
        await_waiter(getppid());
        if (!by_exit) close(fd);
        if (!by_exit) pause();
        _exit(0);
      }
      char has = 0;
      t.call("told", read(told[0], &has, 1));
      const int fd = open(t.at("l").c_str(), O_RDWR);
      t.note("held: {}", has);
      t.call("waited", whole ? flock(fd, LOCK_EX) : take(fd, F_SETLKW, F_WRLCK, 5, 10));
      close(fd);
      kill(holder, SIGKILL);
      waitpid(holder, nullptr, 0);
    }
  }
  close(told[0]);
  close(told[1]);
}

void locks_of_descriptions(Trace& t) {
  t.put("l", "lock me");
  const int one = open(t.at("l").c_str(), O_RDWR), two = open(t.at("l").c_str(), O_RDWR), copy = dup(one);
  t.call("first", take(one, F_OFD_SETLK, F_WRLCK, 0, 10));
  t.call("second in the same process", take(two, F_OFD_SETLK, F_WRLCK, 5, 10));
  t.call("by the copy", take(copy, F_OFD_SETLK, F_RDLCK, 0, 10));
  t.call("shared", take(two, F_OFD_SETLK, F_RDLCK, 5, 10));
  t.call("against a process's lock", take(two, F_SETLK, F_WRLCK, 0, 5));
  struct flock lock = range(F_WRLCK, 0, 5);
  t.call("who", fcntl(two, F_OFD_GETLK, &lock));
  t.note("type {} pid {}", lock.l_type, lock.l_pid);
  close(one);
  t.call("the copy still holds it", take(two, F_OFD_SETLK, F_WRLCK, 0, 5));
  t.child([&](Trace& u) { u.call("inherited", take(copy, F_OFD_SETLK, F_UNLCK, 0, 10)); });
  t.call("free", take(two, F_OFD_SETLK, F_WRLCK, 0, 5));
  close(copy);
  close(two);
}

void whole_file_locks(Trace& t) {
  t.put("l", "lock me");
  const int one = open(t.at("l").c_str(), O_RDONLY), two = open(t.at("l").c_str(), O_RDWR), copy = dup(one);
  t.call("shared", flock(one, LOCK_SH | LOCK_NB));
  t.call("shared too", flock(two, LOCK_SH | LOCK_NB));
  t.call("upgrade", flock(two, LOCK_EX | LOCK_NB));
  t.call("give up by the copy", flock(copy, LOCK_UN));
  t.call("upgrade", flock(two, LOCK_EX | LOCK_NB));
  t.call("record lock beside it", take(two, F_SETLK, F_WRLCK, 0, 0));
  t.call("exclusive", flock(one, LOCK_EX | LOCK_NB));
  close(two);
  t.call("free now", flock(one, LOCK_EX | LOCK_NB));
  const int folder = open(t.at("").c_str(), O_RDONLY | O_DIRECTORY);
  t.call("of a folder", flock(folder, LOCK_EX | LOCK_NB));
  t.call("nonsense", flock(one, 77));
  t.call("unlink", unlink(t.at("l").c_str()));
  t.call("of what has no name", flock(one, LOCK_SH | LOCK_NB));
  for (const int fd : {one, copy, folder}) close(fd);
}

void deadlocks(Trace& t) {
  t.put("l", "lock me");
  const int fd = open(t.at("l").c_str(), O_RDWR);
  t.call("mine", take(fd, F_SETLK, F_WRLCK, 0, 1));
  int told[2];
  if (pipe(told) != 0) return t.note("no pipe");
  const pid_t other = fork();
  if (other == 0) {
    const int own = open(t.at("l").c_str(), O_RDWR);
    const bool has = take(own, F_SETLK, F_WRLCK, 1, 1) == 0;
    if (write(told[1], has ? "y" : "n", 1) != 1) _exit(1);
    const long got = take(own, F_SETLKW, F_WRLCK, 0, 1);
    _exit(got == 0 ? 0 : errno == EDEADLK ? 2 : 3);
  }
  char has = 0;
  t.call("told", read(told[0], &has, 1));
  const long got = take(fd, F_SETLKW, F_WRLCK, 1, 1);
  const int error = errno;
  close(fd);
  int status = 0;
  waitpid(other, &status, 0);
  // Whoever comes second is told.
  t.note("one was refused: {}", (got != 0 && error == EDEADLK) != (WEXITSTATUS(status) == 2));
  close(told[0]);
  close(told[1]);
}

void leases(Trace& t) {
  t.put("l", "lease me");
  t.child([](Trace& u) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGIO);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    const int fd = open(u.at("l").c_str(), O_RDONLY);
    u.call("none", fcntl(fd, F_GETLEASE));
    u.call("read lease", fcntl(fd, F_SETLEASE, F_RDLCK));
    u.call("has", fcntl(fd, F_GETLEASE));
    u.opened("a reader", open(u.at("l").c_str(), O_RDONLY | O_NONBLOCK));
    u.opened("a writer", open(u.at("l").c_str(), O_WRONLY | O_NONBLOCK));
    const timespec none{0, 0};
    u.call("told", sigtimedwait(&set, nullptr, &none));
    u.call("given up", fcntl(fd, F_SETLEASE, F_UNLCK));
    u.opened("a writer", open(u.at("l").c_str(), O_WRONLY | O_NONBLOCK));
    u.call("again", fcntl(fd, F_GETLEASE));
    u.call("nonsense", fcntl(fd, F_SETLEASE, 99));
    close(fd);
  });
  t.child([](Trace& u) {
    const int fd = open(u.at("l").c_str(), O_RDWR);
    u.call("write lease", fcntl(fd, F_SETLEASE, F_WRLCK));
    u.call("has", fcntl(fd, F_GETLEASE));
  });
  t.as_user(1000, 1000, {}, [](Trace& u) {
    const int fd = open(u.at("l").c_str(), O_RDONLY);
    u.call("of another's file", fcntl(fd, F_SETLEASE, F_RDLCK));
  });
}

}  // namespace

std::vector<Case> lock_cases() {
  return {{"record_locks", record_locks},
          {"waiting_for_locks", waiting_for_locks},
          {"locks_of_descriptions", locks_of_descriptions},
          {"whole_file_locks", whole_file_locks},
          {"deadlocks", deadlocks},
          {"leases", leases}};
}

}  // namespace holdfast::capture
