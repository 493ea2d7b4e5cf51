// SPDX-License-Identifier: Apache-2.0
// The cells of several batches, merged: of each cell the oldest value. That is the tree before the first of them, wherever it differs from now.
// Bytes stay in the journal; here is only which ranges of a file have old ones.
#pragma once

#include <map>
#include <string>
#include <unordered_map>
#include <utility>

#include "mirror/cells.h"
#include "mirror/range_set.h"
#include "mirror/undo_journal.h"

namespace holdfast::mirror {

constexpr std::size_t max_merged_cells = 8'000'000;

struct SetCells {
  struct Object {
    bool absent = false;
    ports::NodeAttributes attributes;
    Bytes xattrs;
    RangeSet data;  // within attributes.size
  };
  struct Name {
    FileId id;  // none: nothing stood there
    std::uint32_t type = 0;
  };
  std::unordered_map<FileId, Object> objects;
  std::map<std::pair<FileId, std::string>, Name> names;
};

struct CellMap {
  std::map<SetNumber, SetCells> sets;
  std::size_t cells = 0;         // names, objects and ranges
  std::uint64_t data_bytes = 0;  // that were read, holes apart: a bound for what is to be written

  // Reads everything from batch `from` on, checksums compared: what can't be read is known before anything is touched.
  static Result<CellMap> merge(UndoJournal& journal, std::uint64_t from);
};

}  // namespace holdfast::mirror
