// SPDX-License-Identifier: Apache-2.0
// A pair on file systems of two kinds: what one of them can't hold the other knows, whoever is there.
#include <gtest/gtest.h>

#include <sys/xattr.h>

#include "platform/test_image.h"
#include "platform/test_mirror_pair.h"

namespace holdfast::platform {
namespace {

using ports::Limit;
using testing::make_ext4;
using testing::make_xfs;
using testing::MountedImage;
using testing::TestNode;

class MirrorMixed : public testing::MirrorPair {
 protected:
  void SetUp() override {
    if (geteuid() != 0) GTEST_SKIP() << "needs root: mounts";
    ext4 = std::make_unique<MountedImage>(folder / "ext4", a.tree_path(), make_ext4());
    xfs = std::make_unique<MountedImage>(folder / "xfs", b.tree_path(), make_xfs());
    if (!ext4->mounted() || !xfs->mounted()) GTEST_SKIP() << "needs mkfs.xfs, mkfs.ext4 and loop devices";
  }
  void TearDown() override {
    a.stop();
    b.stop();
  }
  void start(TestNode& node, TestNode& peer) {
    const Status started = node.start();
    ASSERT_TRUE(started) << started.error().to_string();
    node.runtime->set_peers({{peer.id(), "peer", {"127.0.0.1:1"}}});
  }
  static std::uint64_t most(TestNode& node, Limit what) { return node.log->limits_of(1)->most(what); }
  // The passive's fault, or nothing within a minute.
  static std::string fault_of(TestNode& node) {
    std::uint64_t seen = 0;
    for (int i = 0; i < 600 && node.fault_text().empty(); ++i) node.log->wait_for_change(100, seen);
    return node.fault_text();
  }
  std::unique_ptr<MountedImage> ext4, xfs;
};

TEST_F(MirrorMixed, EachRefusesWhatTheOtherCanNotHoldAlsoWhenItIsAway) {
  ASSERT_NO_FATAL_FAILURE(start(a, b));
  ASSERT_NO_FATAL_FAILURE(start(b, a));
  EXPECT_EQ(most(a, Limit::link_target_bytes), ports::no_limit) << "nobody has said anything yet";
  ASSERT_NO_FATAL_FAILURE(lead(a, b, 1));
  ASSERT_TRUE(synchronized(a));
  ASSERT_TRUE(wait(a, [&] { return most(a, Limit::link_target_bytes) == 1023; }));
  EXPECT_EQ(most(a, Limit::device_major), 511U);
  EXPECT_EQ(most(a, Limit::xattrs_bytes), ports::no_limit) << "as much as its own file system takes";
  ASSERT_TRUE(wait(a, [&] { return most(b, Limit::links) == 65000; })) << "the successor knows before it leads";
  b.stop();
  a.stop();
  ASSERT_NO_FATAL_FAILURE(start(a, b));
  EXPECT_EQ(most(a, Limit::link_target_bytes), 1023U) << "of who is away";
  a.stop();
  ASSERT_NO_FATAL_FAILURE(start(b, a));
  EXPECT_EQ(most(b, Limit::links), 65000U);
  EXPECT_NE(most(b, Limit::xattrs_bytes), ports::no_limit);
  EXPECT_EQ(most(b, Limit::link_target_bytes), ports::no_limit);
  ASSERT_TRUE(b.log->remove_set(1));
  EXPECT_EQ(most(b, Limit::links), ports::no_limit) << "it is another set should it come back";
}

TEST_F(MirrorMixed, WhatIsThereAlreadyStopsThePassiveWithTheLimitAndAWayOut) {
  ASSERT_EQ(::symlink(std::string(2000, 'x').c_str(), (a.tree_path() + "/long").c_str()), 0);
  ASSERT_NO_FATAL_FAILURE(start(a, b));
  ASSERT_NO_FATAL_FAILURE(start(b, a));
  ASSERT_NO_FATAL_FAILURE(lead(a, b, 1));
  const std::string fault = fault_of(b);
  EXPECT_NE(fault.find("a symbolic link of more than 1023 bytes"), std::string::npos) << fault;
  EXPECT_NE(fault.find("-type l -size +1023c"), std::string::npos) << fault;
  EXPECT_EQ(a.fault_text(), "");
}

// It is no want of space: that would be waited for, for ever.
TEST_F(MirrorMixed, AttributesThatFillMoreThanABlockAreNoFullDisk) {
  const std::string value(9000, 'x'), file = b.tree_path() + "/file";
  ASSERT_EQ(::close(::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)), 0);
  ASSERT_EQ(::setxattr(file.c_str(), "user.big", value.data(), value.size(), 0), 0);
  ASSERT_NO_FATAL_FAILURE(start(a, b));
  ASSERT_NO_FATAL_FAILURE(start(b, a));
  ASSERT_NO_FATAL_FAILURE(lead(b, a, 1));
  const std::string fault = fault_of(a);
  EXPECT_NE(fault.find("bytes of extended attributes"), std::string::npos) << fault;
  EXPECT_NE(fault.find("user.big"), std::string::npos) << fault;
}

}  // namespace
}  // namespace holdfast::platform
