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

#include "capture/entry_buffers.h"
#include "capture/transport.h"
#include "capture/worker.h"

namespace holdfast::capture {

// Kernel offers it and the administrator has not turned it off.
bool uring_available();

class UringTransport : public Transport {
 public:
  // `device`: an initialized /dev/fuse, borrowed. At most `most_threads` a queue. `touch` makes one harmless request of the mount that never
  // waits for anything but an answer: the kernel gives requests that queued up to a late entry only once something else happens there.
  // `buffers`: new ones, of buffers_needed() slots, or those of the mirror before this one.
  UringTransport(int device, Handler& handler, unsigned threads_per_queue, unsigned most_threads,
                 std::unique_ptr<EntryBuffers> buffers, std::function<void()> touch);
  ~UringTransport() override;
  static std::size_t buffers_needed(unsigned threads_per_queue, unsigned most_threads);
  // Returns when every queue has an entry, or with the first error; the connection then goes on over /dev/fuse.
  Status start() override { return start({}); }

  // An entry with a request that is not answered, and a worker of its queue that has ended.
  struct Parked {
    std::uint32_t slot;
    std::uint16_t queue;
  };
  // The same beside entries that were left parked, whose slots are taken: their requests are handled again, to begin with. Other queues get new entries.
  Status start(const std::vector<Parked>& parked);
  // Every worker comes to hold a request that nobody waits for, and ends: new requests wait in the kernel, and nothing is lost when this process
  // goes. `folders`: open descriptors of the mount's root whose release the handler answers with held_answer; they are closed. Needs
  // folders_to_park() of them. Busy: not within `patience`. Workers whose CPU is offline stay as they are: nobody uses their queue.
  Status park(std::vector<Descriptor> folders, std::chrono::milliseconds patience);
  std::size_t folders_to_park() const;
  std::vector<Parked> parked() const;
  const EntryBuffers& buffers() const { return *buffers_; }
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
  class Place;
  void serve(unsigned queue, std::shared_ptr<Registration> registration, bool late);
  void go_on(unsigned queue, unsigned slot, std::shared_ptr<Registration> registration);
  bool open_entry(Ring& ring, unsigned queue, Registration& registration, bool late);
  void serve_entry(Ring& ring, unsigned queue, Place& place);
  void nudge(unsigned queue);
  bool handle_entry(Ring& ring, unsigned queue, std::size_t& bytes);  // that went to or fro. False: its request is held
  Status wait_registered(Registration& registration, unsigned wanted);
  std::vector<unsigned> unparked() const;  // workers of each queue

  const int device_;
  Handler& handler_;
  const unsigned threads_per_queue_;
  const std::unique_ptr<EntryBuffers> buffers_;
  const std::function<void()> touch_;
  cpu_set_t anywhere_;  // the CPUs that workers may use, before they choose one
  std::vector<std::unique_ptr<QueueLoad>> queues_;
  std::mutex nudges_mutex_;
  std::condition_variable nudges_ended_;
  unsigned nudges_ = 0;  // under way
  bool nudges_barred_ = false;
  mutable std::mutex parked_mutex_;
  std::condition_variable parked_changed_;
  std::vector<Parked> parked_;
  WorkerThreads workers_;
};

}  // namespace holdfast::capture
