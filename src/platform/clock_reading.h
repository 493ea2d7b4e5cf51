// SPDX-License-Identifier: Apache-2.0
// Three clocks read together, and the two ways of measuring with them (R6). A paused virtual machine's BOOTTIME may stand still while
// others went on, and REALTIME may be set by anyone: so who *holds* a lease believes the clock that advanced most, and who *promised*
// not to elect another believes the one that advanced least (and never REALTIME).
#pragma once

#include <cstdint>

namespace holdfast::platform {

// Values of one machine since its boot; comparable between its processes, never between machines. `tsc_ticks` 0 = no usable TSC.
struct ClockReading {
  std::int64_t boot_ns = 0;
  std::int64_t real_ns = 0;
  std::uint64_t tsc_ticks = 0;
};

// Ticks a second of this machine's TSC, measured once against BOOTTIME (the first call takes 20 ms); 0 when the TSC is not invariant or
// the kernel found it unstable: then it is not used at all. Any thread.
double tsc_hz();

// About 70 ns. Any thread, async-signal-safe once tsc_hz() was called.
ClockReading read_clocks();

// Nanoseconds that passed from `from` to `to`. A clock that stepped back counts as not advanced. `hz` 0 leaves the TSC out.
std::int64_t holder_elapsed_ns(const ClockReading& from, const ClockReading& to, double hz);  // largest of the three
std::int64_t voter_elapsed_ns(const ClockReading& from, const ClockReading& to,
                              double hz);  // smallest of BOOTTIME and TSC

// A clock that never goes back, summed from advance to advance; starts at 0 with the first reading. One thread.
template <std::int64_t (*Elapsed)(const ClockReading&, const ClockReading&, double)>
class AccumulatingClock {
 public:
  explicit AccumulatingClock(double hz = tsc_hz()) : hz_(hz) {}
  std::int64_t now_ns(const ClockReading& reading = read_clocks()) {
    if (started_) total_ns_ += Elapsed(last_, reading, hz_);
    started_ = true;
    last_ = reading;
    return total_ns_;
  }

 private:
  double hz_;
  ClockReading last_{};
  std::int64_t total_ns_ = 0;
  bool started_ = false;
};
using HolderClock = AccumulatingClock<holder_elapsed_ns>;
using VoterClock = AccumulatingClock<voter_elapsed_ns>;

}  // namespace holdfast::platform
