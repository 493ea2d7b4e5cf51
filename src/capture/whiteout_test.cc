// SPDX-License-Identifier: Apache-2.0
// A rename that leaves a whiteout is two records; a copy may end between them.
#include <fcntl.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "capture/test_mount.h"

#ifndef RENAME_WHITEOUT
#define RENAME_WHITEOUT 4
#endif

namespace holdfast::capture {
namespace {

TEST(Whiteout, TheOldNameIsTakenWhereverACopyIsCutOff) {
  if (!can_mount()) GTEST_SKIP() << "needs root and /dev/fuse";
  TestMount mounted(flavours().front());
  ASSERT_TRUE(mounted.session);
  std::filesystem::create_directories(mounted.at("d/e"));
  std::ofstream(mounted.at("d/a")) << "text";
  const auto leave = [&](const char* from, const char* to) {
    return renameat2(AT_FDCWD, mounted.at(from).c_str(), AT_FDCWD, mounted.at(to).c_str(), RENAME_WHITEOUT);
  };
  ASSERT_EQ(leave("d/a", "b"), 0) << errno;
  ASSERT_EQ(leave("d/e", "f"), 0) << errno;
  mounted.unmount();
  auto records = mounted.log.take();
  std::deque<std::unique_ptr<KeptRecord>> copied;
  bool had_file = false, had_folder = false;
  while (!records.empty()) {
    copied.push_back(std::move(records.front()));
    records.pop_front();
    const std::string replica = mounted.base + "/replica-" + std::to_string(copied.size());
    std::filesystem::create_directories(replica);
    ASSERT_EQ(replay(copied, replica, 7), "");
    struct stat st;
    const bool file = lstat((replica + "/d/a").c_str(), &st) == 0, folder = lstat((replica + "/d/e").c_str(), &st) == 0;
    EXPECT_TRUE(file || !had_file) << "after record " << copied.size();
    EXPECT_TRUE(folder || !had_folder) << "after record " << copied.size();
    had_file = file;
    had_folder = folder;
    if (!records.empty()) continue;
    EXPECT_TRUE(lstat((replica + "/d/a").c_str(), &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == 0);
    EXPECT_TRUE(lstat((replica + "/d/e").c_str(), &st) == 0 && S_ISCHR(st.st_mode));
    EXPECT_TRUE(lstat((replica + "/b").c_str(), &st) == 0 && S_ISREG(st.st_mode));
    EXPECT_TRUE(lstat((replica + "/f").c_str(), &st) == 0 && S_ISDIR(st.st_mode));
  }
}

}  // namespace
}  // namespace holdfast::capture
