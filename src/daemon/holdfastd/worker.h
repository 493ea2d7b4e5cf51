// SPDX-License-Identifier: Apache-2.0
// A thread that runs blocking jobs one after the other, in the order given.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <thread>

namespace holdfast::daemon {

class Worker {
 public:
  Worker() : thread_([this] { run(); }) {}
  // Jobs that wait are dropped, the one that runs is waited for.
  ~Worker() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void post(std::function<void()> job) {
    {
      const std::lock_guard lock(mutex_);
      jobs_.push_back(std::move(job));
    }
    changed_.notify_one();
  }

  // True when all that was posted before has run; false after timeout_ms. Other threads only.
  bool settle(int timeout_ms) {
    auto done = std::make_shared<std::promise<void>>();
    auto future = done->get_future();
    post([done] { done->set_value(); });
    return future.wait_for(std::chrono::milliseconds(timeout_ms)) == std::future_status::ready;
  }

 private:
  void run() {
    for (;;) {
      std::function<void()> job;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
        if (stopping_) return;
        job = std::move(jobs_.front());
        jobs_.pop_front();
      }
      job();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace holdfast::daemon
