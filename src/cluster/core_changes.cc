// SPDX-License-Identifier: Apache-2.0
// Changes of the register by its active: one at a time, each recorded before the next is made.
#include "cluster/core.h"

namespace holdfast::cluster {
namespace {

constexpr std::int64_t handover_patience_ns = 5'000 * ns_per_ms;

std::vector<Voter> voters_of(const Value& v) {
  std::vector<Voter> all;
  for (const Member& m : v.members)
    if (m.voter) all.push_back({m.id, m.incarnation});
  return all;
}

Member* find(Value& v, NodeId id) {
  for (Member& m : v.members)
    if (m.id == id) return &m;
  return nullptr;
}

// Empty when `m` may be added to (or changed in) `v`.
std::string refusal(const Value& v, const Member& m) {
  if (m.id.value == 0 || m.name.empty() || m.name.size() > max_name_bytes || m.site.size() > max_name_bytes)
    return "the member is not described properly";
  const bool known = v.member(m.id) != nullptr;
  if (!known && v.members.size() >= max_members) return "the cluster is full";
  if (!known && m.kind == MemberKind::data && v.data_nodes() >= 3) return "a cluster has at most three nodes";
  if (!known && m.kind == MemberKind::witness && v.has_witness())
    return "the cluster has a witness already: remove it first";
  for (const Member& other : v.members)
    if (other.id != m.id && other.name == m.name)
      return "another member is named " + m.name + " already: choose another name";
  return {};
}

}  // namespace

bool Core::take_order(const Input& input, Now now, Actions& out) {
  const bool about_set = std::holds_alternative<in::WaitingFor>(input) || std::holds_alternative<in::PeerLost>(input);
  if (about_set && !office_->open) return true;  // nobody is waited for yet, nobody is dropped: {self} comes first
  if (const auto* w = std::get_if<in::WaitingFor>(&input)) {
    const auto removed = office_->removed_at.find(w->node);
    const std::uint64_t floor =
        std::max(office_->joins_from, removed == office_->removed_at.end() ? 0 : removed->second);
    if (w->in_sync_version < floor && !options_.mutation.joiner_without_wait)
      return true;  // the mirror may have stopped waiting since
    if (recorded_->member(w->node) == nullptr) return true;
    office_->leaving.erase(w->node);
    if (!recorded_->is_in_sync(w->node)) office_->joining.insert(w->node);
  } else if (const auto* l = std::get_if<in::PeerLost>(&input)) {
    office_->joining.erase(l->node);
    const bool in_set = recorded_->is_in_sync(l->node) || (office_->pending && office_->pending->is_in_sync(l->node));
    if (in_set && l->node != options_.self) office_->leaving.insert(l->node);
    // Not in it and not about to be: the mirror may stop waiting for it as before it began. Not said while a change of
    // the set is on its way: who is being added would be left out.
    const bool changing = office_->pending && office_->pending->in_sync_version != recorded_->in_sync_version;
    if (!in_set && !changing)
      out.push_back(out::InSyncRecorded{recorded_->epoch(), recorded_->in_sync_version, recorded_->in_sync});
  } else if (const auto* c = std::get_if<in::ProposeConfig>(&input)) {
    office_->orders.push_back({*c, c->ticket});
  } else if (const auto* a = std::get_if<in::AddMember>(&input)) {
    office_->orders.push_back({*a, a->ticket});
  } else if (const auto* r = std::get_if<in::RemoveMember>(&input)) {
    office_->orders.push_back({*r, r->ticket});
    if (recorded_->is_in_sync(r->node) && r->node != options_.self) office_->leaving.insert(r->node);
  } else if (const auto* done = std::get_if<in::Activated>(&input)) {
    if (done->epoch == recorded_->epoch()) office_->activated = true;
  } else if (const auto* h = std::get_if<in::Handover>(&input)) {
    take_handover(*h, now, out);
  } else {
    return false;
  }
  if (office_) pump(now, out);
  return true;
}

void Core::take_handover(const in::Handover& h, Now now, Actions& out) {
  const Member* m = recorded_->member(h.successor);
  if (office_->handover) return answer(h.ticket, false, "a handover is under way already", out);
  if (m == nullptr || m->kind != MemberKind::data || h.successor == options_.self)
    return answer(h.ticket, false, "the successor must be another node of this cluster", out);
  if (!office_->open || !recorded_->is_in_sync(h.successor))
    return answer(h.ticket, false, m->name + " is not synchronized: wait until it is", out);
  office_->handover = h;
  office_->handover_until_ns = now.holder_ns + handover_patience_ns;
}

// Makes the next change, if there is one and none is on its way. Safety first: removals before joins before orders.
void Core::pump(Now now, Actions& out) {
  if (role_ != Role::active) return;
  if (office_->handover && now.holder_ns > office_->handover_until_ns) {
    answer(office_->handover->ticket, false, "no majority recorded what the handover needs", out);
    office_->handover.reset();
  }
  if (office_->pending || !office_->activated) return;
  if (!office_->open) return propose_alone(now, out);
  Value next = *recorded_;
  ++next.revision.number;
  std::uint64_t ticket = 0;
  bool change = true;
  if (!next.old_voters.empty()) {
    // Who is lost leaves the in-sync set meanwhile: fsyncs wait for it.
    if (old_voters_may_go(now))
      next.old_voters.clear();
    else
      change = next_removal(next);
  } else if (next_removal(next) || next_voters(next, now)) {
  } else if (office_->handover) {
    const Member* successor = recorded_->member(office_->handover->successor);
    if (successor == nullptr || !successor->voter || !recorded_->is_in_sync(successor->id)) return;
    const in::Handover h = *office_->handover;
    office_->handover.reset();
    leave_office(h.successor, h.order, now, out);
    return answer(h.ticket, true, "", out);
  } else
    change = next_join(next) || next_order(next, now, ticket, out);
  if (!change) return;
  if (options_.mutation.removal_before_recorded && next.in_sync_version != recorded_->in_sync_version)
    out.push_back(out::InSyncRecorded{next.epoch(), next.in_sync_version, next.in_sync});
  propose(std::move(next), ticket, out);
}

// The first change of an epoch: its mirror waits for nobody yet, so nobody else is eligible from here on.
void Core::propose_alone(Now now, Actions& out) {
  const std::vector<NodeId> alone = {options_.self};
  if (recorded_->in_sync == alone) {
    open_office(out);
    extend_lease(now, out);
    return pump(now, out);
  }
  Value next = *recorded_;
  ++next.revision.number;
  next.in_sync = alone;
  ++next.in_sync_version;
  propose(std::move(next), 0, out);
}

bool Core::next_removal(Value& next) const {
  for (const NodeId id : office_->leaving) {
    if (!next.is_in_sync(id)) continue;
    std::erase(next.in_sync, id);
    ++next.in_sync_version;
    return true;
  }
  return false;
}

bool Core::next_join(Value& next) const {
  for (const NodeId id : office_->joining) {
    const Member* m = next.member(id);
    const auto p = office_->peers.find(id);
    // Under another incarnation it could never vote for itself: readmitted first.
    if (m == nullptr || m->kind != MemberKind::data || next.is_in_sync(id)) continue;
    if (p == office_->peers.end() || p->second.incarnation != m->incarnation) continue;
    next.in_sync.push_back(id);
    std::sort(next.in_sync.begin(), next.in_sync.end());
    ++next.in_sync_version;
    return true;
  }
  return false;
}

// Who came back without its memory (R9), by itself: whoever else is missing is in nobody's way. Then who should vote and doesn't, or does and
// shouldn't: all of that or nothing, and nothing that would need who does not answer: it would hang, and all that comes after it.
bool Core::next_voters(Value& next, Now now) const {
  const std::vector<Voter> before = voters_of(next);
  const auto here = [&](NodeId id) { return id == options_.self || heard_lately(id, now); };
  bool changed = false, voters_changed = false;
  for (Member& m : next.members) {
    const auto p = office_->peers.find(m.id);
    if (m.id == options_.self || p == office_->peers.end() || p->second.incarnation == m.incarnation || !here(m.id))
      continue;
    if (next.is_in_sync(m.id)) continue;  // on_renewed() asked for its removal
    m.incarnation = p->second.incarnation;
    if (m.kind == MemberKind::data) ++next.in_sync_version;  // whoever waited for it waits anew: see forget_waits()
    changed = true;
    voters_changed |= m.voter;
  }
  // A witness arbitrates between nodes; a node alone would only depend on it.
  const bool all = (next.has_witness() && next.data_nodes() >= 2) || next.data_nodes() >= 3;
  const auto wanted = [&](const Member& m) {
    return all || m.id == options_.self || (office_->handover && office_->handover->successor == m.id);
  };
  const bool whole = std::all_of(next.members.begin(), next.members.end(),
                                 [&](const Member& m) { return !wanted(m) || m.voter || here(m.id); });
  Value with = next;
  bool others = false;
  for (Member& m : with.members) {
    if (!whole || m.voter == wanted(m)) continue;
    m.voter = !m.voter;
    others = true;
  }
  with.old_voters = before;
  if (others && missing_for(with, now).empty()) {
    next.members = std::move(with.members);
    changed = voters_changed = true;
  }
  if (voters_changed) next.old_voters = before;
  return changed;
}

// The lease that this node holds was promised by a majority of those who voted then. As long as it lasts, whoever wins the next epoch must need
// one of them: so the old ones count until those who stay have promised at least as much.
bool Core::old_voters_may_go(Now now) const {
  const std::int64_t promised = lease_by(*recorded_);
  return promised > now.holder_ns && promised >= std::max(office_->lease_until_ns, office_->resumed_word_ns);
}

// Who is no member any more, or came back without its memory, may lack what it had acknowledged: that fsyncs waited for it before counts no more.
void Core::forget_waits(const Value& before) {
  for (const Member& m : before.members) {
    const Member* now = recorded_->member(m.id);
    if (now != nullptr && now->incarnation == m.incarnation) continue;
    office_->joining.erase(m.id);
    office_->leaving.erase(m.id);
    office_->removed_at[m.id] = recorded_->in_sync_version;
  }
}

// Who does not answer now and would be needed to record `next`; empty: nobody.
std::string Core::missing_for(const Value& next, Now now) const {
  const auto answers = [&](NodeId id, Incarnation incarnation) {
    const auto p = office_->peers.find(id);
    if (id == options_.self) return true;
    return heard_lately(id, now) && p != office_->peers.end() && p->second.incarnation == incarnation;
  };
  if (quorum(next, answers)) return {};
  std::string names;
  for (const Member& m : next.members)
    if (m.voter && !answers(m.id, m.incarnation)) names += (names.empty() ? "" : ", ") + m.name;
  return names.empty() ? "a node that voted before" : names;
}

bool Core::next_order(Value& next, Now now, std::uint64_t& ticket, Actions& out) {
  while (!office_->orders.empty()) {
    const Order order = std::move(office_->orders.front());
    office_->orders.pop_front();
    std::string no;
    if (const auto* c = std::get_if<in::ProposeConfig>(&order.what)) {
      if (c->expected_version != next.config_version) no = "the configuration was changed meanwhile: read it again";
      if (c->config.size() > max_config_bytes) no = "the configuration is larger than 64 KiB";
      if (c->settings.lease_ms < lease_floor_ms || c->settings.lease_ms > lease_ceiling_ms)
        no = "the lease must be 200 to 2000 ms";
      next.config = c->config;
      next.settings = c->settings;
      ++next.config_version;
    } else if (const auto* a = std::get_if<in::AddMember>(&order.what)) {
      no = refusal(next, a->member);
      if (Member* m = find(next, a->member.id)) {
        const bool voter = m->voter;
        const Incarnation incarnation = m->incarnation;
        *m = a->member;
        m->voter = voter;
        m->incarnation = incarnation;
      } else {
        next.members.push_back(a->member);
        next.members.back().voter = false;
      }
    } else if (const auto* r = std::get_if<in::RemoveMember>(&order.what)) {
      const Member* m = next.member(r->node);
      if (m == nullptr) no = "there is no such member";
      if (r->node == options_.self) no = "the active can't be removed: make another node the active first";
      if (next.is_in_sync(r->node)) no = "it is still in the in-sync set: try again";
      if (m != nullptr && m->kind == MemberKind::data) ++next.in_sync_version;  // see forget_waits()
      if (m != nullptr && m->voter) next.old_voters = voters_of(next);
      std::erase_if(next.members, [&](const Member& each) { return each.id == r->node; });
      if (const std::string missing = missing_for(next, now); no.empty() && !missing.empty())
        no = "without it no majority of votes would answer: bring back " + missing + " first";
    }
    if (no.empty()) {
      ticket = order.ticket;
      return true;
    }
    answer(order.ticket, false, no, out);
    next = *recorded_;
    ++next.revision.number;
  }
  return false;
}

}  // namespace holdfast::cluster
