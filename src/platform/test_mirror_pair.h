// SPDX-License-Identifier: Apache-2.0
// For tests only: two nodes, and what is asked of them again and again.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>

#include "platform/test_mirror_node.h"

namespace holdfast::platform::testing {

// Other seeds than CI's, for long runs: HOLDFAST_TEST_SEED=7 hf_platform_test --gtest_filter='MirrorPair.*'
inline unsigned seeded(unsigned seed) {
  const char* other = std::getenv("HOLDFAST_TEST_SEED");
  return seed + (other ? static_cast<unsigned>(std::atoi(other)) * 1000 : 0);
}

class MirrorPair : public ::testing::Test {
 protected:
  MirrorPair() : a(authority, folder / "a", NodeId(0xa)), b(authority, folder / "b", NodeId(0xb)) {}
  ~MirrorPair() override {
    if (HasFailure()) ADD_FAILURE() << "faults: a: " << a.fault_text() << " b: " << b.fault_text();
  }

  void lead(TestNode& active, TestNode& passive, std::uint64_t epoch) {
    const auto promoted = active.log->promote(Epoch(epoch), epoch == 1);
    ASSERT_TRUE(promoted) << promoted.error().to_string();
    const auto followed = passive.log->follow(Epoch(epoch), active.id());
    ASSERT_TRUE(followed) << followed.error().to_string();
    connect(active, passive);
  }
  void connect(TestNode& active, TestNode& passive) {
    active.runtime->set_peers({{passive.id(), "peer", {passive.address()}}});
  }

  // Waits for an event of the active's log until `condition`.
  template <class F>
  bool wait(TestNode& node, F&& condition, int seconds = 60) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    std::uint64_t seen = 0;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > until || !a.fault_text().empty() || !b.fault_text().empty()) return false;
      node.log->wait_for_change(100, seen);
    }
    return true;
  }
  mirror::PeerStatus peer_of(TestNode& active) {
    const auto status = active.log->status();
    return status.peers.empty() ? mirror::PeerStatus{} : status.peers.front();
  }
  ::testing::AssertionResult synchronized(TestNode& active) {
    if (wait(active, [&] { return peer_of(active).state == mirror::PeerState::synchronized; }))
      return ::testing::AssertionSuccess();
    const auto p = peer_of(active);
    return ::testing::AssertionFailure() << "state " << to_string(p.state) << " sent " << p.sent.value << " acked "
                                         << p.acked.value << " applied " << p.applied.value << " copied "
                                         << p.resync.done << "/" << p.resync.total;
  }
  // All of the active's log is applied on the passive, and the trees are equal.
  ::testing::AssertionResult equal(TestNode& active, TestNode& passive) {
    const Sequence end = active.log->capture_log().last_sequence();
    active.log->capture_log().hurry();
    if (!wait(active, [&] { return peer_of(active).applied >= end; }))
      return ::testing::AssertionFailure()
             << "the passive applied " << peer_of(active).applied.value << " of " << end.value;
    const std::string diff = difference(TreeDigest::of(active.tree_path()), TreeDigest::of(passive.tree_path()));
    return diff.empty() ? ::testing::AssertionSuccess() : ::testing::AssertionFailure() << diff;
  }

  TemporaryFolder folder;
  TestAuthority authority;
  TestNode a, b;
};

}  // namespace holdfast::platform::testing
