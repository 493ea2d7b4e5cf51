// SPDX-License-Identifier: Apache-2.0
#include "cluster/voter.h"

#include "base/check.h"

namespace holdfast::cluster {
namespace {

constexpr std::int64_t seal_patience_ns = 2'000 * ns_per_ms;

// What two clocks may drift apart during a lease (1/64 is far beyond any crystal), plus scheduling noise.
constexpr std::int64_t with_margin(std::int64_t lease_ns) { return lease_ns + lease_ns / 64 + 20 * ns_per_ms; }

std::uint32_t to_ms(std::int64_t ns) {
  if (ns <= 0) return 0;
  return static_cast<std::uint32_t>(std::min<std::int64_t>((ns + ns_per_ms - 1) / ns_per_ms, 60'000));
}

}  // namespace

VoterCore::VoterCore(ClusterId cluster, NodeId self, MemberKind kind, Mutation mutation)
    : cluster_(cluster), self_(self), kind_(kind), mutation_(mutation) {}

Actions VoterCore::step(const Input& input, Now now) {
  Actions out;
  step(input, now, out);
  return out;
}

void VoterCore::step(const Input& input, Now now, Actions& out) {
  if (const auto* s = std::get_if<in::Started>(&input)) {
    return on_started(*s, now, out);
  }
  CHECK(started_, "an input before Started");
  if (const auto* r = std::get_if<in::Received>(&input)) on_message(r->envelope, now, out);
  if (const auto* p = std::get_if<in::Persisted>(&input)) on_persisted(p->id, out);
  if (const auto* s = std::get_if<in::MirrorSealed>(&input)) on_sealed(*s, now, out);
  if (const auto* f = std::get_if<in::SealFailed>(&input)) {
    if (voting_ && voting_->request.epoch == f->epoch) {
      nack(voting_->candidate, f->epoch, voting_->request.round, 0, out);
      voting_.reset();
    }
  }
  if (const auto* m = std::get_if<in::MirrorState>(&input)) {
    position_hint_ = m->position;
    complete_hint_ = m->complete;
    can_lead_ = m->cant_lead.empty();
    // A sealed mirror takes nothing of an older epoch: say so, or its active would wait for us for ever.
    if (m->sealed > state_.promised && !voting_) {
      state_.promised = m->sealed;
      state_.promised_to = {};
      persist(out);
    }
  }
}

void VoterCore::on_started(const in::Started& s, Now now, Actions& out) {
  CHECK(!started_, "Started twice");
  started_ = true;
  if (s.state) {
    state_ = *s.state;
  } else {
    state_.incarnation = s.fresh;
    persist(out);
  }
  // Which lease was promised before the restart is forgotten: assume the longest.
  if (!mutation_.no_restart_silence)
    silent_until_ = promise_clock(now) + with_margin(std::int64_t{lease_ceiling_ms} * ns_per_ms);
}

void VoterCore::on_message(const Envelope& e, Now now, Actions& out) {
  if (e.cluster != cluster_ || e.to != self_) return;
  if (const auto* c = std::get_if<Canvass>(&e.body)) on_canvass(e.from, *c, now, out);
  if (const auto* v = std::get_if<VoteRequest>(&e.body)) on_vote_request(e.from, *v, now, out);
  if (const auto* a = std::get_if<Accept>(&e.body)) on_accept(e.from, *a, out);
  if (const auto* r = std::get_if<Renew>(&e.body)) on_renew(e.from, *r, now, out);
  if (const auto* r = std::get_if<Resign>(&e.body)) on_resign(e.from, *r);
}

std::int64_t VoterCore::blocked_for_ns(NodeId candidate, Now now) const {
  // Leases are promised only to state_.promised_to, before a restart too: asking again it competes with nobody.
  if (mutation_.stale_promise || candidate == state_.promised_to) return 0;
  return std::max<std::int64_t>(0, std::max(promise_until_, silent_until_) - promise_clock(now));
}

VoterView VoterCore::view(Now now) const {
  const std::int64_t left = std::max<std::int64_t>(0, promise_until_ - promise_clock(now));
  return {state_.promised, state_.promised_to, left > 0, left};
}

void VoterCore::on_canvass(NodeId from, const Canvass& m, Now now, Actions& out) {
  const std::int64_t wait = blocked_for_ns(from, now);
  const Member* candidate = state_.accepted ? state_.accepted->member(from) : nullptr;
  const bool stranger = state_.accepted && (candidate == nullptr || candidate->kind != MemberKind::data);
  CanvassReply reply;
  reply.round = m.round;
  reply.granted = wait == 0 && !stranger;
  reply.retry_ms = to_ms(wait);
  reply.promised = state_.promised;
  reply.incarnation = state_.incarnation;
  reply.position = position_hint_;
  reply.complete = complete_hint_ && can_lead_;
  reply.accepted = state_.accepted;
  send_when_persisted(from, std::move(reply), out);
}

// True (and a Nack is on its way) when the candidate can't have this vote now.
bool VoterCore::refuses(NodeId candidate, const VoteRequest& m, Now now, Actions& out) {
  const bool promised_away = m.epoch < state_.promised ||
                             (m.epoch == state_.promised && candidate != state_.promised_to && !mutation_.votes_twice);
  const std::int64_t wait = blocked_for_ns(candidate, now);
  if (!promised_away && wait == 0) return false;
  nack(candidate, m.epoch, m.round, wait, out);
  return true;
}

void VoterCore::on_vote_request(NodeId from, const VoteRequest& m, Now now, Actions& out) {
  if (refuses(from, m, now, out)) return;
  if (voting_ && sealing_for_newer_than(m.epoch, now)) return nack(from, m.epoch, m.round, 0, out);
  if (voting_ && voting_->request.epoch == m.epoch && voting_->candidate != from)
    return nack(from, m.epoch, m.round, 0, out);
  const PendingVote vote{from, m, now.voter_ns};
  if (kind_ == MemberKind::witness) return grant(vote, {}, false, out);
  if (mutation_.vote_before_seal) {
    grant(vote, position_hint_, complete_hint_, out);
    out.push_back(out::SealMirror{m.epoch});
    return;
  }
  voting_ = vote;
  out.push_back(out::SealMirror{m.epoch});
}

void VoterCore::on_sealed(const in::MirrorSealed& s, Now now, Actions& out) {
  if (!voting_ || voting_->request.epoch != s.epoch) return;
  const PendingVote vote = *voting_;
  voting_.reset();
  // Sealing took time: what was true when it was asked for is asked again.
  if (refuses(vote.candidate, vote.request, now, out)) return;
  grant(vote, s.position, s.complete, out);
}

void VoterCore::grant(const PendingVote& vote, Position position, bool complete, Actions& out) {
  if (state_.promised != vote.request.epoch || state_.promised_to != vote.candidate) {
    state_.promised = vote.request.epoch;
    state_.promised_to = vote.candidate;
    persist(out);
  }
  send_when_persisted(
      vote.candidate,
      Vote{vote.request.round, vote.request.epoch, state_.incarnation, position, complete, state_.accepted}, out);
}

void VoterCore::on_accept(NodeId from, const Accept& m, Actions& out) {
  if (!m.value || m.value->active != from) return;
  const bool newer = m.value->revision > revision_of(state_.accepted);
  if (newer && !learn(m.value, out)) return nack(from, m.value->epoch(), 0, 0, out);
  if (!newer && m.value->epoch() < state_.promised) return nack(from, m.value->epoch(), 0, 0, out);
  send_when_persisted(from, Accepted{revision_of(state_.accepted), state_.incarnation}, out);
}

bool VoterCore::learn(const ValuePtr& value, Actions& out) {
  // Only the winner of an epoch makes values in it. If we had voted for another one in this epoch: that one has lost.
  const Epoch epoch = value->epoch();
  if (epoch < state_.promised) return false;
  if (value->revision <= revision_of(state_.accepted)) return true;
  state_.promised = epoch;
  state_.promised_to = value->active;
  state_.accepted = value;
  persist(out);
  return true;
}

void VoterCore::on_renew(NodeId from, const Renew& m, Now now, Actions& out) {
  const Epoch epoch = m.recorded.epoch;
  if (epoch < state_.promised) return nack(from, epoch, 0, 0, out);
  if (epoch <= resigned_ || m.lease_ms > lease_ceiling_ms) return;
  if (sealing_for_newer_than(epoch, now)) return;  // our mirror already refuses what the sender would append
  const bool current =
      epoch == state_.promised && from == state_.promised_to && revision_of(state_.accepted) >= m.recorded;
  if (current) {
    const std::int64_t lease = std::int64_t{m.lease_ms} * ns_per_ms;
    const std::int64_t until = promise_clock(now) + (mutation_.no_drift_margin ? lease : with_margin(lease));
    promise_until_ = std::max(promise_until_, until);
  }
  send_when_persisted(from, Renewed{epoch, m.beat, state_.incarnation, revision_of(state_.accepted), current}, out);
}

void VoterCore::on_resign(NodeId from, const Resign& m) {
  const bool its_promise = m.epoch == state_.promised && from == state_.promised_to;
  if (!its_promise) return;
  promise_until_ = 0;
  silent_until_ = 0;  // whatever was promised before a restart was promised to the sender, in this epoch or before
  resigned_ = std::max(resigned_, m.epoch);
}

bool VoterCore::sealing_for_newer_than(Epoch epoch, Now now) const {
  return voting_ && voting_->request.epoch > epoch && now.voter_ns - voting_->since_voter_ns < seal_patience_ns;
}

void VoterCore::nack(NodeId to, Epoch refused, std::uint64_t round, std::int64_t wait_ns, Actions& out) {
  const bool newer = state_.accepted && state_.accepted->epoch() > refused;
  send_when_persisted(to, Nack{refused, state_.promised, round, to_ms(wait_ns), newer ? state_.accepted : nullptr},
                      out);
}

void VoterCore::persist(Actions& out) { out.push_back(out::Persist{++persist_id_, state_}); }

void VoterCore::on_persisted(std::uint64_t id, Actions& out) {
  persisted_ = std::max(persisted_, id);
  while (!held_.empty() && held_.front().needs <= persisted_) {
    out.push_back(out::Send{std::move(held_.front().envelope)});
    held_.pop_front();
  }
}

// Everything a voter says shows its state, so nothing leaves before that state is on disk.
void VoterCore::send_when_persisted(NodeId to, Body body, Actions& out) {
  Envelope e{cluster_, self_, to, std::move(body)};
  if (all_persisted() || mutation_.ack_before_persist)
    out.push_back(out::Send{std::move(e)});
  else
    held_.push_back({persist_id_, std::move(e)});
}

}  // namespace holdfast::cluster
