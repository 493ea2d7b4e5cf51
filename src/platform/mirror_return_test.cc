// SPDX-License-Identifier: Apache-2.0
// An active whose epoch ended uncleanly returns to its successor, or leads again: only what it had noted as hot, and what changed since, is looked
// at, and the trees are equal. For more lives: HOLDFAST_TEST_SEED=N.
#include <gtest/gtest.h>

#include <thread>

#include "platform/test_mirror_return.h"

namespace holdfast::platform {
namespace {

using mirror::PeerState;
using testing::MirrorReturn;
using testing::RandomApplication;
using testing::seeded;
using testing::TestNode;

TEST_F(MirrorReturn, AnActiveThatDiedIsReconciledWhereItWasHot) {
  ASSERT_NO_FATAL_FAILURE(begin(idle_files));
  RandomApplication application(a, seeded(1));
  application.run(300);
  b.runtime.reset();
  application.run(200);  // nobody else ever hears of these
  a.stop();
  b.stop();
  ASSERT_TRUE(b.start());
  take_over(b, 2);
  RandomApplication(b, seeded(2)).run(300);
  ASSERT_TRUE(a.start());
  follow(a, b, 2);
  ASSERT_TRUE(synchronized(b));
  EXPECT_TRUE(reconciled(b));
  EXPECT_LT(peer_of(b).resync.opened, static_cast<std::uint64_t>(idle_files));
  EXPECT_TRUE(equal(b, a));
  // It is an ordinary passive from here on.
  RandomApplication(b, seeded(3)).run(200);
  EXPECT_TRUE(equal(b, a));
}

// In the same process, with changes that were under way when the epoch ended.
TEST_F(MirrorReturn, AnActiveThatWasFencedIsToo) {
  ASSERT_NO_FATAL_FAILURE(begin());
  std::atomic<bool> stop{false};
  std::thread straggler([&] {
    RandomApplication application(a, seeded(11));
    while (!stop) application.step();
  });
  RandomApplication(a, seeded(12)).run(100);
  ASSERT_TRUE(b.log->seal(Epoch(2)));  // cuts it off
  RandomApplication(a, seeded(13)).run(50);
  a.log->abort();
  take_over(b, 2);
  stop = true;
  straggler.join();
  follow(a, b, 2);
  RandomApplication(b, seeded(14)).run(100);
  ASSERT_TRUE(synchronized(b));
  EXPECT_TRUE(reconciled(b));
  EXPECT_TRUE(equal(b, a));
}

// While a change is under way it may still add to what is listed.
TEST_F(MirrorReturn, ItIsNotLetInWhileAChangeIsUnderWay) {
  ASSERT_NO_FATAL_FAILURE(begin());
  mirror::HotGate::Guard guard;
  const FileId root = FileId::root(1);
  ASSERT_TRUE(a.enter_hot(guard, 1, {{root, true}}));
  a.log->abort();
  take_over(b, 2);
  follow(a, b, 2);
  EXPECT_FALSE(wait(
      b, [&] { return peer_of(b).state == PeerState::resync; }, 1));
  EXPECT_TRUE(b.take_returns().empty());
  guard.leave();
  ASSERT_TRUE(synchronized(b));
  EXPECT_TRUE(reconciled(b));
  EXPECT_TRUE(equal(b, a));
}

TEST_F(MirrorReturn, OneThatLeadsAgainReconcilesItsPeerWhereItWasHot) {
  ASSERT_NO_FATAL_FAILURE(begin());
  RandomApplication application(a, seeded(21));
  application.run(300);
  b.runtime.reset();
  application.run(200);
  a.stop();
  b.stop();
  ASSERT_TRUE(a.start() && b.start());
  connect(a, b);
  const auto promoted = a.log->promote(Epoch(2));
  ASSERT_TRUE(promoted) << promoted.error().to_string();
  RandomApplication(a, seeded(22)).run(300);
  follow(b, a, 2);
  ASSERT_TRUE(synchronized(a));
  EXPECT_TRUE(peer_of(a).resync.partial);
  EXPECT_TRUE(equal(a, b));
  RandomApplication(a, seeded(23)).run(200);
  EXPECT_TRUE(equal(a, b));
}

TEST_F(MirrorReturn, ANodeThatDoesNotKnowOfListsIsComparedAsAWhole) {
  b.features = mirror::feature_partial_resync;
  ASSERT_NO_FATAL_FAILURE(begin());
  RandomApplication(a, seeded(31)).run(100);
  a.stop();
  take_over(b, 2);
  ASSERT_TRUE(a.start());
  follow(a, b, 2);
  ASSERT_TRUE(synchronized(b));
  const auto returns = b.take_returns();
  ASSERT_EQ(returns.size(), 1U);
  EXPECT_NE(returns[0].why_whole, "");
  EXPECT_FALSE(peer_of(b).resync.partial);
  EXPECT_TRUE(equal(b, a));
}

// A third node led between, here: the successor itself died and leads again. Nobody knows then what it lacks of the first epoch.
TEST_F(MirrorReturn, OneThatReturnsAfterTwoUncleanEndsIsComparedAsAWhole) {
  ASSERT_NO_FATAL_FAILURE(begin());
  RandomApplication(a, seeded(41)).run(100);
  a.stop();
  take_over(b, 2);
  RandomApplication(b, seeded(42)).run(100);
  b.stop();
  ASSERT_TRUE(b.start());
  ASSERT_TRUE(b.log->promote(Epoch(3)));
  ASSERT_TRUE(a.start());
  follow(a, b, 3);
  ASSERT_TRUE(synchronized(b));
  const auto returns = b.take_returns();
  ASSERT_EQ(returns.size(), 1U);
  EXPECT_NE(returns[0].why_whole, "");
  EXPECT_TRUE(equal(b, a));
}

// Whoever leads dies; the other one, or the same one, leads next; connections and processes end in the middle of what follows.
TEST_F(MirrorReturn, AgainAndAgain) {
  const unsigned seed = seeded(51);
  std::mt19937 random(seed);
  ASSERT_NO_FATAL_FAILURE(begin());
  TestNode *active = &a, *passive = &b;
  std::uint64_t epoch = 1;
  int partial = 0;
  for (int round = 0; round < 6; ++round) {
    SCOPED_TRACE(fmt::format("round {} seed {}", round, seed));
    RandomApplication(*active, static_cast<unsigned>(random())).run(static_cast<int>(random() % 300));
    if (random() % 2) passive->runtime.reset();
    RandomApplication(*active, static_cast<unsigned>(random())).run(static_cast<int>(random() % 200));
    active->stop();
    passive->stop();
    ++epoch;
    const bool same = random() % 3 == 0;
    if (!same) std::swap(active, passive);
    ASSERT_TRUE(active->start());
    ASSERT_TRUE(passive->start());
    if (same) {
      connect(*active, *passive);
      ASSERT_TRUE(active->log->promote(Epoch(epoch)));
    } else {
      take_over(*active, epoch);
    }
    RandomApplication application(*active, static_cast<unsigned>(random()));
    application.run(static_cast<int>(random() % 200));
    follow(*passive, *active, epoch);
    for (unsigned breaks = random() % 3; breaks > 0; --breaks) {
      application.run(static_cast<int>(random() % 100));
      passive->stop();  // in the middle of whatever it does
      application.run(static_cast<int>(random() % 100));
      ASSERT_TRUE(passive->start());
      follow(*passive, *active, epoch);
    }
    application.run(100);
    ASSERT_TRUE(synchronized(*active));
    partial += peer_of(*active).resync.partial;
    ASSERT_TRUE(equal(*active, *passive));
    settle(*active);
  }
  EXPECT_GE(partial, 4);
}

}  // namespace
}  // namespace holdfast::platform
