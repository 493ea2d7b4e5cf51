// SPDX-License-Identifier: Apache-2.0
// The place of undo in the apply path: before a batch changes anything, what it will overwrite is written down and made durable.
// Holds for whoever implements it (R21): a batch whose undo is durable is never written again (its pre-images would come from a mixed tree);
// new undo starts past the last complete undo batch.
#pragma once

#include <functional>
#include <span>

#include "log/record.h"
#include "ports/tree.h"

namespace holdfast::mirror {

class UndoWriter {
 public:
  virtual ~UndoWriter() = default;
  virtual Sequence durable_to() const = 0;
  // The tree of a set, to read pre-images from; null when the set is gone.
  using TreeOf = std::function<ports::Tree*(SetNumber)>;
  // Durable when it returns. `batch`: the records about to be applied, in order.
  virtual Status write_pre_images(std::span<const log::Record> batch, const TreeOf& tree_of) = 0;
};

// Keeps nothing: a node without undo history.
class NoUndo final : public UndoWriter {
 public:
  Sequence durable_to() const override { return Sequence(0); }
  Status write_pre_images(std::span<const log::Record>, const TreeOf&) override { return {}; }
};

}  // namespace holdfast::mirror
