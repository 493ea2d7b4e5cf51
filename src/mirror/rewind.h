// SPDX-License-Identifier: Apache-2.0
// Makes trees what they were before a batch: a point in time, the consistent point of a node in mid-resync, or the place where another history
// branched off.
//
//   look      merges the history from the batch on; everything that can be refused is refused here, nothing is touched
//   reverse   writes batch R: the present values of all that will be changed. A rewind is one more batch, and is taken back like any other
//   execute   makes every cell equal its old value; may be broken off and done again from the top, from any mixture
//
// Who calls: nothing is applied meanwhile, redo is finished, the trees are synced (else effects of batches before it could still be lost, and
// nobody would redo them), and before reverse() a durable note says what is going on (NodeState), so that a crash after it goes on with
// execute(). A sealed R is never written again (R21): its values would come from a mixed tree.
// Works on raw trees: R covers all that it does.
#pragma once

#include <map>

#include "mirror/cell_map.h"
#include "mirror/undo_journal.h"

namespace holdfast::mirror {

struct RewindPlan {
  UndoBatch target;  // the trees become what they were at its start
  std::size_t cells = 0;
  std::uint64_t data_bytes = 0;                  // about: to be written, and to be kept by R
  std::map<SetNumber, std::uint64_t> new_bytes;  // about: what a tree's file system must have room for
};

class Rewind {
 public:
  using Trees = std::map<SetNumber, ports::Tree*>;
  // `most_cells`: in memory at a time; with more, the history is read several times.
  Rewind(UndoJournal& journal, Trees trees, std::size_t most_cells = max_merged_cells)
      : journal_(journal), trees_(std::move(trees)), most_cells_(most_cells) {}

  // `batch`: the first one from this number on. ErrorCode::not_found: the history does not reach so far for one of the trees; ::corrupt: it can't be read.
  Result<RewindPlan> look(std::uint64_t batch);
  // Instead of look(), for execute() of a rewind that was begun: what lies after the batch does not matter any more.
  Status read_again(std::uint64_t batch);
  // After check_room(). Durable when it returns. `before`: where the trees stand.
  // ErrorCode::no_space, in one sentence: the trees' file systems have no room for what comes back, or the journal's for the way forth.
  Status check_room(bool with_way_forth) const;
  Status reverse(Position before, std::uint64_t life, std::int64_t now_of_history_ns);
  // After look() of the same batch: in this life or in a later one. Synced when it returns. ErrorCode::corrupt: an object that the history names is
  // gone; this copy must be resynchronized.
  Status execute();

 private:
  Status plan_parts(bool with_estimate);
  Status load_part(unsigned index);
  Status estimate();
  Status reverse_part();
  Status lift(ports::Tree& tree, const SetCells& cells);
  Status bring(ports::Tree& tree, const SetCells& cells);
  Status cut(ports::Tree& tree, const SetCells& cells);
  Status restore_data();
  Status dress(ports::Tree& tree, const SetCells& cells);
  Status restore_times(ports::Tree& tree, const SetCells& cells);
  using Step = Status (Rewind::*)(ports::Tree&, const SetCells&);
  Status for_each(Step step);
  Status for_all(Step step);

  UndoJournal& journal_;
  const Trees trees_;
  const std::size_t most_cells_;
  RewindPlan plan_;
  unsigned parts_ = 1;
  CellPart part_;  // that map_ is
  std::optional<CellMap> map_;
};

}  // namespace holdfast::mirror
