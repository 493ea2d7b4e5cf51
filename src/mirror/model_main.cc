// SPDX-License-Identifier: Apache-2.0
// holdfast-model [--verify] --seed N | --runs N [--first N]: random lives of a passive (mirror/test_model.h).
#include <cstdlib>
#include <string>

#include <fmt/core.h>

#include "base/log.h"
#include "mirror/test_model.h"

using namespace holdfast::mirror::testing;

int main(int argc, char** argv) {
  std::uint64_t first = 1, runs = 0;
  ModelOptions options;
  for (int i = 1; i < argc; ++i) {
    const std::string a = argv[i];
    const bool more = i + 1 < argc;
    if (a == "--seed" && more) {
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
    fmt::print("usage: holdfast-model [--verify] --seed N | --runs N [--first N]\n");
    return 2;
  }
  holdfast::set_log_level(options.trace ? holdfast::LogLevel::info : holdfast::LogLevel::error);
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
