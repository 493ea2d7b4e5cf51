// SPDX-License-Identifier: Apache-2.0
// What a node does with an epoch it has won: record values, renew the lease, leave.
#include "base/check.h"
#include "cluster/core.h"

namespace holdfast::cluster {
namespace {

constexpr std::int64_t recording_patience_ns = 3'000 * ns_per_ms;
constexpr std::int64_t successor_time_ns = 3'500 * ns_per_ms;
constexpr std::int64_t others_time_ns = 2'000 * ns_per_ms;
constexpr std::size_t beats_kept = 64;

}  // namespace

// The process restarted, the lease word was held all along. What is on disk may be a change that no quorum has yet.
void Core::resume(const ValuePtr& value, Now now, Actions& out) {
  office_ = Office{};
  office_->began_ns = now.holder_ns;
  office_->resumed = true;
  office_->resumed_word_ns = now.holder_ns + std::int64_t{lease_ceiling_ms} * ns_per_ms;
  office_->pending = value;
  followed_ = value->epoch();
  role_ = Role::recording;
  send(options_.self, Accept{value}, out);
}

void Core::on_message_to_office(const Envelope& e, Now now, Actions& out) {
  if (!office_) return;
  if (const auto* m = std::get_if<Accepted>(&e.body)) return on_accepted(e.from, *m, now, out);
  if (const auto* m = std::get_if<Renewed>(&e.body)) return on_renewed(e.from, *m, now, out);
  if (const auto* m = std::get_if<Nack>(&e.body)) {
    note_value(m->newer, now, out);
    if (office_ && m->promised > office_epoch()) step_down(name_of(e.from) + " has promised a newer epoch", now, out);
  }
}

void Core::office_tick(Now now, Actions& out) {
  if (now.holder_ns >= office_->beat_due_ns) heartbeat(now, out);
  if (role_ == Role::active) return pump(now, out);
  if (!office_->resumed && now.holder_ns - office_->began_ns > recording_patience_ns) {
    close_office("no majority recorded the new epoch in time", out);
    abandon("no majority recorded the new epoch in time", false, now, out);
  }
}

void Core::heartbeat(Now now, Actions& out) {
  office_->beat_due_ns = now.holder_ns + lease_ns() / 8;
  if (office_->pending) send_pending(out);
  if (role_ != Role::active) return;
  // Random names: an answer to a beat of an earlier life of this process can't be taken for one of this life.
  const Beat beat{random(), now.holder_ns, lease_ns()};
  office_->beats.push_back(beat);
  if (office_->beats.size() > beats_kept) office_->beats.pop_front();
  const Renew renew{recorded_->revision, beat.id, static_cast<std::uint32_t>(beat.lease_ns / ns_per_ms)};
  send(options_.self, renew, out);
  send_others(*recorded_, renew, out);
}

void Core::note_peer(NodeId from, Incarnation incarnation, Revision accepted, Now now) {
  Peer& p = office_->peers[from];
  if (p.incarnation != incarnation) p = Peer{};
  p.incarnation = incarnation;
  p.answered_ns = now.holder_ns;
  p.accepted = std::max(p.accepted, accepted);
}

void Core::on_renewed(NodeId from, const Renewed& m, Now now, Actions& out) {
  if (m.epoch != office_epoch()) return;
  note_peer(from, m.incarnation, m.accepted, now);
  Peer& p = office_->peers[from];
  for (const Beat& beat : office_->beats) {
    if (beat.id != m.beat || !m.promised) continue;
    const std::int64_t counts_from = options_.mutation.lease_from_ack ? now.holder_ns : beat.sent_ns;
    p.granted_sent_ns = std::max(p.granted_sent_ns, counts_from);
    p.granted_until_ns = std::max(p.granted_until_ns, counts_from + beat.lease_ns);
  }
  const Member* member = recorded_ ? recorded_->member(from) : nullptr;
  // A data node that forgot its votes may have lost its copy too: out of the set first, readmitted as a voter after.
  if (member && member->kind == MemberKind::data && member->incarnation != m.incarnation && recorded_->is_in_sync(from))
    office_->leaving.insert(from);
  const ValuePtr& newest = office_->pending && office_->own_accept ? office_->pending : office_->base;
  if (newest && m.accepted < newest->revision && from != options_.self) send(from, Accept{newest}, out);
  check_recorded(now, out);
  if (office_) extend_lease(now, out);
}

void Core::on_accepted(NodeId from, const Accepted& m, Now now, Actions& out) {
  if (m.revision.epoch != office_epoch()) return;
  note_peer(from, m.incarnation, m.revision, now);
  if (from == options_.self && office_->pending && m.revision >= office_->pending->revision && !office_->own_accept) {
    office_->own_accept = true;
    send_pending(out);
  }
  check_recorded(now, out);
}

// The latest moment until which a quorum has promised us the lease; -1 if none has.
std::int64_t Core::lease_by(const Value& value) const {
  std::int64_t best = -1;
  for (const auto& [id, candidate] : office_->peers) {
    const std::int64_t until = candidate.granted_until_ns;
    if (until <= best) continue;
    const bool enough = options_.mutation.lease_of_one || quorum(value, [&](NodeId voter, Incarnation incarnation) {
                          const auto p = office_->peers.find(voter);
                          if (p == office_->peers.end() || p->second.granted_until_ns < until) return false;
                          return p->second.incarnation == incarnation || options_.mutation.any_incarnation_votes;
                        });
    if (enough) best = until;
  }
  return best;
}

// Alone, and its lease ran out: meanwhile an administrator may have promoted the peer. Only the peer can tell.
bool Core::sole_voter_needs_contact(Now now) const {
  const Value& v = *recorded_;
  if (options_.mutation.sole_voter_alone || office_->lease_until_ns < 0 || office_->lease_until_ns > now.holder_ns)
    return false;
  if (v.data_nodes() < 2) return false;
  for (const Member& m : v.members) {
    if (m.id == options_.self) continue;
    if (m.voter) return false;
    const auto p = office_->peers.find(m.id);
    if (m.kind == MemberKind::data && p != office_->peers.end() && p->second.granted_sent_ns > office_->lease_until_ns)
      return false;
  }
  return true;
}

void Core::extend_lease(Now now, Actions& out) {
  if (role_ != Role::active || !office_->open || sole_voter_needs_contact(now)) return;
  const std::int64_t until = lease_by(*recorded_);
  if (until <= office_->lease_until_ns || until <= now.holder_ns) return;
  office_->lease_until_ns = until;
  out.push_back(out::ExtendLease{office_epoch(), until});
}

void Core::propose(Value next, std::uint64_t ticket, Actions& out) {
  CHECK(!office_->pending, "one change at a time");
  office_->pending = std::make_shared<const Value>(std::move(next));
  office_->pending_ticket = ticket;
  // Ours first, on disk: after a restart this node must not give the same revision to another value.
  office_->own_accept = options_.mutation.propose_before_own_accept;
  if (office_->own_accept) send_pending(out);
  send(options_.self, Accept{office_->pending}, out);
}

void Core::send_pending(Actions& out) {
  if (!office_->own_accept) return;
  const auto offer = [&](NodeId id) {
    const auto p = office_->peers.find(id);
    const bool has = p != office_->peers.end() && p->second.accepted >= office_->pending->revision;
    if (id != options_.self && !has) send(id, Accept{office_->pending}, out);
  };
  for (const Member& m : office_->pending->members) offer(m.id);
  for (const Voter& o : office_->pending->old_voters)
    if (office_->pending->member(o.id) == nullptr) offer(o.id);
}

void Core::check_recorded(Now now, Actions& out) {
  if (!office_->pending || !office_->own_accept) return;
  const bool recorded = quorum(*office_->pending, [&](NodeId id, Incarnation incarnation) {
    const auto p = office_->peers.find(id);
    if (p == office_->peers.end() || p->second.accepted < office_->pending->revision) return false;
    return p->second.incarnation == incarnation || options_.mutation.any_incarnation_votes;
  });
  if (recorded) on_recorded(now, out);
}

void Core::on_recorded(Now now, Actions& out) {
  const ValuePtr before = office_->base;
  office_->base = office_->pending;
  office_->pending.reset();
  recorded_ = office_->base;
  if (!recorded_->old_voters.empty())
    office_->beat_due_ns = now.holder_ns;  // until the new ones have promised the lease
  out.push_back(out::ValueRecorded{recorded_});
  if (role_ == Role::recording) return enter_office(now, out);
  if (!office_->open) {
    open_office(out);
    extend_lease(now, out);
  } else if (before->in_sync_version != recorded_->in_sync_version) {
    for (const NodeId id : before->in_sync) {
      if (recorded_->is_in_sync(id)) continue;
      office_->removed_at[id] = recorded_->in_sync_version;
      office_->joining.erase(id);  // whoever waits for it again says so again, after this
      office_->leaving.erase(id);
    }
    forget_waits(*before);
    for (const NodeId id : recorded_->in_sync) office_->joining.erase(id);
    out.push_back(out::InSyncRecorded{recorded_->epoch(), recorded_->in_sync_version, recorded_->in_sync});
  }
  answer(std::exchange(office_->pending_ticket, 0), true, "", out);
  pump(now, out);
}

// The epoch is recorded. The in-sync set is still the old one: should the mirror here fail to open, the others lack nothing
// and may take the epoch after this. Only when it has opened is the set shrunk to {self}, and only then is there a lease.
void Core::enter_office(Now now, Actions& out) {
  role_ = Role::active;
  attempts_ = 0;
  last_refusal_.clear();
  followed_ = recorded_->epoch();
  office_->activated = office_->resumed || !options_.wait_for_activation;
  out.push_back(out::BecomeActive{recorded_->epoch(), recorded_, office_->older, office_->order, office_->over});
  if (wish_) answer(wish_->order.ticket, true, "", out);
  wish_.reset();
  if (office_->resumed) open_office(out);
  heartbeat(now, out);
  pump(now, out);
}

// From here on writes count, and who is in the set is said to the mirror.
void Core::open_office(Actions& out) {
  office_->open = true;
  office_->joins_from = recorded_->in_sync_version;
  out.push_back(out::InSyncRecorded{recorded_->epoch(), recorded_->in_sync_version, recorded_->in_sync});
}

void Core::close_office(const std::string& reason, Actions& out) {
  answer(office_->pending_ticket, false, reason, out);
  for (const Order& o : office_->orders) answer(o.ticket, false, reason, out);
  if (office_->handover) answer(office_->handover->ticket, false, reason, out);
  office_.reset();
  role_ = Role::passive;
}

void Core::step_down(const std::string& reason, Now now, Actions& out) {
  const Epoch epoch = office_epoch();
  const bool may_capture = role_ == Role::active || office_->resumed;
  close_office("this node is not the active any more: " + reason, out);
  not_before_ns_ = now.holder_ns + others_time_ns / 4;
  if (!may_capture) return;
  out.push_back(out::ClearLease{epoch});
  out.push_back(out::StepDown{epoch, reason});
}

void Core::on_resign(NodeId successor, Now now, Actions& out) { leave_office(successor, 0, now, out); }

// Nothing can be written here any more: the promise of every voter for this epoch is void from now on.
void Core::leave_office(NodeId successor, std::uint64_t order, Now now, Actions& out) {
  const Epoch epoch = office_epoch();
  const Value members = office_->base ? *office_->base : *known_;
  close_office("this node resigned", out);
  out.push_back(out::ClearLease{epoch});
  const bool own_return = successor == options_.self;
  not_before_ns_ = now.holder_ns + (own_return ? 0 : successor.value != 0 ? successor_time_ns : others_time_ns);
  send(options_.self, Resign{epoch, successor, order}, out);
  send_others(members, Resign{epoch, successor, order}, out);
}

bool Core::heard_lately(NodeId id, Now now) const {
  const auto h = heard_ns_.find(id);
  return h != heard_ns_.end() && now.holder_ns - h->second < lease_ns();
}

}  // namespace holdfast::cluster
