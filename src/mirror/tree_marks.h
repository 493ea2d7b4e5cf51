// SPDX-License-Identifier: Apache-2.0
// Is the folder the one that this node remembers? What a node knows of its trees (state, notes of what was hot) is on one disk, the trees may be on
// others: replaced, restored from a backup, put back to a snapshot, or not mounted. So each tree carries how far it has got (ports::Mark), and what
// is remembered elsewhere is believed only of a tree that is at least as far, and no further than the log:
//   checkpoint   written before the sync that makes a checkpoint, or all that was applied when the log begins anew, durable; and that before the
//                state says so, for each set that was here then (NodeState::marked)
//   hot          of an active: written before the sync that lets a generation of notes be dropped, and that before the header says so (hot_set.h)
// A crash between leaves a tree that is further than what is remembered. A file system that was repaired, and lost files by it, can't be told from a
// sound one so. Marks have one size and are there from the beginning: to overwrite one needs no space (but on btrfs).
#pragma once

#include <string>

#include "mirror/hot_format.h"
#include "mirror/node_state.h"
#include "ports/tree.h"

namespace holdfast::mirror {

Bytes encode(const CheckpointMark& mark);
Bytes encode(const HotMark& mark);
// Nothing: there is none, or one of a later version.
std::optional<CheckpointMark> decode_checkpoint_mark(ByteView bytes);
std::optional<HotMark> decode_hot_mark(ByteView bytes);

// Of a set of which the state says something. Empty: it is the tree that was here, as far as can be told. Else what it is instead. `log_end`: of the
// receive log, durable. `hot`: of the notes; null: there are none.
Result<std::string> why_not_remembered(ports::Tree& tree, const NodeState& state, Sequence log_end,
                                       const HotHeader* hot);

}  // namespace holdfast::mirror
