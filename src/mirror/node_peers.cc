// SPDX-License-Identifier: Apache-2.0
// The peers of a node as active, and what is kept for them.
#include "base/log.h"
#include "mirror/node_log.h"

namespace holdfast::mirror {
namespace {

// A queue on disk is looked at as often, though nothing presses: what was acknowledged is given up, what is new is put aside.
constexpr int spooler_poll_ms = 250;
constexpr int spooler_idle_ms = 60'000;

}  // namespace

void NodeLog::set_peers(const std::vector<std::pair<NodeId, std::string>>& peers) {
  std::vector<std::shared_ptr<Sender>> gone;
  {
    const std::lock_guard lock(mutex_);
    std::map<NodeId, std::shared_ptr<Sender>> next;
    for (const auto& [id, name] : peers) {
      if (const auto it = senders_.find(id); it != senders_.end()) {
        next[id] = it->second;
        continue;
      }
      next[id] = std::make_shared<Sender>(
          Sender::Shared{active_, ports_.live, ports_.ids, ports_.times, config_.cluster_id, config_.node,
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
                         [this](const Error& why) { fault(why); }, config_.linger_ms, ports_.open_spill,
                         log::default_segment_bytes, nullptr, &compared_, events_.verified},
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
