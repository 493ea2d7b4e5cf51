// SPDX-License-Identifier: Apache-2.0
// Life of a mount: a full log, slow peers, a lost lease, fences, unmounts, and what the log says of it all.
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <future>
#include <set>

#include "capture/inode_table.h"
#include "capture/test_mount.h"

namespace holdfast::capture {
namespace {

using namespace std::chrono_literals;

class SessionTest : public testing::TestWithParam<Flavour> {
 protected:
  void SetUp() override {
    if (!can_mount()) GTEST_SKIP() << "needs root and /dev/fuse";
    m = std::make_unique<TestMount>(GetParam(), 2);
    ASSERT_TRUE(m->session);
  }
  int create(const std::string& name, const std::string& text = "text") {
    const int fd = open(m->at(name).c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    EXPECT_GE(fd, 0) << std::strerror(errno);
    EXPECT_EQ(write(fd, text.data(), text.size()), static_cast<ssize_t>(text.size()));
    return fd;
  }
  // Returns the errno, 0 = success.
  std::future<int> in_background(std::function<int()> call) {
    return std::async(std::launch::async, [call] { return call() < 0 ? errno : 0; });
  }
  void await(const std::function<bool()>& condition) {
    for (int i = 0; i < 5000 && !condition(); ++i) std::this_thread::sleep_for(1ms);
    EXPECT_TRUE(condition());
  }
  std::unique_ptr<TestMount> m;
};

TEST_P(SessionTest, FullLogHoldsUpNeitherFsyncNorReads) {
  const int fd = create("synced");
  ASSERT_EQ(fsync(fd), 0);
  m->log.set_full(true);
  std::vector<std::future<int>> stuck;
  for (int i = 0; i < 20; ++i)
    stuck.push_back(in_background([this, i] { return mkdir(m->at("d" + std::to_string(i)).c_str(), 0755); }));
  // mkdirs in one folder queue in the kernel: the ones in folders of their own all reach us
  await([this] { return m->session->stats().waiting_for_space > 0; });
  auto synced = in_background([fd] { return fsync(fd); });
  ASSERT_EQ(synced.wait_for(5s), std::future_status::ready);
  EXPECT_EQ(synced.get(), 0);
  auto looked = in_background([this] { return access(m->at("synced").c_str(), R_OK); });
  ASSERT_EQ(looked.wait_for(5s), std::future_status::ready);
  for (auto& one : stuck) EXPECT_EQ(one.wait_for(0s), std::future_status::timeout);
  m->log.set_full(false);
  for (auto& one : stuck) EXPECT_EQ(one.get(), 0);
  close(fd);
  m->unmount();
}

TEST_P(SessionTest, ManyWaitingWritersLeaveThreadsForOthers) {
  const int synced = create("synced");
  std::vector<int> files;
  for (int i = 0; i < 24; ++i) files.push_back(create("f" + std::to_string(i)));
  for (const int fd : files) ASSERT_EQ(fsync(fd), 0);
  ASSERT_EQ(fsync(synced), 0);  // nothing dirty: its next fsync needs no space
  m->log.set_full(true);
  std::vector<std::future<int>> stuck;
  for (const int fd : files) stuck.push_back(in_background([fd] { return fchmod(fd, 0600); }));
  await([this] { return m->session->stats().waiting_for_space >= 20; });
  auto one = in_background([synced] { return fdatasync(synced); });
  ASSERT_EQ(one.wait_for(5s), std::future_status::ready);
  m->log.set_full(false);
  for (auto& each : stuck) EXPECT_EQ(each.get(), 0);
  for (const int fd : files) close(fd);
  close(synced);
  m->unmount();
}

TEST_P(SessionTest, FsyncWaitsForPeersAndOthersGoOn) {
  const int fd = create("a"), other = create("b");
  m->log.hold_durable(true);
  auto waiting = in_background([fd] { return fsync(fd); });
  await([this] { return m->log.durable_waits() > 0; });
  EXPECT_EQ(waiting.wait_for(50ms), std::future_status::timeout);
  EXPECT_EQ(pwrite(other, "more", 4, 100), 4);
  EXPECT_EQ(mkdir(m->at("d").c_str(), 0755), 0);
  m->log.hold_durable(false);
  EXPECT_EQ(waiting.get(), 0);
  close(fd);
  close(other);
  m->unmount();
}

TEST_P(SessionTest, TheFirstWritesAfterAnFsyncAreShippedAtOnce) {
  if (GetParam().policy == WritePolicy::write_through) GTEST_SKIP() << "write-through has no FSYNC to run ahead of";
  const int fd = create("a");
  EXPECT_EQ(pwrite(fd, "bulk", 4, 0), 4);
  ASSERT_EQ(fsync(fd), 0);
  EXPECT_EQ(m->log.hurries, 0U) << "nothing says yet that the file has the habit";
  EXPECT_EQ(pwrite(fd, "commit", 6, 0), 6);
  ASSERT_EQ(fsync(fd), 0);
  EXPECT_EQ(m->log.hurries, 1U);
  close(fd);
  m->unmount();
}

TEST_P(SessionTest, AbortReleasesBlockedCallersAndReaps) {
  const int fd = create("a");
  ASSERT_EQ(fsync(fd), 0);
  EXPECT_EQ(pwrite(fd, "unsynced", 8, 0), 8);
  m->log.hold_durable(true);
  auto sync = in_background([fd] { return fsync(fd); });
  await([this] { return m->log.durable_waits() > 0; });
  m->log.set_full(true);
  auto change = in_background([this] { return mkdir(m->at("d").c_str(), 0755); });
  await([this] { return m->session->stats().waiting_for_space > 0; });
  EXPECT_FALSE(m->session->ended());
  m->session->abort();
  EXPECT_NE(sync.get(), 0);
  EXPECT_NE(change.get(), 0);
  EXPECT_TRUE(m->session->wait_reaped(5s));
  EXPECT_TRUE(m->session->ended());
  EXPECT_EQ(m->session->stats().threads, 0U);
  EXPECT_EQ(access((m->below + "/d").c_str(), F_OK), -1) << "a change without a record reached the tree";
  close(fd);
  struct stat mount, base;
  ASSERT_EQ(stat(m->mount.c_str(), &mount), 0);
  ASSERT_EQ(stat(m->base.c_str(), &base), 0);
  EXPECT_EQ(mount.st_dev, base.st_dev) << "the mount is still at its path";
}

TEST_P(SessionTest, WithoutTheLeaseNothingChanges) {
  const int fd = create("a");
  ASSERT_EQ(fsync(fd), 0);
  m->log.take();
  m->lease.valid = false;
  EXPECT_EQ(mkdir(m->at("d").c_str(), 0755), -1);
  EXPECT_EQ(errno, EIO);
  EXPECT_EQ(fsync(fd), -1);
  EXPECT_EQ(m->log.take().size(), 0U);
  EXPECT_EQ(access((m->below + "/d").c_str(), F_OK), -1);
  m->lease.valid = true;
  EXPECT_EQ(mkdir(m->at("d").c_str(), 0755), 0);
  close(fd);
  m->unmount();
}

TEST_P(SessionTest, BusyUnmountNamesTheHolder) {
  const int fd = create("held");
  std::vector<Holder> holders;
  const auto refused = m->session->unmount_and_wait(1s, &holders);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::busy);
  ASSERT_EQ(holders.size(), 1U);
  EXPECT_EQ(holders[0].pid, getpid());
  EXPECT_EQ(mkdir(m->at("still works").c_str(), 0755), 0);
  close(fd);
  m->unmount();
}

TEST_P(SessionTest, MountInAnotherNamespaceIsAHolder) {
  int ready[2], stop[2];
  ASSERT_EQ(pipe2(ready, O_CLOEXEC) | pipe2(stop, O_CLOEXEC), 0);
  const pid_t child = fork();
  if (child == 0) {
    char c = 0;
    close(stop[1]);
    if (unshare(CLONE_NEWNS) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) _exit(1);
    (void)!write(ready[1], "x", 1);
    (void)!read(stop[0], &c, 1);
    _exit(0);
  }
  char c;
  ASSERT_EQ(read(ready[0], &c, 1), 1);
  std::vector<Holder> holders;
  const auto refused = m->session->unmount_and_wait(1s, &holders);
  EXPECT_FALSE(refused);
  ASSERT_EQ(holders.size(), 1U);
  EXPECT_EQ(holders[0].pid, child);
  EXPECT_EQ(holders[0].what, "mount namespace");
  for (const int fd : {stop[0], stop[1], ready[0], ready[1]}) close(fd);
  waitpid(child, nullptr, 0);
  m->unmount();
}

TEST_P(SessionTest, CopyOfTheMountThatFollowsUsIsNoHolder) {
  ASSERT_EQ(mount(m->base.c_str(), m->base.c_str(), nullptr, MS_BIND, nullptr),
            0);  // over the mount: start again on a shared one
  ASSERT_EQ(mount(nullptr, m->base.c_str(), nullptr, MS_SHARED, nullptr), 0);
  {
    const Descriptor root(open(m->below.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    SessionOptions options;
    options.path = m->mount;
    options.root_fd = root.get();
    options.set = 8;
    options.transport = GetParam().transport;
    auto second = Session::mount(options, m->log, m->lease, m->ids, [](const Error&) {});
    ASSERT_TRUE(second) << second.error().to_string();
    int ready[2], stop[2];
    ASSERT_EQ(pipe2(ready, O_CLOEXEC) | pipe2(stop, O_CLOEXEC), 0);
    const pid_t child = fork();
    if (child == 0) {
      char c = 0;
      close(stop[1]);
      if (unshare(CLONE_NEWNS) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) _exit(1);
      (void)!write(ready[1], "x", 1);
      (void)!read(stop[0], &c, 1);
      _exit(0);
    }
    char c;
    ASSERT_EQ(read(ready[0], &c, 1), 1);
    const auto ended = (*second)->unmount_and_wait(5s, nullptr);
    EXPECT_TRUE(ended) << ended.error().to_string();
    for (const int fd : {stop[0], stop[1], ready[0], ready[1]}) close(fd);
    waitpid(child, nullptr, 0);
  }
  ASSERT_EQ(umount(m->base.c_str()), 0);
  m->unmount();
}

TEST(Holders, OfARealTreeAreFoundByDeviceAndPath) {
  std::string pattern = testing::TempDir() + "holdfast-holders-XXXXXX";
  const std::string base = mkdtemp(pattern.data());
  ASSERT_EQ(mkdir((base + "/tree").c_str(), 0755) | mkdir((base + "/tree2").c_str(), 0755), 0);
  struct stat st;
  ASSERT_EQ(stat(base.c_str(), &st), 0);
  const std::string device = fmt::format("{}:{}", major(st.st_dev), minor(st.st_dev));
  const int beside = open((base + "/tree2/f").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  EXPECT_TRUE(find_tree_holders(device, base + "/tree").empty());
  const int inside = open((base + "/tree/f").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  const auto holders = find_tree_holders(device, base + "/tree");
  ASSERT_EQ(holders.size(), 1U);
  EXPECT_EQ(holders[0].pid, getpid());
  EXPECT_EQ(holders[0].what, base + "/tree/f");
  close(inside);
  close(beside);
  std::filesystem::remove_all(base);
}

// As fs/inode.c does it: with their low bits equal, files made one after the other would all be in one bucket.
TEST(PreferredNode, IdsOfOneBlockSpreadInTheKernelsInodeTable) {
  constexpr std::uint64_t golden = 0x9e37fffffffc0001ULL, super_block = 0xffff888104a7c800ULL;
  constexpr unsigned shift = 21;
  std::set<std::uint64_t> buckets;
  FileId id;
  for (std::uint8_t i = 0; i < 16; ++i) id.bytes[i] = static_cast<std::uint8_t>(17 * i + 3);
  for (unsigned n = 0; n < 1000; ++n) {
    id.bytes[6] = static_cast<std::uint8_t>(n >> 8);
    id.bytes[7] = static_cast<std::uint8_t>(n);
    const std::uint64_t node = preferred_node(id);
    std::uint64_t hash = (node * super_block) ^ ((golden + node) / 64);
    hash ^= (hash ^ golden) >> shift;
    buckets.insert(hash & ((1U << shift) - 1));
  }
  EXPECT_GT(buckets.size(), 500U);
}

TEST_P(SessionTest, IdsShowAsInodeNumbersAndStayHidden) {
  close(create("a"));
  FileId id;
  ASSERT_EQ(getxattr((m->below + "/a").c_str(), "trusted.holdfast.id", id.bytes.data(), 16), 16);
  struct stat st;
  ASSERT_EQ(stat(m->at("a").c_str(), &st), 0);
  EXPECT_EQ(st.st_ino, preferred_node(id));
  EXPECT_EQ(getxattr(m->at("a").c_str(), "trusted.holdfast.id", nullptr, 0), -1);
  EXPECT_EQ(setxattr(m->at("a").c_str(), "trusted.holdfast.id", "x", 1, 0), -1);
  EXPECT_EQ(mkdir(m->at(".holdfast").c_str(), 0755), -1);
  EXPECT_EQ(rename(m->at("a").c_str(), m->at(".holdfast").c_str()), -1);
  const int fd = open(m->at("a").c_str(), O_RDONLY);
  int flags = FS_IMMUTABLE_FL;
  EXPECT_EQ(ioctl(fd, FS_IOC_SETFLAGS, &flags), -1);
  EXPECT_EQ(errno, EOPNOTSUPP);
  close(fd);
  m->unmount();
}

TEST_P(SessionTest, RecordsSayWhatHappened) {
  const int fd = create("a", "first");
  ASSERT_EQ(fsync(fd), 0);
  close(fd);
  close(create("b", "second"));
  ASSERT_EQ(rename(m->at("a").c_str(), m->at("b").c_str()), 0);
  EXPECT_EQ(unlink(m->at("missing").c_str()), -1);
  EXPECT_EQ(mkdir(m->at("b").c_str(), 0755), -1);
  ASSERT_EQ(chown(m->at("b").c_str(), 12, 34), 0);
  ASSERT_EQ(unlink(m->at("b").c_str()), 0);
  m->unmount();
  std::vector<std::string> kinds;
  FileId a, b;
  const auto records = m->log.take();
  std::uint64_t sequence = 0;
  for (const auto& kept : records) {
    const log::Record& r = kept->fields;
    EXPECT_EQ(r.set, 7);
    EXPECT_EQ(r.sequence.value, ++sequence);
    if (r.kind == log::Kind::create && r.name == "a") a = r.file;
    if (r.kind == log::Kind::create && r.name == "b") b = r.file;
    if (r.kind == log::Kind::write && r.file == a) {
      EXPECT_EQ(as_text(r.payload), "first");
    }
    if (r.kind == log::Kind::rename) {
      EXPECT_EQ(r.file, a);
      EXPECT_EQ(r.replaced, b);
      EXPECT_EQ(r.parent, FileId::root(7));
      EXPECT_EQ(r.parent2, FileId::root(7));
    }
    if (r.kind == log::Kind::set_attributes && (r.valid & log::valid_owner)) {
      EXPECT_EQ(r.uid, 12U);
      EXPECT_EQ(r.gid, 34U);
    } else if (r.kind == log::Kind::set_attributes) {
      continue;  // times that the kernel writes back when it likes
    }
    kinds.push_back(log::to_string(r.kind));
  }
  EXPECT_EQ(kinds,
            (std::vector<std::string>{"create", "write", "create", "write", "rename", "set_attributes", "unlink"}));
  EXPECT_EQ(m->log.moves, 1U);
}

TEST_P(SessionTest, TimesShownAreTimesBelow) {
  for (int i = 0; i < 50; ++i) {
    const std::string name = "t" + std::to_string(i);
    const int fd = create(name, std::string(1 + i * 700, 't'));
    if (i % 3 == 0) {
      EXPECT_EQ(pwrite(fd, "later", 5, 9), 5);
    }
    close(fd);
    struct stat shown, below;
    ASSERT_EQ(stat(m->at(name).c_str(), &shown) | stat((m->below + "/" + name).c_str(), &below), 0);
    EXPECT_EQ(shown.st_mtim.tv_sec, below.st_mtim.tv_sec);
    EXPECT_EQ(shown.st_mtim.tv_nsec, below.st_mtim.tv_nsec) << name;
  }
  m->unmount();
}

TEST_P(SessionTest, KnowsWhoIsOpenForWriting) {
  const int fd = create("w");
  close(create("closed"));
  const int reader = open(m->at("closed").c_str(), O_RDONLY);
  struct stat st;
  fstat(fd, &st);
  await([this] { return m->session->open_for_write().size() == 1; });  // RELEASE comes a little after close
  const auto list = m->session->open_for_write();
  ASSERT_EQ(list.size(), 1U);
  EXPECT_EQ(list[0].nodeid, st.st_ino);
  close(fd);
  close(reader);
  await([this] { return m->session->open_for_write().empty(); });
  m->unmount();
}

TEST_P(SessionTest, AFallocateThatFailsHalfWayChangesNothing) {
  const std::string image = m->base + "/image";
  ASSERT_EQ(truncate((close(open(image.c_str(), O_CREAT | O_RDWR, 0600)), image).c_str(), 24 << 20), 0);
  const auto run = [](const std::string& command) { return std::system((command + " >/dev/null 2>&1").c_str()) == 0; };
  if (!run("mkfs.ext4 -q -F " + image)) GTEST_SKIP() << "needs mkfs.ext4";
  bool mounted = false;
  TestMount small(GetParam(), 2,
                  [&](const std::string& below) { mounted = run("mount -o loop " + image + " " + below); });
  if (!mounted) GTEST_SKIP() << "needs loop devices";
  ASSERT_TRUE(small.session);
  const int fd = open(small.at("f").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
  ASSERT_EQ(pwrite(fd, "0123456789", 10, 0), 10);
  ASSERT_EQ(fsync(fd), 0);
  small.log.take();
  EXPECT_EQ(fallocate(fd, 0, 0, 200 << 20), -1);
  EXPECT_EQ(errno, ENOSPC);
  struct stat st {};
  EXPECT_EQ(stat((small.below + "/f").c_str(), &st), 0);
  EXPECT_EQ(st.st_size, 10) << "nothing of it is in the log";
  for (const auto& record : small.log.take()) EXPECT_EQ(record->fields.kind, log::Kind::set_attributes);
  close(fd);
  small.unmount();
  small.session.reset();
  EXPECT_TRUE(run("umount " + small.below));
  m->unmount();
}

// A disk that dies under us: the file system's own shutdown, as in a power cut.
TEST_P(SessionTest, FailedFsyncBelowIsAFault) {
  const std::string image = m->base + "/image";
  ASSERT_EQ(truncate((close(open(image.c_str(), O_CREAT | O_RDWR, 0600)), image).c_str(), 16 << 20), 0);
  const auto run = [](const std::string& command) { return std::system((command + " >/dev/null 2>&1").c_str()) == 0; };
  if (!run("mkfs.ext4 -q -F " + image)) GTEST_SKIP() << "needs mkfs.ext4";
  bool mounted = false;
  TestMount dying(GetParam(), 2,
                  [&](const std::string& below) { mounted = run("mount -o loop " + image + " " + below); });
  if (!mounted) GTEST_SKIP() << "needs loop devices";
  ASSERT_TRUE(dying.session);
  const int fd = open(dying.at("f").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
  ASSERT_EQ(pwrite(fd, "x", 1, 0), 1);
  ASSERT_EQ(fsync(fd), 0);
  const int below = open(dying.below.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  std::uint32_t without_flush = 2;
  ASSERT_EQ(ioctl(below, _IOR('X', 125, std::uint32_t), &without_flush), 0);
  close(below);
  EXPECT_EQ(dying.faults, 0U);
  (void)!pwrite(fd, "y", 1, 0);
  EXPECT_EQ(fsync(fd), -1);
  EXPECT_EQ(errno, EIO);
  EXPECT_EQ(dying.faults, 1U);
  dying.session->abort();
  close(fd);
  EXPECT_TRUE(dying.session->wait_reaped(5s));
  dying.session.reset();
  EXPECT_TRUE(run("umount " + dying.below));
  m->unmount();
}

INSTANTIATE_TEST_SUITE_P(Flavours, SessionTest, testing::ValuesIn(flavours()),
                         [](const auto& one) { return one.param.name(); });

}  // namespace
}  // namespace holdfast::capture
