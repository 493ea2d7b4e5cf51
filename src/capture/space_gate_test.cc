// SPDX-License-Identifier: Apache-2.0
#include "capture/space_gate.h"

#include <gtest/gtest.h>

#include <array>
#include <thread>
#include <utility>
#include <vector>

#include "capture/null_log.h"

namespace holdfast::capture {
namespace {

// So many bytes and no more; counts how often it is asked.
class SmallLog final : public NullLog {
 public:
  explicit SmallLog(std::size_t bytes) : free_(bytes) {}
  bool try_reserve_all(std::span<const std::size_t> pieces) override {
    asked.fetch_add(1);
    asked.notify_all();
    std::size_t sum = 0;
    for (const std::size_t p : pieces) sum += p;
    const std::lock_guard lock(mutex_);
    if (sum > free_) return false;
    free_ -= sum;
    return true;
  }
  void give_back(std::size_t bytes) override {
    std::vector<std::function<void()>> waiters;
    {
      const std::lock_guard lock(mutex_);
      free_ += bytes;
      waiters.swap(waiters_);
    }
    for (auto& w : waiters) w();
  }
  void when_space(std::function<void()> retry) override {
    const std::lock_guard lock(mutex_);
    waiters_.push_back(std::move(retry));
  }
  std::atomic<unsigned> asked{0};

 private:
  std::mutex mutex_;
  std::size_t free_;
  std::vector<std::function<void()>> waiters_;
};

// A request that took its first piece, and gave it back because the second did not fit, would wake itself for ever.
TEST(SpaceGate, WaitsForAllPiecesWithoutTakingOne) {
  SmallLog log(1500);
  ASSERT_TRUE(log.try_reserve(1000));
  SpaceGate gate(log);
  const std::array<std::size_t, 2> pieces{100, 1000};
  EXPECT_FALSE(gate.try_take(pieces));
  std::thread waiter([&] { EXPECT_TRUE(gate.wait_take(pieces)); });
  log.asked.wait(2);  // it asked in line, and waits
  log.give_back(1000);
  waiter.join();
  EXPECT_LE(log.asked, 4U) << "1000 bytes; at once; in line; when space came";
  EXPECT_EQ(gate.waiting(), 0U);
}

}  // namespace
}  // namespace holdfast::capture
