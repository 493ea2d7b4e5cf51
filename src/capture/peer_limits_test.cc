// SPDX-License-Identifier: Apache-2.0
// On a mount over a file system that holds more than a peer's, each call that the peer could not take gets the answer that the peer's own file
// system gives to it: the same calls are made on both. Nothing of a refused call stays, and no record of it is written.
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "capture/differential_cases.h"
#include "capture/test_mount.h"

namespace holdfast::capture {
namespace {

using ports::Limit;

bool run(const std::string& command) { return std::system((command + " >/dev/null 2>&1").c_str()) == 0; }

ports::TreeLimits limits_of(std::initializer_list<std::pair<Limit, std::uint64_t>> all) {
  ports::TreeLimits out;
  for (const auto& [what, most] : all) out.set(what, most);
  return out;
}

constexpr const char* ext4 = "mkfs.ext4 -q -F -b 4096";
constexpr const char* xfs = "mkfs.xfs -q -f";

// The active's file system holds more of what is tried; `least`: of the peer's, as platform/tree_probe.h finds them.
class PeerLimits : public testing::TestWithParam<Flavour> {
 protected:
  PeerLimits(const char* active, const char* peer, const ports::TreeLimits& least)
      : mkfs_active(active), mkfs_peer(peer) {
    limits->set(least);
  }
  void SetUp() override {
    if (!can_mount()) GTEST_SKIP() << "needs root and /dev/fuse";
    std::string pattern = testing::TempDir() + "holdfast-peer-XXXXXX";
    base = mkdtemp(pattern.data());
    bare = base + "/bare";
    std::filesystem::create_directories(bare);
    bool ready = image(mkfs_peer, bare);
    m = std::make_unique<TestMount>(
        GetParam(), 2, [&](const std::string& below) { ready = ready && image(mkfs_active, below); }, nullptr,
        std::string(), limits);
    if (!ready) GTEST_SKIP() << "needs mkfs.ext4, mkfs.xfs and loop devices";
    ASSERT_TRUE(m->session);
  }
  void TearDown() override {
    if (m && m->session) m->unmount();
    const std::string below = m ? m->below : std::string();
    if (m) m->session.reset();
    for (const std::string& at : {below, bare})
      if (!at.empty()) umount2(at.c_str(), MNT_DETACH);
    m.reset();
    std::error_code ignored;
    std::filesystem::remove_all(base, ignored);
  }
  bool image(const std::string& mkfs, const std::string& at) {
    const std::string file = base + "/image" + std::to_string(++images);
    return run("truncate -s 400M " + file) && run(mkfs + " " + file) && run("mount -o loop " + file + " " + at);
  }
  void same(const std::function<void(Trace&)>& calls) {
    Trace expected(bare), got(m->mount);
    calls(expected);
    calls(got);
    EXPECT_EQ(expected.lines(), got.lines());
    EXPECT_EQ(m->faults, 0U);
  }

