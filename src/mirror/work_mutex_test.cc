// SPDX-License-Identifier: Apache-2.0
#include "mirror/work_mutex.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <thread>
#include <vector>

namespace holdfast::mirror {
namespace {

// Looks queue up behind one that reads, then comes a worker: it goes before them, whoever wakes up first.
TEST(WorkMutex, AtMostOneLookIsAheadOfAWorkerThatWaits) {
  for (int round = 0; round < 200; ++round) {
    WorkMutex mutex;
    std::atomic<int> looks{0}, before_work{-1};
    auto first = std::make_unique<WorkMutex::Look>(mutex);
    std::vector<std::future<void>> others;
    for (int n = 0; n < 3; ++n)
      others.push_back(std::async(std::launch::async, [&] {
        for (int again = 0; again < 50; ++again) {
          const WorkMutex::Look look(mutex);
          ++looks;
        }
      }));
    std::promise<void> waits;
    auto worker = std::async(std::launch::async, [&] {
      waits.set_value();
      const std::lock_guard work(mutex);
      before_work = looks.load();
    });
    waits.get_future().wait();
    // Only once it stands in line does anything follow: what it needs for that, nobody else holds but for moments.
    while (!mutex.is_awaited()) std::this_thread::yield();
    first.reset();
    worker.wait();
    EXPECT_LE(before_work, 1);
    for (auto& other : others) other.wait();
    EXPECT_EQ(looks, 150);
  }
}

}  // namespace
}  // namespace holdfast::mirror
