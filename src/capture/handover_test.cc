// SPDX-License-Identifier: Apache-2.0
// A mount goes from one process to the next while applications use it. The processes are real ones; the applications are this one.
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <set>

#include "capture/handover.h"
#include "capture/null_log.h"
#include "capture/test_mount.h"

namespace holdfast::capture {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

bool send_one(int socket, char what, int fd = -1) {
  iovec data{&what, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  if (fd >= 0) {
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    cmsghdr* const c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fd);
    std::memcpy(CMSG_DATA(c), &fd, sizeof fd);
  }
  return sendmsg(socket, &header, MSG_NOSIGNAL) == 1;
}

char receive_one(int socket, Descriptor& fd) {
  char what = 0;
  iovec data{&what, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  if (recvmsg(socket, &header, MSG_CMSG_CLOEXEC) != 1) return 0;
  if (const cmsghdr* c = CMSG_FIRSTHDR(&header)) {
    int raw;
    std::memcpy(&raw, CMSG_DATA(c), sizeof raw);
    fd = Descriptor(raw);
  }
  return what;
}

// What such a process does: mounts ('m'), or takes over what comes with 't'; hands over ('h', answered with the descriptor), or unmounts ('u').
[[noreturn]] void be_mirror(int control, Flavour flavour, const std::string& below, const std::string& mount) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  NullLog log;
  AlwaysValid lease;
  AttributeFileIds ids;
  const auto on_fault = [](const Error& e) { std::fprintf(stderr, "fault: %s\n", e.message.c_str()); };
  const auto answer = [&](const Status& done) {
    if (!done) std::fprintf(stderr, "mirror %d: %s\n", getpid(), done.error().to_string().c_str());
    send_one(control, done ? 'y' : 'n');
  };
  const Descriptor root(open(below.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  SessionOptions options;
  options.path = mount;
  options.root_fd = root.get();
  options.set = 7;
  options.write_policy = flavour.policy;
  options.transport = flavour.transport;
  std::unique_ptr<Session> session;
  const auto keep = [&](Result<std::unique_ptr<Session>> made) -> Status {
    if (!made) return tl::unexpected(made.error());
    session = std::move(*made);
    return {};
  };
  for (;;) {
    Descriptor fd;
    switch (receive_one(control, fd)) {
      case 'm':
        answer(keep(Session::mount(options, log, lease, ids, on_fault)));
        break;
      case 't': {
        auto from = unpack(fd);
        answer(from ? keep(Session::take_over(options, std::move(*from), log, lease, ids, on_fault))
                    : Status(tl::unexpected(from.error())));
        break;
      }
      case 'h': {
        auto out = session->hand_over(5s, 100000);
        auto packed = out ? pack(*out) : tl::unexpected(out.error());
        if (packed)
          send_one(control, 'y', packed->get());
        else
          answer(tl::unexpected(packed.error()));
        if (packed) _exit(0);
        break;
      }
      case 'u': {
        std::vector<Holder> holders;
        answer(session->unmount_and_wait(10s, &holders));
        for (const auto& h : holders)
          std::fprintf(stderr, "%d %s holds %s\n", h.pid, h.command.c_str(), h.what.c_str());
        break;
      }
      default:
        _exit(0);
    }
  }
}

class HandoverTest : public testing::TestWithParam<Flavour> {
 protected:
  static constexpr std::size_t most = 6;
  void SetUp() override {
    if (!can_mount()) GTEST_SKIP() << "needs root and /dev/fuse";
    std::string pattern = testing::TempDir() + "holdfast-handover-XXXXXX";
    base = mkdtemp(pattern.data());
    below = base + "/below";
    mount = base + "/mount";
    std::filesystem::create_directories(below + "/.holdfast");
    std::filesystem::create_directories(mount);
    // All of them before this process has threads.
    for (std::size_t i = 0; i < most; ++i) {
      int ends[2];
      ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
      const pid_t pid = fork();
      if (pid == 0) {
        controls.clear();
        close(ends[0]);
        be_mirror(ends[1], GetParam(), below, mount);
      }
      close(ends[1]);
      controls.emplace_back(ends[0]);
      pids.push_back(pid);
    }
    ASSERT_TRUE(order(0, 'm'));
  }
  void TearDown() override {
    controls.clear();
    for (const pid_t pid : pids) {
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
    }
    if (!base.empty()) {
      umount2(mount.c_str(), MNT_DETACH);
      std::error_code ignored;
      std::filesystem::remove_all(base, ignored);
    }
  }
  bool order(std::size_t mirror, char what, int fd = -1) {
    Descriptor got;
    return send_one(controls[mirror].get(), what, fd) && receive_one(controls[mirror].get(), got) == 'y';
  }
  Descriptor packed() {
    Descriptor got;
    if (!send_one(controls[serving].get(), 'h') || receive_one(controls[serving].get(), got) != 'y')
      return Descriptor();
    int status = 0;
    EXPECT_EQ(waitpid(pids[serving], &status, 0), pids[serving]);  // nothing of it is left
    EXPECT_EQ(status, 0);
    return got;
  }
  void hand_over() {
    const auto began = Clock::now();
    const Descriptor all = packed();
    ASSERT_GE(all.get(), 0);
    ASSERT_TRUE(order(++serving, 't', all.get()));
    took = std::max(took, Clock::now() - began);
  }
  std::string at(const std::string& name) const { return mount + "/" + name; }

  std::string base, below, mount;
  std::vector<Descriptor> controls;
  std::vector<pid_t> pids;
  std::size_t serving = 0;
  Clock::duration took{};
};

std::string text_of(int fd) {
  std::string out(4096, 0);
  const ssize_t n = pread(fd, out.data(), out.size(), 0);
  out.resize(n > 0 ? static_cast<std::size_t>(n) : 0);
  return out;
}

TEST_P(HandoverTest, WhatIsOpenStaysOpen) {
  const int file = open(at("file").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
  ASSERT_EQ(write(file, "before", 6), 6);
  const int unlinked = open(at("unlinked").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
  ASSERT_EQ(write(unlinked, "nameless", 8), 8);
  ASSERT_EQ(unlink(at("unlinked").c_str()), 0);
  const int temporary = open(mount.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0644);
  ASSERT_GE(temporary, 0) << std::strerror(errno);
  ASSERT_EQ(write(temporary, "tmp", 3), 3);
  ASSERT_EQ(mkdir(at("gone").c_str(), 0755), 0);
  const int gone = open(at("gone").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  ASSERT_EQ(rmdir(at("gone").c_str()), 0);
  ASSERT_EQ(mkdir(at("many").c_str(), 0755), 0);
  std::set<std::string> names, seen;
  for (int i = 0; i < 3000; ++i) {
    names.insert("n" + std::to_string(i));
    close(open((at("many/n") + std::to_string(i)).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0644));
  }
  DIR* const listing = opendir(at("many").c_str());
  ASSERT_TRUE(listing);
  for (int i = 0; i < 500; ++i)
    if (const dirent* e = readdir(listing); e->d_name[0] != '.') {
      EXPECT_TRUE(seen.insert(e->d_name).second);
    }
  ASSERT_EQ(flock(file, LOCK_EX), 0);
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_len = 3;
  ASSERT_EQ(fcntl(unlinked, F_OFD_SETLK, &lock), 0);
  auto* const shared = static_cast<char*>(mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0));
  ASSERT_NE(shared, MAP_FAILED);
  shared[0] = 'B';

  for (int round = 0; round < 3; ++round) hand_over();

  shared[1] = 'E';
  EXPECT_EQ(msync(shared, 4096, MS_SYNC), 0);
  EXPECT_EQ(pwrite(file, "!", 1, 6), 1);
  EXPECT_EQ(fsync(file), 0);
  EXPECT_EQ(text_of(file), "BEfore!");
  EXPECT_EQ(text_of(open((below + "/file").c_str(), O_RDONLY | O_CLOEXEC)), "BEfore!");
  EXPECT_EQ(pwrite(unlinked, "NAME", 4, 0), 4);
  EXPECT_EQ(fsync(unlinked), 0);
  EXPECT_EQ(posix_fadvise(unlinked, 0, 0, POSIX_FADV_DONTNEED), 0);
  EXPECT_EQ(text_of(unlinked), "NAMEless");
  EXPECT_EQ(linkat(AT_FDCWD, ("/proc/self/fd/" + std::to_string(temporary)).c_str(), AT_FDCWD, at("named").c_str(),
                   AT_SYMLINK_FOLLOW),
            0)
      << std::strerror(errno);
  EXPECT_TRUE(std::filesystem::exists(below + "/named"));
  EXPECT_EQ(openat(gone, "x", O_CREAT | O_WRONLY, 0644), -1);
  struct stat st;
  EXPECT_EQ(fstat(gone, &st), 0);
  while (const dirent* e = readdir(listing))
    if (e->d_name[0] != '.') {
      EXPECT_TRUE(seen.insert(e->d_name).second) << e->d_name << " twice";
    }
  EXPECT_EQ(seen, names);
  closedir(listing);
  const int other = open(at("file").c_str(), O_RDWR | O_CLOEXEC);
  EXPECT_EQ(flock(other, LOCK_EX | LOCK_NB), -1);
  lock = {};
  lock.l_type = F_WRLCK;
  const int again = open(("/proc/self/fd/" + std::to_string(unlinked)).c_str(), O_RDWR | O_CLOEXEC);
  EXPECT_EQ(fcntl(again, F_OFD_GETLK, &lock), 0);
  EXPECT_EQ(lock.l_type, F_WRLCK);
  munmap(shared, 4096);
  for (const int fd : {file, unlinked, temporary, gone, other, again}) EXPECT_EQ(close(fd), 0);
  std::filesystem::remove_all(at("many"));
  EXPECT_TRUE(order(serving, 'u'));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(below), {}), 3);  // .holdfast, file, named
}

TEST_P(HandoverTest, ApplicationsThatWorkNoticeNothing) {
  std::atomic<bool> stop{false};
  std::atomic<std::int64_t> longest_us{0};
  std::atomic<unsigned> rounds{0};
  const auto timed = [&](const auto& call) {
    const auto began = Clock::now();
    const bool fine = call();
    const std::int64_t us = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - began).count();
    for (std::int64_t most_us = longest_us; us > most_us && !longest_us.compare_exchange_weak(most_us, us);) {
    }
    return fine;
  };
  const auto writer = [&](int number) -> std::string {  // what went wrong
    const std::string name = at("w" + std::to_string(number));
    const int fd = open(name.c_str(), O_CREAT | O_RDWR | O_APPEND | O_CLOEXEC, 0644);
    std::uint64_t count = 0;
    while (!stop) {
      std::uint64_t block[512];
      for (auto& word : block) word = count;
      if (!timed([&] { return write(fd, block, sizeof block) == sizeof block && fdatasync(fd) == 0; }))
        return std::string("write: ") + std::strerror(errno);
      ++count;
      ++rounds;
    }
    for (std::uint64_t i = 0; i < count; ++i) {
      std::uint64_t block[512];
      if (pread(fd, block, sizeof block, static_cast<off_t>(i * sizeof block)) != sizeof block || block[0] != i ||
          block[511] != i)
        return "block " + std::to_string(i) + " is not what was written";
    }
    close(fd);
    return {};
  };
  const auto names = [&](int number) -> std::string {
    const std::string dir = at("d" + std::to_string(number));
    for (unsigned i = 0; !stop; ++i, ++rounds) {
      const std::string a = dir + "/a" + std::to_string(i % 7), b = dir + "/b";
      const bool fine = timed([&] {
        if (mkdir(dir.c_str(), 0755) != 0 && errno != EEXIST) return false;
        const int fd = open(a.c_str(), O_CREAT | O_RDWR | O_TRUNC | O_CLOEXEC, 0644);
        if (fd < 0 || write(fd, "x", 1) != 1 || close(fd) != 0) return false;
        struct stat st;
        return rename(a.c_str(), b.c_str()) == 0 && stat(b.c_str(), &st) == 0 && st.st_size == 1 &&
               (unlink(b.c_str()) == 0 && rmdir(dir.c_str()) == 0);
      });
      if (!fine) return std::string("names: ") + std::strerror(errno);
    }
    return {};
  };
  const auto reader = [&]() -> std::string {
    const int fd = open(at("read").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    const std::string text(1 << 20, 'r');
    if (write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size()) || fsync(fd) != 0) return "no file";
    std::string got(text.size(), 0);
    for (; !stop; ++rounds) {
      posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
      if (!timed(
              [&] { return pread(fd, got.data(), got.size(), 0) == static_cast<ssize_t>(got.size()) && got == text; }))
        return std::string("read: ") + std::strerror(errno);
    }
    close(fd);
    return {};
  };
  std::vector<std::future<std::string>> all;
  for (int i = 0; i < 2; ++i) all.push_back(std::async(std::launch::async, writer, i));
  for (int i = 0; i < 2; ++i) all.push_back(std::async(std::launch::async, names, i));
  all.push_back(std::async(std::launch::async, reader));
  for (int round = 0; round < 5; ++round) {
    const unsigned before = rounds;
    while (rounds < before + 20 && !HasFailure()) std::this_thread::sleep_for(1ms);
    hand_over();
    if (HasFatalFailure()) break;
  }
  stop = true;
  for (auto& one : all) EXPECT_EQ(one.get(), "");
  const auto ms = [](Clock::duration d) { return std::chrono::duration_cast<std::chrono::milliseconds>(d).count(); };
  RecordProperty("longest_call_ms", static_cast<int>(longest_us / 1000));
  std::printf("the longest call took %lld ms, the longest handover %lld ms\n",
              static_cast<long long>(longest_us / 1000), static_cast<long long>(ms(took)));
  if (!HasFatalFailure()) {
    EXPECT_TRUE(order(serving, 'u'));
  }
}

TEST_P(HandoverTest, WhenNobodyComesTheKernelEndsIt) {
  const int fd = open(at("file").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
  ASSERT_EQ(write(fd, "x", 1), 1);
  Descriptor all = packed();
  ASSERT_GE(all.get(), 0);
  auto synced = std::async(std::launch::async, [fd] { return fsync(fd) == 0 ? 0 : errno; });
  EXPECT_EQ(synced.wait_for(100ms), std::future_status::timeout);
  all = Descriptor();
  ASSERT_EQ(synced.wait_for(5s), std::future_status::ready);
  EXPECT_NE(synced.get(), 0);
  close(fd);
}

INSTANTIATE_TEST_SUITE_P(All, HandoverTest, testing::ValuesIn(flavours()),
                         [](const auto& i) { return i.param.name(); });

class UndoneHandoverTest : public testing::TestWithParam<Flavour> {};

TEST_P(UndoneHandoverTest, ARequestThatTakesTooLongLeavesEverythingAsItWas) {
  if (!can_mount()) GTEST_SKIP() << "needs root and /dev/fuse";
  TestMount m(GetParam(), 2);
  ASSERT_TRUE(m.session);
  const int fd = open(m.at("file").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
  for (int round = 0; round < 3; ++round) {
    m.log.hold_durable(true);
    ASSERT_EQ(pwrite(fd, "x", 1, round), 1);
    auto synced = std::async(std::launch::async, [fd] { return fsync(fd) == 0 ? 0 : errno; });
    while (m.log.durable_waits() == 0) std::this_thread::sleep_for(1ms);
    const auto out = m.session->hand_over(100ms, 1000);
    ASSERT_FALSE(out);
    EXPECT_EQ(out.error().code, ErrorCode::busy) << out.error().to_string();
    EXPECT_EQ(mkdir(m.at("d" + std::to_string(round)).c_str(), 0755), 0);
    m.log.hold_durable(false);
    EXPECT_EQ(synced.get(), 0);
  }
  close(fd);
  m.unmount();
}

TEST_P(UndoneHandoverTest, TooManyInodesAreRefusedAtOnce) {
  if (!can_mount()) GTEST_SKIP() << "needs root and /dev/fuse";
  TestMount m(GetParam(), 2);
  for (int i = 0; i < 20; ++i) ASSERT_EQ(mkdir(m.at("d" + std::to_string(i)).c_str(), 0755), 0);
  const auto out = m.session->hand_over(1s, 10);
  ASSERT_FALSE(out);
  EXPECT_EQ(out.error().code, ErrorCode::refused);
  m.unmount();
}

TEST_P(UndoneHandoverTest, DamagedStateIsRefusedAndEndsTheConnection) {
  if (!can_mount()) GTEST_SKIP() << "needs root and /dev/fuse";
  TestMount m(GetParam(), 2);
  const int fd = open(m.at("file").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
  ASSERT_EQ(write(fd, "x", 1), 1);
  auto out = m.session->hand_over(5s, 1000);
  ASSERT_TRUE(out) << out.error().to_string();
  out->state[out->state.size() / 2] ^= 1;
  NullLog log;
  AlwaysValid lease;
  SessionOptions options;
  options.path = m.mount;
  options.set = 7;
  options.write_policy = GetParam().policy;
  const auto taken = Session::take_over(options, std::move(*out), log, lease, m.ids, [](const Error&) {});
  ASSERT_FALSE(taken);
  EXPECT_EQ(taken.error().code, ErrorCode::corrupt);
  EXPECT_NE(fsync(fd), 0);
  close(fd);
  umount2(m.mount.c_str(), MNT_DETACH);
}

INSTANTIATE_TEST_SUITE_P(All, UndoneHandoverTest, testing::ValuesIn(flavours()),
                         [](const auto& i) { return i.param.name(); });

}  // namespace
}  // namespace holdfast::capture
