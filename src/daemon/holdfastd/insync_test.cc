// SPDX-License-Identifier: Apache-2.0
#include "daemon/holdfastd/insync.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace holdfast::daemon {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

const NodeId self{1}, peer{2};

struct FakePort : InSync::Port {
  std::vector<std::pair<std::vector<NodeId>, std::function<void(bool)>>> told;
  std::vector<std::pair<NodeId, std::uint64_t>> waiting;
  std::vector<NodeId> lost;
  void set_wait_set(const std::vector<NodeId>& peers, std::function<void(bool)> done) override {
    told.emplace_back(peers, std::move(done));
  }
  void waiting_for(NodeId node, std::uint64_t version) override { waiting.emplace_back(node, version); }
  void peer_lost(NodeId node) override { lost.push_back(node); }
  void answer() {
    auto done = std::move(told.back().second);
    done(true);
  }
};

struct InSyncTest : ::testing::Test {
  FakePort port;
  InSync sync{self, port};
  void office() {
    sync.begin_office();
    sync.recorded(7, {self});
    port.answer();
  }
  void join() {
    sync.observe(peer, {"synchronized", 10, 10}, 1000);
    port.answer();
    sync.recorded(8, {self, peer});
    port.answer();
    port.told.clear();
    port.waiting.clear();
  }
};

TEST_F(InSyncTest, MirrorWaitsBeforeTheJoinerIsProposed) {
  office();
  sync.observe(peer, {"streaming", 10, 5}, 1000);
  EXPECT_EQ(port.told.size(), 1u);
  sync.observe(peer, {"synchronized", 10, 10}, 1100);
  ASSERT_EQ(port.told.size(), 2u);
  EXPECT_THAT(port.told.back().first, ElementsAre(peer));
  EXPECT_THAT(port.waiting, IsEmpty()) << "proposed before the mirror answered";
  port.answer();
  EXPECT_THAT(port.waiting, ElementsAre(std::make_pair(peer, std::uint64_t{7})));
}

TEST_F(InSyncTest, MirrorStopsWaitingOnlyAfterTheRemovalIsRecorded) {
  office();
  join();
  sync.observe(peer, {"lost", 20, 15}, 2000);
  sync.tick(2000 + InSync::patience_ms + 1);
  EXPECT_THAT(port.lost, ElementsAre(peer));
  EXPECT_THAT(port.told, IsEmpty()) << "stopped waiting too early";
  sync.recorded(9, {self});
  ASSERT_EQ(port.told.size(), 1u);
  EXPECT_THAT(port.told.back().first, IsEmpty());
}

TEST_F(InSyncTest, StuckPeerLeavesWithinTwoSeconds) {
  office();
  join();
  std::int64_t lost_at = 0;
  for (std::int64_t now = 2000; now < 6000 && lost_at == 0; now += 250) {
    sync.observe(peer, {"synchronized", 99, 50}, now);
    sync.tick(now);
    if (!port.lost.empty()) lost_at = now;
  }
  EXPECT_GT(lost_at, 2000);
  EXPECT_LE(lost_at, 4000);
}

TEST_F(InSyncTest, IdlePeerStays) {
  office();
  join();
  for (std::int64_t now = 2000; now < 20000; now += 250) {
    sync.observe(peer, {"synchronized", 50, 50}, now);
    sync.tick(now);
  }
  EXPECT_THAT(port.lost, IsEmpty());
}

TEST_F(InSyncTest, FrozenPassiveIsNotWaitedForAgainAfterItsRemoval) {
  office();
  join();
  std::int64_t now = 2000;
  for (; now < 4000 && port.lost.empty(); now += 250) {
    sync.observe(peer, {"synchronized", 99, 50}, now);
    sync.tick(now);
  }
  ASSERT_FALSE(port.lost.empty());
  sync.recorded(9, {self});
  EXPECT_THAT(port.told.back().first, IsEmpty()) << "waits for the frozen one again";
  port.answer();
  const auto told = port.told.size();
  for (const std::int64_t end = now + 60'000; now < end; now += 250) {
    sync.observe(peer, {"synchronized", 99, 50}, now);
    sync.tick(now);
  }
  EXPECT_EQ(port.told.size(), told);
  EXPECT_THAT(port.waiting, IsEmpty());
  sync.observe(peer, {"synchronized", 99, 99}, now);  // thawed
  sync.tick(now);
  ASSERT_GT(port.told.size(), told);
  port.answer();
  EXPECT_THAT(port.waiting, ElementsAre(std::make_pair(peer, std::uint64_t{9})));
}

TEST_F(InSyncTest, StuckSenderCountsAsStuck) {
  office();
  join();
  for (std::int64_t now = 2000, last = 60; now < 5000; now += 250) {
    sync.observe(peer, {"synchronized", static_cast<std::uint64_t>(last += 10), 50}, now);
    sync.tick(now);
  }
  EXPECT_FALSE(port.lost.empty());
}

