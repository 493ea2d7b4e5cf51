// SPDX-License-Identifier: Apache-2.0
// How files take space: holes, allocation, sizes beyond 32 bits, copies, limits, full disks; and the unusual ways to write.
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <memory>

#include "capture/differential_cases.h"

namespace holdfast::capture {
namespace {

constexpr off_t gib = 1LL << 30, tib = 1LL << 40;

int make(Trace& t, const std::string& name, std::size_t bytes, int flags = 0) {
  const int fd = t.opened("create " + name, open(t.at(name).c_str(), O_CREAT | O_RDWR | flags, 0644));
  const std::string text = pattern(bytes, 17);
  t.call("fill", pwrite(fd, text.data(), text.size(), 0));
  return fd;
}

void seeks(Trace& t) {
  const int fd = make(t, "f", 100'000);
  t.call("write", pwrite(fd, "x", 1, 1 << 20));
  t.call("write", pwrite(fd, "x", 1, (3 << 20) + 5));
  for (const off_t at :
       {0, 50'000, 99'999, 102'400, 200'000, 1 << 20, (1 << 20) + 4096, (3 << 20) + 5, (3 << 20) + 6}) {
    t.call(fmt::format("data from {}", at), lseek(fd, at, SEEK_DATA));
    t.call(fmt::format("hole from {}", at), lseek(fd, at, SEEK_HOLE));
  }
  t.call("negative", lseek(fd, -1, SEEK_DATA));
  t.call("set", lseek(fd, 7, SEEK_SET));
  t.call("current", lseek(fd, 5, SEEK_CUR));
  t.call("before the start", lseek(fd, -100, SEEK_CUR));
  t.call("end", lseek(fd, 5, SEEK_END));
  t.call("nonsense", lseek(fd, 0, 77));
  t.call("sync", fsync(fd));
  close(fd);
  const int reader = open(t.at("f").c_str(), O_RDONLY);
  t.call("data", lseek(reader, 200'000, SEEK_DATA));
  t.call("punch", fallocate(reader, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
  close(reader);
  const int folder = open(t.at("").c_str(), O_RDONLY | O_DIRECTORY);
  t.call("a folder", lseek(folder, 0, SEEK_SET));
  close(folder);
  t.stat("f");
}

void allocation(Trace& t) {
  const struct {
    const char* name;
    int mode;
  } modes[] = {{"plain", 0},
               {"keep", FALLOC_FL_KEEP_SIZE},
               {"punch", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE},
               {"zero", FALLOC_FL_ZERO_RANGE},
               {"zero and keep", FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE},
               {"punch alone", FALLOC_FL_PUNCH_HOLE},
               {"punch and zero", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE},
               {"unknown", 0x4000}};
  for (const auto& [name, mode] : modes) {
    const int fd = make(t, "f", 70'000);
    for (const auto& [at, length] :
         {std::pair<off_t, off_t>{4096, 8192}, {5'000, 100}, {60'000, 90'000}, {200'000, 4096}}) {
      t.call(fmt::format("{} {} {}", name, at, length), fallocate(fd, mode, at, length));
      t.stat_fd(name, fd);
    }
    t.call("no length", fallocate(fd, mode, 0, 0));
    t.call("negative", fallocate(fd, mode, -1, 10));
    t.call("data", lseek(fd, 70'000, SEEK_DATA));
    close(fd);
    t.content("f");
    t.call("again", unlink(t.at("f").c_str()));
  }
  const int fd = make(t, "f", 10);
  t.call("posix_fallocate", posix_fallocate(fd, 0, 20'000));
  t.stat_fd("f", fd);
  t.call("a folder", fallocate(open(t.at("").c_str(), O_RDONLY | O_DIRECTORY), 0, 0, 4096));
  t.call("mkfifo", mkfifo(t.at("fifo").c_str(), 0600));
  const int fifo = open(t.at("fifo").c_str(), O_RDWR);
  t.call("a fifo", fallocate(fifo, 0, 0, 4096));
  close(fifo);
  close(fd);
  const int appender = open(t.at("f").c_str(), O_WRONLY | O_APPEND);
  t.call("punch while appending", fallocate(appender, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
  close(appender);
}

void shifting(Trace& t) {
  for (const auto& [name, mode] : {std::pair{"collapse", FALLOC_FL_COLLAPSE_RANGE},
                                   {"insert", FALLOC_FL_INSERT_RANGE},
                                   {"unshare", FALLOC_FL_UNSHARE_RANGE}}) {
    const int fd = make(t, "f", 65'536);
    t.call(name, fallocate(fd, mode, 4096, 8192));
    close(fd);
    t.call("again", unlink(t.at("f").c_str()));
  }
}

void sparse_files(Trace& t) {
  const int fd = make(t, "f", 10);
  for (const off_t at : {5 * gib, 100 * gib + 77, tib}) {
    t.call("write", pwrite(fd, "far away", 8, at));
    char text[9] = {};
    t.call("read", pread(fd, text, 8, at));
    t.note("{}", text);
    t.call("read a hole", pread(fd, text, 8, at - gib));
    t.note("zeros: {}", std::string(text, 8) == std::string(8, '\0'));
  }
  t.stat_fd("f", fd);
  t.call("sync", fsync(fd));
  t.call("first data", lseek(fd, 1 << 20, SEEK_DATA));
  t.call("next", lseek(fd, 6 * gib, SEEK_DATA));
  t.call("last", lseek(fd, 200 * gib, SEEK_DATA));
  t.call("hole", lseek(fd, tib, SEEK_HOLE));
  struct stat st;
  fstat(fd, &st);
  t.note("sparse: {}", st.st_blocks < 1024);
  t.call("punch", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 5 * gib, 4096));
  t.call("next", lseek(fd, gib, SEEK_DATA));
  t.call("grow", ftruncate(fd, 2 * tib));
  t.stat_fd("f", fd);
  t.call("shrink", ftruncate(fd, 4 * gib + 1));
  t.stat_fd("f", fd);
  t.call("data", lseek(fd, 1 << 20, SEEK_DATA));
  t.call("negative size", ftruncate(fd, -1));
  close(fd);
  t.call("gone", unlink(t.at("f").c_str()));  // nobody is to read all of it
}

// Beyond what the disk's format holds. (The largest of all are equal.)
void too_large(Trace& t) {
  const int fd = make(t, "f", 10);
  t.call("beyond", ftruncate(fd, 20 * tib));
  t.call("back", ftruncate(fd, 10));
  t.call("seek far beyond", lseek(fd, 1LL << 62, SEEK_SET));
  t.call("written beyond", pwrite(fd, "x", 1, 20 * tib));
  t.call("made durable", fsync(fd));
  t.call("back", ftruncate(fd, 10));
  close(fd);
  t.stat("f");
  t.content("f");
}

void copied_ranges(Trace& t) {
  for (const char* d : {"a", "b"}) t.call("mkdir", mkdir(t.at(d).c_str(), 0755));
  const int from = make(t, "a/f", 200'000), to = make(t, "b/g", 1000);
  const auto copy = [&](const char* what, int in, off_t at, int out, off_t where, std::size_t bytes,
                        unsigned flags = 0) {
    t.call(what, copy_file_range(in, &at, out, &where, bytes, flags));
    t.note("from {} to {}", at, where);
  };
  copy("across folders", from, 100, to, 50'000, 100'000);
  copy("within a file", from, 0, from, 150'000, 70'000);
  copy("overlapping", from, 0, from, 1000, 5000);
  copy("to the end and on", from, 190'000, to, 0, 500'000);
  copy("past the end", from, 900'000, to, 0, 100);
  copy("nothing", from, 0, to, 0, 0);
  copy("flags", from, 0, to, 0, 10, 1);
  copy("negative", from, -5, to, 0, 10);
  t.call("by position", copy_file_range(from, nullptr, to, nullptr, 100, 0));
  t.call("position", lseek(from, 0, SEEK_CUR));
  const int reader = open(t.at("b/g").c_str(), O_RDONLY), writer = open(t.at("a/f").c_str(), O_WRONLY);
  const int appender = open(t.at("b/g").c_str(), O_WRONLY | O_APPEND);
  copy("onto a reader", from, 0, reader, 0, 10);
  copy("from a writer", writer, 0, to, 0, 10);
  copy("onto an appender", from, 0, appender, 0, 10);
  const int folder = open(t.at("a").c_str(), O_RDONLY | O_DIRECTORY);
  copy("from a folder", folder, 0, to, 0, 10);
  const int there = open(t.beside("f").c_str(), O_CREAT | O_RDWR, 0644);
  copy("out of the folder", from, 0, there, 0, 100);
  copy("into the folder", there, 0, to, 0, 100);
  for (const int fd : {from, to, reader, writer, appender, folder, there}) close(fd);
  t.content("b/g");
  t.content("a/f");
}

void clones(Trace& t) {
  const int from = make(t, "f", 65'536), to = make(t, "g", 10);
  t.call("clone", ioctl(to, FICLONE, from));
  t.stat_fd("clone", to);
  file_clone_range range{from, 0, 4096, 65'536};
  t.call("clone a range", ioctl(to, FICLONERANGE, &range));
  range.src_offset = 5;
  t.call("clone unaligned", ioctl(to, FICLONERANGE, &range));
  const auto room = std::make_unique<char[]>(sizeof(file_dedupe_range) + sizeof(file_dedupe_range_info));
  auto* dedupe = reinterpret_cast<file_dedupe_range*>(room.get());
  const int same = make(t, "same", 65'536);
  dedupe->src_length = 4096;
  dedupe->dest_count = 1;
  dedupe->info[0].dest_fd = same;
  t.call("share what is equal", ioctl(from, FIDEDUPERANGE, dedupe));
  t.note("status {}", dedupe->info[0].status < 0 ? std::strerror(-dedupe->info[0].status) : "done");
  for (const int fd : {from, to, same}) close(fd);
  t.call("gone", unlink(t.at("g").c_str()));
}

void size_limits(Trace& t) {
  close(make(t, "f", 100));
  t.child([](Trace& u) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{10'000, 10'000};
    u.call("limit", setrlimit(RLIMIT_FSIZE, &limit));
    const int fd = open(u.at("f").c_str(), O_RDWR);
    const std::string text = pattern(20'000, 1);
    u.call("across it", pwrite(fd, text.data(), text.size(), 0));
    u.call("at it", pwrite(fd, text.data(), 1, 10'000));
    u.call("below it", pwrite(fd, text.data(), 1, 9'999));
    u.call("truncate", ftruncate(fd, 10'001));
    u.call("truncate by name", truncate(u.at("f").c_str(), 10'001));
    u.call("allocate", fallocate(fd, 0, 0, 20'000));
    u.call("allocate and keep", fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 20'000));
    loff_t from = 0, to = 9'990;
    u.call("copy", copy_file_range(fd, &from, fd, &to, 100, 0));
    const int appender = open(u.at("f").c_str(), O_WRONLY | O_APPEND);
    u.call("append", write(appender, "x", 1));
    u.stat_fd("f", fd);
  });
  t.child([](Trace& u) {
    const pid_t writer = fork();
    if (writer == 0) {
      const rlimit limit{10, 10};
      setrlimit(RLIMIT_FSIZE, &limit);
      const rlimit no_core{0, 0};
      setrlimit(RLIMIT_CORE, &no_core);
      const int fd = open(u.at("f").c_str(), O_WRONLY);
      _exit(pwrite(fd, "x", 1, 10) == 1 ? 0 : 1);
    }
    int status = 0;
    waitpid(writer, &status, 0);
    u.note("signalled: {}", WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ);
  });
}

void full_disk(Trace& t) {
  t.call("mkdir", mkdir(t.at("d").c_str(), 0755));
  t.put("before", pattern(50'000, 1));
  const int durable = open(t.at("before").c_str(), O_RDWR);
  t.call("fsync", fsync(durable));
  const int fd = make(t, "f", 0);
  t.call("fsync", fsync(fd));
  const int ballast = open(t.beside("ballast").c_str(), O_CREAT | O_RDWR, 0600);
  off_t at = 0;
  for (off_t step = 64 << 20; step >= 4096;) {
    if (fallocate(ballast, FALLOC_FL_KEEP_SIZE, at, step) == 0)
      at += step;
    else
      step /= 2;
  }
  const std::string text = pattern(4 << 20, 3);
  for (std::size_t step = text.size(); step >= 4096;) {  // xfs holds something back from allocations
    if (pwrite(ballast, text.data(), step, at) == static_cast<ssize_t>(step) && fdatasync(ballast) == 0)
      at += static_cast<off_t>(step);
    else
      step /= 2;
  }
  t.call("no more", fallocate(ballast, FALLOC_FL_KEEP_SIZE, at, 4096));
  t.opened("create", open(t.at("d/more").c_str(), O_CREAT | O_RDWR, 0644));
  t.call("write", pwrite(fd, text.data(), text.size(), 0));
  t.call("written durably", fsync(fd));
  t.call("allocate", fallocate(fd, 0, 0, 8 << 20));
  t.stat_fd("not longer", durable);
  t.call("overwrite", pwrite(durable, text.data(), 50'000, 0));
  t.call("overwritten durably", fsync(durable));
  t.call("extend sparsely", ftruncate(durable, 1 << 30));
  t.call("and back", ftruncate(durable, 50'000));
  t.call("rename", rename(t.at("before").c_str(), t.at("d/after").c_str()));
  t.call("free", ftruncate(ballast, 0));
  close(ballast);
  unlink(t.beside("ballast").c_str());
  t.call("remove", unlink(t.at("f").c_str()));
  close(fd);
  const int later = t.opened("later", open(t.at("later").c_str(), O_CREAT | O_RDWR, 0644));
  t.call("write", pwrite(later, text.data(), 1 << 20, 0));
  t.call("durably", fsync(later));
  close(later);
  close(durable);
  t.content("d/after");
}

void direct_and_flagged(Trace& t) {
  void* page = nullptr;
  if (posix_memalign(&page, 65'536, 65'536) != 0) return;
  char* bytes = static_cast<char*>(page);
  std::memset(bytes, 'd', 65'536);
  const int fd = make(t, "f", 0, O_DIRECT);
  t.call("aligned", pwrite(fd, bytes, 8192, 4096));
  t.call("into a hole", pwrite(fd, bytes, 4096, 1 << 20));
  t.call("read", pread(fd, bytes, 65'536, 0));
  t.call("read past the end", pread(fd, bytes, 4096, 2 << 20));
  t.call("unaligned write", pwrite(fd, bytes, 100, 4096));
  t.call("unaligned offset", pwrite(fd, bytes, 4096, 4097));
  t.call("unaligned read", pread(fd, bytes, 100, 0));
  t.call("off", fcntl(fd, F_SETFL, 0));
  t.call("buffered now", pwrite(fd, bytes, 100, 4096));
  t.call("on", fcntl(fd, F_SETFL, O_DIRECT));
  t.call("read what was buffered", pread(fd, bytes, 4096, 4096));
  close(fd);
  const int plain = open(t.at("f").c_str(), O_RDWR);
  const iovec part{bytes, 512};
  t.call("RWF_DSYNC", pwritev2(plain, &part, 1, 100, RWF_DSYNC));
  t.call("RWF_SYNC", pwritev2(plain, &part, 1, 700, RWF_SYNC));
  t.call("RWF_APPEND", pwritev2(plain, &part, 1, 0, RWF_APPEND));
  t.call("RWF_HIPRI", preadv2(plain, &part, 1, 0, RWF_HIPRI));
  t.call("RWF_NOWAIT", preadv2(plain, &part, 1, 0, RWF_NOWAIT));
  t.call("unknown flag", preadv2(plain, &part, 1, 0, 0x40000000));
  t.call("advice", posix_fadvise(plain, 0, 0, POSIX_FADV_DONTNEED));
  t.call("readahead", readahead(plain, 0, 65'536));
  t.call("sync_file_range", sync_file_range(plain, 0, 0, SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER));
  t.stat_fd("f", plain);
  close(plain);
  std::free(page);
  t.call("gone", unlink(t.at("f").c_str()));  // unaligned writes may have been refused
}

void pipes_and_sockets(Trace& t) {
  const int from = make(t, "from", 60'000), to = make(t, "to", 0);
  int ends[2], pair[2];
  if (pipe(ends) != 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) return t.note("no pipes");
  loff_t at = 1000;
  t.call("file to pipe", splice(from, &at, ends[1], nullptr, 30'000, 0));
  t.note("at {}", at);
  loff_t where = 500;
  t.call("pipe to file", splice(ends[0], nullptr, to, &where, 30'000, 0));
  t.note("at {}", where);
  off_t sent = 100;
  t.call("sendfile to a file", sendfile(to, from, &sent, 20'000));
  t.note("at {}", sent);
  t.call("sendfile to a socket", sendfile(pair[0], from, nullptr, 5'000));
  std::string got(5'000, 0);
  t.call("received", recv(pair[1], got.data(), got.size(), MSG_WAITALL));
  t.note("hash {:x}", std::hash<std::string>{}(got));
  const int appender = open(t.at("to").c_str(), O_WRONLY | O_APPEND);
  t.call("fill the pipe", write(ends[1], "abc", 3));
  t.call("splice to an appender", splice(ends[0], nullptr, appender, nullptr, 3, 0));
  t.call("sendfile past the end", sendfile(to, from, &(sent = 100'000), 10));
  const iovec parts[2] = {{got.data(), 1000}, {got.data() + 2000, 500}};
  t.call("writev", writev(to, parts, 2));
  t.call("pwritev", pwritev(to, parts, 2, 33));
  t.call("readv", readv(from, parts, 2));
  for (const int fd : {from, to, ends[0], ends[1], pair[0], pair[1], appender}) close(fd);
  t.content("to");
  t.stat("to");
}

}  // namespace

std::vector<Case> space_cases() {
  return {{"seeks", seeks},
          {"allocation", allocation},
          {"shifting", shifting},
          {"sparse_files", sparse_files},
          {"too_large", too_large},
          {"copied_ranges", copied_ranges},
          {"clones", clones},
          {"size_limits", size_limits},
          {"full_disk", full_disk},
          {"direct_and_flagged", direct_and_flagged},
          {"pipes_and_sockets", pipes_and_sockets}};
}

}  // namespace holdfast::capture
