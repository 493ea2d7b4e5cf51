// SPDX-License-Identifier: Apache-2.0
// holdfast-sim --seed N [--trace] | --runs N [--seed FIRST] | --same N | --mutants [--only TEXT] [--runs N]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>

#include <fmt/core.h>

#include "sim/mutants.h"
#include "sim/world.h"

using namespace holdfast::sim;

namespace {

int usage() {
  fmt::print(stderr,
             "usage: holdfast-sim --seed N [--trace] | --runs N [--seed FIRST] | --same N | --mutants [--only TEXT] "
             "[--runs N]\n");
  return 2;
}

// CPU time of this process: what one core does in a minute, whoever else wants the machine.
void summary(std::uint64_t runs, Time simulated, int violations) {
  const double hours = static_cast<double>(simulated) / second / 3600;
  const double minutes = static_cast<double>(std::clock()) / CLOCKS_PER_SEC / 60;
  fmt::print("sim: {} runs, {:.1f} cluster-hours, {:.0f} a minute on one core, {} violations\n", runs, hours,
             hours / std::max(minutes, 1e-6), violations);
}

int run_many(std::uint64_t first, std::uint64_t runs, bool trace, bool twice) {
  Time simulated = 0;
  int violations = 0;
  std::uint64_t acknowledged = 0, epochs = 0, traces = 0;
  for (std::uint64_t seed = first; seed < first + runs; ++seed) {
    Options o;
    o.seed = seed;
    o.trace = trace;
    Report r = World(o).run();
    if (twice && World(o).run().trace_hash != r.trace_hash) r.violation = "the same seed gave another trace";
    simulated += r.simulated;
    acknowledged += r.acknowledged;
    epochs += r.epochs;
    traces = traces * 0x9E3779B97F4A7C15ULL + r.trace_hash;
    if (r.violation.empty()) continue;
    if (++violations <= 12)
      fmt::print("violation: seed {} {}\n  replay: holdfast-sim --seed {} --trace\n", seed, r.violation, seed);
  }
  fmt::print("{} acknowledged writes, {} epochs, traces {:016x}\n", acknowledged, epochs, traces);
  summary(runs, simulated, violations);
  return violations > 0 ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::uint64_t seed = 1, runs = 0;
  bool trace = false, twice = false, with_mutants = false;
  std::string only;
  for (int i = 1; i < argc; ++i) {
    const std::string a = argv[i];
    const bool more = i + 1 < argc;
    if (a == "--trace")
      trace = true;
    else if (a == "--mutants")
      with_mutants = true;
    else if (a == "--seed" && more)
      seed = std::strtoull(argv[++i], nullptr, 10);
    else if (a == "--runs" && more)
      runs = std::strtoull(argv[++i], nullptr, 10);
    else if (a == "--same" && more) {
      runs = std::strtoull(argv[++i], nullptr, 10);
      twice = true;
    } else if (a == "--only" && more)
      only = argv[++i];
    else
      return usage();
  }
  if (with_mutants) return run_mutants(seed, runs == 0 ? 20'000 : runs, only) > 0 ? 1 : 0;
  return run_many(seed, runs == 0 ? 1 : runs, trace, twice);
}
