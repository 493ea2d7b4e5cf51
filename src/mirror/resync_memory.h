// SPDX-License-Identifier: Apache-2.0
// What a passive remembers of a resynchronization from batch to batch. Forgotten with the process, and with each redo.
#pragma once

#include <string>
#include <unordered_map>
#include <unordered_set>

#include "base/types.h"

namespace holdfast::mirror {

struct ResyncMemory {
  std::unordered_map<FileId, std::unordered_set<std::string>> listings;  // whose last chunk has not come yet
  // Folders that this resync made, and that hold nothing but what their listing has said so far: no name needs to be looked at there.
  std::unordered_set<FileId> bare;
  bool partial = false;
  std::unordered_set<FileId> asked;  // partial: unknown here, and asked for since
  // A live change may need something after the last thing that was to be shipped; then this resync can't make the set complete.
  std::unordered_set<FileId> made;    // without their contents, and not shipped since
  std::unordered_set<FileId> relist;  // folders that lack a name, which was asked for
  bool broken = false;  // a chunk came whose beginning this process never saw: this resync can't make the set complete
};

}  // namespace holdfast::mirror
