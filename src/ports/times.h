// SPDX-License-Identifier: Apache-2.0
// Time as the data plane needs it: stamps for people, and intervals that no jump of the wall clock can bend. Leases use ports/clock.h.
#pragma once

#include <cstdint>

namespace holdfast::ports {

class Times {
 public:
  virtual ~Times() = default;
  virtual std::int64_t realtime_ns() = 0;  // CLOCK_REALTIME; may jump
  virtual std::int64_t steady_ns() = 0;    // goes on through suspend; for intervals on this node only
};

}  // namespace holdfast::ports
