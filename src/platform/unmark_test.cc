// SPDX-License-Identifier: Apache-2.0
#include "platform/unmark.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "platform/test_certificates.h"

namespace holdfast::platform {
namespace {

namespace fs = std::filesystem;
using testing::TemporaryFolder;

class UnmarkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::geteuid() != 0) GTEST_SKIP() << "needs root: trusted attributes";
    fs::create_directories(at("d/e"));
    fs::create_directories(at(".holdfast/grave"));
    std::ofstream(at("f")) << "text";
    std::ofstream(at("d/e/g")) << "text";
    fs::create_symlink("nowhere", at("d/link"));
    std::ofstream(at(".holdfast/grave/l-1")) << "all that is left";
    for (const char* name : {"", "f", "d", "d/e", "d/e/g", "d/link", ".holdfast/grave/l-1"}) mark(at(name));
    ASSERT_EQ(::lsetxattr(at("f").c_str(), "user.his", "x", 1, 0), 0);
  }
  fs::path at(const std::string& name) const {
    return name.empty() ? fs::path(base_.path()) : fs::path(base_.path()) / name;
  }
  static void mark(const fs::path& path) {
    for (const char* name : {"trusted.holdfast.id", "trusted.holdfast.buried"})
      ASSERT_EQ(::lsetxattr(path.c_str(), name, "0123456789abcdef", 16, 0), 0) << path;
  }
  static bool marked(const fs::path& path) {
    char value[16];
    return ::lgetxattr(path.c_str(), "trusted.holdfast.id", value, sizeof value) >= 0 ||
           ::lgetxattr(path.c_str(), "trusted.holdfast.buried", value, sizeof value) >= 0;
  }
  TemporaryFolder base_;
};

TEST_F(UnmarkTest, NothingOfOursIsLeftAndNothingElseIsTouched) {
  const auto done = remove_marks(base_.path(), {}, [] { return false; });
  ASSERT_TRUE(done) << done.error().to_string();
  EXPECT_TRUE(done->to_the_end);
  EXPECT_EQ(done->objects, 6U);
  EXPECT_EQ(done->kept, 0U) << done->why_kept;
  for (const char* name : {"", "f", "d", "d/e", "d/e/g", "d/link"}) EXPECT_FALSE(marked(at(name))) << name;
  EXPECT_TRUE(marked(at(".holdfast/grave/l-1"))) << "may be needed to find out what it was";
  char value[4];
  EXPECT_EQ(::lgetxattr(at("f").c_str(), "user.his", value, sizeof value), 1);
  EXPECT_EQ(remove_marks(at("none"), {}, [] { return false; }).error().code, ErrorCode::not_found);
}

TEST_F(UnmarkTest, IsStoppedAndGoesOnAnotherTime) {
  for (int i = 0; i < 1000; ++i) std::ofstream(at("d/" + std::to_string(i))) << "";
  mark(at("d/999"));
  int asked = 0;
  const auto part = remove_marks(base_.path(), {}, [&] { return ++asked == 3; });
  ASSERT_TRUE(part);
  EXPECT_FALSE(part->to_the_end);
  EXPECT_LT(part->objects, 1000U);
  ASSERT_TRUE(remove_marks(base_.path(), {}, [] { return false; })->to_the_end);
  EXPECT_FALSE(marked(at("d/999")));
}

// Another protected folder, perhaps.
TEST_F(UnmarkTest, WhatIsMountedBelowIsNotHis) {
  std::thread([&] {
    ASSERT_EQ(::unshare(CLONE_NEWNS), 0);
    ASSERT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    TemporaryFolder other;
    std::ofstream(other / "h") << "text";
    mark(other.path());
    mark(other / "h");
    ASSERT_EQ(::mount(other.path().c_str(), at("d/e").c_str(), nullptr, MS_BIND, nullptr), 0);
    ASSERT_TRUE(remove_marks(base_.path(), {}, [] { return false; }));
    EXPECT_TRUE(marked(other.path()));
    EXPECT_TRUE(marked(other / "h"));
    EXPECT_FALSE(marked(at("d")));
    ASSERT_EQ(::umount2(at("d/e").c_str(), MNT_DETACH), 0);
  }).join();
}

// As rsync --link-dest or cp -al leave it: one file in two folders, of which one stays protected.
TEST_F(UnmarkTest, AFileWithANameInAProtectedFolderKeepsItsId) {
  TemporaryFolder state, other;
  const auto index = FileIndex::open(state / "index");
  ASSERT_TRUE(index);
  const auto id_of = [&](const fs::path& path) {
    const UniqueFd fd(::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    return (*index)->id_of(fd.get()).value();
  };
  const auto identified = [&](const fs::path& path, SetNumber set) {
    const UniqueFd fd(::open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    return (*index)->identify(fd.get(), set).value();
  };
  const FileId id = identified(at("f"), 1), alone = identified(at("d/e/g"), 1);
  fs::create_hard_link(at("f"), other / "f");
  ASSERT_FALSE(alone.is_none());
  StillProtected others;
  others.index = index->get();
  struct stat st {};
  ASSERT_EQ(::stat(other.path().c_str(), &st), 0);
  others.folders.emplace(st.st_dev, st.st_ino);
  const auto done = remove_marks(base_.path(), others, [] { return false; });
  ASSERT_TRUE(done) << done.error().to_string();
  EXPECT_EQ(done->kept, 0U);
  EXPECT_EQ(done->shared, 1U);
  EXPECT_EQ(id_of(other / "f"), id) << "a passive would find its object gone";
  EXPECT_FALSE(marked(at("d/e/g")));
  EXPECT_FALSE((*index)->find(alone).value()) << "an index of all that was ever protected would only grow";
  EXPECT_TRUE((*index)->find(id).value());
  others.folders.clear();
  ASSERT_TRUE(remove_marks(base_.path(), others, [] { return false; }));
  EXPECT_FALSE(marked(at("f"))) << "nothing else is protected in its file system";
  EXPECT_FALSE((*index)->find(id).value());
}

// A folder is a protected one, in one or around one whatever the path is called.
TEST_F(UnmarkTest, AProtectedFolderThatIsReachedByAnotherPathIsNotTouched) {
  for (const char* folder : {"", "d", "d/e"}) {
    StillProtected others;
    struct stat st {};
    ASSERT_EQ(::stat(at(folder).c_str(), &st), 0);
    others.folders.emplace(st.st_dev, st.st_ino);
    ASSERT_TRUE(remove_marks(at("d"), others, [] { return false; }));
    EXPECT_TRUE(marked(at("d/e")) && marked(at("d/e/g"))) << "\"" << folder << "\" is protected";
  }
  EXPECT_FALSE(marked(at("d"))) << "around a protected one, it is not protected itself";
}

}  // namespace
}  // namespace holdfast::platform
