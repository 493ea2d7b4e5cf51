// SPDX-License-Identifier: Apache-2.0
// Points in time as people write them: one parser for all commands and for the API.
//
//   14:02, 14:02:11, 14:02:11.5     local time: the last time the clock showed that
//   2026-11-25, 2026-11-25 14:02    local time; also with T, seconds and a fraction
//   2026-11-25T13:02:11Z, +01:00    with a zone
//   10m, 90s ago, 1h30m, 2 days     that long ago
//   now
//   nightly                         a shadow: begins with a letter, so it is never taken for a time
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace holdfast::control {

struct When {
  enum class Kind { time, ago, shadow };
  Kind kind = Kind::time;
  std::int64_t time_ns = 0;  // since 1970
  std::int64_t ago_ns = 0;   // to be taken from the clock of whoever answers
  std::string shadow;
  // Of a time or a while ago; `now_ns` on that clock.
  std::int64_t at_ns(std::int64_t now_ns) const { return kind == Kind::ago ? now_ns - ago_ns : time_ns; }
};

// `now_ns`: what "14:02" is measured by. Local times are those of this process's zone. Errors: one line, with what is understood.
Result<When> parse_when(std::string_view text, std::int64_t now_ns);

// The same for another machine: no local time in it, and nothing rounded.
std::string to_text(const When& when);

// "14:02:11" when that is less than a day ago, else "2026-11-25 14:02:11"; in this process's zone. Empty for 0.
std::string local_time(std::int64_t ms, std::int64_t now_ms);

// Names that can't be taken for a time: 1 to 64 of letters, digits, '.', '_', '-', beginning with a letter.
Status check_shadow_name(std::string_view name);

}  // namespace holdfast::control
