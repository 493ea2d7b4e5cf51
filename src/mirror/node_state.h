// SPDX-License-Identifier: Apache-2.0
// What a node must remember over a crash about its place in the log: one small durable value, replaced as a whole (docs/formats/log.md).
#pragma once

#include <optional>
#include <set>

#include "base/bytes.h"
#include "base/types.h"

namespace holdfast::mirror {

// Written as 1 while there is neither a point nor a rewind: an older program reads that.
constexpr std::uint32_t node_state_version = 2;

// What the node was at some batch of its undo history: fields of NodeState with the same names.
struct PastState {
  std::uint64_t batch = 0;  // the first one from this number on; the trees were like this at its start
  Position applied;
  Epoch active_epoch;
  bool clean = true;
  std::set<SetNumber> complete;
};

struct NodeState {
  Epoch sealed;                   // nothing of a lower epoch is accepted (R1)
  Epoch active_epoch;             // this node is (or was, when not clean) the active of that epoch; 0: it is not
  bool clean = true;              // false: the tree may hold changes that nobody else has
  Position applied;               // checkpoint: the trees hold everything up to here, durably
  std::uint64_t log_life = 1;     // counts how often the receive log began anew (ports::NamesMark::log)
  bool restarting = false;        // the log was about to begin anew after `applied`: finish that first
  std::set<SetNumber> complete;   // sets that were whole once and have followed the log since
  std::set<SetNumber> resyncing;  // sets between resync_begin and resync_end at the checkpoint
  // Where a resynchronization began: while it lasts the history from there on is kept, and the node can be promoted at this point (I6).
  std::optional<PastState> point;
  std::int64_t point_time_ns = 0;  // the active's clock at its last record before the point
  // The trees are on their way to what they were then; nothing else may be done with them before they have arrived (mirror/rewind.h).
  std::optional<PastState> rewind;
  std::uint64_t reversal =
      0;  // the batch that takes the rewind back: without it nothing was touched. 0: there is none, it was begun in any case
};

Bytes encode(const NodeState& state);
Result<NodeState> decode_node_state(ByteView bytes);  // empty: a new node

}  // namespace holdfast::mirror
