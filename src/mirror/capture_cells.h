// SPDX-License-Identifier: Apache-2.0
// Reads the present values of cells of one tree and hands them to the undo history: those that are not covered yet.
#pragma once

#include "mirror/covered.h"
#include "mirror/undo.h"
#include "ports/tree.h"

namespace holdfast::mirror {

class CellCapture {
 public:
  CellCapture(ports::Tree& tree, UndoWriter& undo, Covered& covered) : tree_(tree), undo_(undo), covered_(covered) {}

  Status object(const FileId& id);
  // What stands there without an id gets one, so that it can be brought back.
  Status name(const FileId& dir, std::string_view name);
  // The name with the folder whose times change with it.
  Status entry(const FileId& dir, std::string_view name);
  // The object too. `length` may be ports::to_end. Clipped to the size of before the batch.
  Status data(const FileId& id, std::uint64_t offset, std::uint64_t length);
  // About what big ranges of these would add, holes apart; small ones are not counted.
  Result<std::uint64_t> estimate(const ports::Touches& touches);
  std::uint64_t captured() const { return captured_; }

 private:
  Status range(const FileId& id, std::uint64_t begin, std::uint64_t end);
  Status bytes(const FileId& id, std::uint64_t begin, std::uint64_t end);
  Status add(const Cell& cell);

  ports::Tree& tree_;
  UndoWriter& undo_;
  Covered& covered_;
  std::uint64_t captured_ = 0;  // cells
  Bytes buffer_;
};

}  // namespace holdfast::mirror
