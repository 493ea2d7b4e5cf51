// SPDX-License-Identifier: Apache-2.0
// A data node's part in the cluster: its voter, its candidacy, and what it does while it is the active.
// Pure: step(input, now) -> actions. No clock, no I/O; one thread at a time; same inputs, same actions.
//
// Who votes: with a witness, or with three data nodes, all members. A pair without witness has one voter, the active.
// The active moves the register's voter set there; while it changes, majorities of both sets are needed.
#pragma once

#include <map>
#include <set>
#include <string>

#include "cluster/voter.h"

namespace holdfast::cluster {

struct CoreOptions {
  ClusterId cluster;
  NodeId self;
  std::uint64_t seed = 1;  // random: back-off of candidates, names of rounds
  Mutation mutation;
  // No lease, and the others stay eligible, until in::Activated says that the mirror of a new epoch captures.
  bool wait_for_activation = false;
};

enum class Role : std::uint8_t {
  stopped,  // before Started
  passive,
  canvassing,  // asks who would vote; nothing is sealed yet
  electing,    // seals itself, then collects votes
  recording,   // has the votes; its first value is on its way to a majority
  active,      // its epoch is recorded; may write while the lease word holds
};
const char* to_string(Role role);

struct VoteStatus {
  NodeId id;
  std::string name;
  MemberKind kind = MemberKind::data;
  bool voter = false;
  bool reachable = false;  // answered within the lease (seen from the active; from others: what they heard themselves)
  bool granted = false;    // has promised its lease/vote to the present active
  bool readmission_needed = false;       // its incarnation is not the one the cluster knows (R9)
  std::int64_t last_answer_age_ns = -1;  // -1 = never
};

// One sentence why, and what would lift it; both empty when available.
struct Availability {
  bool available = false;
  std::string reason;
  std::string change_with;
};

class Core {
 public:
  explicit Core(CoreOptions options);

  Actions step(const Input& input, Now now);
  // Feed Tick when this much has passed (both scales; at most 250 ms). Cheap.
  std::int64_t wake_after_ns(Now now) const;

  Role role() const { return role_; }
  // Of the newest value known here; 0 before the cluster exists.
  Epoch epoch() const { return known_ ? known_->epoch() : Epoch{}; }
  NodeId active() const { return known_ ? known_->active : NodeId{}; }
  // The newest value known here (null before found/joined). On the active while a change is on its way: the recorded one.
  const ValuePtr& value() const { return role_ == Role::active ? recorded_ : known_; }
  const VoterCore& voter() const { return voter_; }
  // On the active: what is left of the lease as acked by a majority. Elsewhere: of the promise its own voter gave.
  std::int64_t lease_left_ns(Now now) const;
  std::vector<VoteStatus> votes(Now now) const;
  Availability automatic_failover(Now now) const;  // would the cluster survive the loss of its active by itself?
  const std::string& last_refusal() const { return last_refusal_; }  // why the last candidacy here was abandoned

