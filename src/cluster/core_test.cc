// SPDX-License-Identifier: Apache-2.0
// The transitions, one by one. What faults do to them in combination is the simulator's business.
#include "cluster/core.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cluster/test_cluster.h"

namespace holdfast::cluster {
namespace {

using ::testing::HasSubstr;

TEST_F(ClusterTest, FoundedJoinedSynchronizedAllVote) {
  start(true);
  EXPECT_EQ(at(n1).role(), Role::active);
  EXPECT_EQ(at(n1).epoch(), Epoch(1));
  const Value& v = *at(n1).value();
  EXPECT_EQ(v.in_sync, (std::vector<NodeId>{n1, n2}));
  for (const Member& m : v.members) EXPECT_TRUE(m.voter) << m.name;
  EXPECT_TRUE(v.old_voters.empty());
  EXPECT_EQ(*at(n2).value(), v);
  EXPECT_TRUE(at(n1).automatic_failover(now_).available);
  EXPECT_GT(at(n1).lease_left_ns(now_), 1700 * ns_per_ms);
}

TEST_F(ClusterTest, TheLeaseCountsFromWhenItWasAskedFor) {
  start(true);
  forget();
  pass(250);
  const auto x = seen<out::ExtendLease>(n1);
  ASSERT_FALSE(x.empty());
  EXPECT_LE(x.back().valid_until_holder_ns, now_.holder_ns + 2000 * ns_per_ms);
}

TEST_F(ClusterTest, ADeadActiveIsReplacedWithin2600Ms) {
  start(true);
  nodes_[n1].core.reset();
  std::int64_t took = 0;
  for (; at(n2).role() != Role::active && took < 10'000; took += 25) pass(25);
  EXPECT_LE(took, 2600);
  EXPECT_EQ(at(n2).epoch(), Epoch(2));
  EXPECT_EQ(at(n2).value()->in_sync, std::vector<NodeId>{n2});
}

TEST_F(ClusterTest, ACutOffActiveLosesItsLeaseAndStepsDownWhenItHearsOfTheNewOne) {
  start(true);
  nodes_[n1].cut = true;
  pass(4000);
  EXPECT_EQ(at(n1).lease_left_ns(now_), 0);
  EXPECT_EQ(at(n2).role(), Role::active);
  EXPECT_TRUE(seen<out::StepDown>(n1).empty());
  nodes_[n1].cut = false;
  pass(500);
  EXPECT_EQ(at(n1).role(), Role::passive);
  EXPECT_EQ(seen<out::StepDown>(n1).size(), 1U);
  ASSERT_EQ(seen<out::Follow>(n1).size(), 1U);
  EXPECT_EQ(seen<out::Follow>(n1)[0].active, n2);
}

TEST_F(ClusterTest, APassiveOutsideTheInSyncSetDoesNotTakeOverAndSaysWhy) {
  start(true);
  feed(n1, in::PeerLost{n2});
  pass(100);
  nodes_[n1].core.reset();
  pass(6000);
  EXPECT_EQ(at(n2).role(), Role::passive);
  feed(n2, in::Failover{false, 0, 42});
  pass(1500);
  ASSERT_EQ(seen<out::Answer>(n2).size(), 1U);
  EXPECT_FALSE(seen<out::Answer>(n2)[0].ok);
  EXPECT_THAT(seen<out::Answer>(n2)[0].reason, HasSubstr("not in the in-sync set"));
  feed(n2, in::Failover{true, 0, 43});
  pass(1500);
  EXPECT_EQ(at(n2).role(), Role::active);
}

// It would be elected, refuse, and be elected again.
TEST_F(ClusterTest, AMirrorThatCannotLeadNowSealsNothingAndSaysWhy) {
  start(true);
  feed(n2, in::MirrorState{{}, true, {}, false, "it waits for space: free some"});
  forget();
  nodes_[n1].core.reset();
  pass(6000);
  EXPECT_EQ(at(n2).role(), Role::passive);
  EXPECT_TRUE(seen<out::SealMirror>(n2).empty());
  EXPECT_THAT(seen<out::Note>(n2).at(0).text, HasSubstr("it waits for space: free some"));
  feed(n2, in::Failover{true, 0, 42});
  pass(1500);
  ASSERT_EQ(seen<out::Answer>(n2).size(), 1U);
  EXPECT_EQ(seen<out::Answer>(n2)[0].reason, "it waits for space: free some");
  feed(n2, in::MirrorState{{}, true, {}});
  pass(3000);
  EXPECT_EQ(at(n2).role(), Role::active) << "there is space again";
}

// I6. What was acknowledged while n2 was being resynchronized is not in its consistent point.
TEST_F(ClusterTest, AConsistentPointIsForAnAdministratorsForceOnly) {
  start(true);
  feed(n1, in::PeerLost{n2});
  pass(500);
  nodes_[n2].complete = false;
  nodes_[n2].point = true;
  feed(n2, in::MirrorState{{}, false, {}, true});
  nodes_[n1].core.reset();
  pass(10'000);
  EXPECT_EQ(at(n2).role(), Role::passive);
  feed(n2, in::Failover{false, 0, 60});
  pass(5000);
  ASSERT_FALSE(seen<out::Answer>(n2).empty());
  EXPECT_FALSE(seen<out::Answer>(n2).back().ok);
  for (const auto& s : seen<out::SealMirror>(n2)) EXPECT_FALSE(s.look_back) << "nobody accepts an older point";
  feed(n2, in::Failover{true, 1'000'000, 61});
  pass(5000);
  EXPECT_EQ(at(n2).role(), Role::active);
  ASSERT_FALSE(seen<out::BecomeActive>(n2).empty());
  EXPECT_TRUE(seen<out::BecomeActive>(n2).back().older);
  EXPECT_FALSE(at(n2).value()->is_in_sync(n1));
}

// I6. The way back neither drains what was received nor needs room for the history of it: what apply waits for is nothing to it.
TEST_F(ClusterTest, AForceTakesThePointOfAMirrorThatCannotLeadNow) {
  start(true);
  feed(n1, in::PeerLost{n2});
  pass(500);
  nodes_[n2].complete = false;
  nodes_[n2].point = true;
  feed(n2, in::MirrorState{{}, false, {}, true, "it waits for space: free some"});
  nodes_[n1].core.reset();
  pass(5000);
  EXPECT_EQ(at(n2).role(), Role::passive);
  feed(n2, in::Failover{true, 1'000'000, 61});
  pass(5000);
  EXPECT_EQ(at(n2).role(), Role::active);
  ASSERT_FALSE(seen<out::BecomeActive>(n2).empty());
  EXPECT_TRUE(seen<out::BecomeActive>(n2).back().older);
}

// The point is checked before anything is recorded: a node that can't go back must not win, or nobody could serve.
TEST_F(ClusterTest, AConsistentPointThatCantBeReachedDoesNotWin) {
  start(true);
  feed(n1, in::PeerLost{n2});
  pass(500);
  nodes_[n2].complete = false;
  feed(n2, in::MirrorState{{}, false, {}, true});
  nodes_[n1].core.reset();
  pass(5000);
  feed(n2, in::Failover{true, 1'000'000, 61});
  pass(5000);
  EXPECT_EQ(at(n2).role(), Role::passive);
  ASSERT_FALSE(seen<out::Answer>(n2).empty());
  EXPECT_FALSE(seen<out::Answer>(n2).back().ok);
  EXPECT_THAT(seen<out::Answer>(n2).back().reason, HasSubstr("damaged"));
}

TEST_F(ClusterTest, WithAutomaticFailoverOffAPersonDecides) {
  start(true);
  Settings s = at(n1).value()->settings;
  s.automatic_failover = false;
  feed(n1, in::ProposeConfig{"{}", s, at(n1).value()->config_version, 5});
  pass(300);
  EXPECT_FALSE(at(n1).automatic_failover(now_).available);
  nodes_[n1].core.reset();
  pass(8000);
  EXPECT_EQ(at(n2).role(), Role::passive);
  feed(n2, in::Failover{false, 0, 42});
  pass(200);
  EXPECT_EQ(at(n2).role(), Role::active);
}

TEST_F(ClusterTest, AnActiveThatIsStillSeenIsNotReplaced) {
  start(true);
  feed(n2, in::Observed{true});
  nodes_[n1].core.reset();
  pass(6000);
  EXPECT_EQ(at(n2).role(), Role::passive);
  feed(n2, in::Observed{false});
  pass(500);
  EXPECT_EQ(at(n2).role(), Role::active);
}

TEST_F(ClusterTest, ADeadMirrorsResignationIsFollowedAtOnce) {
  start(true);
  feed(n1, in::Resign{});
  pass(200);
  EXPECT_EQ(at(n2).role(), Role::active);
  EXPECT_EQ(at(n1).role(), Role::passive);
  EXPECT_EQ(seen<out::ClearLease>(n1).size(), 1U);
}

TEST_F(ClusterTest, AHandoverTakesMilliseconds) {
  start(true);
  feed(n1, in::Handover{n2, 50});
  pass(100);
  EXPECT_EQ(at(n2).role(), Role::active);
  EXPECT_EQ(at(n2).epoch(), Epoch(2));
  EXPECT_TRUE(seen<out::StepDown>(n1).empty());
}

TEST_F(ClusterTest, AnOrderReachesOnlyTheSuccessorThatTheHolderNamed) {
  start(true);
  forget();
  feed(n1, in::Handover{n2, 5, 77});
  pass(200);
  ASSERT_EQ(seen<out::BecomeActive>(n2).size(), 1U);
  EXPECT_EQ(seen<out::BecomeActive>(n2)[0].order, 77U);
  ASSERT_TRUE(seen<out::BecomeActive>(n2)[0].over);
  EXPECT_EQ(seen<out::BecomeActive>(n2)[0].over->epoch(), Epoch(1));
  EXPECT_EQ(seen<out::BecomeActive>(n2)[0].over->active, n1);
  feed(n2, in::Activated{Epoch(2)});
  // The next one to win on its own account has nothing of it.
  forget();
  nodes_[n2].cut = true;
  pass(3000);
  ASSERT_EQ(seen<out::BecomeActive>(n1).size(), 0U) << "not in sync yet";
  nodes_[n2].cut = false;
  pass(3000);
  feed(n2, in::WaitingFor{n1, at(n2).value()->in_sync_version});
  pass(500);
  nodes_[n2].cut = true;
  pass(4000);
  ASSERT_EQ(seen<out::BecomeActive>(n1).size(), 1U);
  EXPECT_EQ(seen<out::BecomeActive>(n1)[0].order, 0U);
}

// Its word did not arrive: it wins by itself, and does nothing but take over.
TEST_F(ClusterTest, ASuccessorThatDidNotHearTheOrderDoesNotCarryItOut) {
  start(true);
  forget();
  nodes_[n2].cut = true;
  feed(n1, in::Handover{n2, 5, 77});
  nodes_[n1].cut = true;
  nodes_[n2].cut = false;
  pass(4000);
  ASSERT_EQ(seen<out::BecomeActive>(n2).size(), 1U);
  EXPECT_EQ(seen<out::BecomeActive>(n2)[0].order, 0U);
}

TEST_F(ClusterTest, AnOrderOfAWishIsWonByThatWishOnly) {
  start(true);
  forget();
  nodes_[n1].cut = true;
  // An automatic candidacy is under way when it is asked for.
  nodes_[w1].cut = true;
  for (int i = 0; i < 200 && at(n2).role() == Role::passive; ++i) pass(25);
  ASSERT_EQ(at(n2).role(), Role::canvassing);
  nodes_[w1].cut = false;
  feed(n2, in::Failover{true, 0, 60, 88});
  pass(4000);
  ASSERT_EQ(seen<out::BecomeActive>(n2).size(), 1U);
  EXPECT_EQ(seen<out::BecomeActive>(n2)[0].order, 88U);
  EXPECT_EQ(at(n2).value()->in_sync, (std::vector<NodeId>{n2})) << "by force, not by the candidacy before";
}

TEST_F(ClusterTest, AHandoverToWhoIsNotInSyncIsRefused) {
  start(true);
  feed(n1, in::PeerLost{n2});
  pass(100);
  feed(n1, in::Handover{n2, 50});
  EXPECT_THAT(seen<out::Answer>(n1).back().reason, HasSubstr("not synchronized"));
  EXPECT_EQ(at(n1).role(), Role::active);
}

TEST_F(ClusterTest, AHandoverNobodyTakesGoesBackToTheOldActiveInTheNextEpoch) {
  start(true);
  nodes_[n2].cut = true;
  feed(n1, in::Handover{n2, 50});
  pass(5000);
  EXPECT_EQ(at(n1).role(), Role::active);
  EXPECT_EQ(at(n1).epoch(), Epoch(2));
}

TEST_F(ClusterTest, APairWithoutWitnessHasOneVoterTheActive) {
  start(false);
  EXPECT_TRUE(at(n1).value()->member(n1)->voter);
  EXPECT_FALSE(at(n1).value()->member(n2)->voter);
  EXPECT_THAT(at(n1).automatic_failover(now_).reason, HasSubstr("without witness"));
  feed(n1, in::Handover{n2, 50});
  pass(1500);
  EXPECT_EQ(at(n2).role(), Role::active);
  EXPECT_FALSE(at(n2).value()->member(n1)->voter);
  nodes_[n1].cut = true;
  pass(5000);
  EXPECT_GT(at(n2).lease_left_ns(now_), 0);  // alone it goes on
}

TEST_F(ClusterTest, ForcedWithoutWitnessTheOldActiveStepsDownOnContact) {
  start(false);
  nodes_[n1].cut = true;
  pass(3000);
  feed(n2, in::Failover{true, 0, 60});
  pass(3000);
  EXPECT_EQ(at(n2).role(), Role::active);
  EXPECT_GT(at(n2).epoch(), Epoch(1000));
  nodes_[n1].cut = false;
  pass(1000);
  EXPECT_EQ(at(n1).role(), Role::passive);
  EXPECT_EQ(at(n1).active(), n2);
}

TEST_F(ClusterTest, ForceIsRefusedWhileTheActiveAnswers) {
  start(false);
  feed(n2, in::Failover{true, 0, 60});
  pass(12'000);
  EXPECT_EQ(at(n1).role(), Role::active);
  ASSERT_FALSE(seen<out::Answer>(n2).empty());
  EXPECT_FALSE(seen<out::Answer>(n2).back().ok);
}

TEST_F(ClusterTest, ASoleVoterThatRestartedNeedsItsPeer) {
  start(false);
  const VoterState disk = at(n1).voter().state();
  nodes_[n2].cut = true;
  nodes_[n1].core = std::make_unique<Core>(CoreOptions{the_cluster, n1, 5, {}});
  feed(n1, in::Started{disk, {}});
  feed(n1, in::MirrorState{{}, true, {}});
  pass(6000);
  EXPECT_NE(at(n1).role(), Role::active);
  EXPECT_THAT(at(n1).last_refusal(), HasSubstr("peer does not answer"));
  nodes_[n2].cut = false;
  pass(3000);
  EXPECT_EQ(at(n1).role(), Role::active);
}

TEST_F(ClusterTest, ARestartWithinTheLeaseKeepsTheEpoch) {
  start(true);
  const VoterState disk = at(n1).voter().state();
  nodes_[n1].core = std::make_unique<Core>(CoreOptions{the_cluster, n1, 5, {}});
  feed(n1, in::Started{disk, {}, true});
  pass(300);
  EXPECT_EQ(at(n1).role(), Role::active);
  EXPECT_EQ(at(n1).epoch(), Epoch(1));
  EXPECT_EQ(at(n1).value()->in_sync.size(), 2U);
}

TEST_F(ClusterTest, AWitnessWithoutMemoryDoesNotCountUntilReadmitted) {
  start(true);
  nodes_[n1].cut = true;
  nodes_[w1].voter = std::make_unique<VoterCore>(the_cluster, w1, MemberKind::witness);
  feed(w1, in::Started{std::nullopt, Incarnation(99)});
  pass(8000);
  EXPECT_NE(at(n2).role(), Role::active);
  nodes_[n1].cut = false;
  pass(3000);
  const Core& active = at(n1).role() == Role::active ? at(n1) : at(n2);
  EXPECT_EQ(active.role(), Role::active);
  EXPECT_EQ(active.value()->member(w1)->incarnation, Incarnation(99));
}

TEST_F(ClusterTest, AWaitThatBeganBeforeARemovalIsVoid) {
  start(true);
  const std::uint64_t before = at(n1).value()->in_sync_version;
  feed(n1, in::PeerLost{n2});
  pass(100);
  feed(n1, in::WaitingFor{n2, before});
  pass(300);
  EXPECT_FALSE(at(n1).value()->is_in_sync(n2));
  feed(n1, in::WaitingFor{n2, at(n1).value()->in_sync_version});
  pass(300);
  EXPECT_TRUE(at(n1).value()->is_in_sync(n2));
}

TEST_F(ClusterTest, ARemovalIsSaidOnlyWhenAMajorityHasIt) {
  start(true);
  nodes_[n2].cut = nodes_[w1].cut = true;
  forget();
  feed(n1, in::PeerLost{n2});
  pass(1000);
  EXPECT_TRUE(seen<out::InSyncRecorded>(n1).empty());
  nodes_[w1].cut = false;
  pass(500);
  EXPECT_EQ(seen<out::InSyncRecorded>(n1).size(), 1U);
}

// Found by the simulator: the peer that is lost is another one than the peer that is being added.
TEST_F(ClusterTest, WhileAJoinIsOnItsWayNoSetWithoutTheJoinerIsSaid) {
  start(true);
  feed(n1, in::PeerLost{n2});
  pass(100);
  nodes_[n2].cut = nodes_[w1].cut = true;
  feed(n1, in::WaitingFor{n2, at(n1).value()->in_sync_version});  // can't be recorded now
  forget();
  feed(n1, in::PeerLost{NodeId(3)});
  EXPECT_TRUE(seen<out::InSyncRecorded>(n1).empty());
}

// Found by the simulator: each side was promoted by force while the other one was down.
TEST_F(ClusterTest, OfTwoForcedPromotionsTheLaterOneCounts) {
  start(false);
  const VoterState old = at(n1).voter().state();
  nodes_[n1].core.reset();
  feed(n2, in::Failover{true, 1'000'000, 60});
  pass(5000);
  EXPECT_EQ(at(n2).role(), Role::active);
  nodes_[n2].cut = true;
  nodes_[n1].core = std::make_unique<Core>(CoreOptions{the_cluster, n1, 5, {}});
  feed(n1, in::Started{old, {}});
  feed(n1, in::MirrorState{{}, true, {}});
  feed(n1, in::Failover{true, 1'000'060, 61});
  pass(5000);
  EXPECT_EQ(at(n1).role(), Role::active);
  nodes_[n2].cut = false;
  pass(1000);
  EXPECT_EQ(at(n1).role(), Role::active);
  EXPECT_EQ(at(n2).active(), n1);
}

// What a mirror that cannot open costs: nothing; the old active takes the epoch after.
TEST_F(ClusterTest, BeforeTheMirrorCapturesThereIsNoLeaseAndTheOthersStayEligible) {
  wait_for_activation_ = true;
  start(true);
  feed(n1, in::Handover{n2, 50});
  pass(1000);
  EXPECT_EQ(at(n2).role(), Role::active);
  EXPECT_TRUE(seen<out::ExtendLease>(n2).empty());
  EXPECT_TRUE(at(n2).value()->is_in_sync(n1));
  feed(n2, in::Resign{n1});
  pass(200);
  EXPECT_EQ(at(n1).role(), Role::active);
  feed(n1, in::Activated{at(n1).epoch()});
  pass(300);
  EXPECT_FALSE(seen<out::ExtendLease>(n1).empty());
  EXPECT_EQ(at(n1).value()->in_sync, std::vector<NodeId>{n1});
}

TEST_F(ClusterTest, AChangeOfAnOldConfigurationIsRefused) {
  start(true);
  feed(n1, in::ProposeConfig{"{\"a\":1}", {}, 1234, 70});
  EXPECT_FALSE(seen<out::Answer>(n1).back().ok);
  feed(n1, in::ProposeConfig{"{\"a\":1}", {}, at(n1).value()->config_version, 71});
  pass(300);
  EXPECT_TRUE(seen<out::Answer>(n1).back().ok);
  EXPECT_EQ(at(n2).value()->config, "{\"a\":1}");
}

TEST_F(ClusterTest, ASealThatOutlivedItsPromiseEndsTheEpoch) {
  start(true);
  feed(n2, in::MirrorState{{}, true, Epoch(2)});
  pass(4000);
  const Core& active = at(n1).role() == Role::active ? at(n1) : at(n2);
  EXPECT_EQ(active.role(), Role::active);
  EXPECT_GT(active.epoch(), Epoch(2));
}

}  // namespace
}  // namespace holdfast::cluster
