// SPDX-License-Identifier: Apache-2.0
// Which sets of a peer that fell behind its queue get only what changed.
#include "mirror/sender_test_support.h"

namespace holdfast::mirror {
namespace {

using testing::Applies;
using testing::noted_from;
using testing::peer;
using testing::queued_from;
using testing::set;

class SenderMap : public testing::SenderTest {};

TEST_F(SenderMap, OneThatBeganItsLogAnewGetsWhatChanged) {
  const Start start = session(noted_from, true);
  EXPECT_TRUE(start.restart && start.drained);
  EXPECT_EQ(start.base, queued_from);
  EXPECT_FALSE(session(queued_from, false).restart);
  EXPECT_TRUE(gets_only_what_changed());
}

// It refused, or never heard it; then it gave the set up by itself.
TEST_F(SenderMap, OneThatIsNotWholeAnyMoreWhereItStoodIsComparedAsAWhole) {
  EXPECT_TRUE(session(noted_from, true).drained);
  EXPECT_TRUE(session(noted_from, false).restart);
  EXPECT_FALSE(session(queued_from, false).restart);
  EXPECT_FALSE(gets_only_what_changed());
}

TEST_F(SenderMap, OneThatIsStillWholeWhereItStoodGetsWhatChanged) {
  EXPECT_TRUE(session(noted_from, true).drained);
  EXPECT_TRUE(session(noted_from, true).drained);
  EXPECT_FALSE(session(queued_from, false).restart);
  EXPECT_TRUE(gets_only_what_changed());
}

// It had begun its log anew before, and is not whole since: it could give nothing up.
TEST_F(SenderMap, OneThatFellBehindAgainBeforeItWasWholeAndIsNotReadyGetsWhatChanged) {
  EXPECT_TRUE(session(noted_from, true).drained);
  const Position behind_again{Epoch(1), Sequence(7)};
  sender_->queue().begin(queued_from, behind_again);
  EXPECT_TRUE(session(behind_again, false).drained);
  EXPECT_TRUE(session(behind_again, false).drained) << "it refused: it has more to apply first";
  EXPECT_FALSE(session(queued_from, false).restart);
  EXPECT_TRUE(gets_only_what_changed());
}

// Its disk was replaced in the middle, and then its process began anew once more: what there is of a copy is not what fell behind.
TEST_F(SenderMap, OneThatWasSeenEmptyIsComparedAsAWhole) {
  EXPECT_TRUE(session(noted_from, true).drained);
  session(queued_from, false, {.empty = true});
  session(queued_from, false, {.life = 8});
  EXPECT_FALSE(gets_only_what_changed());
}

TEST_F(SenderMap, OneWithAnotherTreeThanItRemembersIsComparedAsAWhole) {
  EXPECT_TRUE(session(noted_from, true).drained);
  session(queued_from, false, {.doubted = true, .life = 8});
  EXPECT_FALSE(gets_only_what_changed());
}

// A comparison found it, and it is in no map.
TEST_F(SenderMap, WhatIsKnownToDifferStillDoesAfterWhatChangedWasShipped) {
  note_difference();
  session(noted_from, true);
  session(queued_from, false);
  EXPECT_TRUE(gets_only_what_changed());
  become_whole();
  EXPECT_EQ(compared_.get(peer, set).open, 1U);
}

TEST_F(SenderMap, WhatIsKnownToDifferIsPastWhenAllIsCopied) {
  note_difference();
  session(queued_from, false);
  EXPECT_FALSE(gets_only_what_changed());
  become_whole();
  EXPECT_EQ(compared_.get(peer, set).open, 0U);
}

TEST_F(SenderMap, TheWalkOfASetThatIsRemovedEndsBeforeItsFolderGoes) {
  session(queued_from, false);
  EXPECT_FALSE(gets_only_what_changed());
  while (log_.last_sequence() == queued_from.sequence) std::this_thread::yield();  // it has said that it begins
  protected_.clear();
  sender_->set_removed(set);
  session(queued_from, false);
  EXPECT_TRUE(sender_->status().complete);
  EXPECT_EQ(sender_->status().resyncs, 1U);
  EXPECT_EQ(log_.last_sequence(), queued_from.sequence.next()) << "only that it begins";
}

TEST_F(SenderMap, ASetThatIsRemovedWhileASessionBeginsIsNotWalked) {
  session(queued_from, false);
  protected_.clear();  // and set_removed() was called before the session noted it
  loop_ = std::thread([this] { sender_->resync_loop(); });
  Applies stream;
  EXPECT_EQ(sender_->serve(stream).error().code, ErrorCode::unavailable) << "the next one finds what it needs";
  EXPECT_EQ(sender_->status().resyncs, 0U);
}

}  // namespace
}  // namespace holdfast::mirror
