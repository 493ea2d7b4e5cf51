// SPDX-License-Identifier: Apache-2.0
#include "platform/graveyard_purge.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/fs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "platform/test_certificates.h"

namespace holdfast::platform {
namespace {

namespace fs = std::filesystem;
using testing::TemporaryFolder;

class GravePurgeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_.reset(::open(base_.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_TRUE(folder_);
  }
  fs::path at(const std::string& name) const { return fs::path(base_.path()) / name; }
  static void write(const fs::path& path, const std::string& text = "x") { std::ofstream(path) << text; }
  static unsigned int flags_of(const fs::path& path) {
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    unsigned int flags = 0;
    EXPECT_EQ(::ioctl(fd.get(), FS_IOC_GETFLAGS, &flags), 0);
    return flags;
  }
  static bool set_flag(const fs::path& path, unsigned int flag, bool on = true) {
    const unsigned int flags = (flags_of(path) & ~flag) | (on ? flag : 0);
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    return fd && ::ioctl(fd.get(), FS_IOC_SETFLAGS, &flags) == 0;
  }
  Result<bool> remove(const std::string& name, std::size_t most = 1000) {
    return purge_.remove(folder_.get(), name.c_str(), most);
  }

  TemporaryFolder base_;
  UniqueFd folder_;
  int gone_ = 0;
  GravePurge purge_{3, [this](int) -> Status {
                      ++gone_;
                      return {};
                    }};
};

// Somebody made them unchangeable, before the folder was protected or below the mirror. Nobody wants them any more.
TEST_F(GravePurgeTest, FlagsKeepNoDeadObject) {
  fs::create_directories(at("d/below"));
  write(at("d/below/immutable"));
  write(at("d/append"));
  write(at("alive"));
  fs::create_hard_link(at("alive"), at("d/other name"));
  if (!set_flag(at("d/below/immutable"), FS_IMMUTABLE_FL)) GTEST_SKIP() << "no flags here";
  ASSERT_TRUE(set_flag(at("d/append"), FS_APPEND_FL));
  ASSERT_TRUE(set_flag(at("d/below"), FS_IMMUTABLE_FL));
  ASSERT_TRUE(set_flag(at("d"), FS_APPEND_FL));
  ASSERT_TRUE(set_flag(at("alive"), FS_IMMUTABLE_FL));
  const auto gone = remove("d");
  EXPECT_TRUE(gone && *gone) << (gone ? "" : gone.error().to_string());
  EXPECT_FALSE(fs::exists(at("d")));
  EXPECT_EQ(gone_, 4) << "two files, two folders";
  EXPECT_EQ(purge_.names_gone(), 1U);
  EXPECT_NE(flags_of(at("alive")) & FS_IMMUTABLE_FL, 0U) << "it lives";
  ASSERT_TRUE(set_flag(at("alive"), FS_IMMUTABLE_FL, false));
}

TEST_F(GravePurgeTest, WhatIsMountedBelowADeadFolderIsLeftAlone) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root: mounts";
  std::thread([&] {
    ASSERT_EQ(::unshare(CLONE_NEWNS), 0);
    ASSERT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    fs::create_directories(at("d/mnt"));
    fs::create_directories(at("his"));
    write(at("his/file"));
    write(at("d/a"));
    ASSERT_EQ(::mount(at("his").c_str(), at("d/mnt").c_str(), nullptr, MS_BIND, nullptr), 0);
    // By a way that was taken before anything was mounted, as the mirror has it, and by one that leads into it.
    for (const bool into : {false, true}) {
      if (into) folder_.reset(::open(base_.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
      Result<bool> gone = remove("d");
      for (int tries = 0; gone && !*gone && tries < 3; ++tries) gone = remove("d");
      ASSERT_FALSE(gone);
      EXPECT_EQ(gone.error().code, ErrorCode::busy);
      EXPECT_NE(gone.error().message.find("/d/mnt\""), std::string::npos) << gone.error().message;
      EXPECT_NE(gone.error().hint, "");
      EXPECT_TRUE(fs::exists(at("his/file")));
    }
    ASSERT_EQ(::umount2(at("d/mnt").c_str(), MNT_DETACH), 0);
    const auto gone = remove("d");
    EXPECT_TRUE(gone && *gone);
  }).join();
}

// So that nothing that waits for a step waits for all of a big file.
TEST_F(GravePurgeTest, ABigFileGoesPieceByPiece) {
  {
    const UniqueFd fd(::open(at("big").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_EQ(::fallocate(fd.get(), 0, 0, 8 * GravePurge::cost_bytes), 0);
  }
  EXPECT_FALSE(remove("big", 2).value());
  EXPECT_LT(fs::file_size(at("big")), 8 * GravePurge::cost_bytes);
  EXPECT_GT(fs::file_size(at("big")), 4 * GravePurge::cost_bytes);
  int steps = 1;
  while (!remove("big", 2).value()) ASSERT_LT(++steps, 100);
  EXPECT_GE(steps, 3);
  EXPECT_FALSE(fs::exists(at("big")));
  // One that has another name is not touched, however big.
  write(at("one"), std::string(1000, 'x'));
  ASSERT_EQ(::truncate(at("one").c_str(), 1000), 0);
  fs::create_hard_link(at("one"), at("two"));
  EXPECT_TRUE(remove("two", 1).value());
  EXPECT_EQ(fs::file_size(at("one")), 1000U);
  // A hole holds nothing.
  write(at("sparse"));
  ASSERT_EQ(::truncate(at("sparse").c_str(), off_t{1} << 40), 0);
  EXPECT_TRUE(remove("sparse", 1).value());
}

TEST_F(GravePurgeTest, AFolderIsNotReadOverAgainFromStepToStep) {
  fs::create_directories(at("d/sub"));
  for (int i = 0; i < 500; ++i) write(at("d/sub/" + std::to_string(i)));
  int steps = 0;
  while (!remove("d", 7).value()) ASSERT_LT(++steps, 1000);
  EXPECT_EQ(gone_, 502);
  EXPECT_GE(steps, 502 / 7);
  // Something came into the part that was read: it is found at the end.
  fs::create_directories(at("e"));
  for (int i = 0; i < 500; ++i) write(at("e/" + std::to_string(i)));
  ASSERT_FALSE(remove("e", 250).value());
  for (int i = 0; i < 500; ++i) write(at("e/late" + std::to_string(i)));
  for (steps = 0; !remove("e", 1000).value();) ASSERT_LT(++steps, 10);
  EXPECT_FALSE(fs::exists(at("e")));
}

}  // namespace
}  // namespace holdfast::platform
