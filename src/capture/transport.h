// SPDX-License-Identifier: Apache-2.0
// How requests of the kernel reach a handler and answers go back: over /dev/fuse or io_uring, the handler can't tell.
// A handler runs in a thread of the transport and may block; it says so before a wait that depends on others (a full log ring, a peer's
// acknowledgement), and the transport then keeps at least two threads of that queue free by starting more, up to a bound (R22).
#pragma once

#include <chrono>
#include <cstdint>
#include <limits>
#include <span>

#include "base/bytes.h"
#include "base/result.h"
#include "capture/fuse_abi.h"

namespace holdfast::capture {

constexpr std::size_t max_write_bytes = 1U << 20;

struct Request {
  fuse::InHeader head;
  const std::uint8_t* fixed;      // first argument, zero-filled to 128 bytes where the kernel sent less
  ByteView args;                  // what follows it: names, data, extensions
  std::span<std::uint8_t> reply;  // where the answer goes; may overlap args: write it when args are no longer needed
  unsigned queue;
  class Transport* transport;  // that brought it

  fuse::Op op() const { return static_cast<fuse::Op>(head.opcode); }
  template <class T>
  const T& in() const {
    return *reinterpret_cast<const T*>(fixed);
  }
};

// Bytes of the answer, or a negative errno, or no_answer (FORGET and the like).
using Answer = std::int64_t;
constexpr Answer no_answer = std::numeric_limits<Answer>::min();
// Only over io_uring: the request stays unanswered, and its entry with it, until somebody handles it again (UringTransport::park).
constexpr Answer held_answer = no_answer + 1;

class Handler {
 public:
  virtual ~Handler() = default;
  virtual Answer handle(Request& request) = 0;
  // After the answer of INIT was accepted: the connection is up.
  virtual void initialized() = 0;
  // The kernel closed the connection: by unmount (ENODEV), by abort (aborted), or an error nobody expected.
  virtual void connection_ended(bool aborted) = 0;
};

class Transport {
 public:
  virtual ~Transport() = default;
  virtual Status start() = 0;
  // Waits till every thread has ended; they end when the connection does.
  virtual void join() = 0;
  // The same with a limit and without collecting the threads.
  virtual bool wait_idle(std::chrono::milliseconds patience) = 0;
  // Brackets of a long wait in a handler; `queue` is Request::queue.
  virtual void wait_begins(unsigned queue) = 0;
  virtual void wait_ends(unsigned queue) = 0;
  virtual unsigned thread_count() const = 0;
};

}  // namespace holdfast::capture
