// SPDX-License-Identifier: Apache-2.0
#include "platform/clock_reading.h"

#include <gtest/gtest.h>

namespace holdfast::platform {
namespace {

constexpr double hz = 1e9;  // a tick is a nanosecond
constexpr std::int64_t s = 1'000'000'000;

ClockReading at(std::int64_t boot, std::int64_t real, std::int64_t tsc) {
  return {boot, real, static_cast<std::uint64_t>(tsc)};
}

TEST(Clocks, TheHolderBelievesTheFastestTheVoterTheSlowest) {
  const ClockReading from = at(10 * s, 1'000 * s, 50 * s);
  struct Row {
    const char* what;
    ClockReading to;
    std::int64_t holder, voter;
  };
  const Row rows[] = {
      {"all alike", at(12 * s, 1'002 * s, 52 * s), 2 * s, 2 * s},
      {"paused, BOOTTIME stood still", at(10 * s, 1'030 * s, 80 * s), 30 * s, 0},
      {"paused, only REALTIME went on", at(11 * s, 1'030 * s, 51 * s), 30 * s, 1 * s},
      {"moved to another host, TSC began anew", at(12 * s, 1'002 * s, 3 * s), 2 * s, 0},
      {"REALTIME set back an hour", at(12 * s, -2'598 * s, 52 * s), 2 * s, 2 * s},
      {"REALTIME set forward an hour", at(12 * s, 4'602 * s, 52 * s), 3'602 * s, 2 * s},
      {"all back: a restored snapshot", at(9 * s, 900 * s, 40 * s), 0, 0},
      {"no TSC", at(12 * s, 1'002 * s, 0), 2 * s, 2 * s},
  };
  for (const Row& r : rows) {
    EXPECT_EQ(holder_elapsed_ns(from, r.to, hz), r.holder) << r.what;
    EXPECT_EQ(voter_elapsed_ns(from, r.to, hz), r.voter) << r.what;
  }
  EXPECT_EQ(voter_elapsed_ns(from, at(12 * s, 0, 99 * s), 0), 2 * s) << "an unusable TSC is not asked";
}

TEST(Clocks, SumsNeverGoBack) {
  HolderClock holder(hz);
  VoterClock voter(hz);
  const ClockReading readings[] = {at(1 * s, 100 * s, 1 * s), at(2 * s, 101 * s, 2 * s), at(3 * s, 50 * s, 3 * s),
                                   at(4 * s, 51 * s, 4 * s), at(4 * s, 61 * s, 5 * s)};
  const std::int64_t holder_wants[] = {0, 1 * s, 2 * s, 3 * s, 13 * s}, voter_wants[] = {0, 1 * s, 2 * s, 3 * s, 3 * s};
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(holder.now_ns(readings[i]), holder_wants[i]) << i;
    EXPECT_EQ(voter.now_ns(readings[i]), voter_wants[i]) << i;
  }
}

TEST(Clocks, TheRealOnesAgree) {
  const ClockReading from = read_clocks();
  ClockReading to = read_clocks();
  while (to.boot_ns - from.boot_ns < s / 20) to = read_clocks();
  const std::int64_t holder = holder_elapsed_ns(from, to, tsc_hz()), voter = voter_elapsed_ns(from, to, tsc_hz());
  EXPECT_GE(holder, voter);
  EXPECT_GE(holder, s / 20);
  // A preemption between the three readings shows as a difference; a wrong calibration would be a hundred times this.
  EXPECT_LT(holder - voter, s / 100);
}

}  // namespace
}  // namespace holdfast::platform
