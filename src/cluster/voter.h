// SPDX-License-Identifier: Apache-2.0
// One voter of one cluster: promises, votes, accepts. Every data node has one inside its Core; a witness is only this.
// Pure: no clock, no I/O, one thread at a time.
#pragma once

#include <deque>

#include "cluster/step.h"

namespace holdfast::cluster {

// Bugs planted on purpose, for the simulator to catch; all off outside of tests.
struct Mutation {
  bool ack_before_persist = false;
  bool no_drift_margin = false;
  bool no_restart_silence = false;
  bool stale_promise = false;  // votes although another one's lease was promised
  bool vote_before_seal = false;
  bool own_claim_of_in_sync = false;
  bool any_incarnation_votes = false;
  bool lease_from_ack = false;           // the lease counts from when the ack came
  bool lease_of_one = false;             // any voter's ack extends the lease
  bool joiner_without_wait = false;      // adds a joiner although the mirror does not wait for it
  bool removal_before_recorded = false;  // lets the mirror stop waiting when a removal is proposed
  bool promise_on_holder_clock = false;  // a voter's promise on the wall clock
  bool propose_before_own_accept = false;
  bool votes_twice = false;        // gives an epoch's vote to a second candidate
  bool sole_voter_alone = false;   // a sole voter goes on after a restart without contact
  bool fallback_unforced = false;  // a consistent point counts as a copy without an administrator's word
};

struct VoterView {
  Epoch promised;
  NodeId promised_to;
  bool promise_holds = false;  // a lease promised to promised_to has not run out
  std::int64_t promise_left_ns = 0;
};

class VoterCore {
 public:
  VoterCore(ClusterId cluster, NodeId self, MemberKind kind, Mutation mutation = {});

  // A witness feeds Started, Received, Persisted, Tick. What is not a voter's business is ignored.
  Actions step(const Input& input, Now now);
  // The witness creates one VoterCore for a cluster with its first message; until then there is nothing to keep.

  bool started() const { return started_; }
  const VoterState& state() const { return state_; }
  const ValuePtr& accepted() const { return state_.accepted; }
  VoterView view(Now now) const;
  // Time until this voter could promise `candidate` a new epoch; 0 = now.
  std::int64_t blocked_for_ns(NodeId candidate, Now now) const;

  // For the Core around it: everything is appended to `out`; messages to self come back through Received like any other.
  void step(const Input& input, Now now, Actions& out);
  void on_message(const Envelope& e, Now now, Actions& out);
  // As if the winner's Accept had reached us, but nobody waits for an ack. False if we have promised a newer epoch.
  bool learn(const ValuePtr& value, Actions& out);
  void forgive_silence() { silent_until_ = 0; }
  bool all_persisted() const { return persisted_ >= persist_id_; }

 private:
  struct PendingVote {
    NodeId candidate;
    VoteRequest request;
    std::int64_t since_voter_ns = 0;
  };
  struct Held {
    std::uint64_t needs = 0;
    Envelope envelope;
  };

  void on_started(const in::Started& s, Now now, Actions& out);
  void on_canvass(NodeId from, const Canvass& m, Now now, Actions& out);
  void on_vote_request(NodeId from, const VoteRequest& m, Now now, Actions& out);
  void on_sealed(const in::MirrorSealed& s, Now now, Actions& out);
  void on_accept(NodeId from, const Accept& m, Actions& out);
  void on_renew(NodeId from, const Renew& m, Now now, Actions& out);
  void on_resign(NodeId from, const Resign& m);
  void on_persisted(std::uint64_t id, Actions& out);
  bool refuses(NodeId candidate, const VoteRequest& m, Now now, Actions& out);
  void grant(const PendingVote& vote, Position position, bool complete, Actions& out);
  void nack(NodeId to, Epoch refused, std::uint64_t round, std::int64_t wait_ns, Actions& out);
  bool sealing_for_newer_than(Epoch epoch, Now now) const;
  void persist(Actions& out);
  void send_when_persisted(NodeId to, Body body, Actions& out);
  std::int64_t promise_clock(Now now) const { return mutation_.promise_on_holder_clock ? now.holder_ns : now.voter_ns; }

  const ClusterId cluster_;
  const NodeId self_;
  const MemberKind kind_;
  const Mutation mutation_;

  bool started_ = false;
  VoterState state_;
  Position position_hint_;
  bool complete_hint_ = false, can_lead_ = true;

  // Not durable: a voter that restarts makes up for it by silence (silent_until_).
  std::int64_t silent_until_ = 0;
  std::int64_t promise_until_ = 0;  // of the lease of state_.promised_to in state_.promised
  Epoch resigned_;

  std::optional<PendingVote> voting_;  // waits for the mirror's seal
  std::uint64_t persist_id_ = 0, persisted_ = 0;
  std::deque<Held> held_;  // waits for Persisted
};

}  // namespace holdfast::cluster
