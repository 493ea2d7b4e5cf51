// SPDX-License-Identifier: Apache-2.0
// The undo history between two nodes over real folders: a passive goes back to any of its points and forth again; a node in mid-resync is promoted
// at its last consistent point; ordinary apply foresees all that it touches.
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "platform/test_mirror_pair.h"

namespace holdfast::platform {
namespace {

using mirror::PeerState;
using testing::difference;
using testing::RandomApplication;
using testing::TreeDigest;

class MirrorUndo : public testing::MirrorPair {
 protected:
  using Digest = std::map<std::string, std::string>;
  void lead(std::uint64_t epoch) { MirrorPair::lead(a, b, epoch); }
  template <class F>
  bool wait(F&& condition) {
    return MirrorPair::wait(a, condition);
  }
  mirror::PeerStatus peer() { return peer_of(a); }
  bool synchronized() {
    return wait([&] { return peer().state == PeerState::synchronized; });
  }
  bool applied() {
    const Sequence end = a.log->capture_log().last_sequence();
    a.log->capture_log().hurry();
    return wait([&] { return peer().applied >= end; });
  }
  // A mark ends a batch: what stands now is the start of the next one.
  Sequence point() {
    a.log->mark_consistent(a.times.steady_ns());
    EXPECT_TRUE(applied());
    return a.log->capture_log().last_sequence();
  }
  std::uint64_t batch_from(Sequence before) {
    for (const auto& batch : b.undo->batches())
      if (batch.head.before.sequence == before && batch.head.why == mirror::BatchWhy::apply) return batch.number;
    return 0;
  }
};

TEST_F(MirrorUndo, APassiveGoesBackToAnyPointAndForthAgain) {
  ASSERT_TRUE(a.start() && b.start());
  lead(1);
  ASSERT_TRUE(synchronized());
  RandomApplication application(a, 5);
  std::vector<std::pair<Sequence, Digest>> points;
  for (int i = 0; i < 4; ++i) {
    application.run(400);
    const Sequence at = point();
    points.emplace_back(at, TreeDigest::of(b.tree_path()));
    ASSERT_EQ(difference(TreeDigest::of(a.tree_path()), points.back().second), "");
    if (i == 2) {  // a crash of the process, and redo
      b.stop();
      application.run(200);
      ASSERT_TRUE(b.start());
      ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
      a.runtime->set_peers({{b.id(), "peer", {b.address()}}});
      ASSERT_TRUE(synchronized());
    }
  }
  application.run(400);
  point();
  const Digest end = TreeDigest::of(b.tree_path());
  EXPECT_EQ(b.undo->stats().late_groups, 0U) << "ordinary apply foresees all that it touches";
  a.stop();
  for (const int i : {3, 1, 2, 0}) {
    const std::uint64_t batch = batch_from(points[i].first);
    ASSERT_NE(batch, 0U) << i;
    const auto there = b.log->rewind(batch, false);
    ASSERT_TRUE(there) << there.error().to_string();
    EXPECT_EQ(there->sequence, points[i].first);
    EXPECT_EQ(difference(TreeDigest::of(b.tree_path()), points[i].second), "") << i;
    const std::uint64_t reversal = [&] {
      std::uint64_t last = 0;
      for (const auto& r : b.undo->batches())
        if (r.head.why == mirror::BatchWhy::rewind) last = r.number;
      return last;
    }();
    ASSERT_TRUE(b.log->rewind(reversal, false));
    EXPECT_EQ(difference(TreeDigest::of(b.tree_path()), end), "") << i;
  }
}

TEST_F(MirrorUndo, InMidResyncTheNodeIsPromotedWhereItBegan) {
  ASSERT_TRUE(a.start() && b.start());
  lead(1);
  ASSERT_TRUE(synchronized());
  RandomApplication(a, 6).run(800);
  const Sequence at = point();
  const Digest then = TreeDigest::of(b.tree_path());
  // The active dies, changes its tree past everybody, and goes on far above: b must be copied anew.
  a.stop();
  ASSERT_TRUE(a.start());
  lead(2);
  RandomApplication application(a, 7);
  std::thread load([&] { application.run(1500); });
  ASSERT_TRUE(wait([&] { return b.log->status().receive.resyncing; }));
  load.join();
  // What comes after the copy's end would make it whole: the connection goes first.
  a.runtime->set_peers({});
  const auto status = b.log->status();
  if (!status.receive.complete) {
    ASSERT_TRUE(status.receive.point);
    EXPECT_EQ(status.receive.point->applied.sequence, at);
    EXPECT_FALSE(b.log->promote(Epoch(3)));
    b.stop();
    ASSERT_TRUE(b.start());
    const auto promoted = b.log->promote(Epoch(3), false, true);
    ASSERT_TRUE(promoted) << promoted.error().to_string();
    EXPECT_EQ(difference(TreeDigest::of(b.tree_path()), then), "");
  } else {
    EXPECT_FALSE(status.receive.point);
  }
}

TEST_F(MirrorUndo, AResyncUnderHistoryMakesTreesEqualAndLeavesNoLinkBehind) {
  ASSERT_TRUE(a.start() && b.start());
  lead(1);
  ASSERT_TRUE(synchronized());
  RandomApplication(a, 8).run(800);
  point();
  a.stop();
  ASSERT_TRUE(a.start());
  RandomApplication(a, 9);
  lead(2);
  RandomApplication(a, 10).run(800);
  ASSERT_TRUE(synchronized());
  point();
  EXPECT_EQ(difference(TreeDigest::of(a.tree_path()), TreeDigest::of(b.tree_path())), "");
  EXPECT_FALSE(b.log->status().receive.point);
  // And back to before the resynchronization.
  a.stop();
  for (const auto& batch : b.undo->batches())
    if (batch.head.why == mirror::BatchWhy::jump) {
      const auto there = b.log->rewind(batch.number, false);
      EXPECT_TRUE(there) << there.error().to_string();
      break;
    }
}

TEST_F(MirrorUndo, WithLittleRoomTheHistoryGoesAndApplyGoesOn) {
  b.undo_bytes = 3 * b.segment_bytes;
  ASSERT_TRUE(a.start() && b.start());
  lead(1);
  ASSERT_TRUE(synchronized());
  RandomApplication application(a, 11);
  for (int i = 0; i < 6; ++i) {
    application.run(500);
    point();
  }
  EXPECT_EQ(difference(TreeDigest::of(a.tree_path()), TreeDigest::of(b.tree_path())), "");
}

}  // namespace
}  // namespace holdfast::platform
