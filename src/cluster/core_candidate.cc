// SPDX-License-Identifier: Apache-2.0
// Canvass (nothing sealed) -> elect (own seal, own vote on disk, then the others') -> win (first value on its way).
#include "base/check.h"
#include "cluster/core.h"

namespace holdfast::cluster {
namespace {

constexpr std::int64_t canvass_patience_ns = 1'000 * ns_per_ms;
constexpr std::int64_t election_patience_ns = 3'000 * ns_per_ms;
constexpr std::int64_t look_back_patience_ns = 120'000 * ns_per_ms;  // it reads the history of the mirror here
constexpr std::int64_t resend_ns = 200 * ns_per_ms;
constexpr std::int64_t rank_delay_ns = 150 * ns_per_ms;
// A promotion by an administrator's word leaves room for epochs that others may have counted without us.
constexpr std::uint64_t refound_gap = 1000;

}  // namespace

std::optional<Core::Kind> Core::wants_campaign(Now now, Actions& out) {
  if (!known_) return std::nullopt;
  if (wish_ && now.holder_ns > wish_->until_ns) {
    const std::string why =
        last_refusal_.empty() ? "the lease of the active has not run out: it is alive" : last_refusal_;
    answer(wish_->order.ticket, false, why, out);
    wish_.reset();
  }
  const Member* me = known_->member(options_.self);
  if (me == nullptr || me->kind != MemberKind::data) return std::nullopt;
  if (voter_.blocked_for_ns(options_.self, now) > 0) {
    free_since_ns_ = -1;
    return std::nullopt;
  }
  if (free_since_ns_ < 0) free_since_ns_ = now.holder_ns + static_cast<std::int64_t>(random() % 50) * ns_per_ms;
  if (now.holder_ns < not_before_ns_) return std::nullopt;
  if (wish_) return wish_->order.force ? Kind::forced : Kind::managed;
  if (successor_in_ == known_->epoch() && successor_in_.value != 0 && now.holder_ns < successor_until_ns_)
    return Kind::successor;
  if (known_->active == options_.self) return Kind::returning;
  if (may_try_automatic(now)) return Kind::automatic;
  return std::nullopt;
}

// Identity order between equals: each waits for those before it.
bool Core::may_try_automatic(Now now) {
  const Member* me = known_->member(options_.self);
  const bool by_point = options_.mutation.fallback_unforced && fallback_hint_;
  if (!known_->settings.automatic_failover || !me->voter || active_seen_ || !(complete_hint_ || by_point)) return false;
  if (!known_->is_in_sync(options_.self) && !options_.mutation.own_claim_of_in_sync && !by_point) return false;
  if (now.holder_ns < others_first_until_ns_) return false;
  std::int64_t before_me = 0;
  for (const Member& m : known_->members)
    if (m.id != known_->active && m.kind == MemberKind::data && m.identity < me->identity && known_->is_in_sync(m.id))
      ++before_me;
  return now.holder_ns - free_since_ns_ >= before_me * rank_delay_ns;
}

void Core::campaign(Kind kind, Now now, Actions& out) {
  campaign_ = Campaign{};
  campaign_->kind = kind;
  if (kind == Kind::successor) campaign_->order = successor_order_;
  if ((kind == Kind::forced || kind == Kind::managed) && wish_) campaign_->order = wish_->order.order;
  campaign_->round = random();
  campaign_->began_ns = now.holder_ns;
  role_ = Role::canvassing;
  ++attempts_;
  send(options_.self, Canvass{campaign_->round}, out);
  send_canvass(now, out);
}

void Core::send_canvass(Now now, Actions& out) {
  campaign_->resend_ns = now.holder_ns + resend_ns;
  send_others(*known_, Canvass{campaign_->round}, out);
}

void Core::send_vote_requests(Now now, Actions& out) {
  campaign_->resend_ns = now.holder_ns + resend_ns;
  send_others(*known_, VoteRequest{campaign_->round, campaign_->epoch}, out);
}

void Core::candidate_tick(Now now, Actions& out) {
  const std::int64_t age = now.holder_ns - campaign_->began_ns;
  if (role_ == Role::canvassing) {
    if (age > canvass_patience_ns) return judge_canvass(true, now, out);
    if (now.holder_ns >= campaign_->resend_ns) send_canvass(now, out);
    return;
  }
  if (age > (campaign_->looks_back && !campaign_->own_vote ? look_back_patience_ns : election_patience_ns)) {
    const bool sealed = campaign_->own_vote;
    return abandon(sealed ? "no majority voted in time" : "the mirror here did not answer the seal in time", false, now,
                   out);
  }
  if (campaign_->own_vote && now.holder_ns >= campaign_->resend_ns) send_vote_requests(now, out);
}

void Core::on_message_to_candidate(const Envelope& e, Now now, Actions& out) {
  if (const auto* m = std::get_if<CanvassReply>(&e.body)) {
    note_value(m->accepted, now, out);
    if (campaign_ && role_ == Role::canvassing) on_canvass_reply(e.from, *m, now, out);
  } else if (const auto* v = std::get_if<Vote>(&e.body)) {
    if (campaign_ && role_ == Role::electing) on_vote(e.from, *v, now, out);
  } else if (const auto* n = std::get_if<Nack>(&e.body)) {
    note_value(n->newer, now, out);
    if (!campaign_ || role_ != Role::electing || n->round != campaign_->round || n->refused != campaign_->epoch) return;
    campaign_->obstacle = name_of(e.from) + (n->promised > n->refused ? " has promised a newer epoch"
                                                                      : " still holds a promise to another node");
    if (n->promised >= campaign_->epoch) abandon(campaign_->obstacle, false, now, out);
  }
}

void Core::on_canvass_reply(NodeId from, const CanvassReply& m, Now now, Actions& out) {
  if (m.round != campaign_->round) return;
  campaign_->highest_promise = std::max(campaign_->highest_promise, m.promised);
  campaign_->ballots[from] = Ballot{m.granted, m.promised, m.position, m.complete, m.incarnation, m.accepted};
  if (!m.granted) campaign_->obstacle = name_of(from) + " still holds a promise to another node";
  judge_canvass(false, now, out);
}

ValuePtr Core::newest_ballot(bool granted_only) const {
  ValuePtr newest;
  for (const auto& [id, b] : campaign_->ballots)
    if ((b.granted || !granted_only) && revision_of(b.accepted) > revision_of(newest)) newest = b.accepted;
  return newest;
}

bool Core::ballots_make_quorum(const Value& value) const {
  return quorum(value, [&](NodeId id, Incarnation incarnation) {
    const auto b = campaign_->ballots.find(id);
    if (b == campaign_->ballots.end() || !b->second.granted) return false;
    return b->second.incarnation == incarnation || options_.mutation.any_incarnation_votes;
  });
}

// A pair without witness: the one voter can't know by itself whether an administrator promoted the other one meanwhile.
bool Core::lacks_contact(const Value& newest) const {
  if (options_.mutation.sole_voter_alone || newest.data_nodes() < 2) return false;
  for (const Member& m : newest.members) {
    const auto b = campaign_->ballots.find(m.id);
    if (m.id == options_.self || m.kind != MemberKind::data || b == campaign_->ballots.end()) continue;
    if (b->second.promised <= newest.epoch())
      return false;  // more: it was told to found the cluster anew, and may have
  }
  return true;
}

bool Core::better_candidate(const Value& newest) const {
  if (campaign_->kind != Kind::automatic || attempts_ > 1) return false;
  for (const auto& [id, b] : campaign_->ballots)
    if (id != options_.self && id != newest.active && b.granted && b.complete && newest.is_in_sync(id) &&
        b.position > position_hint_)
      return true;
  return false;
}

// A consistent point lacks what was acknowledged since: others were acknowledged without this node. Only an administrator can accept that.
bool Core::falls_back(bool fallback) const {
  return fallback && (campaign_->kind == Kind::forced || options_.mutation.fallback_unforced);
}

// Why this node may not win, judged by the newest value a quorum knows, never by its own claim (R2); empty when it may.
std::string Core::why_not(const Value& newest, bool complete, bool fallback) const {
  const Member* me = newest.member(options_.self);
  if (me == nullptr || me->kind != MemberKind::data) return "this node is not a member of the cluster any more";
  if (!complete && falls_back(fallback)) return {};
  if (!complete)
    return campaign_->no_fallback.empty() ? "the copy here is not complete"
                                          : "the copy here is not complete: " + campaign_->no_fallback;
  if (campaign_->kind == Kind::forced) return {};
  if (campaign_->kind == Kind::returning && newest.active != options_.self)
    return name_of(newest.active) + " has become the active meanwhile";
  if (options_.mutation.own_claim_of_in_sync) return {};
  if (!newest.is_in_sync(options_.self))
    return "this node is not in the in-sync set (version " + std::to_string(newest.in_sync_version) +
           "): it may lack acknowledged writes";
  return {};
}

void Core::judge_canvass(bool last_chance, Now now, Actions& out) {
  ValuePtr newest = newest_ballot(false);
  if (!newest || revision_of(known_) > revision_of(newest)) newest = known_;
  if (!ballots_make_quorum(*newest)) {
    if (!last_chance) return;
    const auto active = campaign_->ballots.find(newest->active);
    const bool active_answers = newest->active != options_.self && active != campaign_->ballots.end();
    if (campaign_->kind != Kind::forced || active_answers)
      return abandon(campaign_->obstacle.empty() ? "no majority of the voters answers" : campaign_->obstacle, false,
                     now, out);
    campaign_->refound = true;
  }
  // note_value() may have brought what the ballots don't show, so this is judged again with the votes.
  if (const std::string reason = why_not(*newest, complete_hint_, fallback_hint_); !reason.empty())
    return abandon(reason, true, now, out);
  // What it waits for is of the copy; on the way back to a point nothing of that is done.
  const bool goes_back = !complete_hint_ && falls_back(fallback_hint_);
  if (!cant_lead_.empty() && !goes_back) return abandon(cant_lead_, true, now, out);
  const bool alone =
      std::count_if(newest->members.begin(), newest->members.end(), [](const Member& m) { return m.voter; }) == 1;
  if (alone && lacks_contact(*newest)) {
    const bool vouched = campaign_->kind == Kind::forced;
    campaign_->unheard = vouched && last_chance;
    if (last_chance && !vouched)
      abandon("its peer does not answer, so this node can't know whether the peer was promoted", false, now, out);
    if (!campaign_ || !campaign_->unheard) return;
  }
  if (better_candidate(*newest)) return abandon("another in-sync node has newer data", false, now, out);
  elect(*newest, now, out);
}

void Core::elect(const Value& newest, Now now, Actions& out) {
  Campaign& c = *campaign_;
  const Epoch highest = std::max({c.highest_promise, voter_.state().promised, newest.epoch()});
  c.epoch = highest.next();
  if (c.refound || c.unheard)
    c.epoch.value =
        std::max(c.epoch.value + refound_gap, wish_ ? wish_->order.at_s : 0) + newest.member(options_.self)->identity;
  c.round = random();
  c.ballots.clear();
  c.obstacle.clear();
  c.began_ns = now.holder_ns;
  role_ = Role::electing;
  // Its own vote first, and on disk: a candidate that crashes can't come back and use the same epoch for another value.
  send(options_.self, VoteRequest{c.round, c.epoch}, out);
}

void Core::on_vote(NodeId from, const Vote& m, Now now, Actions& out) {
  Campaign& c = *campaign_;
  if (m.round != c.round || m.epoch != c.epoch) return;
  c.ballots[from] = Ballot{true, m.epoch, m.position, m.complete, m.incarnation, m.accepted};
  if (from == options_.self) {
    c.own_vote = true;
    if (c.looks_back) c.began_ns = now.holder_ns;
    if (!c.refound) send_vote_requests(now, out);
  }
  judge_votes(now, out);
}

void Core::judge_votes(Now now, Actions& out) {
  Campaign& c = *campaign_;
  if (!c.own_vote) return;
  ValuePtr newest = newest_ballot(true);
  // Before the cluster's first value nobody has one but its founder.
  if (!newest || c.refound) newest = known_;
  if (!c.refound && !ballots_make_quorum(*newest)) return;
  const bool complete = c.ballots[options_.self].complete || known_->epoch().value == 0;
  if (const std::string reason = why_not(*newest, complete, c.fallback); !reason.empty())
    return abandon(reason, true, now, out);
  win(newest, now, out);
}

void Core::win(const ValuePtr& newest, Now now, Actions& out) {
  Campaign c = std::move(*campaign_);
  campaign_.reset();
  Value first = *newest;
  first.revision = {c.epoch, 1};
  first.active = options_.self;
  // The others stay eligible until this node's first change: should it vanish now, they lack nothing.
  if (c.kind == Kind::forced) {
    first.in_sync = {options_.self};
    ++first.in_sync_version;
  }
  if (c.refound) {
    first.old_voters.clear();
    for (Member& m : first.members) {
      m.voter = m.id == options_.self;
      if (m.voter) m.incarnation = voter_.state().incarnation;
    }
  }
  office_ = Office{};
  office_->began_ns = now.holder_ns;
  office_->base = c.refound ? nullptr : newest;
  office_->order = c.order;
  office_->over = office_->base;
  office_->older = !c.ballots[options_.self].complete && c.fallback;
  role_ = Role::recording;
  propose(std::move(first), 0, out);
}

void Core::abandon(std::string reason, bool for_good, Now now, Actions& out) {
  campaign_.reset();
  role_ = Role::passive;
  const Member* me = known_ ? known_->member(options_.self) : nullptr;
  const std::int64_t base = 100 * ns_per_ms << std::min(attempts_, 3U);
  not_before_ns_ = now.holder_ns + base / 2 + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(base));
  if (me != nullptr) not_before_ns_ += me->identity * 50 * ns_per_ms;
  if (reason != last_refusal_) out.push_back(out::Note{"candidacy abandoned: " + reason});
  last_refusal_ = std::move(reason);
  if (wish_ && (for_good || now.holder_ns > wish_->until_ns)) {
    answer(wish_->order.ticket, false, last_refusal_, out);
    wish_.reset();
  }
}

}  // namespace holdfast::cluster
