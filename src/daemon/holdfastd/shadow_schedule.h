// SPDX-License-Identifier: Apache-2.0
// Scheduled shadows: when the next one is due, what it is called, and which of the old ones are dropped. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "control/history.h"

namespace holdfast::daemon {

// "24h,7d,4w": of the scheduled shadows the newest of each of the last 24 hours, 7 days and 4 weeks that have one are left.
struct Thinning {
  std::uint32_t hours = 0, days = 0, weeks = 0;
};
Result<Thinning> parse_thinning(const std::string& text);

// The stretch of the schedule that `now_ms` lies in has one shadow, named after its beginning, whoever is the active then.
std::string scheduled_name(std::int64_t now_ms, std::uint32_t every_s);

// Names of those that go: made by the schedule, not kept, and not among those left by `thinning`.
std::vector<std::string> shadows_to_drop(const std::vector<control::ShadowStatus>& shadows, const Thinning& thinning);

}  // namespace holdfast::daemon
