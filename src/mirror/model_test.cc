// SPDX-License-Identifier: Apache-2.0
// Random lives of a passive (test_model.h). CI runs 2000 by `ctest -R '^model$'`; for more: ./dev model --runs 100000 --first 2001
#include <gtest/gtest.h>

#include "base/log.h"
#include "mirror/test_model.h"

namespace holdfast::mirror::testing {
namespace {

class Model : public ::testing::Test {
 protected:
  void SetUp() override { set_log_level(LogLevel::error); }
};

TEST_F(Model, ASeedIsOneLife) {
  const ModelReport a = run_model({.seed = 77}), b = run_model({.seed = 77});
  EXPECT_EQ(a.records, b.records);
  EXPECT_EQ(a.crashes, b.crashes);
  EXPECT_EQ(a.compared, b.compared);
  EXPECT_EQ(a.steps, b.steps);
  EXPECT_GT(a.records, 0U);
}

// What a tree promises (ports/tree.h) and the core relies on: without each of these, lives end badly.
TEST_F(Model, ATreeThatDoesNotKeepItsPromisesIsSeen) {
  using Flaw = MemoryTree::Flaw;
  for (const Flaw flaw : {Flaw::ids_not_durable, Flaw::sync_lies, Flaw::mark_runs_ahead, Flaw::mark_is_lost,
                          Flaw::staged_survives, Flaw::index_is_believed}) {
    std::uint64_t seed = 1;
    while (seed <= 20'000 && run_model({.seed = seed, .flaw = flaw}).failure.empty()) ++seed;
    EXPECT_LE(seed, 20'000U) << "flaw " << static_cast<int>(flaw);
    RecordProperty(fmt::format("flaw_{}", static_cast<int>(flaw)), static_cast<int>(seed));
  }
}

// Each of these lives ended badly once.
TEST_F(Model, OldFailures) {
  for (const std::uint64_t seed : {1, 2, 3}) {
    const ModelReport r = run_model({.seed = seed});
    EXPECT_EQ(r.failure, "") << "seed " << seed;
  }
}

}  // namespace
}  // namespace holdfast::mirror::testing
