// SPDX-License-Identifier: Apache-2.0
// Mapped files, many processes that append, and what is open after its name is gone.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>

#include "capture/differential_cases.h"

namespace holdfast::capture {
namespace {

constexpr std::size_t page = 4096;

char* map_file(Trace& t, int fd, std::size_t bytes, int rights = PROT_READ | PROT_WRITE, int flags = MAP_SHARED) {
  void* at = mmap(nullptr, bytes, rights, flags, fd, 0);
  t.note("mapped: {}", at == MAP_FAILED ? std::strerror(errno) : "yes");
  return at == MAP_FAILED ? nullptr : static_cast<char*>(at);
}

int sized(Trace& t, const char* name, off_t bytes) {
  const int fd = t.opened("create", open(t.at(name).c_str(), O_CREAT | O_RDWR, 0644));
  t.call("size", ftruncate(fd, bytes));
  return fd;
}

// How a process ends that touches a byte.
void touch(Trace& t, const char* what, char* byte, bool write) {
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGBUS, SIG_DFL);
    std::signal(SIGSEGV, SIG_DFL);
    if (write) *static_cast<volatile char*>(byte) = 'w';
    _exit(*static_cast<volatile char*>(byte) == 0 ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  t.note("{}: {}", what, WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : std::to_string(WEXITSTATUS(status)));
}

void mapped_by_two(Trace& t) {
  const int fd = sized(t, "m", 16 * page);
  char* map = map_file(t, fd, 16 * page);
  if (!map) return;
  t.child([&](Trace& u) {
    const int own = open(u.at("m").c_str(), O_RDWR);
    char* other = map_file(u, own, 16 * page);
    if (!other) return;
    std::memcpy(other + 100, "from the other", 14);
    u.note("sees {}", map[100] == 'f');  // inherited
    u.call("write", pwrite(own, "by write", 8, 8192));
    u.call("msync", msync(other, 16 * page, MS_SYNC));
  });
  t.note("{} {}", std::string(map + 100, 14), std::string(map + 8192, 8));
  std::memcpy(map + 5 * page - 3, "across", 6);
  char text[7] = {};
  t.call("read", pread(fd, text, 6, 5 * page - 3));
  t.note("{}", text);
  t.call("asynchronously", msync(map, page, MS_ASYNC));
  t.call("invalidated", msync(map, page, MS_INVALIDATE));
  t.call("unaligned", msync(map + 1, page, MS_SYNC));
  t.call("dropped", madvise(map, 16 * page, MADV_DONTNEED));
  t.note("still {}", std::string(map + 100, 14));
  t.call("remapped", mremap(map, 16 * page, 32 * page, MREMAP_MAYMOVE) == MAP_FAILED ? -1 : 0);
  close(fd);
  t.content("m");
}

void truncated_below_mapping(Trace& t) {
  const int fd = sized(t, "m", 4 * page + 10);
  char* map = map_file(t, fd, 8 * page);
  if (!map) return;
  std::memset(map, 'a', 4 * page + 10);
  touch(t, "in the last page", map + 4 * page + 1000, false);
  touch(t, "behind it", map + 6 * page, false);
  t.call("shorter", ftruncate(fd, page + 1));
  touch(t, "read what is cut off", map + 3 * page, false);
  touch(t, "write what is cut off", map + 3 * page, true);
  t.note("rest of the page: {}", map[page + 1] == 0);
  map[page + 5] = 'x';  // behind the end: nobody's
  t.call("longer", ftruncate(fd, 4 * page));
  touch(t, "read what came again", map + 3 * page, false);
  t.note("zeros: {}", map[2 * page] == 0 && map[page + 1] == 0);
  std::memset(map + page, 'p', 2 * page);
  t.call("punch", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, page, page));
  t.note("punched {}, kept {}", map[page] == 0, map[2 * page] == 'p');
  t.call("zero", fallocate(fd, FALLOC_FL_ZERO_RANGE, 2 * page, 100));
  t.note("zeroed {}, kept {}", map[2 * page] == 0, map[2 * page + 100] == 'p');
  t.call("msync", msync(map, 4 * page, MS_SYNC));
  close(fd);
  t.call("unlink", unlink(t.at("m").c_str()));
  map[7] = 'u';
  t.note("still there: {}", map[7] == 'u' && map[8] == 'a');
  munmap(map, 8 * page);
}

void rights_of_mappings(Trace& t) {
  t.put("m", pattern(3 * page, 4));
  const int reader = open(t.at("m").c_str(), O_RDONLY), writer = open(t.at("m").c_str(), O_WRONLY);
  map_file(t, reader, page, PROT_READ | PROT_WRITE, MAP_SHARED);
  map_file(t, writer, page, PROT_READ, MAP_SHARED);
  map_file(t, reader, page, PROT_READ | PROT_EXEC, MAP_PRIVATE);
  char* own = map_file(t, reader, 3 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE);
  if (own) own[0] = 'p';
  t.content("m");
  char* shown = map_file(t, reader, 3 * page, PROT_READ, MAP_SHARED);
  t.call("make it writable", mprotect(shown, page, PROT_READ | PROT_WRITE));
  touch(t, "write to what is read-only", shown, true);
  const int both = open(t.at("m").c_str(), O_RDWR);
  t.call("write", pwrite(both, "seen", 4, page));
  t.note("{}", shown ? std::string(shown + page, 4) : "");
  map_file(t, both, page, PROT_READ, 0x03 /* MAP_SHARED_VALIDATE */ | 0x80000 /* MAP_SYNC */);
  const int direct = open(t.at("m").c_str(), O_RDWR | O_DIRECT);
  char* mapped = map_file(t, direct, page);
  if (mapped) mapped[3] = 'D';
  t.call("lock", shown ? mlock(shown, page) : -1);
  t.call("populate", shown ? madvise(shown, 3 * page, MADV_WILLNEED) : -1);
  t.call("no mapping of a folder",
         mmap(nullptr, page, PROT_READ, MAP_SHARED, open(t.at("").c_str(), O_RDONLY), 0) == MAP_FAILED ? -1 : 0);
  if (mapped) t.call("msync", msync(mapped, page, MS_SYNC));
  for (const int fd : {reader, writer, both, direct}) close(fd);
  t.content("m");
}

std::size_t line_length(int writer, int line) {
  return static_cast<std::size_t>(writer) * 997 + static_cast<std::size_t>(line) * 31 + 1;
}

// Nothing is torn, nothing is lost, whoever else appends.
void many_appenders(Trace& t) {
  t.put("log", "");
  constexpr int writers = 6, lines = 60;
  pid_t children[writers];
  for (int w = 0; w < writers; ++w) {
    children[w] = fork();
    if (children[w] != 0) continue;
    const int fd = open(t.at("log").c_str(), O_WRONLY | O_APPEND | (w == 0 ? O_DSYNC : 0));
    for (int i = 0; i < lines; ++i) {
      const std::string line(line_length(w, i), static_cast<char>('a' + w));
      if (write(fd, (line + "\n").data(), line.size() + 1) != static_cast<ssize_t>(line.size() + 1)) _exit(1);
    }
    _exit(0);
  }
  for (const pid_t child : children) {
    int status = -1;
    waitpid(child, &status, 0);
    t.note("ended with {}", status);
  }
  const int fd = open(t.at("log").c_str(), O_RDONLY);
  struct stat st;
  fstat(fd, &st);
  std::string text(static_cast<std::size_t>(st.st_size), 0);
  t.call("all", read(fd, text.data(), text.size()));
  close(fd);
  int found[writers] = {}, torn = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const int w = text[at] - 'a';
    if (w < 0 || w >= writers || text.find_first_not_of(text[at], at) < end || end - at != line_length(w, found[w]))
      ++torn;
    else
      ++found[w];
    at = end + 1;
  }
  t.note("torn {}, lines {} {} {} {} {} {}", torn, found[0], found[1], found[2], found[3], found[4], found[5]);
  t.call("gone", unlink(t.at("log").c_str()));  // the order is another every time
}