TEST_F(InSyncTest, JoinerThatWasReportedStaysUntilTheCoreSaysSo) {
  const NodeId third{3};
  office();
  sync.observe(peer, {"synchronized", 10, 10}, 1000);
  port.answer();
  ASSERT_THAT(port.waiting, ElementsAre(std::make_pair(peer, std::uint64_t{7})));
  sync.observe(peer, {"lost", 20, 10}, 1100);
  sync.recorded(8, {self, third});  // another change came first
  EXPECT_THAT(port.told.back().first, ElementsAre(peer, third)) << "the core may still add it";
  sync.tick(1100 + InSync::patience_ms + 200);
  EXPECT_THAT(port.lost, ::testing::Contains(peer));
  sync.recorded(8, {self, third});  // the core's answer
  EXPECT_THAT(port.told.back().first, ElementsAre(third));
}

TEST_F(InSyncTest, RemovalIsToldAtOnceThoughAnEarlierSetHasNotSettled) {
  office();
  join();
  sync.recorded(9, {self, peer});
  const auto told = port.told.size();
  sync.recorded(10, {self});
  EXPECT_EQ(port.told.size(), told + 1);
}

TEST_F(InSyncTest, SpuriousRemovalIsToldAnewUnderTheNewVersion) {
  office();
  join();
  sync.recorded(9, {self});
  port.answer();
  ASSERT_FALSE(port.waiting.empty());
  EXPECT_EQ(port.waiting.back(), std::make_pair(peer, std::uint64_t{9}));
}

TEST_F(InSyncTest, JoinerThatWasSeenBeforeTheOfficeOpenedIsSaid) {
  sync.begin_office();
  sync.observe(peer, {"synchronized", 10, 10}, 1000);
  sync.recorded(7, {self});
  port.answer();
  EXPECT_THAT(port.waiting, ElementsAre(std::make_pair(peer, std::uint64_t{7})));
}

TEST_F(InSyncTest, JoinerIsSaidAgainUntilItIsRecorded) {
  office();
  sync.observe(peer, {"synchronized", 10, 10}, 1000);
  port.answer();
  sync.tick(1000 + InSync::repeat_ms / 2);
  EXPECT_EQ(port.waiting.size(), 1u);
  sync.tick(1000 + InSync::repeat_ms);
  port.answer();
  EXPECT_EQ(port.waiting.size(), 2u);
  sync.recorded(8, {self, peer});
  port.answer();
  sync.tick(1000 + 2 * InSync::repeat_ms);
  EXPECT_EQ(port.waiting.size(), 2u);
}

TEST_F(InSyncTest, AnswerOfAnEarlierOfficeDoesNotCount) {
  office();
  sync.observe(peer, {"synchronized", 10, 10}, 1000);
  auto late = port.told.back().second;
  sync.end_office();
  sync.begin_office();
  late(true);
  EXPECT_THAT(port.waiting, IsEmpty());
}

TEST_F(InSyncTest, WhoIsTooFarBehindLeavesTheSetAndIsBackAtHalfTheLimit) {
  sync.limit(60'000);
  office();
  join();
  std::int64_t now_ms = 1000;
  std::uint64_t acked = 10;
  // It never stands still: only how old it is counts.
  const auto live = [&](std::int64_t recovery_point_ms, std::int64_t for_ms) {
    for (const std::int64_t until_ms = now_ms + for_ms; now_ms < until_ms; now_ms += 250) {
      sync.observe(peer, {"synchronized", 1'000'000, ++acked, recovery_point_ms}, now_ms);
      sync.tick(now_ms);
    }
  };
  live(60'000, 5'000);
  EXPECT_THAT(port.lost, IsEmpty()) << "at the limit it is still a target";
  live(60'001, InSync::patience_ms + 500);
  EXPECT_THAT(port.lost, ::testing::Contains(peer));
  sync.recorded(9, {self});
  port.answer();
  port.waiting.clear();
  live(30'001, 5'000);
  EXPECT_THAT(port.waiting, IsEmpty()) << "it would come and go at the limit";
  live(30'000, 500);
  port.answer();
  EXPECT_THAT(port.waiting, ::testing::Contains(std::make_pair(peer, std::uint64_t{9})));
}

TEST_F(InSyncTest, NothingIsToldBeforeTheFirstVersionOfTheOfficeIsRecorded) {
  sync.begin_office();
  sync.observe(peer, {"synchronized", 10, 10}, 1000);
  sync.tick(1250);
  EXPECT_THAT(port.told, IsEmpty()) << "the mirror would let peers in that still count";
  sync.recorded(7, {self});
  EXPECT_EQ(port.told.size(), 1u);
}

TEST_F(InSyncTest, WhatTheMirrorDidNotTakeIsToldAgainWithoutAnyPeer) {
  sync.begin_office();
  sync.recorded(7, {self});
  ASSERT_EQ(port.told.size(), 1u);
  sync.tick(1000);
  EXPECT_EQ(port.told.size(), 1u) << "not answered yet";
  auto done = std::move(port.told.back().second);
  done(false);
  sync.tick(1250);
  ASSERT_EQ(port.told.size(), 2u);
  port.answer();
  sync.tick(1500);
  EXPECT_EQ(port.told.size(), 2u);
}

}  // namespace
}  // namespace holdfast::daemon
