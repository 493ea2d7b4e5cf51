// SPDX-License-Identifier: Apache-2.0
#include "mirror/rewind.h"

#include <algorithm>

#include "base/log.h"
#include "mirror/capture_cells.h"
#include "mirror/file_type.h"

namespace holdfast::mirror {

using log::Kind;
using ports::Grave;

namespace {
constexpr std::uint64_t tree_reserve_bytes = std::uint64_t{64} << 20;

Result<UndoBatch> target_of(const UndoJournal& journal, std::uint64_t batch) {
  for (const auto& b : journal.batches())
    if (b.number >= batch) return b;
  return fail(ErrorCode::not_found, "the undo history does not hold point {}", batch);
}
}  // namespace

Status Rewind::read_again(std::uint64_t batch) {
  HF_ASSIGN(plan_.target, target_of(journal_, batch));
  return plan_parts(false);
}

// In as few parts as will do. All of them are read: what can't be is known before anything is touched.
Status Rewind::plan_parts(bool with_estimate) {
  for (parts_ = 1; parts_ <= most_cell_parts; parts_ *= 2) {
    map_.reset();
    plan_.cells = 0;
    plan_.data_bytes = 0;
    plan_.new_bytes.clear();
    unsigned read = 0;
    for (; read < parts_; ++read) {
      HF_ASSIGN(map_, CellMap::merge(journal_, plan_.target.number, {read, parts_}, most_cells_));
      if (!map_) break;
      part_ = {read, parts_};
      plan_.cells += map_->cells;
      plan_.data_bytes += map_->data_bytes;
      if (with_estimate) HF_TRY(estimate());
    }
    if (read == parts_) return {};
  }
  return fail(
      ErrorCode::refused,
      "one object has more to it than fits into {} cells of memory (ranges of a file that changed since then, extended "
      "attributes): go back in two steps",
      most_cells_);
}

Status Rewind::load_part(unsigned index) {
  if (const CellPart wanted{index, parts_}; !map_ || !(part_ == wanted)) {
    map_.reset();
    HF_ASSIGN(map_, CellMap::merge(journal_, plan_.target.number, wanted));
    if (!map_) return fail(ErrorCode::internal, "part {} of {} of the undo history has grown", index, parts_);
    part_ = wanted;
  }
  return {};
}

Result<RewindPlan> Rewind::look(std::uint64_t batch) {
  if (journal_.oldest_batch() > batch)
    return fail(ErrorCode::not_found, "the undo history does not reach back to point {}", batch);
  for (const auto& b : journal_.batches()) {
    if (b.number < batch) continue;
    batch = b.number;
    break;
  }
  for (const auto& [set, tree] : trees_)
    if (!journal_.reaches(batch, set))
      return fail(ErrorCode::not_found, "set {} has no undo history from point {} on", set, batch);
  HF_ASSIGN(plan_.target, target_of(journal_, batch));
  HF_TRY(plan_parts(true));
  return plan_;
}

// Bytes that come back to where nothing is stored now: into what was cut, punched, or never long enough.
Status Rewind::estimate() {
  for (const auto& [set, tree] : trees_) {
    const auto cells = map_->sets.find(set);
    if (cells == map_->sets.end()) continue;
    for (const auto& [id, object] : cells->second.objects) {
      if (object.absent || object.data.begin() == object.data.end()) continue;
      std::uint64_t old_bytes = 0;
      for (const auto& [begin, end] : object.data) old_bytes += end - begin;
      HF_ASSIGN(const auto there, tree->attributes(id));
      if (!there) continue;
      const std::uint64_t missing = object.attributes.size - std::min(object.attributes.size, there->allocated_bytes);
      plan_.new_bytes[set] += std::min(old_bytes, missing);
    }
  }
  return {};
}

Status Rewind::check_room(bool with_way_forth) const {
  for (const auto& [set, bytes] : plan_.new_bytes) {
    HF_ASSIGN(const std::uint64_t left, trees_.at(set)->free_bytes());
    if (left < bytes + tree_reserve_bytes)
      return fail(ErrorCode::no_space, "going back needs {} MiB in the folder of set {}, {} MiB are free",
                  (bytes + tree_reserve_bytes) >> 20, set, left >> 20);
  }
  if (with_way_forth && !journal_.has_room(plan_.data_bytes))
    return fail(ErrorCode::no_space,
                "the way back from it needs {} MiB in the undo history's file system, which are not free",
                plan_.data_bytes >> 20);
  return {};
}

Status Rewind::reverse(Position before, std::uint64_t life, std::int64_t now_of_history_ns) {
  UndoHead head;
  head.why = BatchWhy::rewind;
  head.life = life;
  head.before = before;
  head.after = plan_.target.head.before;
  head.first_time_ns = head.last_time_ns = now_of_history_ns;
  head.target = plan_.target.number;
  for (const auto& [set, tree] : trees_) head.sets.insert(set);
  HF_TRY(journal_.begin(head));
  for (unsigned i = 0; i < parts_; ++i) {
    HF_TRY(load_part(i));
    HF_TRY(reverse_part());
  }
  return journal_.seal();
}

// What another part covered is covered again: the same value once more.
Status Rewind::reverse_part() {
  Covered covered;
  for (const auto& [set, tree] : trees_) {
    const auto cells = map_->sets.find(set);
    if (cells == map_->sets.end()) continue;
    CellCapture capture(*tree, journal_, covered);
    for (const auto& [id, object] : cells->second.objects) {
      HF_TRY(capture.object(id));
      if (object.absent) continue;
      for (const auto& [begin, end] : object.data) HF_TRY(capture.data(id, begin, end - begin));
      HF_TRY(capture.data(id, object.attributes.size, ports::to_end));  // what will be cut
    }
    for (const auto& [name, value] : cells->second.names) HF_TRY(capture.entry(name.first, name.second));
  }
  return {};
}

Status Rewind::for_each(Step step) {
  for (const auto& [set, tree] : trees_)
    if (const auto cells = map_->sets.find(set); cells != map_->sets.end()) HF_TRY((this->*step)(*tree, cells->second));
  return {};
}

Status Rewind::for_all(Step step) {
  for (unsigned i = 0; i < parts_; ++i) {
    HF_TRY(load_part(i));
    HF_TRY(for_each(step));
  }
  return {};
}

Status Rewind::execute() {
  for (const auto& [set, tree] : trees_) tree->burial_stamp(journal_.current_batch());
  // No name is given back before all have been lifted, and no time before all names of its folder were.
  HF_TRY(for_all(&Rewind::lift));
  HF_TRY(for_all(&Rewind::bring));
  for (unsigned i = 0; i < parts_; ++i) {
    HF_TRY(load_part(i));
    HF_TRY(for_each(&Rewind::cut));
    HF_TRY(restore_data());
    HF_TRY(for_each(&Rewind::dress));
    HF_TRY(for_each(&Rewind::restore_times));
  }
  for (const auto& [set, tree] : trees_) {
    HF_TRY(tree->settle_limbo(journal_.current_batch()));
    HF_TRY(tree->sync());
  }
  log_info("rewound to point {}: epoch {} sequence {}", plan_.target.number, plan_.target.head.before.epoch.value,
           plan_.target.head.before.sequence.value);
  return {};
}

// After it no wrong occupant stands anywhere, and all that were displaced are found by id.
Status Rewind::lift(ports::Tree& tree, const SetCells& cells) {
  for (const auto& [name, value] : cells.names) {
    HF_ASSIGN(const auto dir, tree.attributes(name.first));
    if (!dir) continue;
    HF_ASSIGN(const auto found, tree.lookup(name.first, name.second));
    if (!found || (!value.id.is_none() && found->id == value.id)) continue;
    FileId id = found->id;
    if (id.is_none()) {
      HF_ASSIGN(id, tree.identify(name.first, name.second));
    }
    HF_ASSIGN(const auto there, tree.attributes(id));
    if (!there) return fail(ErrorCode::corrupt, "set {}: the object {} vanished in a rewind", tree.set(), id.to_hex());
    if (!is_folder(there->mode) && there->links > 1)
      HF_TRY(tree.unlink(name.first, name.second));
    else
      HF_TRY(tree.bury(name.first, name.second, id, Grave::deleted));
  }
  return {};
}

// Folders come from the graveyard only: one that was not lifted stands where it should. So no folder can come below itself: every chain of parents is
// made of the old relations, or ends in the graveyard.
Status Rewind::bring(ports::Tree& tree, const SetCells& cells) {
  for (const auto& [name, value] : cells.names) {
    if (value.id.is_none()) continue;
    const auto gone = [&, &name = name](const FileId& id) {
      return fail(ErrorCode::corrupt,
                  "set {}: the object {}, which stood at \"{}\", is gone: this copy must be resynchronized", tree.set(),
                  id.to_hex(), name.second);
    };
    HF_ASSIGN(const auto dir, tree.attributes(name.first));
    if (!dir) return gone(name.first);
    HF_ASSIGN(const auto found, tree.lookup(name.first, name.second));
    if (found && found->id == value.id) continue;
    HF_ASSIGN(const auto grave, tree.in_grave(value.id));
    if (grave) {
      HF_TRY(tree.exhume(value.id, *grave, name.first, name.second));
      continue;
    }
    HF_ASSIGN(const auto there, tree.attributes(value.id));
    if (!there || is_folder(there->mode)) return gone(value.id);
    HF_TRY(tree.link(value.id, name.first, name.second));
  }
  return {};
}

Status Rewind::cut(ports::Tree& tree, const SetCells& cells) {
  for (const auto& [id, object] : cells.objects) {
    if (object.absent || !is_regular(object.attributes.mode)) continue;
    HF_ASSIGN(const auto there, tree.attributes(id));
    if (there && there->size != object.attributes.size) HF_TRY(tree.truncate(id, object.attributes.size));
  }
  return {};
}

// The journal once more, oldest first: what was written once is not written again.
Status Rewind::restore_data() {
  std::map<SetNumber, std::unordered_map<FileId, RangeSet>> done;
  return journal_.read(plan_.target.number, [&](const UndoBatch&, const log::Record& r) -> Status {
    if (r.kind != Kind::undo_bytes && r.kind != Kind::undo_hole) return {};
    const auto tree = trees_.find(r.set);
    if (tree == trees_.end() || !part_.has(r.file)) return {};
    const auto& object = map_->sets[r.set].objects[r.file];
    if (object.absent) return {};
    HF_ASSIGN(const auto there, tree->second->attributes(r.file));
    if (!there) return {};  // without a name then as now; nobody can see it
    const std::uint64_t length = r.kind == Kind::undo_bytes ? r.payload.size() : r.length;
    const std::uint64_t end = std::min(r.offset + length, object.attributes.size);
    if (r.offset >= end) return {};
    RangeSet& ranges = done[r.set][r.file];
    HF_TRY(ranges.for_each_missing<Status>(r.offset, end, [&](std::uint64_t b, std::uint64_t e) -> Status {
      if (r.kind == Kind::undo_hole) return tree->second->punch(r.file, b, e - b);
      const ByteView piece = r.payload.subspan(b - r.offset, e - b);
      return tree->second->write(r.file, b, {&piece, 1});
    }));
    ranges.add(r.offset, end);
    return {};
  });
}

// In this order: a change of owner drops capabilities, an ACL rewrites the mode's group bits.
Status Rewind::dress(ports::Tree& tree, const SetCells& cells) {
  for (const auto& [id, object] : cells.objects) {
    if (object.absent) continue;
    HF_ASSIGN(const auto there, tree.attributes(id));
    if (!there) continue;
    HF_TRY(tree.set_attributes(id, log::valid_owner, object.attributes));
    HF_TRY(tree.replace_xattrs(id, object.xattrs));
    HF_TRY(tree.set_attributes(id, log::valid_mode, object.attributes));
  }
  return {};
}

Status Rewind::restore_times(ports::Tree& tree, const SetCells& cells) {
  for (const auto& [id, object] : cells.objects) {
    if (object.absent) continue;
    HF_ASSIGN(const auto there, tree.attributes(id));
    if (there) HF_TRY(tree.set_attributes(id, log::valid_atime | log::valid_mtime, object.attributes));
  }
  return {};
}

}  // namespace holdfast::mirror