 private:
  // Why this node is a candidate; decides what it must show before it may win.
  enum class Kind : std::uint8_t {
    automatic,  // the lease of another one ran out
    returning,  // the register names this node active, and it lost its epoch (restart, fence, a handover nobody took)
    successor,  // the active resigned in its favour
    managed,    // an administrator asks
    forced,     // an administrator accepts loss, and vouches that the active is gone
  };
  struct Ballot {
    bool granted = false;
    Epoch promised;
    Position position;
    bool complete = false;
    Incarnation incarnation;
    ValuePtr accepted;
  };
  struct Campaign {
    Kind kind = Kind::automatic;
    std::uint64_t round = 0;
    Epoch epoch;  // once electing
    Epoch highest_promise;
    std::int64_t began_ns = 0;
    std::int64_t resend_ns = 0;
    bool own_vote = false;
    bool refound = false;     // no quorum: voters become {self}
    bool unheard = false;     // forced, and there may be epochs this node has not heard of
    bool looks_back = false;  // the mirror here was asked for its consistent point
    bool fallback = false;    // its mirror, once sealed, can go back to a consistent point
    std::string no_fallback;
    std::uint64_t order = 0;
    std::string obstacle;  // why somebody said no
    std::map<NodeId, Ballot> ballots;
  };
  struct Peer {
    std::int64_t answered_ns = -1;       // when its last message came
    std::int64_t granted_until_ns = -1;  // of its newest answered beat: sent + lease
    std::int64_t granted_sent_ns = -1;
    Incarnation incarnation;
    Revision accepted;
  };
  struct Beat {
    std::uint64_t id = 0;
    std::int64_t sent_ns = 0;
    std::int64_t lease_ns = 0;
  };
  struct Order {  // an administrator's change waiting for its turn
    std::variant<in::ProposeConfig, in::AddMember, in::RemoveMember> what;
    std::uint64_t ticket = 0;
  };
  // All that ends with the epoch. Exists while recording and active.
  struct Office {
    ValuePtr
        base;  // what was recorded before `pending`; before the first record: what it was made from (null: re-founded, resumed)
    ValuePtr pending;  // on its way to a quorum; null = none
    std::int64_t began_ns = 0;
    bool activated = false;   // its mirror captures
    bool open = false;        // {self} recorded after that: lease and joins from here on
    bool own_accept = false;  // ours is on disk: others may see it
    std::uint64_t pending_ticket = 0;
    bool resumed = false;  // the same epoch goes on after a restart of this process
    bool older = false;    // won with a consistent point, not with a complete copy
    std::uint64_t order = 0;
    ValuePtr over;  // see BecomeActive
    std::map<NodeId, Peer> peers;
    std::deque<Beat> beats;
    std::int64_t beat_due_ns = 0;
    std::int64_t lease_until_ns = -1;
    std::int64_t resumed_word_ns = -1;  // no lease word of the life before this one is longer
    std::set<NodeId> joining;           // the mirror waits for them, not in the set yet
    std::set<NodeId> leaving;
    std::uint64_t joins_from = 0;                // WaitingFor of an older in-sync version is from before this epoch
    std::map<NodeId, std::uint64_t> removed_at;  // in-sync version of its last removal: an older WaitingFor is void
    std::deque<Order> orders;
    std::optional<in::Handover> handover;
    std::int64_t handover_until_ns = 0;
  };
  struct Wish {  // an administrator's failover, until won, refused for good or out of time
    in::Failover order;
    std::int64_t until_ns = 0;
  };

