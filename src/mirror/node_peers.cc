// SPDX-License-Identifier: Apache-2.0
// The peers of a node as active, and what is kept for them.
#include <algorithm>

#include "base/log.h"
#include "mirror/node_log.h"

namespace holdfast::mirror {
namespace {

// A queue on disk is looked at as often, though nothing presses: what was acknowledged is given up, what is new is put aside.
constexpr int spooler_poll_ms = 250;
constexpr int spooler_idle_ms = 60'000;

}  // namespace

// A map that can't be kept is no reason to be without a peer: who falls behind its queue is compared as a whole then.
std::shared_ptr<ChangeMap> NodeLog::open_map(NodeId peer, const std::string& name) {
  if (!ports_.changes || (config_.features & feature_partial_resync) == 0) return nullptr;
  const std::lock_guard lock(maps_mutex_);
  if (const auto it = maps_.find(peer); it != maps_.end()) return it->second;
  auto store = ports_.changes->of_peer(peer);
  if (!store) {
    log_warning("peer {}: what changes while it is away can't be noted: {}", name, store.error().to_string());
    return nullptr;
  }
  return maps_[peer] = std::make_shared<ChangeMap>(std::move(*store), name);
}

void NodeLog::set_peers(const std::vector<std::pair<NodeId, std::string>>& peers) {
  std::vector<std::shared_ptr<Sender>> gone;
  std::map<NodeId, std::shared_ptr<ChangeMap>> maps;
  const auto old = senders();
  for (const auto& [id, name] : peers)
    if (std::none_of(old.begin(), old.end(), [&, peer = id](const auto& s) { return s->peer() == peer; }))
      maps[id] = open_map(id, name);
  {
    const std::lock_guard lock(mutex_);
    std::map<NodeId, std::shared_ptr<Sender>> next;
    for (const auto& [id, name] : peers) {
      if (const auto it = senders_.find(id); it != senders_.end()) {
        next[id] = it->second;
        continue;
      }
      next[id] = std::make_shared<Sender>(Sender::Shared{active_,
                                                         ports_.live,
                                                         ports_.ids,
                                                         ports_.times,
                                                         config_.cluster_id,
                                                         config_.node,
                                                         [this] {
                                                           const std::lock_guard inner(mutex_);
                                                           return sets_;
                                                         },
                                                         [this](NodeId peer, PeerState state) {
                                                           if (events_.peer_state) events_.peer_state(peer, state);
                                                         },
                                                         events_.may_hold_dirty,
                                                         [this] {
                                                           if (progress_waits_.load() == 0) return;
                                                           const std::lock_guard inner(mutex_);
                                                           progress_cv_.notify_all();
                                                         },
                                                         [this](const Error& why) { fault(why); },
                                                         config_.linger_ms,
                                                         ports_.open_spill,
                                                         log::default_segment_bytes,
                                                         &compared_,
                                                         events_.verified,
                                                         [map = maps[id]](NodeId) { return map; },
                                                         config_.features,
                                                         [this] { return dial_epoch(); },
                                                         [this] {
                                                           const std::lock_guard inner(mutex_);
                                                           return led_from_;
                                                         },
                                                         ports_.ids_of_block,
                                                         events_.returned,
                                                         &limits_},
                                          id, name);
      next[id]->queue().set_limit(send_limit_bytes_);
    }
    for (const auto& [id, sender] : senders_)
      if (!next.contains(id)) gone.push_back(sender);
    senders_ = std::move(next);
  }
  for (const auto& s : gone) {
    s->stop();
    s->queue().end();
  }
  set_scrub(scrub());
  std::set<NodeId> members;
  for (const auto& [id, name] : peers) members.insert(id);
  limits_.set_members(std::move(members));
  changed();
}

std::vector<std::shared_ptr<Sender>> NodeLog::senders() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<Sender>> all;
  for (const auto& [id, sender] : senders_) all.push_back(sender);
  return all;
}

void NodeLog::set_queue_limits(std::uint64_t send_bytes, std::uint64_t receive_bytes) {
  {
    const std::lock_guard lock(mutex_);
    send_limit_bytes_ = send_bytes;
  }
  receiver_.set_limit(receive_bytes);
  for (const auto& s : senders()) s->queue().set_limit(send_bytes);
}

const char* to_string(Shortage::Where where) {
  switch (where) {
    case Shortage::Where::receive:
      return "receive";
    case Shortage::Where::folder:
      return "folder";
    case Shortage::Where::history:
      return "history";
    case Shortage::Where::send:
      return "send";
  }
  return "receive";
}

void NodeLog::look_for_shortages() {
  std::vector<Shortage> now;
  for (const auto& s : senders())
    if (const auto queue = s->queue().status(); queue.is_given_up())
      now.push_back({Shortage::Where::send, s->peer(), queue.given_up});
  if (applier_.waits_for_space()) {
    const auto where = applier_.waits_for_history() ? Shortage::Where::history : Shortage::Where::folder;
    now.push_back({where, NodeId(0), {}});
  }
  std::vector<Shortage> before;
  {
    const std::lock_guard lock(mutex_);
    if (!receive_full_.empty()) now.push_back({Shortage::Where::receive, NodeId(0), receive_full_});
    before = std::exchange(shortages_, now);
  }
  const auto differ = [](const Shortage& s, const std::vector<Shortage>& all) {
    return std::find(all.begin(), all.end(), s) == all.end();
  };
  for (const auto& s : now)
    if (differ(s, before)) {
      log_error("no space ({}): {}", to_string(s.where), s.text.empty() ? "apply waits for some" : s.text);
      if (events_.space) events_.space(s, true);
    }
  for (const auto& s : before)
    if (differ(s, now)) {
      log_info("there is space again ({})", to_string(s.where));
      if (events_.space) events_.space(s, false);
    }
}

// How much had been appended, ten times a second: the oldest byte that is not applied came after the last mark that is.
void NodeLog::note_queue_age() {
  constexpr std::size_t most_marks = 4096;
  const std::uint64_t appended = receiver_.appended_bytes();
  const std::int64_t now = ports_.times.steady_ns();
  const std::lock_guard lock(mutex_);
  if (!marks_.empty() && marks_.back().appended_bytes == appended)
    marks_.back().at_ns = now;
  else
    marks_.push_back({appended, now});
  while (marks_.size() > 1 && marks_[1].appended_bytes <= applied_bytes_) marks_.pop_front();
  if (marks_.size() <= most_marks) return;
  std::deque<ReceivedAt> kept;
  for (std::size_t i = 0; i < marks_.size(); ++i)
    if (i % 2 == 0 || i + 1 == marks_.size()) kept.push_back(marks_[i]);
  marks_.swap(kept);
}

void NodeLog::run_spooler() {
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      if (stopped_) return;
    }
    bool more = false, busy = false;
    for (const auto& s : senders()) {
      more = s->queue().spool() || more;
      busy = busy || s->queue().is_busy();
    }
    if (!more) active_.ring().wait_pressure(busy ? spooler_poll_ms : spooler_idle_ms);
  }
}

}  // namespace holdfast::mirror
