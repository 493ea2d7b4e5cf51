// SPDX-License-Identifier: Apache-2.0
// A past made of a few objects, mounted and read as anybody would. Needs root and /dev/fuse.
#include "capture/look_mount.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "capture/test_mount.h"
#include "log/xattrs.h"

namespace holdfast::capture {
namespace {

FileId id(std::uint8_t n) {
  FileId i;
  i.bytes[0] = n;
  return i;
}

// Two folders: set 1 holds "file", "link" and "many" (with 3000 entries), set 2 nothing.
class FewObjects final : public ports::PastTree {
 public:
  Result<std::optional<ports::TreeEntry>> lookup(SetNumber set, const FileId& dir, std::string_view name) override {
    HF_ASSIGN(const auto all, list(set, dir));
    for (const auto& e : all)
      if (e.name == name) return std::optional(e);
    return std::optional<ports::TreeEntry>();
  }
  Result<std::vector<ports::TreeEntry>> list(SetNumber set, const FileId& dir) override {
    if (over) return fail(ErrorCode::stale, "over");
    std::vector<ports::TreeEntry> all;
    if (set == 1 && dir.is_root()) all = {{"file", id(2), S_IFREG}, {"link", id(3), S_IFLNK}, {"many", id(4), S_IFDIR}};
    if (dir == id(4))
      for (int i = 0; i < many; ++i) all.push_back({fmt::format("entry-{}", i), id(2), S_IFREG});
    return all;
  }
  Result<ports::PastAttributes> attributes(SetNumber, const FileId& of) override {
    if (over) return fail(ErrorCode::stale, "over");
    ports::PastAttributes a;
    a.mode = of == id(2) ? S_IFREG | 0640 : of == id(3) ? S_IFLNK | 0777 : S_IFDIR | 0750;
    a.uid = 7;
    a.size = of == id(2) ? content.size() : 4;
    a.links = 1;
    a.mtime_ns = -1'500'000'000;  // before 1970
    return a;
  }
  Result<Bytes> xattrs(SetNumber, const FileId&) override {
    Bytes list;
    const log::Xattr one{"user.colour", as_bytes("blue")};
    log::encode_xattrs({&one, 1}, list);
    return list;
  }
  Result<std::string> target(SetNumber, const FileId&) override { return std::string("file"); }
  Result<std::size_t> read(SetNumber, const FileId&, std::uint64_t offset, std::span<std::uint8_t> into) override {
    if (offset >= content.size()) return std::size_t{0};
    const std::size_t n = std::min<std::size_t>(into.size(), content.size() - offset);
    std::copy_n(content.begin() + static_cast<long>(offset), n, into.begin());
    return n;
  }

  static constexpr int many = 3000;
  std::atomic<bool> over{false};
  std::string content = std::string(300'000, 'x') + "end\n";
};

std::string content_of(const std::string& path) {
  std::ifstream in(path);
  std::stringstream all;
  all << in.rdbuf();
  return all.str();
}

class LookMountTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!can_mount()) GTEST_SKIP() << "needs root and /dev/fuse";
    std::string name = (std::filesystem::temp_directory_path() / "holdfast-look-XXXXXX").string();
    dir = mkdtemp(name.data());
  }
  ~LookMountTest() override {
    mounted.reset();
    if (!dir.empty()) std::filesystem::remove(dir);
  }
  std::string dir;
  std::shared_ptr<FewObjects> past = std::make_shared<FewObjects>();
  std::unique_ptr<LookMount> mounted;
};

TEST_F(LookMountTest, OneFolderIsTheMountItself) {
  auto made = LookMount::mount(dir, {{1, ""}}, past);
  ASSERT_TRUE(made) << made.error().to_string();
  mounted = std::move(*made);
  EXPECT_EQ(content_of(dir + "/file"), past->content);
  EXPECT_EQ(content_of(dir + "/link"), past->content);
  EXPECT_EQ(std::filesystem::read_symlink(dir + "/link"), "file");
  struct stat st {};
  ASSERT_EQ(::stat((dir + "/file").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode, S_IFREG | 0640);
  EXPECT_EQ(st.st_uid, 7U);
  EXPECT_EQ(st.st_mtim.tv_sec, -2);
  EXPECT_EQ(st.st_mtim.tv_nsec, 500'000'000);
  int entries = 0;
  for (const auto& e : std::filesystem::directory_iterator(dir + "/many"))
    entries += e.path().filename().string().starts_with("entry-") ? 1 : 0;
  EXPECT_EQ(entries, FewObjects::many);
  char value[16] = {};
  EXPECT_EQ(::getxattr((dir + "/file").c_str(), "user.colour", value, sizeof value), 4);
  EXPECT_STREQ(value, "blue");
  EXPECT_EQ(::getxattr((dir + "/file").c_str(), "user.other", value, sizeof value), -1);
  EXPECT_EQ(errno, ENODATA);
  EXPECT_EQ(::open((dir + "/file").c_str(), O_WRONLY), -1);
  EXPECT_EQ(errno, EROFS);
  EXPECT_EQ(::mkdir((dir + "/new").c_str(), 0700), -1);
  EXPECT_EQ(errno, EROFS);
  {
    const Descriptor held(::open((dir + "/file").c_str(), O_RDONLY | O_CLOEXEC));
    const auto ended = mounted->end();
    ASSERT_FALSE(ended);
    EXPECT_EQ(ended.error().code, ErrorCode::busy);
  }
  ASSERT_TRUE(mounted->end());
  EXPECT_TRUE(mounted->ended());
  EXPECT_TRUE(std::filesystem::is_empty(dir));
}

TEST_F(LookMountTest, SeveralFoldersStandAtTheirPaths) {
  auto made = LookMount::mount(dir, {{1, "srv/data"}, {2, "srv/more"}}, past);
  ASSERT_TRUE(made) << made.error().to_string();
  mounted = std::move(*made);
  EXPECT_EQ(content_of(dir + "/srv/data/file"), past->content);
  EXPECT_TRUE(std::filesystem::is_empty(dir + "/srv/more"));
  std::vector<std::string> below;
  for (const auto& e : std::filesystem::directory_iterator(dir + "/srv")) below.push_back(e.path().filename().string());
  std::sort(below.begin(), below.end());
  EXPECT_EQ(below, (std::vector<std::string>{"data", "more"}));
  past->over = true;
  std::error_code error;
  EXPECT_FALSE(std::filesystem::exists(dir + "/srv/data/many/entry-1", error));
  EXPECT_EQ(error.value(), ESTALE) << "its history is gone";
}

TEST_F(LookMountTest, WhatADeadProcessLeftIsClearedAway) {
  const pid_t child = fork();
  if (child == 0) {
    auto made = LookMount::mount(dir, {{1, ""}}, past);
    if (made) (void)made->release();
    _exit(made ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  struct stat st {};
  EXPECT_EQ(::stat(dir.c_str(), &st), -1);
  EXPECT_EQ(errno, ENOTCONN);
  LookMount::clear_dead();
  EXPECT_TRUE(std::filesystem::is_empty(dir));
  auto made = LookMount::mount(dir, {{1, ""}}, past);
  ASSERT_TRUE(made);
  mounted = std::move(*made);
  LookMount::clear_dead();
  EXPECT_EQ(content_of(dir + "/file"), past->content) << "that one is alive";
}

}  // namespace
}  // namespace holdfast::capture
