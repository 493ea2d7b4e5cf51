// SPDX-License-Identifier: Apache-2.0
#include "sim/mutants.h"

#include <fmt/core.h>

namespace holdfast::sim {

const std::vector<Mutant>& mutants() {
  static const std::vector<Mutant> all = {
      {"ack before persist", [](Options& o) { o.mutation.ack_before_persist = true; }},
      {"no drift margin", [](Options& o) { o.mutation.no_drift_margin = true; }},
      {"no silence after a restart", [](Options& o) { o.mutation.no_restart_silence = true; }},
      {"stale promise: votes while a lease is promised", [](Options& o) { o.mutation.stale_promise = true; }},
      {"vote before seal", [](Options& o) { o.mutation.vote_before_seal = true; }},
      {"candidate's own claim of the in-sync set", [](Options& o) { o.mutation.own_claim_of_in_sync = true; }},
      {"amnesiac witness votes", [](Options& o) { o.mutation.any_incarnation_votes = true; }},
      {"lease counts from the ack", [](Options& o) { o.mutation.lease_from_ack = true; }},
      {"one ack extends the lease", [](Options& o) { o.mutation.lease_of_one = true; }},
      {"joiner added before the active waits for it",
       [](Options& o) { o.joiner_without_wait = o.mutation.joiner_without_wait = true; }},
      {"removal released before it is recorded", [](Options& o) { o.mutation.removal_before_recorded = true; }},
      {"promise on the wall clock", [](Options& o) { o.mutation.promise_on_holder_clock = true; }},
      {"a late resignation voids a newer promise", [](Options& o) { o.mutation.resign_any_epoch = true; }},
      {"others see a value before its proposer has it on disk", [](Options& o) { o.mutation.propose_before_own_accept = true; }},
      {"a voter votes twice in an epoch", [](Options& o) { o.mutation.votes_twice = true; }},
      {"a sole voter goes on without contact", [](Options& o) { o.mutation.sole_voter_alone = true; }},
  };
  return all;
}

int run_mutants(std::uint64_t first_seed, std::uint64_t most_runs, const std::string& only) {
  int escaped = 0;
  for (const Mutant& m : mutants()) {
    if (!only.empty() && m.name.find(only) == std::string::npos) continue;
    std::string caught;
    for (std::uint64_t i = 0; i < most_runs && caught.empty(); ++i) {
      Options o;
      o.seed = first_seed + i;
      m.plant(o);
      const Report r = World(o).run();
      // That nothing converges would be noticed by anybody; what counts is that it is seen to be unsafe.
      if (!r.violation.empty() && r.unsafe) caught = fmt::format("seed {}, {}", o.seed, r.violation);
    }
    fmt::print("{:8} {}{}{}\n", caught.empty() ? "ESCAPED" : "caught", m.name, caught.empty() ? "" : ": ", caught);
    std::fflush(stdout);
    escaped += caught.empty();
  }
  fmt::print("sim-mutants: {} planted, {} escaped\n", mutants().size(), escaped);
  return escaped;
}

}  // namespace holdfast::sim
