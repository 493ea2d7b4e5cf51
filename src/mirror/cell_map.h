// SPDX-License-Identifier: Apache-2.0
// The cells of several batches, merged: of each cell the oldest value. That is the tree before the first of them, wherever it differs from now.
// Bytes stay in the journal; here is only which ranges of a file have old ones.
//
// A long history has more cells than memory should hold. Its map is then made in parts, by what the cells are about and not by when they were
// written: each part has all that there is of its names and objects, so going through the parts one after the other is going through the whole.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "mirror/cells.h"
#include "mirror/range_set.h"
#include "mirror/undo_journal.h"

namespace holdfast::mirror {

// In memory at a time: each is some 50 to 200 bytes; long names and extended attributes count as several.
constexpr std::size_t max_merged_cells = 8'000'000;
constexpr unsigned most_cell_parts = 4096;

// One of `count` parts; a power of two, so that more of them split each.
struct CellPart {
  unsigned index = 0, count = 1;
  bool has(const FileId& object) const { return is(std::hash<FileId>{}(object)); }
  bool has(const FileId& dir, std::string_view name) const {
    return is(std::hash<FileId>{}(dir)*31 + std::hash<std::string_view>{}(name));
  }
  bool operator==(const CellPart&) const = default;

 private:
  // Ids are counted up: mixed, all their bits count.
  bool is(std::uint64_t hash) const {
    return count == 1 || ((hash ^ hash >> 32) * 0x9E3779B97F4A7C15ULL >> 40) % count == index;
  }
};

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

  // Reads everything from batch `from` on, checksums compared: what can't be read is known before anything is touched. nullopt: the part has
  // more cells than `most`.
  static Result<std::optional<CellMap>> merge(UndoJournal& journal, std::uint64_t from, CellPart part = {},
                                              std::size_t most = max_merged_cells);
};

}  // namespace holdfast::mirror
