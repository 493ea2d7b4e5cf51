// SPDX-License-Identifier: Apache-2.0
#include "platform/scratch_file.h"

#include <gtest/gtest.h>

#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>

namespace holdfast::platform {
namespace {

class ScratchFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "holdfast-scratch-XXXXXX").string();
    dir = mkdtemp(name.data());
  }
  void TearDown() override { std::filesystem::remove_all(dir); }
  std::string dir;
};

TEST_F(ScratchFileTest, IsZeroWhereNothingWasWrittenAndHasNoName) {
  auto file = ScratchFile::open(dir, 0);
  ASSERT_TRUE(file) << file.error().to_string();
  EXPECT_TRUE(std::filesystem::is_empty(dir));
  Bytes seen(100, 7);
  ASSERT_TRUE((*file)->read(1 << 20, seen));
  EXPECT_EQ(seen, Bytes(100, 0));
  const Bytes page(4096, 9);
  ASSERT_TRUE((*file)->write(8192, page));
  seen.assign(5000, 7);
  ASSERT_TRUE((*file)->read(8192, seen));
  EXPECT_TRUE(std::equal(page.begin(), page.end(), seen.begin()));
  EXPECT_EQ(Bytes(seen.begin() + 4096, seen.end()), Bytes(904, 0)) << "beyond its end";
  ASSERT_TRUE((*file)->discard(8192, 4096));
  ASSERT_TRUE((*file)->read(8192, seen));
  EXPECT_EQ(seen, Bytes(5000, 0));
}

// The file system of the log: a sync of that would wait for whatever of this is dirty.
TEST_F(ScratchFileTest, WhatIsWrittenDoesNotStayDirty) {
  auto file = ScratchFile::open(dir, 0);
  ASSERT_TRUE(file);
  // The only file of this process in that folder, though it has no name.
  int fd = -1;
  for (const auto& each : std::filesystem::directory_iterator("/proc/self/fd"))
    if (std::error_code error; std::filesystem::read_symlink(each.path(), error).string().starts_with(dir))
      fd = std::stoi(each.path().filename().string());
  ASSERT_GE(fd, 0);
  struct {
    std::uint64_t offset = 0, length = 0;
  } range;
  struct {
    std::uint64_t cached = 0, dirty = 0, writeback = 0, evicted = 0, recently = 0;
  } pages;
  constexpr long cachestat = 451;
  if (::syscall(cachestat, fd, &range, &pages, 0) != 0) GTEST_SKIP() << "needs cachestat (Linux 6.5)";
  const Bytes piece(256 << 10, 9);
  for (std::uint64_t offset = 0; offset < 128 << 20; offset += piece.size()) {
    ASSERT_TRUE((*file)->write(offset, piece));
    ASSERT_EQ(::syscall(cachestat, fd, &range, &pages, 0), 0);
    ASSERT_LE((pages.dirty + pages.writeback) * 4096, 16 << 20) << "after " << offset;
  }
}

TEST_F(ScratchFileTest, LeavesTheDiskWhatItNeeds) {
  const auto free = std::filesystem::space(dir).available;
  auto file = ScratchFile::open(dir, free * 2);
  ASSERT_TRUE(file);
  EXPECT_EQ((*file)->write(0, Bytes(4096)).error().code, ErrorCode::no_space);
}

}  // namespace
}  // namespace holdfast::platform
