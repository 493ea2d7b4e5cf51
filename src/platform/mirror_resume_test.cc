// SPDX-License-Identifier: Apache-2.0
// An epoch goes on in the next process of the node that leads it: nothing is copied again, and nothing is missed.
#include <gtest/gtest.h>

#include "platform/test_mirror_return.h"

namespace holdfast::platform {
namespace {

using mirror::NodeLog;
using mirror::PeerState;
using testing::MirrorReturn;
using testing::RandomApplication;
using testing::seeded;

class MirrorResume : public MirrorReturn {
 protected:
  static constexpr int patience_ms = 10000;
  // `a` ends, and comes back as the next process would.
  void restart(const NodeLog::Handed& handed) {
    a.stop();
    ASSERT_TRUE(a.start());
    a.runtime->set_peers({{b.id(), "peer", {b.address()}}});
    const Status resumed = a.log->resume(handed);
    ASSERT_TRUE(resumed) << resumed.error().to_string();
  }
  void hand_on_and_restart() {
    const auto handed = a.log->hand_on(patience_ms);
    ASSERT_TRUE(handed) << handed.error().to_string();
    EXPECT_EQ(handed->epoch, Epoch(1));
    restart(*handed);
  }
};

TEST_F(MirrorResume, TheEpochGoesOnWithoutAnythingBeingCopied) {
  ASSERT_NO_FATAL_FAILURE(begin());
  RandomApplication application(a, seeded(1));
  for (int round = 0; round < 3; ++round) {
    application.run(200);
    ASSERT_NO_FATAL_FAILURE(hand_on_and_restart());
    EXPECT_EQ(a.log->active_epoch(), Epoch(1));
    application.run(200);
    ASSERT_TRUE(synchronized(a));
    EXPECT_EQ(peer_of(a).resyncs, 0U);
    EXPECT_TRUE(equal(a, b));
  }
  // And it ends as any other.
  const auto end = a.log->end_epoch();
  ASSERT_TRUE(end);
  ASSERT_TRUE(a.log->wait_handed_over(b.id(), *end, patience_ms).value_or(false));
  ASSERT_TRUE(a.log->step_down(*end));
  take_over(b, 2);
  follow(a, b, 2);
  RandomApplication(b, seeded(2)).run(200);
  ASSERT_TRUE(synchronized(b));
  EXPECT_EQ(peer_of(b).resyncs, 0U);
  EXPECT_TRUE(equal(b, a));
}

// Whoever it waited for is waited for from the first answer on, connected or not.
TEST_F(MirrorResume, TheWaitSetIsThereFromTheBeginning) {
  ASSERT_NO_FATAL_FAILURE(begin());
  a.log->set_wait_set({b.id()});
  RandomApplication application(a, seeded(3));
  application.run(100);
  const auto handed = a.log->hand_on(patience_ms);
  ASSERT_TRUE(handed) << handed.error().to_string();
  b.runtime.reset();  // not to be reached
  a.stop();
  ASSERT_TRUE(a.start());
  a.runtime->set_peers({{b.id(), "peer", {}}});
  ASSERT_TRUE(a.log->resume(*handed));
  EXPECT_EQ(a.log->wait_set(), std::set<NodeId>{b.id()});
  application.run(1);
  a.log->set_application_waits(true);
  bool durable = false;
  a.log->capture_log().when_durable(a.log->capture_log().last_sequence(), [&] { durable = true; });
  EXPECT_FALSE(durable);
  a.log->set_wait_set({});
  EXPECT_TRUE(durable);
}

TEST_F(MirrorResume, WhoeverDoesNotHoldEverythingIsInTheWay) {
  ASSERT_NO_FATAL_FAILURE(begin());
  a.log->set_wait_set({b.id()});
  b.runtime.reset();
  RandomApplication(a, seeded(4)).run(50);
  const auto handed = a.log->hand_on(100);
  ASSERT_FALSE(handed);
  EXPECT_EQ(handed.error().code, ErrorCode::busy);
  // It leads on.
  RandomApplication(a, seeded(5)).run(50);
  a.log->set_wait_set({});
  ASSERT_TRUE(a.log->hand_on(patience_ms));
}

TEST_F(MirrorResume, WhoeverIsAwayIsComparedAsAWhole) {
  ASSERT_NO_FATAL_FAILURE(begin());
  RandomApplication application(a, seeded(6));
  b.stop();
  application.run(100);
  ASSERT_TRUE(
      wait(a, [&] { return peer_of(a).state == PeerState::lost || peer_of(a).state == PeerState::connecting; }));
  const auto handed = a.log->hand_on(patience_ms);
  ASSERT_TRUE(handed) << handed.error().to_string();
  a.stop();
  ASSERT_TRUE(a.start());
  ASSERT_TRUE(a.log->resume(*handed));
  application.run(100);
  ASSERT_TRUE(b.start());
  ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
  connect(a, b);
  ASSERT_TRUE(synchronized(a));
  EXPECT_GT(peer_of(a).resyncs, 0U);
  EXPECT_FALSE(peer_of(a).resync.partial);
  EXPECT_TRUE(equal(a, b));
}

// The next process never went on: it is what an active is that died.
TEST_F(MirrorResume, WhoDoesNotResumeIsReconciledAsAfterADeath) {
  ASSERT_NO_FATAL_FAILURE(begin(idle_files));
  RandomApplication application(a, seeded(7));
  application.run(200);
  ASSERT_NO_FATAL_FAILURE(hand_on_and_restart());
  application.run(100);
  ASSERT_TRUE(synchronized(a));
  ASSERT_TRUE(equal(a, b));
  const auto handed = a.log->hand_on(patience_ms);
  ASSERT_TRUE(handed) << handed.error().to_string();
  a.stop();
  take_over(b, 2);
  RandomApplication(b, seeded(8)).run(100);
  ASSERT_TRUE(a.start());
  follow(a, b, 2);
  ASSERT_TRUE(synchronized(b));
  EXPECT_TRUE(equal(b, a));
  // And the epoch is not to be had back.
  EXPECT_FALSE(a.log->resume(*handed));
}

TEST_F(MirrorResume, AnEpochThatIsOverIsNotResumed) {
  ASSERT_NO_FATAL_FAILURE(begin());
  auto handed = a.log->hand_on(patience_ms);
  ASSERT_TRUE(handed);
  a.stop();
  ASSERT_TRUE(a.start());
  auto wrong = *handed;
  wrong.epoch = wrong.end.epoch = Epoch(2);
  EXPECT_EQ(a.log->resume(wrong).error().code, ErrorCode::stale);
  ASSERT_TRUE(a.log->seal(Epoch(2)));  // promised to somebody
  EXPECT_EQ(a.log->resume(*handed).error().code, ErrorCode::stale);
}

}  // namespace
}  // namespace holdfast::platform
