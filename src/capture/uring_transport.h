// SPDX-License-Identifier: Apache-2.0
// FUSE over io_uring (kernel 6.14 and later): one kernel queue a possible CPU, several threads a queue, each with its own ring and exactly
// one entry. So an entry is free exactly when its thread is, and a thread that blocks holds up nobody else.
#pragma once

#include <sched.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "capture/transport.h"
#include "capture/worker.h"

namespace holdfast::capture {

// Kernel offers it and the administrator has not turned it off.
bool uring_available();

class UringTransport : public Transport {
 public:
  // `device`: an initialized /dev/fuse, borrowed. At most `most_threads` a queue. `touch` makes one harmless request of the mount that never
  // waits for anything but an answer: the kernel gives requests that queued up to a late entry only once something else happens there.
  UringTransport(int device, Handler& handler, unsigned threads_per_queue, unsigned most_threads,
                 std::function<void()> touch);
  ~UringTransport() override;
  // Returns when every queue has an entry, or with the first error; the connection then goes on over /dev/fuse.
  Status start() override;
  void join() override { workers_.join(); }
  bool wait_idle(std::chrono::milliseconds patience) override { return workers_.wait_idle(patience); }
  void wait_begins(unsigned queue) override;
  void wait_ends(unsigned queue) override { queues_[queue]->wait_ends(); }
  unsigned thread_count() const override { return workers_.running(); }
  // `touch` holds the mount while it runs. Before an unmount: no more of it, and what is under way ends within `patience`.
  void bar_nudges(bool bar, std::chrono::milliseconds patience);

 private:
  struct Ring;
  struct Registration;
  void serve(unsigned queue, std::shared_ptr<Registration> registration, bool late);
  void nudge(unsigned queue);
  std::size_t handle_entry(Ring& ring, unsigned queue);  // bytes that went to or fro

  const int device_;
  Handler& handler_;
  const unsigned threads_per_queue_;
  const std::function<void()> touch_;
  cpu_set_t anywhere_;  // the CPUs that workers may use, before they choose one
  std::vector<std::unique_ptr<QueueLoad>> queues_;
  std::mutex nudges_mutex_;
  std::condition_variable nudges_ended_;
  unsigned nudges_ = 0;  // under way
  bool nudges_barred_ = false;
  WorkerThreads workers_;
};

}  // namespace holdfast::capture
