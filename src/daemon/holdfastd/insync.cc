// SPDX-License-Identifier: Apache-2.0
#include "daemon/holdfastd/insync.h"

#include <algorithm>

namespace holdfast::daemon {

void InSync::begin_office() {
  office_ = true;
  ++turn_;
  answered_ = told_ok_ = true;
  recorded_ = false;
  version_ = 0;
  in_set_.clear();
  said_.clear();
  told_.clear();
  peers_.clear();
}

void InSync::end_office() {
  office_ = false;
  ++turn_;
}

void InSync::mirror_restarted() {
  ++turn_;
  answered_ = told_ok_ = true;
  told_.clear();
}

bool InSync::synchronized(NodeId node) const {
  const auto it = peers_.find(node);
  return it != peers_.end() && it->second.peer.state == "synchronized";
}

void InSync::recorded(std::uint64_t version, const std::vector<NodeId>& set) {
  if (!office_) return;
  recorded_ = true;
  version_ = version;
  in_set_ = std::set<NodeId>(set.begin(), set.end());
  in_set_.erase(self_);
  for (const NodeId id : in_set_) said_.erase(id);
  // Told anew even when the peers are the same: who was removed and is waited for again must be known by the new version.
  tell_mirror();
}

void InSync::observe(NodeId node, const Peer& peer, std::int64_t now_ms) {
  if (!office_ || node == self_) return;
  now_ms_ = std::max(now_ms_, now_ms);
  const bool was = synchronized(node);
  const bool first = !peers_.contains(node);
  Watched& w = peers_[node];
  // A sender that is stuck has nothing outstanding and yet does not keep up: the log itself is the measure.
  const bool progress = peer.acked != w.peer.acked || peer.acked >= peer.last;
  w.peer = peer;
  const bool is = peer.state == "synchronized";
  if (first || (is && (progress || !was) && !too_old(node, peer))) w.good_ms = now_ms;
  if (is && !was && recorded_) tell_mirror();
}

void InSync::tell_mirror() {
  std::set<NodeId> wanted = in_set_;
  for (const auto& [id, said] : said_) wanted.insert(id);
  for (const auto& [id, w] : peers_)
    if (good(w, now_ms_)) wanted.insert(id);
  told_ = wanted;
  answered_ = false;
  const std::vector<NodeId> told(wanted.begin(), wanted.end());
  port_.set_wait_set(told,
                     [this, turn = ++turn_, version = version_, told](bool ok) { settled(turn, ok, version, told); });
}

void InSync::settled(std::uint64_t turn, bool ok, std::uint64_t version, const std::vector<NodeId>& told) {
  if (turn != turn_ || !office_) return;
  answered_ = true;
  told_ok_ = ok;
  if (!ok) return;  // tick() tells it again
  for (const NodeId id : told) {
    if (in_set_.contains(id) || !due(id, version) || !good(peers_[id], now_ms_)) continue;
    said_[id] = {version, now_ms_};
    port_.waiting_for(id, version);
  }
}

bool InSync::due(NodeId node, std::uint64_t version) const {
  const auto it = said_.find(node);
  return it == said_.end() || it->second.version != version || now_ms_ - it->second.at_ms >= repeat_ms;
}

void InSync::lost(NodeId id, std::int64_t now_ms) {
  Watched& w = peers_[id];
  if (now_ms - w.said_lost_ms < 500) return;
  w.said_lost_ms = now_ms;
  said_.erase(id);
  port_.peer_lost(id);
}

void InSync::tick(std::int64_t now_ms) {
  if (!office_) return;
  now_ms_ = std::max(now_ms_, now_ms);
  // In the set but not even known to the mirror: it was configured away, or the mirror restarted.
  for (const NodeId id : in_set_)
    if (!peers_.contains(id)) observe(id, Peer{"lost", 0, 0}, now_ms);
  std::set<NodeId> waited_for = told_;
  waited_for.insert(in_set_.begin(), in_set_.end());
  for (const NodeId id : waited_for)
    if (const auto it = peers_.find(id);
        it != peers_.end() && !good(it->second, now_ms) && now_ms - it->second.good_ms > patience_ms)
      lost(id, now_ms);
  // The mirror lets peers in when it hears of the first version: no peer is ever good before that, so it is not left to them.
  bool missing = !told_ok_;
  for (const auto& [id, w] : peers_)
    if (good(w, now_ms) && !in_set_.contains(id) && due(id, version_)) missing = true;
  if (missing && answered_ && recorded_) tell_mirror();
}

}  // namespace holdfast::daemon