void nameless(Trace& t) {
  t.put("f", "first");
  const int fd = t.opened("open", open(t.at("f").c_str(), O_RDWR));
  t.call("second name", link(t.at("f").c_str(), t.at("g").c_str()));
  t.call("unlink", unlink(t.at("f").c_str()));
  t.call("unlink", unlink(t.at("g").c_str()));
  t.stat_fd("gone", fd);
  const std::string self = fmt::format("/proc/self/fd/{}", fd);
  t.call("a name again", linkat(AT_FDCWD, self.c_str(), AT_FDCWD, t.at("h").c_str(), AT_SYMLINK_FOLLOW));
  t.call("by descriptor", linkat(fd, "", AT_FDCWD, t.at("h").c_str(), AT_EMPTY_PATH));
  t.call("append", pwrite(fd, " and more", 9, 5));
  const int again = t.opened("opened again", open(self.c_str(), O_RDWR));
  char text[32] = {};
  t.call("read", pread(again, text, sizeof text, 0));
  t.note("{}", text);
  t.call("truncate by link", truncate(self.c_str(), 3));
  t.call("chmod by link", chmod(self.c_str(), 0600));
  t.call("utimes", futimens(fd, nullptr));
  t.call("allocate", fallocate(fd, 0, 0, 100'000));
  t.stat_fd("gone", again);
  char target[4096] = {};
  t.note("link says deleted: {}",
         readlink(self.c_str(), target, sizeof target - 1) > 0 && std::string(target).ends_with(" (deleted)"));
  t.call("fsync", fsync(fd));
  close(fd);
  close(again);

  for (const bool by_descriptor : {false, true}) {
    const int orphan = t.opened("orphan", open(t.at("").c_str(), O_TMPFILE | O_RDWR, 0640));
    t.call("write", write(orphan, "text", 4));
    const std::string path = fmt::format("/proc/self/fd/{}", orphan), name = fmt::format("named-{}", by_descriptor);
    t.call("name", by_descriptor ? linkat(orphan, "", AT_FDCWD, t.at(name).c_str(), AT_EMPTY_PATH)
                                 : linkat(AT_FDCWD, path.c_str(), AT_FDCWD, t.at(name).c_str(), AT_SYMLINK_FOLLOW));
    t.call("name it again", linkat(AT_FDCWD, path.c_str(), AT_FDCWD, t.at(name).c_str(), AT_SYMLINK_FOLLOW));
    t.call("another name", linkat(AT_FDCWD, path.c_str(), AT_FDCWD, t.at(name + "x").c_str(), AT_SYMLINK_FOLLOW));
    t.call("write", write(orphan, "more", 4));
    close(orphan);
    t.stat(name);
    t.content(name + "x");
  }
  t.opened("orphan that is only read", open(t.at("").c_str(), O_TMPFILE | O_RDONLY, 0640));
  t.call("mkdir", mkdir(t.at("closed").c_str(), 0700));
  t.as_user(1000, 1000, {}, [](Trace& u) {
    u.opened("orphan where one may not write", open(u.at("closed").c_str(), O_TMPFILE | O_RDWR, 0600));
  });
}

// In a process of its own: a fault in a mapping holds what the threads that serve the mount need of their memory.
Case apart(const char* name, void (*run)(Trace&)) {
  return {name, [run](Trace& t) { t.child(run); }};
}

}  // namespace

std::vector<Case> mapping_cases() {
  return {apart("mapped_by_two", mapped_by_two), apart("truncated_below_mapping", truncated_below_mapping),
          apart("rights_of_mappings", rights_of_mappings), apart("many_appenders", many_appenders),
          apart("nameless", nameless)};
}

}  // namespace holdfast::capture
