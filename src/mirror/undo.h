// SPDX-License-Identifier: Apache-2.0
// The place of undo in the apply path: before a batch changes anything, what it will overwrite is written down and made durable.
//
//   begin(head)  add(cell)...  seal()       execute ... add(cell), flush_late()  execute ...      next batch
//   `---------- foreseen ----------'        `---- what was not foreseen, before each such primitive
//
// Nothing of a batch is executed before seal() returned. Batches are executed one after the other: the next one is not begun before the last one
// was executed to its end. Redo after a crash rests on that (R21, redo() below).
// Threads: the applier's, one at a time.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "mirror/cells.h"
#include "mirror/covered.h"
#include "mirror/graves.h"

namespace holdfast::mirror {

enum class BatchWhy : std::uint8_t {
  apply = 1,
  resync,  // some of its records belong to a resynchronization
  rewind,  // the values that a rewind overwrites: undoing it takes the rewind back
  resume,  // more cells of the batch before it, found missing in redo: never a point by itself
  jump,    // the log began anew at another position; the tree stayed as it was
};

struct UndoHead {
  BatchWhy why = BatchWhy::apply;
  std::uint64_t life = 0;                            // of the receive log that `after` counts in (NodeState::log_life)
  Position before, after;                            // the tree stands at `before` when the batch begins
  std::int64_t first_time_ns = 0, last_time_ns = 0;  // the active's clock at its first and last record
  bool consistent = false;                           // `before` follows a mark: a point applications can start from
  std::uint64_t target = 0;                          // of a rewind: the batch whose start it goes back to
  bool unclean = false;         // at `before` the trees held changes of a dead or fenced active, which are in no log
  std::set<SetNumber> sets;     // whole at `before`, and captured: the point can be gone back to
  std::set<SetNumber> partial;  // captured in mid-resync: no point, but part of the way to an earlier one
};

// What apply may do before new batches begin, after a start or when the log was replaced.
//   records up to pass_to      pass: their undo is durable already, or (suppress) there will be none
//   then up to m_after         batch m, one slice: it may have stopped half-way; what it lacks is captured as its continuation
//   then                       ordinary batches
struct RedoPlan {
  Sequence pass_to;
  std::optional<Sequence> m_after;  // nullopt: there is no such batch
  std::uint64_t covered = 0;        // the last batch that ends at the checkpoint or before it; 0: not known
};

class UndoWriter {
 public:
  virtual ~UndoWriter() = default;
  virtual bool on() const = 0;  // false: nothing is captured; graves go at checkpoints
  // Between batches, when all that was applied is durable in the trees. Off: what was kept is given up.
  virtual Status turn(bool on) = 0;

  // Where redo from `checkpoint` passes undo by (R21). Writes a gap when history and tree don't meet.
  virtual Result<RedoPlan> redo(Position checkpoint, std::uint64_t life, Position log_end) = 0;
  // Begins batch m of the plan again: cells added from now on are its continuation. `covered`: what it has, late groups included.
  virtual Status resume(Covered& covered) = 0;
  // What all batches from `from` on have of these sets; nothing, when that is more than `most` cells.
  virtual Status load(std::uint64_t from, const std::set<SetNumber>& sets, Covered& covered, std::size_t most) = 0;

  virtual Status begin(const UndoHead& head) = 0;  // not durable yet: nothing may be executed
  virtual Status add(const Cell& cell) = 0;
  // So many bytes are about to be added to the batch: refused as add() would, before the first of them is written.
  virtual Status expect(std::uint64_t bytes) = 0;
  virtual Status seal() = 0;        // durable, unless it holds no cell
  virtual Status flush_late() = 0;  // what was added after seal() is durable
  virtual Status sync() = 0;        // batches without cells too; before a checkpoint is stored
  virtual Status gap(SetNumber set, std::string_view why) = 0;  // durable; set 0: all
  // The log goes on at `head.after`, in a new life; the tree stays as it is, and is durable. Does nothing when that is the last thing said.
  virtual Status jump(UndoHead head) = 0;

  virtual std::uint64_t current_batch() const = 0;  // stamps graves; 0: no undo
  virtual std::uint64_t next_batch() const = 0;     // no batch or gap has this number yet; between batches
  virtual std::uint64_t oldest_batch() const = 0;   // graves of lower stamps are not needed; max: none is
  virtual bool starved() const = 0;  // the last thing asked for failed for want of room for history, not for the tree's
  virtual bool hopeless() const = 0;  // and giving up older parts will not help
  virtual bool pinned() const = 0;    // somebody needs the history: rather wait for room than give it up
  // Gives up the oldest part. False: nothing is left that may be given up. `why`: one sentence, of what had no room.
  virtual Result<bool> drop_oldest(std::string_view why) = 0;
  // At a checkpoint: gives up the oldest part if a bound is passed; true: it did, ask again. `graves`: what the graveyard holds for the history's
  // sake; of that `inside`.
  virtual Result<bool> keep_bounds(const GravesHeld& graves, const GravesInside& inside) = 0;
  // What lies behind a gap of all sets goes, a piece at a time; true: there is more. In any role, also when it is off.
  virtual Result<bool> shed() = 0;
};

// Keeps nothing: a node without undo history.
class NoUndo final : public UndoWriter {
 public:
  bool on() const override { return false; }
  Status turn(bool) override { return {}; }
  Result<RedoPlan> redo(Position, std::uint64_t, Position) override { return RedoPlan{}; }
  Status resume(Covered&) override { return {}; }
  Status load(std::uint64_t, const std::set<SetNumber>&, Covered&, std::size_t) override { return {}; }
  Status begin(const UndoHead&) override { return {}; }
  Status add(const Cell&) override { return {}; }
  Status expect(std::uint64_t) override { return {}; }
  Status seal() override { return {}; }
  Status flush_late() override { return {}; }
  Status sync() override { return {}; }
  Status gap(SetNumber, std::string_view) override { return {}; }
  Status jump(UndoHead) override { return {}; }
  std::uint64_t current_batch() const override { return 0; }
  std::uint64_t next_batch() const override { return 0; }
  std::uint64_t oldest_batch() const override { return std::numeric_limits<std::uint64_t>::max(); }
  bool starved() const override { return false; }
  bool hopeless() const override { return false; }
  bool pinned() const override { return false; }
  Result<bool> drop_oldest(std::string_view) override { return false; }
  Result<bool> keep_bounds(const GravesHeld&, const GravesInside&) override { return false; }
  Result<bool> shed() override { return false; }
};

}  // namespace holdfast::mirror
