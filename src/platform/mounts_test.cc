// SPDX-License-Identifier: Apache-2.0
#include "platform/mounts.h"

#include <sys/stat.h>

#include "platform/test_mount_space.h"

namespace holdfast::platform {
namespace {

class MountsTest : public MountSpace {};

TEST(Mountinfo, ParsesEscapesAndOptionalFields) {
  const auto mounts = parse_mountinfo(
      "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
      "40 22 0:30 /a\\040b /mnt/x\\134y ro,nosuid - fuse.holdfast holdfast rw,user_id=0\n");
  ASSERT_TRUE(mounts);
  ASSERT_EQ(mounts->size(), 2U);
  EXPECT_EQ((*mounts)[1].root, "/a b");
  EXPECT_EQ((*mounts)[1].point, "/mnt/x\\y");
  EXPECT_EQ((*mounts)[0].type, "ext4");
  EXPECT_EQ((*mounts)[0].propagation, std::vector<std::string>{"shared:1"});
  EXPECT_TRUE(is_our_fuse((*mounts)[1]));
  for (const char* damaged : {"22 1 8:1 / / rw", "x", "22 1 8:1 / / rw - ext4"})
    EXPECT_FALSE(parse_mountinfo(damaged)) << damaged;
}

TEST(Mountinfo, TheDeepestAndTopmostMountHoldsAPath) {
  const auto mounts = parse_mountinfo(
                          "1 0 8:1 / / rw - ext4 a rw\n"
                          "2 1 8:2 / /srv rw - xfs b rw\n"
                          "3 2 8:2 /data /srv/data ro,nosuid,nodev,noexec - xfs b rw\n"
                          "4 3 0:9 / /srv/data rw - fuse.holdfast holdfast rw\n")
                          .value();
  EXPECT_EQ(mount_containing(mounts, "/srv/data", false)->id, 4);
  EXPECT_EQ(mount_containing(mounts, "/srv/data", true)->id, 2);
  EXPECT_EQ(mount_containing(mounts, "/srv/database", false)->id, 2);
  EXPECT_EQ(mount_containing(mounts, "/srvx", false)->id, 1);
}

TEST(Mountinfo, UnsupportedFileSystemsAreExplained) {
  for (const char* good : {"ext4", "xfs", "btrfs"}) EXPECT_EQ(why_unsupported(good), "");
  for (const char* bad : {"fuse.sshfs", "fuse", "nfs4", "overlay", "tmpfs", "vfat"})
    EXPECT_NE(why_unsupported(bad), "") << bad;
}

TEST_F(MountsTest, TheCoverIsReadOnlyForRootAndIdempotent) {
  run([&] {
    EXPECT_EQ(try_create(path / "before"), 0);
    EXPECT_FALSE(is_covered(path).value());
    ASSERT_TRUE(cover(path));
    ASSERT_TRUE(cover(path));
    EXPECT_EQ(mounts_at(path), 1);
    EXPECT_TRUE(is_covered(path).value());
    EXPECT_EQ(try_create(path / "new"), EROFS);
    EXPECT_EQ(try_create(path / "sub/new"), EROFS);
    EXPECT_EQ(unlink((path / "file").c_str()), -1);
    EXPECT_EQ(errno, EROFS);
    EXPECT_EQ(try_create(disk / "srv/beside"), 0);
    std::string content;
    std::ifstream(path / "file") >> content;
    EXPECT_EQ(content, "real") << "it can be read";
    ASSERT_TRUE(uncover(path));
    ASSERT_TRUE(uncover(path));
    EXPECT_EQ(mounts_at(path), 0);
    EXPECT_EQ(try_create(path / "after"), 0);
  });
}

TEST_F(MountsTest, TheCloneReachesTheRealTreeBelowCoverAndFuse) {
  run([&] {
    const UniqueFd early = clone_tree(path).value();
    ASSERT_TRUE(cover(path));
    const UniqueFd fuse = mount_fuse();
    ASSERT_EQ(mounts_at(path), 2);
    for (int round = 0; round < 2; ++round) {
      const UniqueFd late = round == 0 ? UniqueFd() : clone_tree(path).value();
      const int tree = round == 0 ? early.get() : late.get();
      const std::string name = "written" + std::to_string(round);
      const UniqueFd fd(openat(tree, name.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
      ASSERT_TRUE(fd) << errno;
      // By handle too, that is how files are found again.
      struct {
        file_handle h;
        char room[128];
      } handle{};
      handle.h.handle_bytes = sizeof handle.room;
      int mount_id = 0;
      ASSERT_EQ(name_to_handle_at(tree, "file", &handle.h, &mount_id, 0), 0);
      const UniqueFd again(open_by_handle_at(tree, &handle.h, O_RDWR | O_CLOEXEC));
      EXPECT_TRUE(again) << errno;
    }
    const Status busy = uncover(path);
    ASSERT_FALSE(busy);
    EXPECT_EQ(busy.error().code, ErrorCode::busy);
    EXPECT_TRUE(cover(path)) << "idempotent with FUSE on top";
    EXPECT_EQ(mounts_at(path), 2);
    ASSERT_EQ(umount2(path.c_str(), MNT_DETACH), 0);
    EXPECT_EQ(mounts_at(path), 1) << "the cover comes to light, not the real folder";
    EXPECT_EQ(try_create(path / "new"), EROFS);
    EXPECT_TRUE(fs::exists(path / "written1"));
    ASSERT_TRUE(uncover(path));
  });
}

TEST_F(MountsTest, RefusalsSayWhatToDo) {
  run([&] {
    const auto why = [](const fs::path& p, const std::vector<std::string>& others = {}) {
      const auto s = check_protectable(p, others);
      return s ? std::string("fine") : s.error().message;
    };
    EXPECT_EQ(why(path), "fine");
    EXPECT_NE(why(disk / "srv/nope").find("does not exist"), std::string::npos);
    EXPECT_NE(why(path / "file").find("not a folder"), std::string::npos);
    EXPECT_NE(why("srv").find("absolute"), std::string::npos);
    fs::create_directory_symlink(path, disk / "link");
    EXPECT_NE(why(disk / "link").find("is really " + path.string()), std::string::npos);
    EXPECT_NE(why(disk).find("is a mount point"), std::string::npos);
    EXPECT_NE(why("/proc/self").find("/proc"), std::string::npos);
    EXPECT_NE(why(path, {path}).find("already protected"), std::string::npos);
    EXPECT_NE(why(path / "sub", {path}).find("lies in"), std::string::npos);
    EXPECT_NE(why(disk / "srv", {path}).find("unprotect that first"), std::string::npos);
    EXPECT_EQ(why(path, {path.string() + "base"}), "fine");
    ASSERT_EQ(mount("t", (path / "sub").c_str(), "tmpfs", 0, nullptr), 0);
    fs::create_directory(path / "sub/inner");
    EXPECT_NE(why(path).find("holds a mount at " + (path / "sub").string()), std::string::npos);
    EXPECT_NE(why(path / "sub/inner").find("on tmpfs"), std::string::npos);
    EXPECT_FALSE(clone_tree(path / "sub")) << "a mount point";
    ASSERT_EQ(umount2((path / "sub").c_str(), 0), 0);
    ASSERT_TRUE(cover(path));
    EXPECT_NE(why(path).find("mount point"), std::string::npos);
    ASSERT_TRUE(uncover(path));
  });
}

}  // namespace
}  // namespace holdfast::platform
