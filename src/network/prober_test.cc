// SPDX-License-Identifier: Apache-2.0
#include "network/prober.h"

#include <atomic>
#include <condition_variable>
#include <future>
#include <mutex>
#include <vector>

#include <gtest/gtest.h>

#include "network/test_network.h"

namespace holdfast::network {
namespace {

using testing::TwoHosts;

struct Heard {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<ProbeResult> results;

  Prober::Callback callback() {
    return [this](const ProbeResult& r) {
      const std::lock_guard lock(mutex);
      results.push_back(r);
      changed.notify_all();
    };
  }
  bool wait_for(std::size_t count) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, std::chrono::seconds(5), [&] { return results.size() >= count; });
  }
};

TEST(Prober, ManyTargetsAnswerOrNotEachForItself) {
  HF_NEEDS_ROOT();
  TwoHosts hosts;
  auto prober = Prober::create().value();
  Heard v4, v6, silent, unreachable;
  prober->add(IpAddress::parse("192.0.2.100").value(), 20, 500, v4.callback());
  prober->add(IpAddress::parse("2001:db8::100").value(), 20, 500, v6.callback());
  prober->add(IpAddress::parse("192.0.2.77").value(), 20, 60, silent.callback());
  prober->add(IpAddress::parse("203.0.113.1").value(), 20, 60, unreachable.callback());
  ASSERT_TRUE(v4.wait_for(5) && v6.wait_for(5) && silent.wait_for(3) && unreachable.wait_for(2));
  prober.reset();  // no callback after this: the results are ours alone
  for (const Heard* h : {&v4, &v6}) {
    for (const ProbeResult& r : h->results) {
      EXPECT_TRUE(r.answered) << r.target.to_string() << " " << r.error;
      EXPECT_GT(r.rtt_ms, 0);
      EXPECT_LT(r.rtt_ms, 500);
      EXPECT_EQ(r.silent_rounds, 0U);
    }
  }
  EXPECT_FALSE(silent.results[2].answered);
  EXPECT_EQ(silent.results[2].silent_rounds, 3U);
  EXPECT_FALSE(unreachable.results[0].answered);
  EXPECT_NE(unreachable.results[0].error, "") << "no route: known at once, and said";
}

TEST(Prober, AnswersStopAndComeBack) {
  HF_NEEDS_ROOT();
  TwoHosts hosts;
  auto prober = Prober::create().value();
  Heard heard;
  prober->add(IpAddress::parse("192.0.2.100").value(), 20, 100, heard.callback());
  ASSERT_TRUE(heard.wait_for(2));
  hosts.in_client([] { TwoHosts::ip({"link", "set", "c0", "down"}); });
  std::unique_lock lock(heard.mutex);
  EXPECT_TRUE(
      heard.changed.wait_for(lock, std::chrono::seconds(5), [&] { return heard.results.back().silent_rounds >= 3; }));
  lock.unlock();
  hosts.in_client([] { TwoHosts::ip({"link", "set", "c0", "up"}); });
  lock.lock();
  EXPECT_TRUE(heard.changed.wait_for(lock, std::chrono::seconds(5), [&] { return heard.results.back().answered; }));
  EXPECT_EQ(heard.results.back().silent_rounds, 0U);
}

TEST(Prober, NothingComesAfterRemove) {
  HF_NEEDS_ROOT();
  TwoHosts hosts;
  auto prober = Prober::create().value();
  Heard heard, other;
  const Prober::TargetId id = prober->add(IpAddress::parse("192.0.2.100").value(), 10, 100, heard.callback());
  ASSERT_TRUE(heard.wait_for(3));
  prober->remove(id);
  const std::size_t count = heard.results.size();
  prober->add(IpAddress::parse("192.0.2.100").value(), 10, 100, other.callback());
  ASSERT_TRUE(other.wait_for(5));
  EXPECT_EQ(heard.results.size(), count);
}

TEST(Prober, RemoveWaitsForACallbackUnderWay) {
  HF_NEEDS_ROOT();
  TwoHosts hosts;
  auto prober = Prober::create().value();
  std::promise<void> entered;
  std::promise<void> never;
  std::atomic<bool> finished = false;
  const Prober::TargetId id =
      prober->add(IpAddress::parse("192.0.2.100").value(), 60'000, 100, [&](const ProbeResult&) {
        entered.set_value();
        never.get_future().wait_for(std::chrono::milliseconds(100));  // a callback that takes its time
        finished = true;
      });
  entered.get_future().wait();
  prober->remove(id);
  EXPECT_TRUE(finished);
}

}  // namespace
}  // namespace holdfast::network
