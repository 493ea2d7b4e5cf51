// SPDX-License-Identifier: Apache-2.0
// What a record is going to touch, as far as the record says, so that the old values of a whole batch are written with one sync. What this table
// misses is captured late, at the price of a sync of its own (mirror/undo_tree.h): a performance bug, never a data bug.
#pragma once

#include "log/record.h"
#include "ports/tree.h"

namespace holdfast::mirror {

// Appends to `out`. `resync`: the set is being resynchronized, and folders may move from wherever they stand in `tree`.
Status predict(const log::Record& record, bool resync, ports::Tree& tree, ports::Touches& out);

}  // namespace holdfast::mirror
