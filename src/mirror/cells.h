// SPDX-License-Identifier: Apache-2.0
// The state of a tree as a map of cells, each with an absolute value. Undo of a batch is the cells it touches with their values of before the
// batch; to undo is to make each cell equal its value. So it may be done twice, from any mixture of before and after, and merging batches is
// "the oldest value wins".
//
//   cell    key                                    value
//   name    set, folder's id, name                 the id that stands there and its type; none: nothing
//   object  set, id                                owner, mode, times, size and all xattrs; or that there is no such object
//   data    set, id, a range within the old size   bytes, or a hole
//
// Not cells, because they never change: symlink target, device number, type. Link counts follow from names. The graveyard is part of the state:
// a deleted object keeps its inode and its bytes there, so deleting costs no copy of contents.
#pragma once

#include <string>
#include <variant>

#include "base/bytes.h"
#include "base/types.h"
#include "ports/tree.h"

namespace holdfast::mirror {

struct NameCell {
  SetNumber set = 0;
  FileId dir;
  std::string name;
  FileId id;               // none: nothing stands there
  std::uint32_t type = 0;  // type bits of what does
};
struct ObjectCell {
  SetNumber set = 0;
  FileId id;
  bool absent = false;               // no such object
  ports::NodeAttributes attributes;  // mode, owner, size, times
  Bytes xattrs;                      // log/xattrs.h list
};
struct DataCell {
  SetNumber set = 0;
  FileId id;
  std::uint64_t offset = 0, length = 0;
  ByteView bytes;  // `length` of them, of whoever made the cell; none: a hole
};
using Cell = std::variant<NameCell, ObjectCell, DataCell>;

constexpr std::size_t max_data_cell_bytes = std::size_t{512} << 10;

}  // namespace holdfast::mirror
