// SPDX-License-Identifier: Apache-2.0
// The daemon's one loop: a mailbox of tasks and a heap of timers, run by one thread. All state of the control plane belongs
// to that thread; everything that may block lives in other threads and posts what it found.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "base/check.h"

namespace holdfast::daemon {

class Loop {
 public:
  using Task = std::function<void()>;
  using TimerId = std::uint64_t;  // 0 = none

  // Any thread. `what` names the task in the log when it held the loop up. False after stop(): the task will never run.
  bool post(const char* what, Task task);
  // Loop thread, or before run().
  TimerId after(std::chrono::milliseconds delay, const char* what, Task task);
  void cancel(TimerId timer);

  // Until stop(). The calling thread is the loop's.
  void run();
  void stop();
  bool on_loop() const { return std::this_thread::get_id() == thread_; }

  // Runs `f` on the loop and waits for what it returns. Other threads only. After stop() `fallback` comes back.
  template <class F, class R = std::invoke_result_t<F>>
  R call(const char* what, F f, R fallback) {
    CHECK(!on_loop(), "call({}) from the loop itself would wait for ever", what);
    auto answer = std::make_shared<std::promise<R>>();
    auto future = answer->get_future();
    auto fell_back = std::make_shared<R>(std::move(fallback));
    if (!post(what, [answer, f = std::move(f)]() mutable { answer->set_value(f()); })) return std::move(*fell_back);
    while (future.wait_for(std::chrono::milliseconds(200)) != std::future_status::ready)
      if (stopped_) return std::move(*fell_back);
    return future.get();
  }

 private:
  struct Entry {
    const char* what;
    Task task;
  };
  using Clock = std::chrono::steady_clock;
  void run_entry(const Entry& entry);

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Entry> mailbox_;
  std::map<std::pair<Clock::time_point, TimerId>, Entry> timers_;
  std::map<TimerId, Clock::time_point> timer_due_;
  TimerId next_timer_ = 1;
  bool stopping_ = false;
  std::atomic<bool> stopped_{false};
  std::atomic<std::thread::id> thread_{};
};

}  // namespace holdfast::daemon
