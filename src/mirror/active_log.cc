// SPDX-License-Identifier: Apache-2.0
#include "mirror/active_log.h"

#include <algorithm>
#include <limits>

namespace holdfast::mirror {

Sequence ActiveLog::durable_everywhere() const {
  Sequence least(std::numeric_limits<std::uint64_t>::max());
  for (const NodeId peer : wait_set_) {
    const auto it = acked_.find(peer);
    least = std::min(least, it == acked_.end() ? Sequence(0) : it->second);
  }
  return least;
}

std::vector<std::function<void()>> ActiveLog::take_done() {
  std::vector<std::function<void()>> done;
  const auto end = waiters_.upper_bound(durable_everywhere());
  for (auto it = waiters_.begin(); it != end; ++it) done.push_back(std::move(it->second));
  waiters_.erase(waiters_.begin(), end);
  return done;
}

void ActiveLog::when_durable(Sequence sequence, std::function<void()> done) {
  {
    const std::lock_guard lock(mutex_);
    if (sequence > durable_everywhere()) {
      waiters_.emplace(sequence, std::move(done));
      done = nullptr;
    }
  }
  if (done) done();
  else hurry();
}

void ActiveLog::hurry() {
  if (on_hurry_) on_hurry_();
}

void ActiveLog::moved(SetNumber set, const FileId& file) {
  if (resyncs_.load(std::memory_order_acquire) > 0 && on_moved_) on_moved_(set, file);
}

void ActiveLog::begin_epoch() {
  const std::lock_guard lock(mutex_);
  acked_.clear();
  waiters_.clear();
}

void ActiveLog::acknowledged(NodeId peer, Sequence durable) {
  std::vector<std::function<void()>> done;
  {
    const std::lock_guard lock(mutex_);
    Sequence& have = acked_[peer];
    if (durable <= have) return;
    have = durable;
    done = take_done();
  }
  for (auto& f : done) f();
}

void ActiveLog::incomplete(NodeId peer) {
  const std::lock_guard lock(mutex_);
  acked_.erase(peer);
}

void ActiveLog::set_wait_set(std::set<NodeId> peers) {
  std::vector<std::function<void()>> done;
  {
    const std::lock_guard lock(mutex_);
    wait_set_ = std::move(peers);
    done = take_done();
  }
  for (auto& f : done) f();
}

std::set<NodeId> ActiveLog::wait_set() const {
  const std::lock_guard lock(mutex_);
  return wait_set_;
}

Sequence ActiveLog::acked(NodeId peer) const {
  const std::lock_guard lock(mutex_);
  const auto it = acked_.find(peer);
  return it == acked_.end() ? Sequence(0) : it->second;
}

}  // namespace holdfast::mirror
