// SPDX-License-Identifier: Apache-2.0
#include "mirror/graves.h"

#include <gtest/gtest.h>

#include "base/log.h"
#include "mirror/test_tree.h"

namespace holdfast::mirror::testing {
namespace {

constexpr SetNumber set = 1;
const FileId root = FileId::root(set);

FileId id_of(std::uint8_t n) {
  FileId id;
  id.bytes[0] = n;
  return id;
}

class GravesTest : public ::testing::Test {
 protected:
  GravesTest() { set_log_level(LogLevel::error); }
  FileId bury(std::uint8_t n, std::uint64_t bytes, std::uint64_t stamp = 5) {
    const FileId id = id_of(n);
    ports::NewNode node;
    node.mode = type_regular | 0600;
    EXPECT_TRUE(tree_.stage(id, node));
    EXPECT_TRUE(tree_.commit_ids());
    EXPECT_TRUE(tree_.place(id, root, "f"));
    tree_.burial_stamp(stamp);
    EXPECT_TRUE(tree_.bury(root, "f", id, ports::Grave::deleted));
    graves_.add({id, stamp, bytes, 1});
    return id;
  }
  Status purge(std::size_t most = 1000) { return graves_.purge(tree_, most); }
  bool there(const FileId& id) const { return tree_.look(id) != nullptr; }

  Fuse fuse_;
  MemoryTree tree_{set, fuse_};
  Graves graves_;
};

TEST_F(GravesTest, TheBiggestGoFirst) {
  const FileId small = bury(1, 10'000), big = bury(2, 1U << 30), middle = bury(3, 1U << 20);
  graves_.give_up_all();
  EXPECT_EQ(graves_.doomed_bytes(), 10'000 + (1U << 30) + (1U << 20));
  ASSERT_TRUE(purge(1));
  EXPECT_FALSE(there(big));
  EXPECT_TRUE(there(middle));
  ASSERT_TRUE(purge(1));
  EXPECT_FALSE(there(middle));
  ASSERT_TRUE(purge());
  EXPECT_FALSE(there(small));
  EXPECT_EQ(graves_.doomed_bytes(), 0U);
  EXPECT_FALSE(graves_.has_work());
}

// Brought back and deleted again with something in it since: what it held when it was given up counts no more.
TEST_F(GravesTest, OneThatIsBuriedAgainIsNoneOfThoseThatGo) {
  const FileId id = bury(1, 1U << 30, 5);
  graves_.give_up(6, 10);
  ASSERT_EQ(graves_.doomed(), 1U);
  graves_.add({id, 7, 100, 1});
  ASSERT_TRUE(purge());
  EXPECT_TRUE(there(id));
  EXPECT_EQ(graves_.doomed_bytes(), 0U);
  EXPECT_EQ(graves_.held().objects, 1U);
}

TEST_F(GravesTest, WhatIsInAFolderIsToldApart) {
  const FileId file = bury(1, 50'000, 5);
  graves_.add({id_of(2), 6, 4096, 1001});
  GravesInside inside;
  graves_.add_inside(inside);
  ASSERT_EQ(inside.size(), 1U);
  EXPECT_EQ(inside[6].objects, 1000U);
  EXPECT_EQ(inside[6].bytes, 1001 * least_object_bytes - 4096);
  EXPECT_EQ(graves_.held().objects, 1002U);
  graves_.give_up(7, 10);
  inside.clear();
  graves_.add_inside(inside);
  EXPECT_TRUE(inside.empty());
  EXPECT_EQ(graves_.held().bytes, 0U);
  EXPECT_TRUE(there(file));
}

TEST_F(GravesTest, WhatCantGoIsInNobodysWayAndIsTriedAgain) {
  const FileId stuck = bury(1, 1U << 30), other = bury(2, 10), stuck_too = bury(3, 20);
  tree_.cant_go = {{stuck, ErrorCode::busy}, {stuck_too, ErrorCode::no_space}};
  graves_.give_up_all();
  ASSERT_TRUE(purge());
  EXPECT_FALSE(there(other));
  EXPECT_TRUE(there(stuck));
  EXPECT_EQ(graves_.doomed(), 0U);
  EXPECT_EQ(graves_.aside(), 2U);
  EXPECT_FALSE(graves_.has_work()) << "not before it is tried again";
  EXPECT_NE(graves_.why_aside().find("can't go"), std::string::npos);
  tree_.cant_go.erase(stuck);
  graves_.try_aside_again();
  EXPECT_TRUE(graves_.has_work());
  ASSERT_TRUE(purge());
  EXPECT_FALSE(there(stuck));
  EXPECT_EQ(graves_.aside(), 1U);
  EXPECT_FALSE(graves_.has_work());
  tree_.cant_go.clear();
  graves_.try_aside_again();
  ASSERT_TRUE(purge(1));
  EXPECT_FALSE(there(stuck_too));
  ASSERT_TRUE(purge());
  EXPECT_FALSE(graves_.has_work());
}

TEST_F(GravesTest, OneThatCantEvenBeLookedAtStopsNoStart) {
  const FileId bad = bury(1, 10), good = bury(2, 10);
  tree_.cant_go = {{bad, ErrorCode::corrupt}};
  ASSERT_TRUE(graves_.load(tree_));
  EXPECT_EQ(graves_.held().objects, 1U);
  EXPECT_EQ(graves_.aside(), 1U);
  EXPECT_NE(graves_.why_aside(), "");
  graves_.give_up_all();
  graves_.try_aside_again();
  ASSERT_TRUE(purge());
  EXPECT_FALSE(there(good));
  EXPECT_EQ(graves_.aside(), 1U);
}

TEST_F(GravesTest, AnErrorOfTheDiskIsOneAndBlocksNoOther) {
  const FileId bad = bury(1, 1U << 30), other = bury(2, 10);
  tree_.cant_go = {{bad, ErrorCode::io}};
  graves_.give_up_all();
  const Status failed = purge();
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().code, ErrorCode::io);
  EXPECT_TRUE(there(other));
  ASSERT_TRUE(purge());
  EXPECT_FALSE(there(other));
  EXPECT_EQ(graves_.aside(), 1U);
}

}  // namespace
}  // namespace holdfast::mirror::testing
