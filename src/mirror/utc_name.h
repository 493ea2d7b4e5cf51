// SPDX-License-Identifier: Apache-2.0
// A moment as part of a name: "20261125T132005". Without the C library's time zones: cores touch no environment.
#pragma once

#include <cstdint>
#include <string>

#include <fmt/core.h>

namespace holdfast::mirror {

inline std::string utc_name(std::int64_t time_ns) {
  const std::int64_t seconds = time_ns / 1'000'000'000;
  std::int64_t days = seconds / 86'400;
  const std::int64_t rest = seconds % 86'400;
  // Days since 1970 as a date of the Gregorian calendar; eras of 400 years begin on 1 March.
  days += 719'468;
  const std::int64_t era = days / 146'097, day_of_era = days % 146'097;
  const std::int64_t year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36'524 - day_of_era / 146'096) / 365;
  const std::int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const std::int64_t shifted_month = (5 * day_of_year + 2) / 153;
  const std::int64_t day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
  const std::int64_t month = shifted_month < 10 ? shifted_month + 3 : shifted_month - 9;
  const std::int64_t year = year_of_era + era * 400 + (month <= 2 ? 1 : 0);
  return fmt::format("{:04}{:02}{:02}T{:02}{:02}{:02}", year, month, day, rest / 3600, rest / 60 % 60, rest % 60);
}

}  // namespace holdfast::mirror
