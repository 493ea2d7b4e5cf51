// SPDX-License-Identifier: Apache-2.0
// What is told of a file system, beside what it does.
#include "platform/tree_probe.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "platform/test_certificates.h"
#include "platform/test_image.h"
#include "platform/unique_fd.h"

namespace holdfast::platform {
namespace {

using ports::Limit;
using ports::no_limit;

struct Kind {
  const char* name;
  std::vector<std::string> make;
};

class TreeProbe : public ::testing::TestWithParam<Kind> {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "needs root: mounts";
    image = std::make_unique<testing::MountedImage>(folder / "image", folder / "disk", GetParam().make);
    if (!image->mounted()) GTEST_SKIP() << "needs " << GetParam().make[0] << " and loop devices";
    dir = UniqueFd(::open((folder / "disk").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    const auto told = probe_limits(dir.get());
    ASSERT_TRUE(told) << told.error().to_string();
    limits = told->limits;
    EXPECT_TRUE(told->sure);
  }
  std::uint64_t most(Limit what) const { return limits.most(what); }
  std::string at(const std::string& name) const { return folder / ("disk/" + name); }
  int link_of(std::size_t bytes) const {
    ::unlink(at("link").c_str());
    return ::symlink(std::string(bytes, 'x').c_str(), at("link").c_str()) == 0 ? 0 : errno;
  }
  int node_of(unsigned major, unsigned minor) const {
    ::unlink(at("node").c_str());
    return ::mknod(at("node").c_str(), S_IFCHR | 0600, makedev(major, minor)) == 0 ? 0 : errno;
  }

  testing::TemporaryFolder folder;
  std::unique_ptr<testing::MountedImage> image;
  UniqueFd dir;
  ports::TreeLimits limits;
};

TEST_P(TreeProbe, LinksDevicesAndSizes) {
  const std::uint64_t target = most(Limit::link_target_bytes);
  EXPECT_EQ(link_of(target), 0);
  EXPECT_EQ(link_of(target + 1), ENAMETOOLONG);
  const auto major = static_cast<unsigned>(std::min<std::uint64_t>(most(Limit::device_major), 4095));
  const auto minor = static_cast<unsigned>(std::min<std::uint64_t>(most(Limit::device_minor), 1048575));
  EXPECT_EQ(node_of(major, minor), 0);
  if (most(Limit::device_major) != no_limit) {
    EXPECT_EQ(node_of(major + 1, 0), EINVAL);
  }
  if (most(Limit::device_minor) != no_limit) {
    EXPECT_EQ(node_of(1, minor + 1), EINVAL);
  }
  const UniqueFd fd(::open(at("file").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (const std::uint64_t size = most(Limit::file_bytes); size != no_limit) {
    EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(size)), 0);
    EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(size + 1)), -1);
    EXPECT_EQ(errno, EFBIG);
  } else {
    EXPECT_EQ(::ftruncate(fd.get(), std::numeric_limits<off_t>::max()), 0);
  }
  EXPECT_EQ(::linkat(AT_FDCWD, at("file").c_str(), AT_FDCWD, at("again").c_str(), 0), 0);
}

TEST_P(TreeProbe, AsManyNamesAsItSays) {
  const std::uint64_t most_links = most(Limit::links);
  if (most_links > 100'000) GTEST_SKIP() << "too many to try";
  ASSERT_EQ(::close(::open(at("file").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)), 0);
  for (std::uint64_t n = 1; n < most_links; ++n)
    ASSERT_EQ(::link(at("file").c_str(), at(std::to_string(n)).c_str()), 0) << n;
  EXPECT_EQ(::link(at("file").c_str(), at("one-more").c_str()), -1);
  EXPECT_EQ(errno, EMLINK);
}

// One big one, and many small ones: what is told fits, beside our own; it is not told much less than there is room for.
TEST_P(TreeProbe, ExtendedAttributes) {
  const bool together = most(Limit::xattrs_bytes) != no_limit;
  const UniqueFd fd(::open(at("file").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  const char id[16] = {};
  ASSERT_EQ(::fsetxattr(fd.get(), "trusted.holdfast.id", id, sizeof id, 0), 0);
  const std::string name = "user.big";
  const auto set = [&](std::size_t bytes) {
    const std::string value(bytes, 'x');
    return ::fsetxattr(fd.get(), name.c_str(), value.data(), value.size(), 0) == 0 ? 0 : errno;
  };
  if (!together) {
    EXPECT_EQ(set(65536), 0);
    return;
  }
  const std::uint64_t room = most(Limit::xattrs_bytes), head = ports::xattr_room(name.size(), 0);
  EXPECT_EQ(set(room - head), 0);
  EXPECT_EQ(set(room - head + 128), ENOSPC);
  ASSERT_EQ(::fremovexattr(fd.get(), name.c_str()), 0);
  const std::uint64_t each = ports::xattr_room(std::string("user.000").size(), 4);
  for (std::uint64_t n = 0; n < room / each; ++n)
    ASSERT_EQ(::fsetxattr(fd.get(), fmt::format("user.{:03}", n).c_str(), "four", 4, 0), 0)
        << n << " of " << room / each;
}

TEST_P(TreeProbe, TimesAndAccessLists) {
  const UniqueFd fd(::open(at("file").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  const auto stored = [&](std::int64_t seconds) {
    const timespec times[2] = {{seconds, 0}, {seconds, 0}};
    struct stat st {};
    EXPECT_EQ(::futimens(fd.get(), times), 0);
    EXPECT_EQ(::fstat(fd.get(), &st), 0);
    return st.st_mtim.tv_sec;
  };
  ASSERT_NE(most(Limit::seconds_after), no_limit);
  ASSERT_NE(most(Limit::seconds_before), no_limit);
  const auto last = static_cast<std::int64_t>(most(Limit::seconds_after)),
             first = -static_cast<std::int64_t>(most(Limit::seconds_before));
  EXPECT_EQ(stored(last), last);
  EXPECT_EQ(stored(last + 1), last);
  EXPECT_EQ(stored(first), first);
  EXPECT_EQ(stored(first - 1), first);
  EXPECT_EQ(most(Limit::access_list_bytes), no_limit);
}

TEST_P(TreeProbe, NothingStaysOfIt) {
  struct stat st {};
  ASSERT_EQ(::fstat(dir.get(), &st), 0);
  const auto names = std::distance(std::filesystem::directory_iterator(folder / "disk"), {});
  ASSERT_TRUE(probe_limits(dir.get()));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder / "disk"), {}), names);
}

// Nothing more can be tried then, and what is said counts on all nodes.
TEST_P(TreeProbe, AFullDiskHoldsWhatItHeldBefore) {
  const UniqueFd hidden(::openat(dir.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  const auto before = limits_of_tree(hidden.get(), dir.get());
  ASSERT_TRUE(before);
  EXPECT_EQ(*before, limits);
  const UniqueFd fd(::open(at("big").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  off_t end = 0;
  for (off_t bytes = 64 << 20; bytes > 0;)
    if (::fallocate(fd.get(), 0, end, bytes) == 0)
      end += bytes;
    else
      bytes /= 2;
  const auto full = limits_of_tree(hidden.get(), dir.get());
  ASSERT_TRUE(full) << full.error().to_string();
  EXPECT_EQ(*full, limits);
  ::fremovexattr(hidden.get(), "trusted.holdfast.limits");
  const auto unknown = probe_limits(dir.get());
  ASSERT_TRUE(unknown);
  EXPECT_TRUE(unknown->limits == limits || !unknown->sure);
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, TreeProbe,
    ::testing::Values(Kind{"ext4", testing::make_ext4()},
                      Kind{"ext4_small_blocks", {"mkfs.ext4", "-q", "-F", "-b", "1024"}},
                      Kind{"ext4_ea_inode", {"mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "ea_inode"}},
                      Kind{"ext4_small_inodes", {"mkfs.ext4", "-q", "-F", "-b", "4096", "-I", "128"}},
                      Kind{"xfs", testing::make_xfs()},
                      Kind{"xfs_until_2038", {"mkfs.xfs", "-q", "-f", "-m", "bigtime=0"}}),
    [](const auto& one) { return one.param.name; });

}  // namespace
}  // namespace holdfast::platform
