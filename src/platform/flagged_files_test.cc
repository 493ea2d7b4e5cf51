// SPDX-License-Identifier: Apache-2.0
#include "platform/flagged_files.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include <filesystem>
#include <fstream>

#include "platform/process.h"
#include "platform/unique_fd.h"

namespace holdfast::platform {
namespace {

class FlaggedFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "flagged-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    top = name;
  }
  void TearDown() override {
    for (const auto& each : std::filesystem::recursive_directory_iterator(top)) (void)flag(each.path(), 0);
    std::filesystem::remove_all(top);
  }
  static bool flag(const std::string& path, int wanted) {
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    int flags = 0;
    if (!fd || ::ioctl(fd.get(), FS_IOC_GETFLAGS, &flags) != 0) return false;
    flags = (flags & ~(FS_IMMUTABLE_FL | FS_APPEND_FL)) | wanted;
    return ::ioctl(fd.get(), FS_IOC_SETFLAGS, &flags) == 0;
  }

  std::string top;
};

TEST_F(FlaggedFiles, AreFoundWhereverTheyAreAndNamed) {
  std::filesystem::create_directories(top + "/a/b/c");
  std::ofstream(top + "/a/file") << "x";
  std::ofstream(top + "/a/b/c/deep") << "x";
  std::filesystem::create_symlink("nowhere", top + "/link");
  EXPECT_TRUE(check_unflagged(top));
  if (!flag(top + "/a/b/c/deep", FS_APPEND_FL)) GTEST_SKIP() << "no flags here: not root, or the file system has none";
  const auto append = check_unflagged(top);
  ASSERT_FALSE(append);
  EXPECT_EQ(append.error().code, ErrorCode::refused);
  EXPECT_NE(append.error().message.find("/a/b/c/deep is append-only"), std::string::npos) << append.error().message;
  ASSERT_TRUE(flag(top + "/a/b/c/deep", 0) && flag(top + "/a/b", FS_IMMUTABLE_FL));
  const auto folder = check_unflagged(top);
  ASSERT_FALSE(folder);
  EXPECT_NE(folder.error().message.find("/a/b is immutable"), std::string::npos) << folder.error().message;
  EXPECT_NE(folder.error().hint.find("chattr -i"), std::string::npos);
}

TEST_F(FlaggedFiles, APathLongerThanACallTakesIsFollowed) {
  const std::string name(200, 'd');
  UniqueFd at(::open(top.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (int i = 0; i < 30; ++i) {
    ASSERT_EQ(::mkdirat(at.get(), name.c_str(), 0755), 0);
    at = UniqueFd(::openat(at.get(), name.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }
  EXPECT_TRUE(check_unflagged(top));
}

TEST_F(FlaggedFiles, OfManyFoldersNoneIsPassedOverAndEachFileIsCountedOnce) {
  constexpr std::uint64_t folders = 60, files = 20, kib = 8;
  const std::string bytes(kib << 10, 'x');
  for (std::uint64_t d = 0; d < folders; ++d) {
    const std::string folder = top + "/" + std::to_string(d % 7) + "/" + std::to_string(d);
    std::filesystem::create_directories(folder + "/empty");
    for (std::uint64_t f = 0; f < files; ++f) std::ofstream(folder + "/" + std::to_string(f)) << bytes;
    std::filesystem::create_hard_link(folder + "/0", folder + "/again");
  }
  const auto size = check_unflagged(top);
  ASSERT_TRUE(size) << size.error().to_string();
  const auto said = run_checked({.argv = {"du", "-sxB1", "--", top}});
  ASSERT_TRUE(said) << said.error().to_string();
  EXPECT_EQ(*size, std::strtoull(said->c_str(), nullptr, 10));
  EXPECT_GE(*size, folders * files * (kib << 10));
  for (std::uint64_t d = 0; d < folders; d += 13) {
    const std::string file = top + "/" + std::to_string(d % 7) + "/" + std::to_string(d) + "/7";
    if (!flag(file, FS_IMMUTABLE_FL)) GTEST_SKIP() << "no flags here: not root, or the file system has none";
    const auto refused = check_unflagged(top);
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message.find(file + " is immutable"), std::string::npos) << refused.error().message;
    ASSERT_TRUE(flag(file, 0));
  }
}

}  // namespace
}  // namespace holdfast::platform
