// SPDX-License-Identifier: Apache-2.0
// What a node must remember over a crash about its place in the log: one small durable value, replaced as a whole (docs/formats/log.md).
#pragma once

#include <set>

#include "base/bytes.h"
#include "base/types.h"

namespace holdfast::mirror {

constexpr std::uint32_t node_state_version = 1;

struct NodeState {
  Epoch sealed;                   // nothing of a lower epoch is accepted (R1)
  Epoch active_epoch;             // this node is (or was, when not clean) the active of that epoch; 0: it is not
  bool clean = true;              // false: the tree may hold changes that nobody else has
  Position applied;               // checkpoint: the trees hold everything up to here, durably
  std::uint64_t log_life = 1;     // counts how often the receive log began anew (ports::NamesMark::log)
  bool restarting = false;        // the log was about to begin anew after `applied`: finish that first
  std::set<SetNumber> complete;   // sets that were whole once and have followed the log since
  std::set<SetNumber> resyncing;  // sets between resync_begin and resync_end at the checkpoint
};

Bytes encode(const NodeState& state);
Result<NodeState> decode_node_state(ByteView bytes);  // empty: a new node

}  // namespace holdfast::mirror
