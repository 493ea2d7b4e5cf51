// SPDX-License-Identifier: Apache-2.0
// Descriptors are a cache: the process may run out of them, and FORGETs may come late.
#include "capture/inode_table.h"

#include <gtest/gtest.h>

#include <sys/resource.h>

#include <filesystem>
#include <future>

namespace holdfast::capture {
namespace {

class InodeTableTest : public testing::Test {
 protected:
  static constexpr int files = 300;

  void SetUp() override {
    std::string made = testing::TempDir() + "inode-table-XXXXXX";
    ASSERT_TRUE(::mkdtemp(made.data()));
    folder_ = made;
    root_ = Descriptor(::open(made.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_GE(root_.get(), 0);
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before_), 0);
  }
  void TearDown() override {
    ::setrlimit(RLIMIT_NOFILE, &before_);
    std::filesystem::remove_all(folder_);
  }

  // Of a new file, known to the kernel by one look-up; no descriptor of it is open.
  InodePtr make(InodeTable& table, int n) {
    const std::string name = std::to_string(n);
    const Descriptor fd(::openat(root_.get(), name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    LowerHandle handle;
    struct stat st;
    if (fd.get() < 0 || ::fstat(fd.get(), &st) != 0 || handle_of(fd.get(), handle) != 0) return nullptr;
    FileId id;
    id.bytes[0] = 1;
    id.bytes[1] = static_cast<std::uint8_t>(n >> 8);
    id.bytes[2] = static_cast<std::uint8_t>(n);
    return table.add(id, st.st_ino, S_IFREG, handle, Descriptor());
  }
  // So many more descriptors than are open now.
  static void leave(rlim_t more) {
    const Descriptor lowest(::open("/", O_PATH | O_CLOEXEC));
    rlimit limit;
    ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = static_cast<rlim_t>(lowest.get()) + more;
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
  }
  bool can_open_by_handle() {
    LowerHandle handle;
    if (handle_of(root_.get(), handle) != 0) return false;
    const Descriptor fd(open_handle(root_.get(), handle, O_PATH | O_CLOEXEC));
    return fd.get() >= 0;
  }

  std::filesystem::path folder_;
  Descriptor root_;
  rlimit before_{};
};

TEST_F(InodeTableTest, CachedDescriptorsMakeRoomWhenThereAreNoMore) {
  if (!can_open_by_handle()) GTEST_SKIP() << "needs root";
  InodeTable table(root_.get(), 10'000);
  std::vector<InodePtr> all;
  for (int n = 0; n < files; ++n) {
    all.push_back(make(table, n));
    ASSERT_TRUE(all.back());
  }
  leave(40);
  for (const InodePtr& inode : all) {
    ASSERT_TRUE(table.path(*inode)) << errno;
    ASSERT_TRUE(table.open_data(*inode, false)) << errno;
    table.close_data(*inode, false);
  }
  // What is pinned stays: then there is no way but to say so.
  int pinned = 0;
  for (const InodePtr& inode : all)
    if (table.pin(*inode)) ++pinned;
  EXPECT_GT(pinned, 20);
  EXPECT_LT(pinned, 41);
  EXPECT_EQ(errno, EMFILE);
}

TEST_F(InodeTableTest, WhoRemovesWaitsForForgets) {
  if (!can_open_by_handle()) GTEST_SKIP() << "needs root";
  InodeTable table(root_.get(), 32);  // 24 may be pinned
  std::vector<InodePtr> all;
  for (int n = 0; n < 26; ++n) {
    EXPECT_EQ(table.too_many_pinned(), n > 24) << n;
    all.push_back(make(table, n));
    ASSERT_TRUE(all.back() && table.pin(*all.back()));
    ASSERT_TRUE(table.pin(*all.back())) << "counted once";
  }
  table.wait_for_forgets();  // none come
  EXPECT_TRUE(table.too_many_pinned());
  table.forget(all[0]->nodeid, 1);
  EXPECT_TRUE(table.too_many_pinned());
  // One that got a name again counts no more, and its descriptor is one of the cached ones.
  table.unpin(*all[1]);
  EXPECT_FALSE(table.too_many_pinned());
  table.unpin(*all[1]);
  table.forget(all[1]->nodeid, 1);
  table.wait_for_forgets();
  ASSERT_TRUE(table.pin(*all[2]));
  EXPECT_FALSE(table.too_many_pinned()) << "24 are left";
}

// Each FORGET takes its time, as one that frees a big file below does.
TEST_F(InodeTableTest, WaitingEndsWhenEnoughWereForgotten) {
  if (!can_open_by_handle()) GTEST_SKIP() << "needs root";
  InodeTable table(root_.get(), 32);
  std::vector<InodePtr> all;
  for (int n = 0; n < 40; ++n) {
    all.push_back(make(table, n));
    ASSERT_TRUE(all.back() && table.pin(*all.back()));
  }
  std::promise<void> forgotten;
  auto forgetting = std::async(std::launch::async, [&] {
    for (int n = 0; n < 16; ++n) table.forget(all[static_cast<std::size_t>(n)]->nodeid, 1);
    forgotten.set_value();
  });
  forgotten.get_future().wait();
  table.wait_for_forgets();
  EXPECT_FALSE(table.too_many_pinned());
}

}  // namespace
}  // namespace holdfast::capture
