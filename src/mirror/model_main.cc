// SPDX-License-Identifier: Apache-2.0
// holdfast-model [--verify | --changes [--narrow]] --seed N | --runs N [--first N]: random lives of a passive (mirror/test_model.h), or of one that keeps
// falling behind (mirror/test_change_model.h).
#include <cstdlib>
#include <string>

#include <fmt/core.h>

#include "base/log.h"
#include "mirror/test_change_model.h"
#include "mirror/test_model.h"

using namespace holdfast::mirror::testing;

namespace {

int run_all_changes(std::uint64_t first, std::uint64_t runs, bool trace, int flaw, bool wide) {
  ChangeReport sum;
  std::uint64_t failures = 0;
  for (std::uint64_t seed = first; seed < first + runs; ++seed) {
    const ChangeReport r = run_changes({seed, trace, static_cast<ChangeOptions::Flaw>(flaw), wide});
    sum.records += r.records;
    sum.crashes += r.crashes;
    sum.cuts += r.cuts;
    sum.partials += r.partials;
    sum.fulls += r.fulls;
    sum.completed += r.completed;
    sum.given_up += r.given_up;
    sum.compared += r.compared;
    if (r.failure.empty()) continue;
    if (++failures <= 12)
      fmt::print("seed {}: {}\n  replay: holdfast-model --changes --seed {}\n", seed, r.failure, seed);
  }
  fmt::print(
      "changes: {} lives, {} records, {} crashes, {} cuts, {} partial and {} full resyncs begun, {} ended, {} times "
      "given "
      "up, {} comparisons, {} failures\n",
      runs, sum.records, sum.crashes, sum.cuts, sum.partials, sum.fulls, sum.completed, sum.given_up, sum.compared,
      failures);
  return failures > 0 ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::uint64_t first = 1, runs = 0;
  ModelOptions options;
  bool changes = false, wide = true;
  int flaw = 0;
  for (int i = 1; i < argc; ++i) {
    const std::string a = argv[i];
    const bool more = i + 1 < argc;
    if (a == "--changes") {
      changes = true;
    } else if (a == "--narrow") {
      wide = false;
    } else if (a == "--flaw" && more) {
      flaw = std::atoi(argv[++i]);
    } else if (a == "--seed" && more) {
      first = std::strtoull(argv[++i], nullptr, 10);
      runs = 1;
      options.trace = true;
    } else if (a == "--runs" && more) {
      runs = std::strtoull(argv[++i], nullptr, 10);
    } else if (a == "--first" && more) {
      first = std::strtoull(argv[++i], nullptr, 10);
    } else if (a == "--verify") {
      options.verify = true;
    } else {
      runs = 0;
      break;
    }
  }
  if (runs == 0) {
    fmt::print("usage: holdfast-model [--verify | --changes [--narrow] [--flaw N]] --seed N | --runs N [--first N]\n");
    return 2;
  }
  holdfast::set_log_level(options.trace ? holdfast::LogLevel::info : holdfast::LogLevel::error);
  if (changes) return run_all_changes(first, runs, options.trace, flaw, wide);
  ModelReport sum;
  std::uint64_t failures = 0;
  for (options.seed = first; options.seed < first + runs; ++options.seed) {
    const ModelReport r = run_model(options);
    sum.records += r.records;
    sum.crashes += r.crashes;
    sum.compared += r.compared;
    sum.resyncs += r.resyncs;
    sum.rewinds += r.rewinds;
    sum.given_up += r.given_up;
    sum.damages += r.damages;
    sum.repaired += r.repaired;
    if (r.failure.empty()) continue;
    if (++failures <= 12)
      fmt::print("seed {}: {}\n  replay: holdfast-model --seed {}\n", options.seed, r.failure, options.seed);
  }
  fmt::print(
      "model: {} lives, {} records, {} crashes, {} resyncs (and {} given up), {} rewinds, {} comparisons, {} "
      "failures\n",
      runs, sum.records, sum.crashes, sum.resyncs, sum.given_up, sum.rewinds, sum.compared, failures);
  if (options.verify) fmt::print("model: {} times damaged, {} objects repaired\n", sum.damages, sum.repaired);
  return failures > 0 ? 1 : 0;
}
