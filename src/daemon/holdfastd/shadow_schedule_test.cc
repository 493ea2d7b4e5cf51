// SPDX-License-Identifier: Apache-2.0
#include "daemon/holdfastd/shadow_schedule.h"

#include <algorithm>

#include <gtest/gtest.h>

namespace holdfast::daemon {
namespace {

constexpr std::int64_t hour_ms = 3'600'000;
constexpr std::int64_t noon_ms = 1'795'608'000'000;  // 2026-11-25T12:00:00Z

control::ShadowStatus shadow(std::int64_t time_ms, const std::string& origin = "schedule", bool keep = false) {
  return {scheduled_name(time_ms, 3600) + origin, time_ms, {"n2"}, origin, keep, false, 0};
}

TEST(ShadowSchedule, AStretchHasOneName) {
  EXPECT_EQ(scheduled_name(noon_ms, 3600), "scheduled-20261125T120000");
  EXPECT_EQ(scheduled_name(noon_ms + hour_ms - 1, 3600), "scheduled-20261125T120000");
  EXPECT_EQ(scheduled_name(noon_ms + hour_ms, 3600), "scheduled-20261125T130000");
  EXPECT_EQ(scheduled_name(noon_ms + 1, 86'400), "scheduled-20261125T000000");
}

TEST(ShadowSchedule, TheNewestOfEachHourDayAndWeekAreLeft) {
  std::vector<control::ShadowStatus> all;
  for (std::int64_t h = 0; h < 24 * 30; ++h) all.push_back(shadow(noon_ms - h * hour_ms));
  all.push_back(shadow(noon_ms - 500 * hour_ms, "user"));
  all.push_back(shadow(noon_ms - 501 * hour_ms, "auto"));
  all.push_back(shadow(noon_ms - 502 * hour_ms, "schedule", true));
  all.back().name = "kept";
  const auto drop = shadows_to_drop(all, {24, 7, 4});
  EXPECT_EQ(all.size() - drop.size(), 3U + 24U + 5U + 3U)
      << "of the 7 days two, of the 4 weeks one, are among the hours or days";
  EXPECT_EQ(std::count(drop.begin(), drop.end(), all[0].name), 0);
  EXPECT_EQ(std::count(drop.begin(), drop.end(), all[23].name), 0);
  EXPECT_EQ(std::count(drop.begin(), drop.end(), all[25].name), 1);
  for (std::size_t i = all.size() - 3; i < all.size(); ++i)
    EXPECT_EQ(std::count(drop.begin(), drop.end(), all[i].name), 0);
  EXPECT_TRUE(shadows_to_drop({}, {24, 7, 4}).empty());
}

TEST(ShadowSchedule, ThinningIsReadStrictly) {
  ASSERT_TRUE(parse_thinning("24h,7d,4w"));
  EXPECT_EQ(parse_thinning("24h,7d,4w")->weeks, 4U);
  EXPECT_EQ(parse_thinning("3d")->days, 3U);
  for (const char* wrong : {"", "24", "h", "24h,", "24h7d", "24x", "0h", "9999h", "-1h", "24h,,7d"})
    EXPECT_FALSE(parse_thinning(wrong)) << wrong;
}

}  // namespace
}  // namespace holdfast::daemon
