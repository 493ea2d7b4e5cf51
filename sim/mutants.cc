// SPDX-License-Identifier: Apache-2.0
#include "sim/mutants.h"

#include <fmt/core.h>

namespace holdfast::sim {

const std::vector<Mutant>& mutants() {
  static const std::vector<Mutant> all = {
      {"ack before persist", 661, [](Options& o) { o.mutation.ack_before_persist = true; }},
      {"no drift margin", 29365, [](Options& o) { o.mutation.no_drift_margin = true; }},
      {"no silence after a restart", 1557, [](Options& o) { o.mutation.no_restart_silence = true; }},
      {"stale promise: votes while a lease is promised", 4, [](Options& o) { o.mutation.stale_promise = true; }},
      {"vote before seal", 1, [](Options& o) { o.mutation.vote_before_seal = true; }},
      {"candidate's own claim of the in-sync set", 7, [](Options& o) { o.mutation.own_claim_of_in_sync = true; }},
      {"amnesiac witness votes", 183, [](Options& o) { o.mutation.any_incarnation_votes = true; }},
      {"lease counts from the ack", 190, [](Options& o) { o.mutation.lease_from_ack = true; }},
      {"one ack extends the lease", 7, [](Options& o) { o.mutation.lease_of_one = true; }},
      {"joiner added before the active waits for it", 1,
       [](Options& o) { o.joiner_without_wait = o.mutation.joiner_without_wait = true; }},
      {"removal released before it is recorded", 2, [](Options& o) { o.mutation.removal_before_recorded = true; }},
      {"promise on the wall clock", 511, [](Options& o) { o.mutation.promise_on_holder_clock = true; }},
      {"others see a value before its proposer has it on disk", 7679,
       [](Options& o) { o.mutation.propose_before_own_accept = true; }},
      {"a voter votes twice in an epoch", 3, [](Options& o) { o.mutation.votes_twice = true; }},
      {"a consistent point counts without force", 157, [](Options& o) { o.mutation.fallback_unforced = true; }},
      {"a sole voter goes on without contact", 109, [](Options& o) { o.mutation.sole_voter_alone = true; }},
  };
  return all;
}

int run_mutants(std::uint64_t first_seed, std::uint64_t most_runs, const std::string& only) {
  int escaped = 0;
  for (const Mutant& m : mutants()) {
    if (!only.empty() && m.name.find(only) == std::string::npos) continue;
    std::string caught;
    for (std::uint64_t i = 0; i <= most_runs && caught.empty(); ++i) {
      Options o;
      o.seed = i == 0 ? m.seed : first_seed + i - 1;
      m.plant(o);
      const Report r = World(o).run();
      // That nothing converges would be noticed by anybody; what counts is that it is seen to be unsafe.
      if (r.violation.empty() || !r.unsafe) continue;
      // That it is the bug that was planted: without it this seed is clean.
      Options clean;
      clean.seed = o.seed;
      if (World(clean).run().violation.empty()) caught = fmt::format("seed {}, {}", o.seed, r.violation);
    }
    fmt::print("{:8} {}{}{}\n", caught.empty() ? "ESCAPED" : "caught", m.name, caught.empty() ? "" : ": ", caught);
    std::fflush(stdout);
    escaped += caught.empty();
  }
  fmt::print("sim-mutants: {} planted, {} escaped\n", mutants().size(), escaped);
  return escaped;
}

}  // namespace holdfast::sim
