// SPDX-License-Identifier: Apache-2.0
// Start 2: a passive that holds records it has not applied is told to begin its log anew, for only what changed since comes.
#include "mirror/passive_test_support.h"

namespace holdfast::mirror {
namespace {

using namespace testing;

const Position anew{Epoch(1), Sequence(900)};

// A file that it never heard of gets a name.
log::Record link_unknown() {
  log::Record r;
  r.kind = log::Kind::link;
  r.file = id(99);
  r.parent = FileId::root(set);
  r.name = "linked";
  r.mode = type_regular;
  return r;
}

TEST(NodeDrain, WhatItHoldsIsAppliedFirst) {
  Node node;
  node.applies = false;
  ASSERT_TRUE(node.start());
  EXPECT_EQ(node.session(1, false, {}, {create(1, "a"), write(1, "text")}), "");
  EXPECT_EQ(node.names(), "");
  EXPECT_EQ(node.session(1, Start{true, anew, true}, {}), "");
  EXPECT_EQ(node.names(), "a ");
  EXPECT_EQ(node.log->status().position, anew);
}

// The active was told that the set is whole, and would ship what changed since; what is skipped on the way is not in that.
TEST(NodeDrain, ASetThatIsGivenUpWhileItDrainsIsNotTakenForWhole) {
  Node node;
  node.applies = false;
  ASSERT_TRUE(node.start());
  EXPECT_EQ(node.session(1, false, {}, {create(1, "a"), link_unknown(), write(1, "skipped")}), "");
  EXPECT_TRUE(node.log->status().receive.complete);
  EXPECT_NE(node.session(1, Start{true, anew, true}, {}), "");
  EXPECT_FALSE(node.log->status().receive.complete);
  EXPECT_EQ(node.log->status().position, (Position{Epoch(1), Sequence(3)})) << "it stands where it stood";
  // The next welcome says so, and the active decides by that.
  EXPECT_EQ(node.session(1, Start{true, anew, true}, {}), "");
  EXPECT_EQ(node.log->status().position, anew);
}

// A disk complains once of what it lost.
TEST(NodeDrain, AFailedSyncIsNotAskedForAgain) {
  Node node;
  node.applies = false;
  ASSERT_TRUE(node.start());
  EXPECT_EQ(node.session(1, false, {}, {create(1, "a"), write(1, "text")}), "");
  node.tree->fail_next_sync = true;
  EXPECT_NE(node.session(1, Start{true, anew, true}, {}), "");
  EXPECT_FALSE(node.tree->fail_next_sync) << "it was asked";
  EXPECT_NE(node.log->status().fault, "");
  EXPECT_EQ(node.log->status().position, (Position{Epoch(1), Sequence(2)})) << "the log that could redo it is gone";
}

}  // namespace
}  // namespace holdfast::mirror
