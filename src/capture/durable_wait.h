// SPDX-License-Identifier: Apache-2.0
// One fsync's wait for its peers, and all of them, so that the end of an epoch releases them.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <unordered_set>

namespace holdfast::capture {

class DurableWait {
 public:
  void done() { settle(1); }
  void stop() { settle(2); }
  bool settled() const { return state_.load(std::memory_order_acquire) != 0; }
  // True: durable; false: stopped.
  bool wait() {
    state_.wait(0, std::memory_order_acquire);
    return state_.load(std::memory_order_acquire) == 1;
  }

 private:
  void settle(int how) {
    int open = 0;
    if (state_.compare_exchange_strong(open, how, std::memory_order_release)) state_.notify_all();
  }
  std::atomic<int> state_{0};
};

class DurableWaits {
 public:
  bool wait(const std::shared_ptr<DurableWait>& one) {
    {
      const std::lock_guard guard(mutex_);
      if (stopped_) return false;
      waits_.insert(one);
    }
    const bool durable = one->wait();
    const std::lock_guard guard(mutex_);
    waits_.erase(one);
    return durable;
  }
  void stop() {
    const std::lock_guard guard(mutex_);
    stopped_ = true;
    for (const auto& one : waits_) one->stop();
  }

 private:
  std::mutex mutex_;
  std::unordered_set<std::shared_ptr<DurableWait>> waits_;
  bool stopped_ = false;
};

}  // namespace holdfast::capture
