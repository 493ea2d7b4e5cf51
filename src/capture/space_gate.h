// SPDX-License-Identifier: Apache-2.0
// R22: space in the log ring before any inode lock. A request without space waits in line here, first come first served, holding nothing;
// its thread tells the transport, which keeps others free. Pieces of one request are taken together or not at all.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <span>

#include "base/check.h"
#include "mirror/capture_log.h"

namespace holdfast::capture {

class SpaceGate {
 public:
  explicit SpaceGate(mirror::CaptureLog& log) : log_(log), state_(std::make_shared<State>()) {}

  // At once or not at all.
  bool try_take(std::span<const std::size_t> pieces);
  // In line until there is space. False: stopped, nothing was taken.
  bool wait_take(std::span<const std::size_t> pieces);
  void stop();
  unsigned waiting() const { return waiting_.load(std::memory_order_relaxed); }

 private:
  struct State {
    std::mutex mutex;
    std::condition_variable changed;
    std::uint64_t next_ticket = 0, serving = 0;
    std::uint64_t space_freed = 0;  // counts callbacks
    bool stopped = false;
  };

  mirror::CaptureLog& log_;
  std::shared_ptr<State> state_;  // outlives a late callback
  std::atomic<unsigned> waiting_{0};
};

// Space of one request: each piece goes to one append; what is left is given back.
class Reservation {
 public:
  static constexpr std::size_t most_pieces = 4;
  explicit Reservation(mirror::CaptureLog& log) : log_(log) {}
  ~Reservation() {
    for (std::size_t i = 0; i < count_; ++i) log_.give_back(pieces_[i]);
  }
  Reservation(const Reservation&) = delete;
  Reservation& operator=(const Reservation&) = delete;

  void holds(std::span<const std::size_t> pieces) {
    for (const std::size_t piece : pieces) pieces_[count_++] = piece;
  }
  // The next piece; it is the caller's now.
  std::size_t next() {
    CHECK(count_ > 0, "a change has no log space reserved");
    const std::size_t piece = pieces_[0];
    for (std::size_t i = 1; i < count_; ++i) pieces_[i - 1] = pieces_[i];
    --count_;
    return piece;
  }
  mirror::CaptureLog& log() { return log_; }

 private:
  mirror::CaptureLog& log_;
  std::size_t pieces_[most_pieces] = {};
  std::size_t count_ = 0;
};

}  // namespace holdfast::capture
