// SPDX-License-Identifier: Apache-2.0
#include "platform/held_files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "platform/test_certificates.h"
#include "platform/unique_fd.h"

namespace holdfast::platform {
namespace {

namespace fs = std::filesystem;
using ports::Limit;

class HeldFiles : public ::testing::Test {
 protected:
  HeldFiles() {
    fs::create_directories(folder / "a/b");
    std::ofstream(folder / "a/b/file") << "ten bytes.";
  }
  Status check(Limit what, std::uint64_t most) {
    ports::TreeLimits limits;
    limits.set(what, most);
    const UniqueFd fd(::open(folder.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    return check_held(fd.get(), "/srv/x", limits, "node2");
  }
  // At the limit it is fine; one less names it.
  void names(Limit what, std::uint64_t most, const std::string& path) {
    const Status fine = check(what, most);
    EXPECT_TRUE(fine) << fine.error().to_string();
    const Status refused = check(what, most - 1);
    ASSERT_FALSE(refused) << path;
    EXPECT_EQ(refused.error().code, ErrorCode::refused);
    EXPECT_NE(refused.error().message.find("/srv/x" + path + " can't be held"), std::string::npos)
        << refused.error().message;
    EXPECT_NE(refused.error().to_string().find("node2"), std::string::npos);
    EXPECT_FALSE(refused.error().hint.empty());
  }
  testing::TemporaryFolder folder;
};

TEST_F(HeldFiles, LinksSizesAndNames) {
  fs::create_symlink(std::string(300, 'x'), folder / "a/link");
  names(Limit::link_target_bytes, 300, "/a/link");
  names(Limit::file_bytes, 10, "/a/b/file");
  fs::create_hard_link(folder / "a/b/file", folder / "again");
  EXPECT_TRUE(check(Limit::links, 2));
  EXPECT_FALSE(check(Limit::links, 1));
}

TEST_F(HeldFiles, DevicesAndAttributes) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root: devices";
  ASSERT_EQ(::mknod((folder / "a/device").c_str(), S_IFCHR | 0600, makedev(600, 300000)), 0);
  names(Limit::device_major, 600, "/a/device");
  names(Limit::device_minor, 300000, "/a/device");
  ASSERT_EQ(::setxattr((folder / "a/b").c_str(), "user.one", "four", 4, 0), 0);
  names(Limit::xattr_bytes, 12, "/a/b");
  names(Limit::xattrs_bytes, ports::xattr_room(8, 4), "/a/b");
  names(Limit::xattr_names_bytes, ports::xattr_room(8, 0), "/a/b");
  const std::string ours(100, 'x');
  ASSERT_EQ(::setxattr((folder / "a").c_str(), "trusted.holdfast.id", ours.data(), ours.size(), 0), 0);
  names(Limit::xattr_bytes, 12, "/a/b");  // ours is not copied
}

TEST_F(HeldFiles, OurOwnFolderIsNotLookedAt) {
  fs::create_directories(folder / ".holdfast/grave");
  fs::create_symlink(std::string(300, 'x'), folder / ".holdfast/grave/d-1");
  EXPECT_TRUE(check(Limit::link_target_bytes, 100));
}

}  // namespace
}  // namespace holdfast::platform
