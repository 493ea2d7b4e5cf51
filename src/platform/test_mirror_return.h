// SPDX-License-Identifier: Apache-2.0
// For tests only: two nodes that know how to reconcile an active which did not hand over.
#pragma once

#include <fstream>

#include "platform/test_mirror_pair.h"

namespace holdfast::platform::testing {

class MirrorReturn : public MirrorPair {
 protected:
  static constexpr int idle_files = 2000;
  MirrorReturn() {
    for (TestNode* node : {&a, &b}) {
      node->features = mirror::feature_partial_resync | mirror::feature_hot_return;
      node->hot_generation_ns = 20'000'000;
    }
  }
  static void make_tree(TestNode& node, int files = 100) {
    const std::string text(300, 'x');
    for (int i = 0; i < files; ++i) {
      const std::string folder = fmt::format("{}/t{}", node.tree_path(), i / 500);
      if (i % 500 == 0) std::filesystem::create_directory(folder);
      std::ofstream(fmt::format("{}/f{}", folder, i)) << text << i;
    }
  }
  // The passive is whole, and the notes of what made it so are dropped: giving ids to all files noted the whole set.
  void lead_and_settle(TestNode& active, TestNode& passive, std::uint64_t epoch) {
    lead(active, passive, epoch);
    ASSERT_TRUE(synchronized(active));
    settle(active);
  }
  // The beginning of most tests: `a` leads the first epoch.
  void begin(int files = 100) {
    make_tree(a, files);
    ASSERT_TRUE(a.start() && b.start());
    lead_and_settle(a, b, 1);
  }
  void settle(TestNode& active) {
    // A generation ends only if something was noted in it.
    RandomApplication application(active, 4711);
    ASSERT_TRUE(wait(active, [&] {
      application.run(3);
      const auto hot = *active.log->status().hot;
      return hot.whole.empty() && !hot.releasing;
    }));
  }
  void take_over(TestNode& successor, std::uint64_t epoch) {
    ASSERT_TRUE(successor.log->seal(Epoch(epoch)));
    const auto promoted = successor.log->promote(Epoch(epoch));
    ASSERT_TRUE(promoted) << promoted.error().to_string();
  }
  void follow(TestNode& passive, TestNode& active, std::uint64_t epoch) {
    const auto followed = passive.log->follow(Epoch(epoch), active.id());
    ASSERT_TRUE(followed) << followed.error().to_string();
    connect(active, passive);
  }
  // Everything is compared, and it is said why.
  ::testing::AssertionResult compared_as_a_whole(TestNode& active, const std::string& why) {
    const auto returns = active.take_returns();
    if (returns.size() != 1) return ::testing::AssertionFailure() << returns.size() << " returns";
    if (returns[0].why_whole.find(why) == std::string::npos)
      return ::testing::AssertionFailure() << "\"" << returns[0].why_whole << "\"";
    if (peer_of(active).resync.partial) return ::testing::AssertionFailure() << "only what changed was looked at";
    return ::testing::AssertionSuccess();
  }
  ::testing::AssertionResult reconciled(TestNode& active) {
    const auto returns = active.take_returns();
    if (returns.size() != 1) return ::testing::AssertionFailure() << returns.size() << " returns";
    if (!returns[0].why_whole.empty()) return ::testing::AssertionFailure() << returns[0].why_whole;
    if (!peer_of(active).resync.partial) return ::testing::AssertionFailure() << to_string(returns[0]);
    return ::testing::AssertionSuccess();
  }
};

}  // namespace holdfast::platform::testing