  void dispatch(const Input& input, Now now, Actions& out);
  void drain_loopback(Now now, Actions& out);
  void ask_to_look_back(Actions& out);
  void on_started(const in::Started& s, Now now, Actions& out);
  void on_received(const Envelope& e, Now now, Actions& out);
  void on_message_to_candidate(const Envelope& e, Now now, Actions& out);
  void on_message_to_office(const Envelope& e, Now now, Actions& out);
  void on_tick(Now now, Actions& out);
  void on_found(const in::Found& f, Now now, Actions& out);
  void on_failover(const in::Failover& f, Now now, Actions& out);
  void on_resign(NodeId successor, Now now, Actions& out);
  void on_resigned(NodeId from, const Resign& m, Now now);
  void note_value(const ValuePtr& v, Now now, Actions& out);
  void notice_own_voter(Now now, Actions& out);
  // candidate (core_candidate.cc)
  std::optional<Kind> wants_campaign(Now now, Actions& out);
  bool may_try_automatic(Now now);
  void campaign(Kind kind, Now now, Actions& out);
  void candidate_tick(Now now, Actions& out);
  void send_canvass(Now now, Actions& out);
  void on_canvass_reply(NodeId from, const CanvassReply& m, Now now, Actions& out);
  void judge_canvass(bool last_chance, Now now, Actions& out);
  std::string why_not(const Value& newest, bool complete, bool fallback) const;
  bool falls_back(bool fallback) const;
  bool lacks_contact(const Value& newest) const;
  bool better_candidate(const Value& newest) const;
  void elect(const Value& newest, Now now, Actions& out);
  void send_vote_requests(Now now, Actions& out);
  void on_vote(NodeId from, const Vote& m, Now now, Actions& out);
  void judge_votes(Now now, Actions& out);
  void win(const ValuePtr& newest, Now now, Actions& out);
  void abandon(std::string reason, bool for_good, Now now, Actions& out);
  ValuePtr newest_ballot(bool granted_only) const;
  bool ballots_make_quorum(const Value& value) const;
  // active (core_active.cc)
  void resume(const ValuePtr& value, Now now, Actions& out);
  void office_tick(Now now, Actions& out);
  void heartbeat(Now now, Actions& out);
  void on_renewed(NodeId from, const Renewed& m, Now now, Actions& out);
  void on_accepted(NodeId from, const Accepted& m, Now now, Actions& out);
  void note_peer(NodeId from, Incarnation incarnation, Revision accepted, Now now);
  std::int64_t lease_by(const Value& value) const;
  void extend_lease(Now now, Actions& out);
  bool sole_voter_needs_contact(Now now) const;
  void propose(Value next, std::uint64_t ticket, Actions& out);
  void send_pending(Actions& out);
  void check_recorded(Now now, Actions& out);
  void on_recorded(Now now, Actions& out);
  void enter_office(Now now, Actions& out);
  void open_office(Actions& out);
  void step_down(const std::string& reason, Now now, Actions& out);
  void leave_office(NodeId successor, std::uint64_t order, Now now, Actions& out);
  void close_office(const std::string& reason, Actions& out);
  bool heard_lately(NodeId id, Now now) const;
  // changes by the active (core_changes.cc)
  bool take_order(const Input& input, Now now, Actions& out);
  void take_handover(const in::Handover& h, Now now, Actions& out);
  void pump(Now now, Actions& out);
  void propose_alone(Now now, Actions& out);
  bool next_removal(Value& next) const;
  bool next_join(Value& next) const;
  bool next_voters(Value& next, Now now) const;
  bool next_order(Value& next, Now now, std::uint64_t& ticket, Actions& out);
  void forget_waits(const Value& before);
  bool old_voters_may_go(Now now) const;
  std::string missing_for(const Value& next, Now now) const;
  // both
  void send(NodeId to, Body body, Actions& out);
  void send_others(const Value& v, const Body& body, Actions& out);
  void answer(std::uint64_t ticket, bool ok, std::string reason, Actions& out);
  std::string name_of(NodeId id) const;
  std::uint64_t random();
  std::int64_t lease_ns() const;
  Epoch office_epoch() const { return office_->pending ? office_->pending->epoch() : office_->base->epoch(); }

  const CoreOptions options_;
  VoterCore voter_;
  Role role_ = Role::stopped;
  ValuePtr known_;                    // newest seen anywhere, recorded or not
  ValuePtr recorded_;                 // newest known to be held by a quorum
  std::optional<Campaign> campaign_;  // canvassing, electing
  std::optional<Office> office_;      // recording, active
  std::optional<Wish> wish_;
  Epoch followed_;
  Position position_hint_;
  bool complete_hint_ = false, fallback_hint_ = false;
  std::string cant_lead_;
  bool active_seen_ = false;
  std::map<NodeId, std::int64_t> heard_ns_;
  // When a candidacy may start; all on the holder scale.
  std::int64_t not_before_ns_ = 0;
  std::int64_t others_first_until_ns_ =
      0;  // after a power loss of all, or in favour of a successor: no automatic candidacy here
  std::int64_t free_since_ns_ = -1;  // since when nobody holds our promise
  std::uint64_t successor_order_ = 0;
  Epoch successor_in_;  // the active of that epoch resigned in our favour
  std::int64_t successor_until_ns_ = 0;
  unsigned attempts_ = 0;
  std::uint64_t random_state_;
  std::string last_refusal_;
};

}  // namespace holdfast::cluster
