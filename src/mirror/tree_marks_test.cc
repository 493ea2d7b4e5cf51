// SPDX-License-Identifier: Apache-2.0
#include "mirror/tree_marks.h"

#include <gtest/gtest.h>

#include "mirror/test_tree.h"

namespace holdfast::mirror {
namespace {

class TreeMarks : public ::testing::Test {
 protected:
  TreeMarks() {
    state_.log_life = 3;
    state_.applied = {Epoch(2), Sequence(70)};
    hot_.epoch = Epoch(5);
    hot_.drawn = 77;
    hot_.released = 4;
  }
  std::string why(const HotHeader* hot = nullptr) {
    const auto told = why_not_remembered(tree_, state_, log_end_, hot);
    EXPECT_TRUE(told);
    return told.value_or("an error");
  }
  void mark(const HotMark& mark) { ASSERT_TRUE(tree_.set_mark(ports::Mark::hot, encode(mark))); }
  void mark(const CheckpointMark& mark) { ASSERT_TRUE(tree_.set_mark(ports::Mark::checkpoint, encode(mark))); }

  testing::Fuse fuse_;
  testing::MemoryTree tree_{1, fuse_};
  NodeState state_;
  Sequence log_end_{90};
  HotHeader hot_;
};

TEST_F(TreeMarks, APassivesTreeIsAtLeastAsFarAsItsState) {
  EXPECT_EQ(why(), "") << "a state of before there were marks, or of a set that was not here since";
  state_.marked[1] = {3, Sequence(70)};
  EXPECT_NE(why(), "") << "no mark";
  mark(CheckpointMark{3, Sequence(70)});
  EXPECT_EQ(why(), "");
  mark(CheckpointMark{3, Sequence(71)});
  EXPECT_EQ(why(), "") << "a crash came before the state said so";
  mark(CheckpointMark{4, Sequence(0)});
  EXPECT_EQ(why(), "") << "the same, when the log began anew";
  mark(CheckpointMark{3, Sequence(69)});
  EXPECT_NE(why(), "");
  mark(CheckpointMark{2, Sequence(900)});
  EXPECT_NE(why(), "") << "before the log began anew";
}

// The disk of the state was put back to an older one: from there on the log would be applied to a tree that has had it.
TEST_F(TreeMarks, APassivesTreeIsNoFurtherThanItsLog) {
  state_.marked[1] = {3, Sequence(70)};
  mark(CheckpointMark{3, Sequence(90)});
  EXPECT_EQ(why(), "");
  mark(CheckpointMark{3, Sequence(91)});
  EXPECT_NE(why(), "");
  mark(CheckpointMark{4, Sequence(1)});
  EXPECT_NE(why(), "") << "the state said that the log began anew before anything was applied of it";
  mark(CheckpointMark{5, Sequence(0)});
  EXPECT_NE(why(), "");
  state_.marked[1] = {2, Sequence(70)};
  mark(CheckpointMark{2, Sequence(900)});
  EXPECT_EQ(why(), "") << "it was not here when the log began anew, and nothing is known of the one of before";
}

TEST_F(TreeMarks, NotesSpeakOfATreeThatIsAtLeastAsFar) {
  state_.active_epoch = Epoch(5);
  mark(CheckpointMark{3, Sequence(1)});  // of when it followed
  EXPECT_NE(why(&hot_), "") << "no mark";
  mark(HotMark{Epoch(5), 77, 4});
  EXPECT_EQ(why(&hot_), "");
  mark(HotMark{Epoch(5), 77, 5});
  EXPECT_EQ(why(&hot_), "") << "a crash came before the header said so";
  mark(HotMark{Epoch(5), 77, 3});
  EXPECT_NE(why(&hot_), "") << "what was dropped with generation 4 may be missing";
  mark(HotMark{Epoch(4), 77, 9});
  EXPECT_NE(why(&hot_), "");
  mark(HotMark{Epoch(5), 78, 9});
  EXPECT_NE(why(&hot_), "") << "the same epoch of another cluster";
}

TEST_F(TreeMarks, WithoutNotesOfTheEpochThereIsNothingToCompareWith) {
  state_.active_epoch = Epoch(6);
  EXPECT_EQ(why(&hot_), "");
  EXPECT_EQ(why(nullptr), "");
  state_.active_epoch = Epoch(5);
  hot_.drawn = 0;
  EXPECT_EQ(why(&hot_), "") << "an older program noted them";
}

// The point that resynchronizations began at stays, for the other sets.
TEST_F(TreeMarks, WhatIsForgottenOfASetIsThatAlone) {
  state_.complete = {1, 2, 3};
  state_.marked = {{1, {3, Sequence(1)}}, {2, {3, Sequence(2)}}};
  state_.point = PastState{};
  state_.point->complete = {1, 2};
  state_.forget(1);
  EXPECT_EQ(state_.complete, (std::set<SetNumber>{2, 3}));
  EXPECT_EQ(state_.marked.size(), 1U);
  ASSERT_TRUE(state_.point);
  EXPECT_EQ(state_.point->complete, (std::set<SetNumber>{2}));
  state_.forget(2);
  EXPECT_FALSE(state_.point);
}

TEST_F(TreeMarks, WhatIsNoMarkIsNone) {
  EXPECT_FALSE(decode_hot_mark({}));
  EXPECT_FALSE(decode_checkpoint_mark({}));
  Bytes later = encode(CheckpointMark{3, Sequence(70)});
  later[0] = 9;
  EXPECT_FALSE(decode_checkpoint_mark(later));
  Bytes cut = encode(HotMark{Epoch(5), 77, 4});
  cut.resize(10);
  EXPECT_FALSE(decode_hot_mark(cut));
}

}  // namespace
}  // namespace holdfast::mirror
