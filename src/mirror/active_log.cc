// SPDX-License-Identifier: Apache-2.0
#include "mirror/active_log.h"

#include <algorithm>
#include <limits>

namespace holdfast::mirror {

Sequence ActiveLog::append(const log::Record& record, std::size_t reserved_bytes) {
  const Sequence sequence = ring_.append(record, reserved_bytes);
  const bool only_times =
      record.kind == log::Kind::set_attributes && (record.valid & ~(log::valid_atime | log::valid_mtime)) == 0;
  std::uint64_t last = last_but_times_.load(std::memory_order_relaxed);
  while (!only_times && last < sequence.value &&
         !last_but_times_.compare_exchange_weak(last, sequence.value, std::memory_order_release)) {
  }
  return sequence;
}

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
  for (auto it = waiters_.begin(); it != end; ++it) done.push_back(std::move(it->second.done));
  waiters_.erase(waiters_.begin(), end);
  return done;
}

void ActiveLog::when_durable(Sequence sequence, std::function<void()> done) {
  wait_for(sequence, {std::move(done), true});
}

void ActiveLog::when_held(Sequence sequence, std::function<void()> done) {
  wait_for(sequence, {std::move(done), false});
}

void ActiveLog::wait_for(Sequence sequence, Waiter waiter) {
  {
    std::unique_lock lock(mutex_);
    if ((!application_waits_ && waiter.application) || sequence <= durable_everywhere()) {
      lock.unlock();
      return waiter.done();
    }
    waiters_.emplace(sequence, std::move(waiter));
  }
  hurry_to(sequence);
}

void ActiveLog::set_application_waits(bool waits) {
  std::vector<std::function<void()>> done;
  {
    const std::lock_guard lock(mutex_);
    application_waits_ = waits;
    for (auto it = waiters_.begin(); !waits && it != waiters_.end();) {
      if (!it->second.application) {
        ++it;
        continue;
      }
      done.push_back(std::move(it->second.done));
      it = waiters_.erase(it);
    }
  }
  for (auto& f : done) f();
}

void ActiveLog::hurry_to(Sequence sequence) {
  if (on_hurry_) on_hurry_(sequence);
}

void ActiveLog::moved(SetNumber set, const FileId& file) {
  if (resyncs_.load(std::memory_order_acquire) > 0 && on_moved_) on_moved_(set, file);
}

void ActiveLog::begin_epoch() {
  const std::lock_guard lock(mutex_);
  acked_.clear();
  waiters_.clear();
  last_but_times_ = 0;  // sequences may go on lower than where a lost epoch of ours had got
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
