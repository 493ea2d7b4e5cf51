// SPDX-License-Identifier: Apache-2.0
// A receive log that begins anew at another position: what the undo history says of it. The same words while it happens and after a crash in it.
#pragma once

#include "mirror/node_state.h"
#include "mirror/undo.h"

namespace holdfast::mirror {

// `state.restarting`. The tree stands at the point, where a copy that is to be replaced gave one; else at what the log goes on from: after a
// rewind it is there already, and a node that handed over, or held nothing whole, has no other name for where it stands.
inline UndoHead jump_head(const NodeState& state) {
  UndoHead jump;
  jump.life = state.log_life;
  jump.before = state.point ? state.point->applied : state.applied;
  jump.after = state.applied;
  jump.unclean = state.point && state.point->active_epoch != Epoch(0);
  jump.sets = state.point ? state.point->complete : state.complete;
  return jump;
}

}  // namespace holdfast::mirror
