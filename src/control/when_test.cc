// SPDX-License-Identifier: Apache-2.0
#include "control/when.h"

#include <cstdlib>
#include <ctime>

#include <gtest/gtest.h>

namespace holdfast::control {
namespace {

constexpr std::int64_t second = 1'000'000'000;
constexpr std::int64_t now_ns = 1'795'615'331 * second;  // 2026-11-25T14:02:11Z, in winter

// Berlin: an hour east of UTC in winter, two in summer.
class WhenTest : public ::testing::Test {
 protected:
  void SetUp() override { zone("CET-1CEST,M3.5.0,M10.5.0/3"); }
  void TearDown() override { zone("UTC"); }
  static void zone(const char* name) {
    setenv("TZ", name, 1);
    tzset();
  }
  static std::int64_t at(const std::string& text) {
    const auto when = parse_when(text, now_ns);
    EXPECT_TRUE(when) << text << ": " << (when ? "" : when.error().message);
    return when ? when->at_ns(now_ns) - now_ns : 0;
  }
};

TEST_F(WhenTest, AbsoluteTimes) {
  EXPECT_EQ(at("2026-11-25T14:02:11Z"), 0);
  EXPECT_EQ(at("2026-11-25T15:02:11+01:00"), 0);
  EXPECT_EQ(at("2026-11-25T15:02:11+0100"), 0);
  EXPECT_EQ(at("2026-11-25T12:02:11.25-02:00"), second / 4);
  EXPECT_EQ(at("2026-11-25 15:02:11"), 0) << "local";
  EXPECT_EQ(at("2026-11-25 15:02"), -11 * second);
  EXPECT_EQ(at("2026-11-25"), -(15 * 3600 + 2 * 60 + 11) * second);
  EXPECT_EQ(at("2026-07-01 02:00:00"), (1'782'864'000 - now_ns / second) * second) << "in summer it is UTC+2";
  EXPECT_EQ(at("2026-11-25T14:02:11.000000001Z"), 1);
}

TEST_F(WhenTest, ATimeOfDayIsTheLastOne) {
  EXPECT_EQ(at("15:02:11"), 0);
  EXPECT_EQ(at("15:02"), -11 * second);
  EXPECT_EQ(at("15:02:10.5"), -second / 2);
  EXPECT_EQ(at("15:02:12"), second - 86'400 * second) << "yesterday: that is not yet today";
}

TEST_F(WhenTest, AWhileAgo) {
  EXPECT_EQ(at("now"), 0);
  EXPECT_EQ(at("90s"), -90 * second);
  EXPECT_EQ(at("90s ago"), -90 * second);
  EXPECT_EQ(at("10m"), -600 * second);
  EXPECT_EQ(at("1h30m"), -5400 * second);
  EXPECT_EQ(at("2 days 1 hour ago"), -49 * 3600 * second);
  EXPECT_EQ(at("250ms ago"), -second / 4);
}

TEST_F(WhenTest, NamesOfShadows) {
  const auto when = parse_when("before-rollback-20261125T140211", now_ns);
  ASSERT_TRUE(when);
  EXPECT_EQ(when->kind, When::Kind::shadow);
  EXPECT_EQ(when->shadow, "before-rollback-20261125T140211");
  for (const char* name : {"a", "x.y_z-1", "Nightly"}) EXPECT_TRUE(check_shadow_name(name)) << name;
  for (const char* name : {"", "now", "1st", "-x", "a b", "a/b", "\xc3\xa4"})
    EXPECT_FALSE(check_shadow_name(name)) << name;
  EXPECT_FALSE(check_shadow_name(std::string(65, 'a')));
}

TEST_F(WhenTest, WhatIsNeitherIsRefusedWithExamples) {
  for (const char* text :
       {"", "  ", "10", "10x", "m", "25:00", "14:60", "2026-13-01", "2026-11-32", "2026-11-25T", "2026-11-25T14:02:11+",
        "ago", "10m and more", "2026-11-25T14:02:11+99:00", "99999999999d", "14:02:11x", "-5m", "10m later"}) {
    const auto when = parse_when(text, now_ns);
    if (std::string(text) == "m" || std::string(text) == "ago") continue;  // names of shadows
    ASSERT_FALSE(when) << text;
    EXPECT_EQ(when.error().code, ErrorCode::invalid);
    EXPECT_NE(when.error().hint.find("90s ago"), std::string::npos);
  }
  EXPECT_FALSE(parse_when(std::string(1000, '1'), now_ns));
}

TEST_F(WhenTest, AnotherMachineReadsTheSame) {
  for (const char* text : {"15:02:10.123456789", "2026-11-25 14:00", "1h30m", "nightly", "now"}) {
    const auto when = parse_when(text, now_ns);
    ASSERT_TRUE(when) << text;
    zone("UTC");
    const auto again = parse_when(to_text(*when), now_ns);
    zone("CET-1CEST,M3.5.0,M10.5.0/3");
    ASSERT_TRUE(again) << to_text(*when);
    EXPECT_EQ(again->kind, when->kind);
    EXPECT_EQ(again->time_ns, when->time_ns);
    EXPECT_EQ(again->ago_ns, when->ago_ns);
    EXPECT_EQ(again->shadow, when->shadow);
  }
}

TEST_F(WhenTest, ForPeople) {
  EXPECT_EQ(local_time(0, now_ns / 1'000'000), "");
  EXPECT_EQ(local_time(now_ns / 1'000'000 - 11'000, now_ns / 1'000'000), "15:02:00");
  EXPECT_EQ(local_time(now_ns / 1'000'000 - 3LL * 86'400'000, now_ns / 1'000'000), "2026-11-22 15:02:11");
}

}  // namespace
}  // namespace holdfast::control
