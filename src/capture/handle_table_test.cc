// SPDX-License-Identifier: Apache-2.0
#include "capture/handle_table.h"

#include <gtest/gtest.h>

#include <map>

namespace holdfast::capture {
namespace {

TEST(HandleTable, NumbersAreReusedOnlyAfterTheirRelease) {
  HandleTable<int> table;
  const auto a = table.add(std::make_unique<int>(1)), b = table.add(std::make_unique<int>(2));
  EXPECT_NE(a, 0U);
  EXPECT_NE(a, b);
  EXPECT_EQ(*table.take(a), 1);
  EXPECT_EQ(table.at(b), 2);
  EXPECT_EQ(table.add(std::make_unique<int>(3)), a);
  EXPECT_EQ(table.at(a), 3);
}

TEST(HandleTable, ASuccessorKnowsTheSameNumbersAndGivesOutTheOthers) {
  HandleTable<int> before, after;
  std::map<std::uint64_t, int> open;
  for (int i = 0; i < 10000; ++i) open[before.add(std::make_unique<int>(i))] = i;
  for (auto it = open.begin(); it != open.end();)
    if (it->second % 3) {
      before.take(it->first);
      it = open.erase(it);
    } else {
      ++it;
    }
  before.for_each([&](std::uint64_t number, int& value) { after.restore(number, std::make_unique<int>(value)); });
  for (const auto& [number, value] : open) EXPECT_EQ(after.at(number), value);
  for (int i = 0; i < 10000; ++i) EXPECT_TRUE(open.emplace(after.add(std::make_unique<int>(-1)), -1).second);
}

TEST(HandleTableDeathTest, ANumberThatWasNotGivenOutStops) {
  HandleTable<int> table;
  const auto released = table.add(std::make_unique<int>(1));
  table.take(released);
  EXPECT_DEATH(table.at(released), "the kernel names an open file");
  EXPECT_DEATH(table.at(0x7f00'1234'5678), "the kernel names an open file");
}

}  // namespace
}  // namespace holdfast::capture
