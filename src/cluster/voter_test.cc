// SPDX-License-Identifier: Apache-2.0
// A voter, and what a quorum is, one transition at a time.
#include "cluster/voter.h"

#include <gtest/gtest.h>

#include "cluster/test_actions.h"

namespace holdfast::cluster {
namespace {

constexpr ClusterId the_cluster(7);
constexpr NodeId n1(1), n2(2), w1(9);

// A witness alone, fed by hand.
class VoterTest : public ::testing::Test {
 protected:
  Actions feed(const Input& i) { return voter_.step(i, now_); }
  Actions receive(NodeId from, Body b) { return feed(in::Received{{the_cluster, from, w1, std::move(b)}}); }
  void pass(std::int64_t ms) {
    now_.holder_ns += ms * ns_per_ms;
    now_.voter_ns += ms * ns_per_ms;
  }
  Actions persisted(const Actions& a) {
    Actions after;
    for (const auto& p : all<out::Persist>(a))
      for (auto& x : feed(in::Persisted{p.id})) after.push_back(x);
    return after;
  }
  void start_quiet(VoterState s = {Incarnation(5), {}, {}, nullptr}) {
    feed(in::Started{s, {}});
    pass(3000);
  }
  ValuePtr value(Epoch e, std::uint64_t number, NodeId active) {
    Value v;
    v.revision = {e, number};
    v.active = active;
    v.in_sync = {n1, n2};
    v.members = {Member{n1, "n1", "", 1, MemberKind::data, true, Incarnation(1)},
                 Member{n2, "n2", "", 2, MemberKind::data, true, Incarnation(2)},
                 Member{w1, "w1", "", 0, MemberKind::witness, true, Incarnation(5)}};
    return std::make_shared<const Value>(v);
  }
  VoterCore voter_{the_cluster, w1, MemberKind::witness};
  Now now_;
};

TEST_F(VoterTest, AVoteLeavesOnlyAfterItIsOnDisk) {
  start_quiet();
  const Actions a = receive(n1, VoteRequest{1, Epoch(4)});
  EXPECT_TRUE(sent<Vote>(a).empty());
  ASSERT_EQ(all<out::Persist>(a).size(), 1U);
  EXPECT_EQ(all<out::Persist>(a)[0].state.promised, Epoch(4));
  EXPECT_EQ(sent<Vote>(persisted(a)).size(), 1U);
}

TEST_F(VoterTest, OneEpochOneCandidate) {
  start_quiet();
  persisted(receive(n1, VoteRequest{1, Epoch(4)}));
  EXPECT_EQ(sent<Nack>(receive(n2, VoteRequest{2, Epoch(4)})).size(), 1U);
  EXPECT_EQ(sent<Vote>(receive(n1, VoteRequest{3, Epoch(4)})).size(), 1U);
  EXPECT_EQ(sent<Nack>(receive(n1, VoteRequest{4, Epoch(3)})).size(), 1U);
}

TEST_F(VoterTest, ARestartedVoterIsSilentForTheLongestLeaseAndMargin) {
  feed(in::Started{VoterState{Incarnation(5), Epoch(3), n1, nullptr}, {}});
  EXPECT_EQ(sent<Nack>(receive(n2, VoteRequest{1, Epoch(4)})).size(), 1U);
  pass(2000);
  EXPECT_EQ(sent<Nack>(receive(n2, VoteRequest{1, Epoch(4)})).size(), 1U);
  pass(60);
  EXPECT_EQ(sent<Vote>(persisted(receive(n2, VoteRequest{1, Epoch(4)}))).size(), 1U);
}

TEST_F(VoterTest, ARestartedVoterDoesNotKeepTheHolderWaiting) {
  feed(in::Started{VoterState{Incarnation(5), Epoch(3), n1, nullptr}, {}});
  EXPECT_EQ(sent<Vote>(persisted(receive(n1, VoteRequest{1, Epoch(4)}))).size(), 1U);
}

TEST_F(VoterTest, ALeaseIsPromisedForItsTimeAndMarginOnTheVotersScale) {
  start_quiet();
  persisted(receive(n1, Accept{value(Epoch(1), 1, n1)}));
  const auto renewed = sent<Renewed>(receive(n1, Renew{{Epoch(1), 1}, 77, 2000}));
  ASSERT_EQ(renewed.size(), 1U);
  EXPECT_TRUE(renewed[0].promised);
  EXPECT_EQ(renewed[0].beat, 77U);
  now_.holder_ns += 3600'000 * ns_per_ms;  // the wall clock jumps: no concern of a promise
  EXPECT_EQ(sent<Nack>(receive(n2, VoteRequest{1, Epoch(2)})).size(), 1U);
  pass(2000 + 31);
  EXPECT_EQ(sent<Nack>(receive(n2, VoteRequest{1, Epoch(2)})).size(), 1U);
  pass(21);
  EXPECT_EQ(sent<Vote>(persisted(receive(n2, VoteRequest{1, Epoch(2)}))).size(), 1U);
}

TEST_F(VoterTest, NoPromiseToWhoHoldsANewerValueThanWeDo) {
  start_quiet();
  persisted(receive(n1, Accept{value(Epoch(1), 1, n1)}));
  const auto renewed = sent<Renewed>(receive(n1, Renew{{Epoch(1), 2}, 77, 2000}));
  ASSERT_EQ(renewed.size(), 1U);
  EXPECT_FALSE(renewed[0].promised);
  EXPECT_EQ(voter_.blocked_for_ns(n2, now_), 0);
}

TEST_F(VoterTest, AResignationVoidsThePromiseOfItsEpochOnly) {
  start_quiet();
  persisted(receive(n1, Accept{value(Epoch(1), 1, n1)}));
  receive(n1, Renew{{Epoch(1), 1}, 77, 2000});
  receive(n1, Resign{Epoch(0), {}});
  EXPECT_GT(voter_.blocked_for_ns(n2, now_), 0);
  receive(n2, Resign{Epoch(1), {}});
  EXPECT_GT(voter_.blocked_for_ns(n2, now_), 0);
  receive(n1, Resign{Epoch(1), {}});
  EXPECT_EQ(voter_.blocked_for_ns(n2, now_), 0);
  EXPECT_TRUE(sent<Renewed>(receive(n1, Renew{{Epoch(1), 1}, 78, 2000})).empty());  // a late beat of a closed epoch
}

TEST_F(VoterTest, AnOlderEpochIsToldTheNewerValue) {
  start_quiet();
  persisted(receive(n2, Accept{value(Epoch(5), 1, n2)}));
  const auto nacks = sent<Nack>(receive(n1, Renew{{Epoch(1), 1}, 77, 2000}));
  ASSERT_EQ(nacks.size(), 1U);
  EXPECT_EQ(nacks[0].promised, Epoch(5));
  ASSERT_TRUE(nacks[0].newer);
  EXPECT_EQ(nacks[0].newer->active, n2);
}

TEST_F(VoterTest, ALaterVoteOfTheSameEpochGivesWayToItsWinner) {
  start_quiet();
  persisted(receive(n1, VoteRequest{1, Epoch(4)}));
  EXPECT_EQ(sent<Accepted>(persisted(receive(n2, Accept{value(Epoch(4), 1, n2)}))).size(), 1U);
  EXPECT_EQ(voter_.state().promised_to, n2);
}

TEST(Quorum, WhileVotersChangeBothSetsCount) {
  Value v;
  for (std::uint64_t i = 1; i <= 3; ++i)
    v.members.push_back(Member{NodeId(i), "", "", 0, MemberKind::data, true, Incarnation(i)});
  v.old_voters = {{NodeId(1), Incarnation(1)}};
  const auto by = [&](std::set<std::uint64_t> yes) {
    return quorum(v, [&](NodeId id, Incarnation) { return yes.contains(id.value); });
  };
  EXPECT_TRUE(by({1, 2}));
  EXPECT_FALSE(by({2, 3}));
  EXPECT_FALSE(by({1}));
  v.old_voters.clear();
  EXPECT_TRUE(by({2, 3}));
}

}  // namespace
}  // namespace holdfast::cluster
