// SPDX-License-Identifier: Apache-2.0
// What a node must remember over a crash about its place in the log: one small durable value, replaced as a whole (docs/formats/log.md).
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>

#include "base/bytes.h"
#include "base/types.h"

namespace holdfast::mirror {

// Written as 1 while there is neither a point nor a rewind, as 2 without the fields after those, as 3 without marks: an older program reads that.
constexpr std::uint32_t node_state_version = 4;

// How far a tree has got, written into it before the state says so (mirror/tree_marks.h).
struct CheckpointMark {
  std::uint64_t log_life = 0;  // of NodeState
  Sequence applied;
  auto operator<=>(const CheckpointMark&) const = default;  // later lives are later
};

// What the node was at some batch of its undo history: fields of NodeState with the same names.
struct PastState {
  std::uint64_t batch = 0;  // the first one from this number on; the trees were like this at its start
  Position applied;
  Epoch active_epoch;
  bool clean = true;
  std::set<SetNumber> complete;
};

// A plan that took the cluster back in time, on the node that leads since then.
struct WentBack {
  std::string plan;
  Position position;         // the log as of which the trees were when the epoch began
  std::int64_t time_ns = 0;  // the active's clock at the last record before
  Epoch epoch;               // that began there
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
  // Of a rewind that opens an epoch: the plan that asked for it. What is found standing at a start leaves the node at that point, but not
  // complete: others may have gone on from where it was.
  std::string rewind_plan;
  bool rewind_for_epoch = false;
  std::optional<WentBack>
      went_back;  // while the trees stand there because of it; cleared when it follows somebody's log
  // As active: the trees were exactly the log as of there when the epoch began; nullopt: they were not (went back, a fence or a death before).
  std::optional<Position> led_from;
  // Sets that were whole here and are not any more. Other incomplete ones never had a copy.
  std::set<SetNumber> lost;
  // What stands in their folders is not what was remembered (mirror/tree_marks.h); until a copy of them begins anew.
  std::set<SetNumber> doubted;
  // What each tree carries since it was here last at a checkpoint, or later ones. Not of sets that an older program knew.
  std::map<SetNumber, CheckpointMark> marked;

  bool speaks_of(SetNumber set) const;
  void forget(SetNumber set);  // all that is said of it
};

Bytes encode(const NodeState& state);
Result<NodeState> decode_node_state(ByteView bytes);  // empty: a new node

}  // namespace holdfast::mirror
