// SPDX-License-Identifier: Apache-2.0
#include "base/news.h"

#include <gtest/gtest.h>

namespace holdfast {
namespace {

TEST(News, IsToldOnceUntilAllWasWell) {
  News news;
  EXPECT_TRUE(news.first("n1", "expired"));
  EXPECT_FALSE(news.first("n1", "expired"));
  EXPECT_TRUE(news.first("n2", "expired"));
  EXPECT_TRUE(news.first("n1", "another reason"));
  EXPECT_FALSE(news.first("n1", "expired")) << "two reasons that alternate are no news either";
  news.forget("n1");
  EXPECT_TRUE(news.first("n1", "expired"));
  EXPECT_FALSE(news.first("n2", "expired"));
}

TEST(News, StrangersCannotMakeItGrow) {
  News news;
  int told = 0;
  for (int i = 0; i < 1000; ++i) told += news.first("n1", std::to_string(i)) ? 1 : 0;
  EXPECT_EQ(told, 1000);
  EXPECT_TRUE(news.first("n1", "0")) << "forgotten: what is bounded can't remember everything";
  for (int i = 0; i < 1000; ++i) news.first(std::to_string(i), "garbage");
  EXPECT_TRUE(news.first("0", "garbage"));
  EXPECT_FALSE(news.first("999", "garbage"));
}

TEST(News, AddressesWithoutTheirPort) {
  EXPECT_EQ(without_port("10.0.0.2:60618"), "10.0.0.2");
  EXPECT_EQ(without_port("[fd00::2]:60618"), "[fd00::2]");
  EXPECT_EQ(without_port("[fd00::2]"), "[fd00::2]");
  EXPECT_EQ(without_port("fd00::2"), "fd00::2");
  EXPECT_EQ(without_port("10.0.0.2"), "10.0.0.2");
  EXPECT_EQ(without_port(""), "");
}

}  // namespace
}  // namespace holdfast
