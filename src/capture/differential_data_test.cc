// SPDX-License-Identifier: Apache-2.0
// Data: reading, writing, holes, mappings, locks.
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "capture/differential_cases.h"

namespace holdfast::capture {
namespace {

void reads_and_writes(Trace& t) {
  const int fd = t.opened("create", open(t.at("f").c_str(), O_CREAT | O_RDWR, 0644));
  const std::string big = pattern(3'000'001, 1);
  t.call("write", write(fd, big.data(), big.size()));
  for (int i = 0; i < 50; ++i) {
    const std::string small = pattern(100 + i * 97, i);
    t.call("pwrite", pwrite(fd, small.data(), small.size(), i * 61'003));
  }
  t.call("fdatasync", fdatasync(fd));
  t.call("seek end", lseek(fd, 0, SEEK_END));
  t.call("truncate up", ftruncate(fd, 4'000'000));
  t.call("truncate down", ftruncate(fd, 2'500'123));
  std::string back(10'000, 0);
  t.call("read at the end", pread(fd, back.data(), back.size(), 2'500'000));
  t.call("read past the end", pread(fd, back.data(), back.size(), 9'000'000));
  t.call("negative offset", pread(fd, back.data(), back.size(), -1));
  close(fd);
  const int writer = t.opened("write only", open(t.at("f").c_str(), O_WRONLY));
  t.call("unaligned write", pwrite(writer, "xyz", 3, 1'234'567));
  t.call("read of write only", pread(writer, back.data(), 1, 0));
  close(writer);
  const int reader = t.opened("read only", open(t.at("f").c_str(), O_RDONLY));
  t.call("write of read only", write(reader, "x", 1));
  t.call("truncate of read only", ftruncate(reader, 1));
  close(reader);
  t.content("f");
  t.stat("f");
  t.call("truncate by name", truncate(t.at("f").c_str(), 77));
  t.content("f");
}

void synchronous_writes(Trace& t) {
  for (const int flag : {O_SYNC, O_DSYNC}) {
    const int fd = t.opened("open", open(t.at("s").c_str(), O_CREAT | O_RDWR | flag, 0644));
    for (int i = 0; i < 5; ++i) t.call("write", pwrite(fd, "synchronous", 11, i * 5000));
    close(fd);
    t.content("s");
  }
  const int fd = t.opened("open", open(t.at("s").c_str(), O_RDWR));
  const iovec part{const_cast<char*>("one write"), 9};
  t.call("pwritev2 RWF_DSYNC", pwritev2(fd, &part, 1, 3, RWF_DSYNC));
  t.call("pwritev2 RWF_APPEND", pwritev2(fd, &part, 1, 0, RWF_APPEND));
  close(fd);
  t.content("s");
}

void direct_writes(Trace& t) {
  const int fd = t.opened("O_DIRECT", open(t.at("o").c_str(), O_CREAT | O_RDWR | O_DIRECT, 0644));
  void* page = nullptr;
  if (posix_memalign(&page, 4096, 65536)) return;
  std::memset(page, 'd', 65536);
  t.call("write", pwrite(fd, page, 65536, 0));
  t.call("write", pwrite(fd, page, 4096, 131072));
  const int buffered = t.opened("buffered", open(t.at("o").c_str(), O_RDWR));
  t.call("buffered write", pwrite(buffered, "B", 1, 5000));
  std::memset(page, 0, 65536);
  t.call("read", pread(fd, page, 65536, 0));
  t.note("sees it: {}", static_cast<char*>(page)[5000]);
  close(buffered);
  close(fd);
  std::free(page);
  t.content("o");
}

void appends(Trace& t) {
  const int fd = t.opened("append", open(t.at("log").c_str(), O_CREAT | O_WRONLY | O_APPEND, 0666));
  const auto many = [](Trace& u) {
    const int own = open(u.at("log").c_str(), O_WRONLY | O_APPEND);
    long total = 0;
    for (int i = 0; i < 200; ++i) total += write(own, "0123456789\n", 11);
    u.call("appended", total);
  };
  t.as_user(0, 0, {}, [&](Trace& u) {  // two at the same time
    const pid_t other = fork();
    many(u);
    if (other == 0) _exit(0);
    int status = -1;
    waitpid(other, &status, 0);
    u.note("the other ended with {}", status);
  });
  t.call("own", write(fd, "end\n", 4));
  t.call("pwrite of append", pwrite(fd, "!", 1, 0));
  close(fd);
  t.content("log");
  t.stat("log");
}

void mappings(Trace& t) {
  const int fd = t.opened("create", open(t.at("m").c_str(), O_CREAT | O_RDWR, 0644));
  t.call("truncate", ftruncate(fd, 20'000));
  char* map = static_cast<char*>(mmap(nullptr, 20'000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  t.note("mapped: {}", map != MAP_FAILED);
  if (map == MAP_FAILED) return;
  std::memcpy(map + 5'000, "through the mapping", 19);
  char text[32] = {};
  t.call("read", pread(fd, text, 19, 5'000));
  t.note("{}", text);
  t.call("write", pwrite(fd, "by write", 8, 9'000));
  t.note("{}", std::string(map + 9'000, 8));
  t.call("msync", msync(map, 20'000, MS_SYNC));
  std::memcpy(map + 19'000, "late", 4);
  close(fd);
  t.call("unmap", munmap(map, 20'000));
  t.content("m");
}

void holes(Trace& t) {
  const int fd = t.opened("create", open(t.at("h").c_str(), O_CREAT | O_RDWR, 0644));
  const std::string block = pattern(65536, 5);
  t.call("truncate", ftruncate(fd, 4 << 20));
  t.call("write", pwrite(fd, block.data(), block.size(), 1 << 20));
  t.call("write", pwrite(fd, block.data(), block.size(), 3 << 20));
  t.call("data", lseek(fd, 0, SEEK_DATA));
  t.call("hole", lseek(fd, 1 << 20, SEEK_HOLE));
  t.call("next data", lseek(fd, (1 << 20) + 65536, SEEK_DATA));
  t.call("fsync", fsync(fd));
  t.call("data", lseek(fd, 0, SEEK_DATA));
  t.call("past the end", lseek(fd, 5 << 20, SEEK_DATA));
  t.call("punch", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1 << 20, 32768));
  t.call("data", lseek(fd, 0, SEEK_DATA));
  t.call("zero", fallocate(fd, FALLOC_FL_ZERO_RANGE, (3 << 20) + 100, 5000));
  t.call("keep size", fallocate(fd, FALLOC_FL_KEEP_SIZE, 8 << 20, 65536));
  t.stat_fd("kept", fd);
  t.call("extend", fallocate(fd, 0, 6 << 20, 65536));
  t.stat_fd("extended", fd);
  t.call("nonsense", fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 4096));
  close(fd);
  t.content("h");
}

void copies(Trace& t) {
  int from = t.opened("create", open(t.at("from").c_str(), O_CREAT | O_RDWR, 0644));
  const std::string text = pattern(300'000, 9);
  t.call("write", write(from, text.data(), text.size()));
  const int to = t.opened("create", open(t.at("to").c_str(), O_CREAT | O_RDWR, 0644));
  loff_t in = 1000, out = 0;
  long total = 0;
  for (ssize_t n; (n = copy_file_range(from, &in, to, &out, 250'000 - static_cast<std::size_t>(total), 0)) > 0;)
    total += n;
  t.call("copied", total);
  close(from);
  close(to);
  t.content("to");
}

void locks(Trace& t) {
  const int fd = t.opened("create", open(t.at("l").c_str(), O_CREAT | O_RDWR, 0666));
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_len = 10;
  t.call("fcntl lock", fcntl(fd, F_SETLK, &lock));
  t.as_user(1000, 1000, {}, [](Trace& u) {
    const int own = u.opened("open", open(u.at("l").c_str(), O_RDWR));
    struct flock inner {};
    inner.l_type = F_WRLCK;
    inner.l_len = 10;
    u.call("taken", fcntl(own, F_SETLK, &inner));
    inner.l_start = 10;
    u.call("free part", fcntl(own, F_SETLK, &inner));
    u.call("flock", flock(own, LOCK_EX | LOCK_NB));
  });
  t.call("flock", flock(fd, LOCK_EX));
  t.as_user(1000, 1000, {}, [](Trace& u) {
    const int own = open(u.at("l").c_str(), O_RDWR);
    u.call("flock taken", flock(own, LOCK_EX | LOCK_NB));
  });
  close(fd);
}

void queries(Trace& t) {
  struct statvfs fs;
  t.call("statvfs", statvfs(t.at("").c_str(), &fs));
  t.note("names {} block {} blocks {}", fs.f_namemax, fs.f_frsize, fs.f_blocks);
  const int fd = t.opened("create", open(t.at("q").c_str(), O_CREAT | O_RDWR, 0644));
  struct statx stx {};
  t.call("statx", statx(fd, "", AT_EMPTY_PATH, STATX_BTIME | STATX_BASIC_STATS, &stx));
  t.note("birth time: {}, not in the future: {}", bool(stx.stx_mask & STATX_BTIME),
         stx.stx_btime.tv_sec <= time(nullptr));
  int flags = 0;
  t.call("get flags", ioctl(fd, FS_IOC_GETFLAGS, &flags));
  t.note("immutable {}", flags & FS_IMMUTABLE_FL);
  t.call("unknown ioctl", ioctl(fd, _IO('x', 99)));
  t.call("syncfs", syncfs(fd));
  close(fd);
}

}  // namespace

std::vector<Case> data_cases() {
  return {{"reads_and_writes", reads_and_writes},
          {"synchronous_writes", synchronous_writes},
          {"direct_writes", direct_writes},
          {"appends", appends},
          {"mappings", mappings},
          {"holes", holes},
          {"copies", copies},
          {"locks", locks},
          {"queries", queries}};
}

}  // namespace holdfast::capture
