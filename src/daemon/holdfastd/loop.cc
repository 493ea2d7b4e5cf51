// SPDX-License-Identifier: Apache-2.0
#include "daemon/holdfastd/loop.h"

#include "base/log.h"

namespace holdfast::daemon {

bool Loop::post(const char* what, Task task) {
  const std::lock_guard lock(mutex_);
  if (stopping_) return false;
  mailbox_.push_back({what, std::move(task)});
  changed_.notify_one();
  return true;
}

Loop::TimerId Loop::after(std::chrono::milliseconds delay, const char* what, Task task) {
  const std::lock_guard lock(mutex_);
  const TimerId id = next_timer_++;
  const auto due = Clock::now() + delay;
  timers_.emplace(std::make_pair(due, id), Entry{what, std::move(task)});
  timer_due_[id] = due;
  changed_.notify_one();
  return id;
}

void Loop::cancel(TimerId timer) {
  const std::lock_guard lock(mutex_);
  const auto it = timer_due_.find(timer);
  if (it == timer_due_.end()) return;
  timers_.erase({it->second, timer});
  timer_due_.erase(it);
}

void Loop::run_entry(const Entry& entry) {
  const auto began = Clock::now();
  entry.task();
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - began).count();
  if (took > 100) log_warning("the control loop was held up for {} ms by: {}", took, entry.what);
}

void Loop::run() {
  thread_ = std::this_thread::get_id();
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (!timers_.empty() && timers_.begin()->first.first <= Clock::now()) {
      Entry entry = std::move(timers_.begin()->second);
      timer_due_.erase(timers_.begin()->first.second);
      timers_.erase(timers_.begin());
      lock.unlock();
      run_entry(entry);
      lock.lock();
      continue;
    }
    if (!mailbox_.empty()) {
      Entry entry = std::move(mailbox_.front());
      mailbox_.pop_front();
      lock.unlock();
      run_entry(entry);
      entry.task = nullptr;  // what it holds may post when it goes
      lock.lock();
      continue;
    }
    if (timers_.empty()) {
      changed_.wait(lock);
    } else {
      changed_.wait_until(lock, timers_.begin()->first.first);
    }
  }
  stopped_ = true;
  auto mailbox = std::move(mailbox_);
  auto timers = std::move(timers_);
  lock.unlock();
}

void Loop::stop() {
  const std::lock_guard lock(mutex_);
  stopping_ = true;
  changed_.notify_one();
}

}  // namespace holdfast::daemon