  const char *const mkfs_active, *const mkfs_peer;
  std::string base, bare;
  int images = 0;
  std::shared_ptr<mirror::LiveLimits> limits = std::make_shared<mirror::LiveLimits>();
  std::unique_ptr<TestMount> m;
};

class BesideXfs : public PeerLimits {
 protected:
  BesideXfs()
      : PeerLimits(ext4, xfs,
                   limits_of({{Limit::link_target_bytes, 1023},
                              {Limit::links, 0x7fffffff},
                              {Limit::device_major, 511},
                              {Limit::device_minor, 262143}})) {}
};

class BesideExt4 : public PeerLimits {
 protected:
  BesideExt4()
      : PeerLimits(xfs, ext4,
                   limits_of({{Limit::link_target_bytes, 4095},
                              {Limit::xattrs_bytes, 4008},
                              {Limit::links, 65000},
                              {Limit::file_bytes, 17592186040320},
                              {Limit::seconds_after, 15032385535}})) {}
};

void make_file(Trace& t, const char* name) {
  const int fd = t.opened(name, open(t.at(name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (fd >= 0) close(fd);
}

TEST_P(BesideXfs, SymbolicLinks) {
  same([](Trace& t) {
    for (const int bytes : {1, 1023, 1024, 2000, 4095}) {
      const std::string name = std::to_string(bytes);
      t.call("symlink " + name, symlink(std::string(static_cast<std::size_t>(bytes), 'x').c_str(), t.at(name).c_str()));
      struct stat st {};
      t.call("lstat " + name, lstat(t.at(name).c_str(), &st));
    }
  });
}

TEST_P(BesideXfs, Devices) {
  same([](Trace& t) {
    for (const auto& [high, low] : {std::pair{1U, 3U}, {511U, 262143U}, {512U, 1U}, {1U, 262144U}}) {
      const std::string name = std::to_string(high) + "-" + std::to_string(low);
      t.call("mknod " + name, mknod(t.at(name).c_str(), S_IFCHR | 0600, makedev(high, low)));
    }
    t.call("fifo", mknod(t.at("fifo").c_str(), S_IFIFO | 0600, 0));
  });
}

TEST_P(BesideExt4, ExtendedAttributes) {
  same([](Trace& t) {
    make_file(t, "file");
    const auto set = [&](const char* name, std::size_t bytes, int flags = 0) {
      const std::string value(bytes, 'x');
      t.call(fmt::format("setxattr {} {} {}", name, bytes, flags),
             setxattr(t.at("file").c_str(), name, value.data(), value.size(), flags));
    };
    set("user.one", 3000);
    set("user.two", 3000);
    set("user.two", 100);
    set("user.one", 9000);
    set("user.one", 9000, XATTR_CREATE);
    set("user.none", 9000, XATTR_REPLACE);
    set("user.one", 200);
    set("user.two", 3000);
    set("user.three", 60000);
    set("user.four", 65537);
    for (const char* name : {"user.one", "user.two", "user.three", "user.none"})
      t.call(name, getxattr(t.at("file").c_str(), name, nullptr, 0));
  });
}

TEST_P(BesideExt4, SizesAndTimes) {
  // Under write-back the kernel shows the time that it was given for as long as it knows the file.
  const bool kept_by_kernel = GetParam().policy == WritePolicy::write_back;
  same([&](Trace& t) {
    make_file(t, "file");
    const int fd = open(t.at("file").c_str(), O_RDWR | O_CLOEXEC);
    constexpr off_t tib = off_t{1} << 40;
    for (const off_t size : {15 * tib, 17 * tib, 5 * tib}) {
      t.call(fmt::format("ftruncate {}", size / tib), ftruncate(fd, size));
      t.call(fmt::format("fallocate at {}", size / tib), fallocate(fd, FALLOC_FL_KEEP_SIZE, size, 4096));
      struct stat st {};
      fstat(fd, &st);
      t.note("size {}", st.st_size);
    }
    for (const std::int64_t seconds : {std::int64_t{1} << 31, std::int64_t{1} << 40, -(std::int64_t{1} << 40)}) {
      const timespec times[2] = {{seconds, 5}, {seconds, 7}};
      t.call("futimens", futimens(fd, times));
      struct stat st {};
      fstat(fd, &st);
      if (kept_by_kernel && t.at("") == m->at("")) {
        ASSERT_EQ(stat((m->below + "/file").c_str(), &st), 0);
      }
      t.note("mtime {}.{} atime {}.{}", st.st_mtim.tv_sec, st.st_mtim.tv_nsec, st.st_atim.tv_sec, st.st_atim.tv_nsec);
    }
    close(fd);
  });
}

// As many as they take themselves would be too many to make here (platform/tree_probe_test.cc does).
TEST_P(BesideExt4, Names) {
  limits->set(limits_of({{Limit::links, 3}}));
  ASSERT_EQ(close(open(m->at("file").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644)), 0);
  EXPECT_EQ(link(m->at("file").c_str(), m->at("two").c_str()), 0);
  EXPECT_EQ(link(m->at("file").c_str(), m->at("three").c_str()), 0);
  m->log.take();
  EXPECT_EQ(link(m->at("file").c_str(), m->at("four").c_str()), -1);
  EXPECT_EQ(errno, EMLINK);
  EXPECT_TRUE(m->log.take().empty());
  limits->set({});
  EXPECT_EQ(link(m->at("file").c_str(), m->at("four").c_str()), 0) << "what a peer says later counts at once";
}

// A refused change is no record, or the peer would be told to do it.
TEST_P(BesideXfs, NothingIsRecordedOfWhatIsRefused) {
  EXPECT_EQ(symlink(std::string(2000, 'x').c_str(), m->at("long").c_str()), -1);
  EXPECT_EQ(errno, ENAMETOOLONG);
  EXPECT_TRUE(m->log.take().empty());
  EXPECT_FALSE(std::filesystem::exists(std::filesystem::symlink_status(m->below + "/long")));
}

// A file gets the list of its folder, and a folder gets it twice.
TEST_P(BesideExt4, WhatAFolderInheritsCountsToo) {
  const std::string value(3000, 'x');
  ASSERT_EQ(mkdir(m->at("d").c_str(), 0755), 0);
  ASSERT_TRUE(run("setfacl -d $(for u in $(seq 1000 1300); do echo -n \" -m u:$u:rwx\"; done) " + m->at("d")));
  limits->set(limits_of({{Limit::xattrs_bytes, 4008}}));
  EXPECT_EQ(setxattr(m->at("d").c_str(), "user.more", value.data(), value.size(), 0), -1);
  EXPECT_EQ(errno, ENOSPC);
  EXPECT_EQ(mkdir(m->at("d/below").c_str(), 0755), -1) << "two lists of 2,400 bytes";
  EXPECT_EQ(errno, ENOSPC);
  EXPECT_FALSE(std::filesystem::exists(m->below + "/d/below"));
}

INSTANTIATE_TEST_SUITE_P(Flavours, BesideXfs, testing::ValuesIn(flavours()),
                         [](const auto& one) { return one.param.name(); });
INSTANTIATE_TEST_SUITE_P(Flavours, BesideExt4, testing::ValuesIn(flavours()),
                         [](const auto& one) { return one.param.name(); });

}  // namespace
}  // namespace holdfast::capture
