// SPDX-License-Identifier: Apache-2.0
// Bugs planted on purpose; a simulator that does not notice one of them proves nothing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "sim/world.h"

namespace holdfast::sim {

struct Mutant {
  std::string name;
  std::uint64_t
      seed;  // showed it once: tried first, so that the test is quick; others follow when the simulator has changed
  void (*plant)(Options&);
};
const std::vector<Mutant>& mutants();

// Runs seeds until each is caught; prints a line each. Returns how many escaped.
int run_mutants(std::uint64_t first_seed, std::uint64_t most_runs, const std::string& only);

}  // namespace holdfast::sim
