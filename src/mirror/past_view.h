// SPDX-License-Identifier: Apache-2.0
// The trees as they were at the start of a batch of the undo history, while apply goes on: today's tree with the oldest values since then laid over
// it, the same cells that a rewind would restore.
//
//   today's tree      read while nothing is being applied: each call holds the applier for as long as it reads
//   cells since then  names, attributes and where old bytes stand in the journal; before each call, what the journal has got meanwhile is added
//
// What is applied later was captured first, and under the same lock, so the two always fit. Nothing is held back for a view: when the history
// from its batch on is given up, or gets a gap, the view is over.
// Threads: any. The trees and the journal must outlive it; nobody who holds the applier may call it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "mirror/range_set.h"
#include "mirror/undo_journal.h"
#include "mirror/work_mutex.h"
#include "ports/past_tree.h"

namespace holdfast::mirror {

constexpr std::size_t most_view_cells = 2'000'000;  // in memory, some 100 to 200 bytes each

class PastView final : public ports::PastTree {
 public:
  using Trees = std::map<SetNumber, std::shared_ptr<ports::Tree>>;
  using Hold = std::function<WorkMutex::Look()>;
  // ErrorCode::not_found: the history of one of the trees does not reach back to the batch; refused: more changed since than a view can hold.
  static Result<std::unique_ptr<PastView>> open(UndoJournal& journal, Trees trees, Hold hold, std::uint64_t batch,
                                                std::size_t most_cells = most_view_cells);

  std::vector<SetNumber> sets() const {
    std::vector<SetNumber> all;
    for (const auto& [set, tree] : trees_) all.push_back(set);
    return all;
  }

  Result<std::optional<ports::TreeEntry>> lookup(SetNumber set, const FileId& dir, std::string_view name) override;
  Result<std::vector<ports::TreeEntry>> list(SetNumber set, const FileId& dir) override;
  Result<ports::PastAttributes> attributes(SetNumber set, const FileId& id) override;
  Result<Bytes> xattrs(SetNumber set, const FileId& id) override;
  Result<std::string> target(SetNumber set, const FileId& id) override;
  Result<std::size_t> read(SetNumber set, const FileId& id, std::uint64_t offset,
                           std::span<std::uint8_t> into) override;

 private:
  struct Piece {  // old bytes: of the record with this sequence, in this group
    std::uint64_t end = 0;
    log::Place group;
    Sequence record;
    std::uint64_t record_offset = 0;  // in the file, of the record's first byte
    bool hole = false;
  };
  struct Object {
    bool absent = false;
    ports::NodeAttributes attributes;
    Bytes xattrs;
    RangeSet covered;
    std::map<std::uint64_t, Piece> pieces;  // by their first byte
  };
  struct Name {
    FileId id;  // none: nothing stood there
    std::uint32_t type = 0;
  };
  struct Cells {
    std::unordered_map<FileId, Object> objects;
    std::unordered_map<FileId, std::map<std::string, Name, std::less<>>> names;  // by folder
    std::unordered_map<FileId, std::uint64_t> named;                             // how many of `names` lead to it
  };
  PastView(UndoJournal& journal, Trees trees, Hold hold, std::uint64_t batch, std::size_t most_cells)
      : journal_(journal), trees_(std::move(trees)), hold_(std::move(hold)), batch_(batch), most_cells_(most_cells) {}
  // All below while the applier is held.
  Status refresh();
  Status take(const log::Record& record, log::Place group);
  void take_data(const log::Record& record, log::Place group);
  Result<ports::Tree*> tree_of(SetNumber set);
  Result<ports::PastAttributes> attributes_held(SetNumber set, const FileId& id);
  const Object* object_of(SetNumber set, const FileId& id) const;
  Status count_links(SetNumber set, const FileId& id, ports::Tree& tree, ports::PastAttributes& a);
  Status copy_piece(std::uint64_t begin, const Piece& piece, std::uint64_t offset, std::span<std::uint8_t> into);

  UndoJournal& journal_;
  const Trees trees_;
  const Hold hold_;
  const std::uint64_t batch_;
  const std::size_t most_cells_;
  log::Place next_;  // of the journal, that was not taken yet
  std::map<SetNumber, Cells> cells_;
  std::size_t count_ = 0;
  std::string over_;  // why; empty: it is not
  log::Place cached_place_;
  std::optional<log::Group> cached_;
};

}  // namespace holdfast::mirror
