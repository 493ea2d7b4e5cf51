// SPDX-License-Identifier: Apache-2.0
// The two scales in which a lease is measured (R6). Cores never read a clock: a Now comes in with every step.
#pragma once

#include <cstdint>

namespace holdfast {

// Nanoseconds; only differences within one scale mean anything, and only within one process's life. Neither ever goes back.
//
// How a platform makes them: at each reading take what BOOTTIME, REALTIME and TSC advanced since the reading before, then
//   holder_ns += max(advance of BOOTTIME, REALTIME, TSC, 0)     too fast is safe: a lease ends early
//   voter_ns  += max(0, min(advance of BOOTTIME, TSC))          too slow is safe: a promise lasts longer; never REALTIME
// The advances are summed reading by reading: with one baseline a wall clock set forth and back would make holder_ns go back.
// To hand a deadline to another process, give it what remains (deadline minus holder_ns now) as a deadline on each of the
// three clocks as they read now; it has passed as soon as one of them has passed it.
struct Now {
  std::int64_t holder_ns = 0;
  std::int64_t voter_ns = 0;
};

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Now now() = 0;  // any thread
};

constexpr std::int64_t ns_per_ms = 1'000'000;

}  // namespace holdfast
