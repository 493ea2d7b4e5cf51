// SPDX-License-Identifier: Apache-2.0
// What `status` shows.
#include "cluster/core.h"

namespace holdfast::cluster {

std::int64_t Core::lease_left_ns(Now now) const {
  if (office_) return std::max<std::int64_t>(0, office_->lease_until_ns - now.holder_ns);
  return voter_.view(now).promise_left_ns;
}

std::vector<VoteStatus> Core::votes(Now now) const {
  std::vector<VoteStatus> all;
  if (!known_) return all;
  for (const Member& m : value()->members) {
    VoteStatus s{m.id, m.name, m.kind, m.voter};
    const auto h = heard_ns_.find(m.id);
    if (h != heard_ns_.end()) s.last_answer_age_ns = now.holder_ns - h->second;
    s.reachable = m.id == options_.self || heard_lately(m.id, now);
    if (m.id == options_.self) s.last_answer_age_ns = 0;
    if (office_) {
      const auto p = office_->peers.find(m.id);
      if (p != office_->peers.end()) {
        s.granted = p->second.granted_until_ns > now.holder_ns;
        s.readmission_needed = p->second.incarnation != m.incarnation;
      }
    } else if (m.id == options_.self) {
      s.granted = voter_.view(now).promise_holds;
    }
    all.push_back(std::move(s));
  }
  return all;
}

Availability Core::automatic_failover(Now now) const {
  if (!known_) return {false, "this node belongs to no cluster yet", "holdfast init, or holdfast join"};
  const Value& v = *value();
  if (v.data_nodes() < 2) return {false, "the cluster has one node", "holdfast join on the second node"};
  if (!v.settings.automatic_failover)
    return {false, "automatic failover is switched off", "holdfast config set automatic-failover on"};
  if (!v.has_witness() && v.data_nodes() == 2)
    return {false, "a pair without witness cannot tell a dead active from a cut cable", "add a witness"};
  if (v.in_sync.size() < 2) return {false, "no passive is synchronized", "wait until one is"};
  if (role_ != Role::active) return {true, "", ""};
  // Without the active, the rest must still be a majority, and one of it a target.
  const std::vector<VoteStatus> votes_now = votes(now);
  const auto here = [&](NodeId id) {
    for (const VoteStatus& s : votes_now)
      if (s.id == id) return s.reachable && !s.readmission_needed;
    return false;
  };
  if (!quorum(v, [&](NodeId id, Incarnation) { return id != options_.self && here(id); })) {
    std::string missing;
    for (const VoteStatus& s : votes_now)
      if (s.voter && !here(s.id)) missing += (missing.empty() ? "" : ", ") + s.name;
    return {false, "without the active there would be no majority of votes: " + missing + " missing",
            "bring " + missing + " back"};
  }
  for (const NodeId id : v.in_sync)
    if (id != options_.self && here(id)) return {true, "", ""};
  return {false, "no synchronized passive answers", "bring one back"};
}

}  // namespace holdfast::cluster
