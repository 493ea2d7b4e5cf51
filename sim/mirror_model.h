// SPDX-License-Identifier: Apache-2.0
// As much of a mirror as the checkers need: a log with a durable part, seals, and fsyncs that wait for the wait set.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <vector>

#include "base/types.h"

namespace holdfast::sim {

// A log is its newest record; older ones hang behind it. Shared between nodes, so "the same prefix" is pointer equality.
struct Record {
  const Record* before = nullptr;
  std::uint64_t length = 1;
  Epoch epoch;
};
using Log = const Record*;

inline std::uint64_t length(Log log) { return log ? log->length : 0; }
inline Position position(Log log) { return log ? Position{log->epoch, Sequence(log->length)} : Position{}; }
bool contains(Log log, Log record);

struct MirrorModel {
  bool alive = true;
  bool active = false;    // captures
  bool draining = false;  // unmounted for a switchover: nothing new comes
  Epoch epoch;            // of the capture
  Epoch sealed;           // durable: refuses appends and data below
  Epoch following;
  Epoch received_in;  // the data channel is in order: within an epoch the active's log only grows
  std::uint64_t received_length = 0;
  Log log = nullptr;  // in memory
  // Another past is being replaced by the active's: not complete, `log` is what it can go back to.
  bool complete = true;
  std::int64_t resync_ends = 0;  // true time
  Log durable = nullptr;
  std::set<NodeId> wait;                    // fsyncs that begin now wait for these
  std::map<NodeId, std::uint64_t> acked;    // durable length at a peer, in this epoch
  std::map<NodeId, std::int64_t> acked_at;  // true time
  std::vector<Log> unacknowledged;          // fsyncs not answered yet
  std::uint64_t life = 0;                   // what was on its way to an earlier one is void

  bool captures() const { return alive && active && sealed <= epoch; }
  void activate(Epoch e);
  void stop_capture();
  void crash();  // memory is lost, the disk stays
};

}  // namespace holdfast::sim
