// SPDX-License-Identifier: Apache-2.0
// Threads of a transport. Small stacks (the process's memory is locked), all signals blocked, their own umask, no supplementary groups,
// and without CAP_SYS_RESOURCE, so that quotas bind here as they bind the caller.
#pragma once

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "base/result.h"

namespace holdfast::capture {

class WorkerThreads {
 public:
  ~WorkerThreads() { join(); }
  Status add(std::string name, std::function<void()> body);
  void join();  // also threads added while joining
  // True when all have ended, false when patience ends first. Doesn't join them.
  bool wait_idle(std::chrono::milliseconds patience);
  // A signal to all of them: it ends the system calls that wait.
  void interrupt(int signal);
  unsigned running() const { return running_.load(std::memory_order_relaxed); }

 private:
  static void* run(void* start);
  std::mutex mutex_;
  std::vector<pthread_t> threads_;
  std::atomic<unsigned> running_{0};  // lowered under the mutex
  std::condition_variable idle_;
};

// The threads of one queue: grows while most of them wait for something outside.
struct QueueLoad {
  std::atomic<unsigned> threads{0}, waiting{0};
  unsigned most = 0;
  // True: the caller shall start one more thread (already counted).
  bool wait_begins() {
    const unsigned now_waiting = waiting.fetch_add(1) + 1;
    unsigned count = threads.load();
    while (count < most && count < now_waiting + 2)
      if (threads.compare_exchange_weak(count, count + 1)) return true;
    return false;
  }
  void wait_ends() { waiting.fetch_sub(1); }
};

}  // namespace holdfast::capture
