// SPDX-License-Identifier: Apache-2.0
#include "cluster/core.h"

#include <array>

#include "base/check.h"

namespace holdfast::cluster {
namespace {

// Which commands a role takes; the rest is refused with a sentence. Rows are roles, columns commands.
enum class Command : std::uint8_t { change, resign, failover, none };
enum class Take : std::uint8_t { yes, ignore, refuse };
constexpr std::array<std::array<Take, 3>, 6> commands = {{
    //               change        resign        failover
    /* stopped    */ {Take::refuse, Take::ignore, Take::refuse},
    /* passive    */ {Take::refuse, Take::ignore, Take::yes},
    /* canvassing */ {Take::refuse, Take::ignore, Take::yes},
    /* electing   */ {Take::refuse, Take::ignore, Take::yes},
    /* recording  */ {Take::refuse, Take::yes, Take::refuse},
    /* active     */ {Take::yes, Take::yes, Take::refuse},
}};

std::pair<Command, std::uint64_t> command_of(const Input& input) {
  if (const auto* i = std::get_if<in::ProposeConfig>(&input)) return {Command::change, i->ticket};
  if (const auto* i = std::get_if<in::AddMember>(&input)) return {Command::change, i->ticket};
  if (const auto* i = std::get_if<in::RemoveMember>(&input)) return {Command::change, i->ticket};
  if (const auto* i = std::get_if<in::Handover>(&input)) return {Command::change, i->ticket};
  if (std::holds_alternative<in::WaitingFor>(input)) return {Command::change, 0};
  if (std::holds_alternative<in::PeerLost>(input)) return {Command::change, 0};
  if (std::holds_alternative<in::Activated>(input)) return {Command::change, 0};
  if (std::holds_alternative<in::Resign>(input)) return {Command::resign, 0};
  if (const auto* i = std::get_if<in::Failover>(&input)) return {Command::failover, i->ticket};
  return {Command::none, 0};
}

}  // namespace

const char* to_string(Role role) {
  constexpr std::array names = {"stopped", "passive", "canvassing", "electing", "recording", "active"};
  return names[static_cast<std::size_t>(role)];
}

Core::Core(CoreOptions options)
    : options_(options),
      voter_(options.cluster, options.self, MemberKind::data, options.mutation),
      random_state_(options.seed * 0x9E3779B97F4A7C15ULL + 1) {}

Actions Core::step(const Input& input, Now now) {
  CHECK((role_ == Role::stopped) == std::holds_alternative<in::Started>(input), "Started comes first, and once");
  Actions out;
  dispatch(input, now, out);
  drain_loopback(now, out);
  ask_to_look_back(out);
  return out;
}

// Looking costs time, and means something only where an administrator accepts an older point.
void Core::ask_to_look_back(Actions& out) {
  if (!campaign_ || !falls_back(fallback_hint_) || complete_hint_) return;
  for (Action& a : out)
    if (auto* s = std::get_if<out::SealMirror>(&a); s != nullptr && s->epoch == campaign_->epoch)
      s->look_back = campaign_->looks_back = true;
}

// What this node says to itself never leaves: it is fed back at once, in order, until nothing is left.
void Core::drain_loopback(Now now, Actions& out) {
  for (std::size_t i = 0; i < out.size();) {
    auto* s = std::get_if<out::Send>(&out[i]);
    if (s == nullptr || s->envelope.to != options_.self) {
      ++i;
      continue;
    }
    const Envelope e = std::move(s->envelope);
    out.erase(out.begin() + static_cast<std::ptrdiff_t>(i));
    on_received(e, now, out);
  }
}

void Core::dispatch(const Input& input, Now now, Actions& out) {
  if (const auto* s = std::get_if<in::Started>(&input)) return on_started(*s, now, out);
  if (const auto [command, ticket] = command_of(input); command != Command::none) {
    const Take take = commands[static_cast<std::size_t>(role_)][static_cast<std::size_t>(command)];
    if (take == Take::refuse)
      return answer(ticket, false,
                    role_ == Role::active ? "this node is the active already" : "this node is not the active", out);
    if (take == Take::ignore) return;
  }
  if (const auto* r = std::get_if<in::Received>(&input)) return on_received(r->envelope, now, out);
  if (const auto* f = std::get_if<in::Failover>(&input)) return on_failover(*f, now, out);
  if (const auto* r = std::get_if<in::Resign>(&input)) return on_resign(r->successor, now, out);
  if (const auto* f = std::get_if<in::Found>(&input)) return on_found(*f, now, out);
  if (const auto* o = std::get_if<in::Observed>(&input)) active_seen_ = o->active_seen;
  if (const auto* m = std::get_if<in::MirrorState>(&input)) {
    position_hint_ = m->position;
    complete_hint_ = m->complete;
    fallback_hint_ = m->fallback;
    cant_lead_ = m->cant_lead;
  }
  if (const auto* s = std::get_if<in::MirrorSealed>(&input); s && campaign_ && campaign_->epoch == s->epoch) {
    campaign_->fallback = s->fallback;
    campaign_->no_fallback = s->no_fallback;
  }
  if (take_order(input, now, out)) return;
  voter_.step(input, now, out);
  if (const auto* f = std::get_if<in::SealFailed>(&input);
      f && campaign_ && role_ == Role::electing && campaign_->epoch == f->epoch)
    abandon("the mirror here could not be sealed: " + f->reason, false, now, out);
  notice_own_voter(now, out);
  if (std::holds_alternative<in::Tick>(input)) on_tick(now, out);
}

void Core::on_started(const in::Started& s, Now now, Actions& out) {
  voter_.step(s, now, out);
  role_ = Role::passive;
  not_before_ns_ = now.holder_ns;
  const VoterState& state = voter_.state();
  if (!state.accepted) return;
  const bool mine = state.accepted->active == options_.self;
  const bool untouched = state.promised == state.accepted->epoch() && state.promised_to == options_.self;
  if (mine && untouched && s.lease_word_valid) {
    known_ = state.accepted;
    return resume(state.accepted, now, out);
  }
  note_value(state.accepted, now, out);
  // After a power loss of all the last active may have changes nobody else has: it goes first, for a while (R8).
  if (s.machine_rebooted && !mine)
    others_first_until_ns_ = now.holder_ns + 4 * std::int64_t{lease_ceiling_ms} * ns_per_ms;
}

void Core::on_found(const in::Found& f, Now now, Actions& out) {
  if (known_ || voter_.state().promised.value != 0)
    return answer(f.ticket, false, "this node belongs to a cluster already", out);
  CHECK(f.value.members.size() == 1 && f.value.members[0].id == options_.self,
        "a cluster is founded with one member: this node");
  Value first = f.value;
  first.revision = {};
  first.active = options_.self;
  first.in_sync = {options_.self};
  first.in_sync_version = 0;
  first.old_voters.clear();
  first.members[0].voter = true;
  first.members[0].incarnation = voter_.state().incarnation;
  known_ = std::make_shared<const Value>(std::move(first));
  wish_ = Wish{{true, 0, f.ticket}, now.holder_ns + 30'000 * ns_per_ms};
  complete_hint_ = true;
  voter_.forgive_silence();  // a new cluster has promised nothing to anybody
  campaign(Kind::forced, now, out);
}

void Core::on_failover(const in::Failover& f, Now now, Actions& out) {
  if (!known_) return answer(f.ticket, false, "this node belongs to no cluster yet", out);
  if (wish_) return answer(f.ticket, false, "a failover is under way already", out);
  // What a candidacy that is under way anyway may win is not what was asked for.
  if (f.order != 0 && campaign_) abandon("an administrator asks for a failover", false, now, out);
  // Time for the lease of the old active to run out everywhere, and for a few attempts.
  wish_ = Wish{f, now.holder_ns + 4 * std::int64_t{lease_ceiling_ms} * ns_per_ms};
  not_before_ns_ = now.holder_ns;
  on_tick(now, out);
}

void Core::on_received(const Envelope& e, Now now, Actions& out) {
  if (e.cluster != options_.cluster || e.to != options_.self) return;
  heard_ns_[e.from] = now.holder_ns;
  if (const auto* v = std::get_if<VoteRequest>(&e.body)) {
    // Its own lease has lapsed and another one is asked for: the capture ends before the mirror is sealed.
    const bool will_seal = v->epoch > voter_.state().promised && voter_.blocked_for_ns(e.from, now) == 0;
    if (office_ && e.from != options_.self && will_seal) step_down("another node asks for the next epoch", now, out);
  }
  voter_.on_message(e, now, out);
  notice_own_voter(now, out);
  if (const auto* r = std::get_if<Resign>(&e.body)) on_resigned(e.from, *r, now);
  if (const auto* r = std::get_if<Renew>(&e.body)) {
    const ValuePtr& accepted = voter_.accepted();
    if (accepted && accepted->revision == r->recorded && revision_of(recorded_) < r->recorded) {
      recorded_ = accepted;
      out.push_back(out::ValueRecorded{recorded_});
    }
  }
  on_message_to_candidate(e, now, out);
  on_message_to_office(e, now, out);
}

// The voter inside may have accepted, or promised, what ends our office or candidacy.
void Core::notice_own_voter(Now now, Actions& out) {
  if (voter_.accepted()) note_value(voter_.accepted(), now, out);
  const VoterState& s = voter_.state();
  if (office_ && (s.promised > office_epoch())) step_down("its voter has promised a newer epoch", now, out);
}

void Core::note_value(const ValuePtr& v, Now now, Actions& out) {
  if (!v || v->revision <= revision_of(known_)) return;
  if (office_ && v->epoch() > office_epoch())
    step_down(name_of(v->active) + " is the active of a newer epoch", now, out);
  known_ = v;
  voter_.learn(v, out);
  if (v->active == options_.self || v->epoch() <= followed_) return;
  followed_ = v->epoch();
  attempts_ = 0;
  if (campaign_ && v->epoch() >= campaign_->epoch)
    abandon(name_of(v->active) + " has won epoch " + std::to_string(v->epoch().value), false, now, out);
  // A mirror sealed for a newer epoch can't follow an older one; whoever wins that epoch will be followed.
  if (v->epoch() >= voter_.state().promised) out.push_back(out::Follow{v->epoch(), v->active});
}

void Core::on_resigned(NodeId from, const Resign& m, Now now) {
  if (!known_ || from == options_.self || m.epoch != known_->epoch() || from != known_->active) return;
  if (m.successor == options_.self) {
    successor_in_ = m.epoch;
    successor_order_ = m.order;
    successor_until_ns_ = now.holder_ns + 3'000 * ns_per_ms;
    not_before_ns_ = now.holder_ns;
  } else if (m.successor.value != 0) {
    others_first_until_ns_ = std::max(others_first_until_ns_, now.holder_ns + 2'000 * ns_per_ms);
  }
}

void Core::on_tick(Now now, Actions& out) {
  if (office_) return office_tick(now, out);
  if (campaign_) return candidate_tick(now, out);
  if (const auto kind = wants_campaign(now, out)) campaign(*kind, now, out);
}

std::int64_t Core::wake_after_ns(Now now) const {
  constexpr std::int64_t step = 50 * ns_per_ms;
  if (office_) {
    const std::int64_t due = std::max<std::int64_t>(0, office_->beat_due_ns - now.holder_ns);
    return office_->pending || office_->handover ? std::min(due, step) : due;
  }
  if (role_ == Role::stopped || !known_) return 250 * ns_per_ms;
  if (campaign_ || wish_) return step;
  const std::int64_t wait = std::max(
      {voter_.blocked_for_ns(options_.self, now), not_before_ns_ - now.holder_ns, free_since_ns_ - now.holder_ns});
  return wait > 0 ? std::min(wait, 2'000 * ns_per_ms) : step;
}

void Core::send(NodeId to, Body body, Actions& out) {
  out.push_back(out::Send{Envelope{options_.cluster, options_.self, to, std::move(body)}});
}

void Core::send_others(const Value& v, const Body& body, Actions& out) {
  for (const Member& m : v.members)
    if (m.id != options_.self) send(m.id, body, out);
  // Who is no member any more, and whose vote may be needed until that is recorded and the old voters are gone.
  for (const Voter& o : v.old_voters)
    if (o.id != options_.self && v.member(o.id) == nullptr) send(o.id, body, out);
}

void Core::answer(std::uint64_t ticket, bool ok, std::string reason, Actions& out) {
  if (ticket != 0) out.push_back(out::Answer{ticket, ok, std::move(reason)});
}

std::string Core::name_of(NodeId id) const {
  const Member* m = known_ ? known_->member(id) : nullptr;
  return m ? m->name : to_hex(id);
}

std::uint64_t Core::random() {  // xorshift64*: same seed, same run
  random_state_ ^= random_state_ >> 12;
  random_state_ ^= random_state_ << 25;
  random_state_ ^= random_state_ >> 27;
  return random_state_ * 0x2545F4914F6CDD1DULL;
}

std::int64_t Core::lease_ns() const {
  const ValuePtr& v = recorded_ ? recorded_ : known_;
  const std::uint32_t ms = v ? v->settings.lease_ms : lease_ceiling_ms;
  return std::int64_t{std::clamp(ms, lease_floor_ms, lease_ceiling_ms)} * ns_per_ms;
}

}  // namespace holdfast::cluster
