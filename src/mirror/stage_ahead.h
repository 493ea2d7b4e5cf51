// SPDX-License-Identifier: Apache-2.0
// Making objects before their names come (R17): without a name, with their ids, and all ids of a batch durable in one commit.
#pragma once

#include <span>
#include <unordered_map>
#include <unordered_set>

#include "log/record.h"
#include "mirror/resync_memory.h"
#include "ports/tree.h"

namespace holdfast::mirror {

// Of one set, in the batch in work. Nothing in it outlives the batch.
struct Staged {
  std::unordered_set<FileId> created;  // what create records will name

  std::unordered_set<FileId> ahead;  // what listings will name, as long as they have not
  Sequence ahead_to;                 // listings up to here were looked at
  // A first copy that a crash broke is done anew, and what has a name but no durable id is adopted then: its ids need to be durable when it is
  // complete (applier.cc), or one of the names is taken away. All others at once: what changed only is not looked for elsewhere, and a history speaks
  // of what it knows by id.
  bool ids_later = false;
  // Made with the attributes that a ship_node of this batch says, which finds nothing left to do then; nothing else was said about them since.
  struct Dressed {
    Sequence by;
    bool sized = false;  // an empty file, or bytes up to its end follow at once
  };
  std::unordered_map<FileId, Dressed> dressed;
};

// An object without its attributes and contents: they are said later.
constexpr ports::NewNode placeholder(std::uint32_t type) {
  ports::NewNode node;
  node.mode = type | 0600;
  return node;
}

// Makes what the listing at the front of `rest` (and those after it, up to the next change of a name) names and what is not here, if the listed
// folders are known to be bare. `rest`: the batch from there on.
Status stage_ahead(std::span<const log::Record> rest, ports::Tree& tree, const ResyncMemory& memory, Staged& staged);

}  // namespace holdfast::mirror
