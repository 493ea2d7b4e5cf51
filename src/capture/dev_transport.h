// SPDX-License-Identifier: Apache-2.0
// Requests read from and answers written to /dev/fuse. Also carries INIT, FORGET and INTERRUPT when the rest goes over io_uring.
#pragma once

#include "capture/transport.h"
#include "capture/worker.h"

namespace holdfast::capture {

class DevTransport : public Transport {
 public:
  // `device`: an open /dev/fuse bound to the mount, borrowed. `threads` to begin with, at most `most_threads`.
  DevTransport(int device, Handler& handler, unsigned threads, unsigned most_threads);
  Status start() override;
  void join() override { workers_.join(); }
  bool wait_idle(std::chrono::milliseconds patience) override { return workers_.wait_idle(patience); }
  void wait_begins(unsigned queue) override;
  void wait_ends(unsigned) override { load_.wait_ends(); }
  unsigned thread_count() const override { return workers_.running(); }
  // More threads, when it has to carry everything after all.
  Status add_threads(unsigned count);
  // Every request that was read is answered, and no more are read: they wait in the kernel. False: not within `patience`. add_threads() goes on.
  bool pause(std::chrono::milliseconds patience);

 private:
  void serve();
  bool serve_one(std::uint8_t* in, std::size_t in_bytes, std::uint8_t* fixed, std::span<std::uint8_t> out);
  bool send(std::uint64_t unique, Answer answer, std::uint8_t* out);

  const int device_;
  Handler& handler_;
  const unsigned threads_;
  std::atomic<bool> paused_{false};
  QueueLoad load_;
  WorkerThreads workers_;
};

}  // namespace holdfast::capture
