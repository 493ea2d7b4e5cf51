// SPDX-License-Identifier: Apache-2.0
#include "platform/durable_slots.h"

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <fstream>

#include "platform/durable_file.h"
#include "platform/test_certificates.h"

namespace holdfast::platform {
namespace {

using testing::TemporaryFolder;

Bytes text(std::string_view s) { return Bytes(s.begin(), s.end()); }

class DurableSlotsTest : public ::testing::Test {
 protected:
  Bytes loaded() {
    DurableSlots other(path);
    auto value = other.load();
    EXPECT_TRUE(value) << value.error().to_string();
    return value ? *value : Bytes{};
  }
  void flip(std::streamoff at) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(at);
    const int byte = file.get();
    file.seekp(at);
    file.put(static_cast<char>(byte ^ 1));
  }
  TemporaryFolder folder;
  std::string path = folder / "state";
};

TEST_F(DurableSlotsTest, HoldsWhatWasStoredLast) {
  EXPECT_EQ(loaded(), Bytes{});
  DurableSlots cell(path);
  for (int i = 0; i < 7; ++i) {
    const Bytes value(static_cast<std::size_t>(i) * 9000,
                      static_cast<std::uint8_t>(i));  // at last more than a slot holds
    ASSERT_TRUE(cell.store(value));
    EXPECT_EQ(loaded(), value);
    if (i % 2 == 0) {
      EXPECT_EQ(cell.load().value(), value);
    }
  }
  struct stat st {};
  ASSERT_EQ(::stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600U);
}

TEST_F(DurableSlotsTest, ATornWriteLeavesTheValueBefore) {
  DurableSlots cell(path);
  for (const char* value : {"one", "two", "three", "four"}) {
    ASSERT_TRUE(cell.store(text(value)));
  }
  flip(16 * 1024 + 26);  // the second slot holds the fourth
  EXPECT_EQ(loaded(), text("three"));
  DurableSlots next(path);
  ASSERT_TRUE(next.load());
  ASSERT_TRUE(next.store(text("five")));
  EXPECT_EQ(loaded(), text("five"));
  flip(26);
  flip(16 * 1024 + 26);
  EXPECT_EQ(next.load().error().code, ErrorCode::corrupt);
}

TEST_F(DurableSlotsTest, ReadsWhatAnOlderVersionWrote) {
  ASSERT_TRUE(write_file_durably(path, text("HFSTATE1 and so on")));
  DurableSlots cell(path);
  EXPECT_EQ(cell.load().value(), text("HFSTATE1 and so on"));
  ASSERT_TRUE(cell.store(text("new")));
  EXPECT_EQ(loaded(), text("new"));
}

TEST_F(DurableSlotsTest, AFullDiskIsNoMatter) {
  const std::string disk = folder / "disk";
  ASSERT_TRUE(make_private_dir(disk));
  if (::mount("none", disk.c_str(), "tmpfs", 0, "size=256k") != 0) GTEST_SKIP() << "needs root, to mount a small disk";
  {
    DurableSlots cell(disk + "/state");
    EXPECT_TRUE(cell.store(text("before")));
    std::ofstream filler(disk + "/filler");
    filler << std::string(1 << 20, 'x');
    filler.flush();
    EXPECT_FALSE(write_file_durably(disk + "/other", Bytes(8192))) << "it is full";
    EXPECT_TRUE(cell.store(text("after")));
    EXPECT_TRUE(cell.store(text("and again")));
    EXPECT_EQ(cell.load().value(), text("and again"));
  }
  EXPECT_EQ(::umount2(disk.c_str(), MNT_DETACH), 0);
}

}  // namespace
}  // namespace holdfast::platform
