// SPDX-License-Identifier: Apache-2.0
#include "platform/clock_reading.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>

#if defined(__x86_64__)
#include <cpuid.h>
#include <x86intrin.h>
#endif

namespace holdfast::platform {
namespace {

constexpr std::int64_t ns_per_s = 1'000'000'000;

std::int64_t clock_ns(clockid_t clock) {
  timespec t{};
  clock_gettime(clock, &t);
  return t.tv_sec * ns_per_s + t.tv_nsec;
}

#if defined(__x86_64__)
std::uint64_t ticks() { return __rdtsc(); }

bool tsc_is_invariant() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(0x80000007, &a, &b, &c, &d) == 0 || (d & (1U << 8)) == 0) return false;
  // The kernel takes "tsc" off this list when it sees it drift or jump.
  std::FILE* f = std::fopen("/sys/devices/system/clocksource/clocksource0/available_clocksource", "re");
  if (f == nullptr) return true;
  char line[256] = {};
  const bool read = std::fgets(line, sizeof line, f) != nullptr;
  std::fclose(f);
  return !read || std::strstr(line, "tsc") != nullptr;
}

// BOOTTIME with the ticks at the same instant: the narrowest of a few brackets, so that a preemption in between does not count.
void paired(std::int64_t& boot_ns, std::uint64_t& tsc) {
  std::uint64_t narrowest = ~std::uint64_t{0};
  for (int i = 0; i < 16; ++i) {
    const std::uint64_t before = ticks();
    const std::int64_t boot = clock_ns(CLOCK_BOOTTIME);
    const std::uint64_t after = ticks();
    if (after - before >= narrowest) continue;
    narrowest = after - before;
    boot_ns = boot;
    tsc = before + narrowest / 2;
  }
}

double measure_hz() {
  if (!tsc_is_invariant()) return 0;
  std::int64_t boot0 = 0, boot1 = 0;
  std::uint64_t tsc0 = 0, tsc1 = 0;
  paired(boot0, tsc0);
  const timespec pause{0, 20'000'000};  // the measured interval itself, not a wait for something
  clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, nullptr);
  paired(boot1, tsc1);
  if (boot1 <= boot0 || tsc1 <= tsc0) return 0;
  const double hz =
      static_cast<double>(tsc1 - tsc0) * static_cast<double>(ns_per_s) / static_cast<double>(boot1 - boot0);
  return hz > 1e7 && hz < 1e11 ? hz : 0;
}
#else
std::uint64_t ticks() { return 0; }
double measure_hz() { return 0; }
#endif

std::int64_t forward(std::int64_t from, std::int64_t to) { return std::max<std::int64_t>(0, to - from); }

bool has_tsc(const ClockReading& from, const ClockReading& to, double hz) {
  return hz > 0 && from.tsc_ticks != 0 && to.tsc_ticks != 0;
}

std::int64_t tsc_elapsed(const ClockReading& from, const ClockReading& to, double hz) {
  if (to.tsc_ticks <= from.tsc_ticks) return 0;
  return static_cast<std::int64_t>(static_cast<double>(to.tsc_ticks - from.tsc_ticks) *
                                   (static_cast<double>(ns_per_s) / hz));
}

}  // namespace

double tsc_hz() {
  static const double hz = measure_hz();
  return hz;
}

ClockReading read_clocks() {
  const double hz = tsc_hz();  // first: the measurement must not fall between the readings
  ClockReading r;
  r.boot_ns = clock_ns(CLOCK_BOOTTIME);
  r.real_ns = clock_ns(CLOCK_REALTIME);
  r.tsc_ticks = hz > 0 ? ticks() : 0;
  return r;
}

std::int64_t holder_elapsed_ns(const ClockReading& from, const ClockReading& to, double hz) {
  const std::int64_t clocks = std::max(forward(from.boot_ns, to.boot_ns), forward(from.real_ns, to.real_ns));
  return has_tsc(from, to, hz) ? std::max(clocks, tsc_elapsed(from, to, hz)) : clocks;
}

std::int64_t voter_elapsed_ns(const ClockReading& from, const ClockReading& to, double hz) {
  const std::int64_t boot = forward(from.boot_ns, to.boot_ns);
  return has_tsc(from, to, hz) ? std::min(boot, tsc_elapsed(from, to, hz)) : boot;
}

}  // namespace holdfast::platform
