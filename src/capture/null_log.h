// SPDX-License-Identifier: Apache-2.0
// A log that keeps nothing and never waits, and a lease that always holds: what is left is the cost of capture itself (benchmarks' floor).
#pragma once

#include <atomic>

#include "mirror/capture_log.h"

namespace holdfast::capture {

class NullLog : public mirror::CaptureLog {
 public:
  bool try_reserve_all(std::span<const std::size_t>) override { return true; }
  void give_back(std::size_t) override {}
  void when_space(std::function<void()> retry) override { retry(); }
  Sequence append(const log::Record&, std::size_t) override {
    return Sequence(sequence_.fetch_add(1, std::memory_order_relaxed) + 1);
  }
  Sequence last_sequence() const override { return Sequence(sequence_.load(std::memory_order_relaxed)); }
  Sequence last_but_times() const override { return last_sequence(); }
  void when_durable(Sequence, std::function<void()> done) override { done(); }
  void hurry() override {}
  void moved(SetNumber, const FileId&) override {}

 private:
  std::atomic<std::uint64_t> sequence_{0};
};

class AlwaysValid : public mirror::LeaseGate {
 public:
  bool wait_valid() override { return true; }
};

}  // namespace holdfast::capture
