// SPDX-License-Identifier: Apache-2.0
// Which cells of the present batch have their old value in the undo history. What is not in here has not been changed by this batch yet:
// every change goes through UndoTree, which covers first. So its present value is its value of before the batch.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "base/types.h"
#include "mirror/range_set.h"

namespace holdfast::mirror {

struct CoveredSet {
  struct Object {
    bool absent = false;
    std::uint64_t size = 0;  // before the batch; data is covered up to there
    RangeSet data;
  };
  std::unordered_map<FileId, Object> objects;
  std::unordered_map<FileId, std::unordered_set<std::string>> names;  // by folder
};

using Covered = std::unordered_map<SetNumber, CoveredSet>;

}  // namespace holdfast::mirror
