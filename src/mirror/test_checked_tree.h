// SPDX-License-Identifier: Apache-2.0
// For tests only: the rule of undo, checked at every primitive. CheckedUndo notes which cells of the open batch are durable; CheckedTree, between
// UndoTree and the tree itself, refuses a change whose old values are not among them.
#pragma once

#include <memory>

#include "mirror/file_type.h"
#include "mirror/undo_journal.h"

namespace holdfast::mirror::testing {

class CheckedUndo final : public UndoWriter {
 public:
  explicit CheckedUndo(UndoJournal& journal) : inner_(journal) {}
  // Changes of the set must be covered now.
  bool watches(SetNumber set) const { return watched_.contains(set); }
  CoveredSet& durable(SetNumber set) { return durable_[set]; }

  bool on() const override { return inner_.on(); }
  Status turn(bool on) override {
    watched_.clear();
    durable_.clear();
    return inner_.turn(on);
  }
  Result<RedoPlan> redo(Position checkpoint, std::uint64_t life, Position log_end) override {
    watched_.clear();
    durable_.clear();
    return inner_.redo(checkpoint, life, log_end);
  }
  Status resume(Covered& covered) override {
    HF_TRY(inner_.resume(covered));
    durable_ = covered;
    pending_.clear();
    const auto batches = inner_.batches();
    for (auto b = batches.rbegin(); b != batches.rend(); ++b) {
      if (b->head.why == BatchWhy::resume) continue;
      watch(b->head);
      break;
    }
    return {};
  }
  Status load(std::uint64_t from, const std::set<SetNumber>& sets, Covered& covered, std::size_t most) override {
    HF_TRY(inner_.load(from, sets, covered, most));
    for (const SetNumber set : sets) durable_[set] = covered[set];
    kept_ = sets;
    return {};
  }
  Status begin(const UndoHead& head) override {
    HF_TRY(inner_.begin(head));
    // In mid-resync the first old value since the point is enough.
    std::erase_if(durable_, [&](const auto& c) { return !head.partial.contains(c.first) || !kept_.contains(c.first); });
    kept_ = head.partial;
    pending_.clear();
    watch(head);
    return {};
  }
  Status add(const Cell& cell) override {
    HF_TRY(inner_.add(cell));
    pending_.push_back(note_of(cell));
    return {};
  }
  Status seal() override {
    HF_TRY(inner_.seal());
    settle();
    return {};
  }
  Status flush_late() override {
    HF_TRY(inner_.flush_late());
    settle();
    return {};
  }
  Status sync() override { return inner_.sync(); }
  Status gap(SetNumber set, std::string_view why) override {
    if (set == 0)
      watched_.clear();
    else
      watched_.erase(set);
    return inner_.gap(set, why);
  }
  Status jump(UndoHead head) override { return inner_.jump(std::move(head)); }
  std::uint64_t current_batch() const override { return inner_.current_batch(); }
  std::uint64_t next_batch() const override { return inner_.next_batch(); }
  std::uint64_t oldest_batch() const override { return inner_.oldest_batch(); }
  bool starved() const override { return inner_.starved(); }
  bool hopeless() const override { return inner_.hopeless(); }
  bool pinned() const override { return inner_.pinned(); }
  Status expect(std::uint64_t bytes) override { return inner_.expect(bytes); }
  Result<bool> drop_oldest(std::string_view why) override { return inner_.drop_oldest(why); }
  Result<bool> keep_bounds(const GravesHeld& graves, const GravesInside& inside) override {
    return inner_.keep_bounds(graves, inside);
  }
  Result<bool> shed() override { return inner_.shed(); }

 private:
  struct Note {
    SetNumber set = 0;
    FileId id;         // of the object, or the folder
    std::string name;  // of a name cell
    bool object = false, absent = false;
    std::uint64_t size = 0, offset = 0, length = 0;
  };
  static Note note_of(const Cell& cell) {
    if (const auto* n = std::get_if<NameCell>(&cell)) return {n->set, n->dir, n->name};
    if (const auto* o = std::get_if<ObjectCell>(&cell)) return {o->set, o->id, {}, true, o->absent, o->attributes.size};
    const auto& d = std::get<DataCell>(cell);
    return {d.set, d.id, {}, false, false, 0, d.offset, d.length};
  }
  void watch(const UndoHead& head) {
    watched_ = head.sets;
    watched_.insert(head.partial.begin(), head.partial.end());
  }
  void settle() {
    for (const Note& n : pending_) {
      CoveredSet& set = durable_[n.set];
      if (n.object)
        set.objects.try_emplace(n.id, CoveredSet::Object{n.absent, n.size, {}});
      else if (!n.name.empty())
        set.names[n.id].emplace(n.name);
      else
        set.objects[n.id].data.add(n.offset, n.offset + n.length);
    }
    pending_.clear();
  }

  UndoJournal& inner_;
  std::set<SetNumber> watched_, kept_;
  Covered durable_;
  std::vector<Note> pending_;
};

class CheckedTree final : public ports::Tree {
 public:
  CheckedTree(std::shared_ptr<ports::Tree> tree, CheckedUndo& undo) : tree_(std::move(tree)), undo_(undo) {}
  SetNumber set() const override { return tree_->set(); }
  Result<std::optional<ports::NodeAttributes>> attributes(const FileId& id) override { return tree_->attributes(id); }
  Result<std::size_t> read(const FileId& id, std::uint64_t offset, std::span<std::uint8_t> into) override {
    return tree_->read(id, offset, into);
  }
  Result<ports::Digest> digest(const FileId& id, std::uint64_t offset, std::uint64_t length) override {
    return tree_->digest(id, offset, length);
  }
  void will_digest(const FileId& id, std::uint64_t offset, std::uint64_t length) override {
    tree_->will_digest(id, offset, length);
  }
  void forget_digests() override { tree_->forget_digests(); }
  Result<std::string> read_target(const FileId& id) override { return tree_->read_target(id); }
  Status write(const FileId& id, std::uint64_t offset, std::span<const ByteView> pieces) override {
    std::uint64_t length = 0;
    for (const ByteView p : pieces) length += p.size();
    HF_TRY(data(id, offset, length));
    return tree_->write(id, offset, pieces);
  }
  Status truncate(const FileId& id, std::uint64_t size) override {
    HF_TRY(data(id, size, ports::to_end));
    return tree_->truncate(id, size);
  }
  Status fallocate(const FileId& id, std::uint32_t mode_flags, std::uint64_t offset, std::uint64_t length) override {
    constexpr std::uint32_t punch_or_zero = 0x02 | 0x10;
    if (shifts_range(mode_flags))
      HF_TRY(data(id, offset, ports::to_end));
    else
      HF_TRY((mode_flags & punch_or_zero) ? data(id, offset, length) : object(id));
    return tree_->fallocate(id, mode_flags, offset, length);
  }
  Status punch(const FileId& id, std::uint64_t offset, std::uint64_t length) override {
    HF_TRY(data(id, offset, length));
    return tree_->punch(id, offset, length);
  }
  Status set_attributes(const FileId& id, std::uint32_t valid, const ports::NodeAttributes& to) override {
    HF_TRY(object(id));
    return tree_->set_attributes(id, valid, to);
  }
  Status set_xattr(const FileId& id, std::string_view name, ByteView value) override {
    HF_TRY(object(id));
    return tree_->set_xattr(id, name, value);
  }
  Status remove_xattr(const FileId& id, std::string_view name) override {
    HF_TRY(object(id));
    return tree_->remove_xattr(id, name);
  }
  Status replace_xattrs(const FileId& id, ByteView list) override {
    HF_TRY(object(id));
    return tree_->replace_xattrs(id, list);
  }
  Status stage(const FileId& id, const ports::NewNode& node) override {
    HF_TRY(object(id));
    return tree_->stage(id, node);
  }
  Status revive(const FileId& id, const ports::NewNode& node) override {
    HF_TRY(data(id, 0, ports::to_end));
    return tree_->revive(id, node);
  }
  Status commit_ids() override { return tree_->commit_ids(); }
  Status unstage() override { return tree_->unstage(); }
  Status place(const FileId& id, const FileId& dir, std::string_view name) override {
    HF_TRY(entry(dir, name));
    return tree_->place(id, dir, name);
  }
  Status place_in_grave(const FileId& id, ports::Grave why) override { return tree_->place_in_grave(id, why); }
  Result<ports::Standing> at(const FileId& dir, std::string_view name, const FileId& expected) override {
    return tree_->at(dir, name, expected);
  }
  Result<std::optional<ports::TreeEntry>> lookup(const FileId& dir, std::string_view name) override {
    return tree_->lookup(dir, name);
  }
  Result<ports::TreeListing> list(const FileId& dir, std::uint64_t cookie, std::size_t max_entries) override {
    return tree_->list(dir, cookie, max_entries);
  }
  Status for_each_name(const FileId& dir, const std::function<void(std::string_view)>& see) override {
    return tree_->for_each_name(dir, see);
  }
  Status link(const FileId& id, const FileId& dir, std::string_view name) override {
    HF_TRY(entry(dir, name));
    return tree_->link(id, dir, name);
  }
  Status unlink(const FileId& dir, std::string_view name) override {
    HF_TRY(entry(dir, name));
    return tree_->unlink(dir, name);
  }
  Status rename(const FileId& dir, std::string_view name, const FileId& dir2, std::string_view name2,
                std::uint32_t flags) override {
    HF_TRY(entry(dir, name));
    HF_TRY(entry(dir2, name2));
    return tree_->rename(dir, name, dir2, name2, flags);
  }
  Result<std::optional<ports::Grave>> in_grave(const FileId& id) override { return tree_->in_grave(id); }
  Status bury(const FileId& dir, std::string_view name, const FileId& id, ports::Grave why) override {
    HF_TRY(entry(dir, name));
    return tree_->bury(dir, name, id, why);
  }
  Status exhume(const FileId& id, ports::Grave from, const FileId& dir, std::string_view name) override {
    HF_TRY(entry(dir, name));
    return tree_->exhume(id, from, dir, name);
  }
  Status purge(ports::Grave what) override { return tree_->purge(what); }
  Status adopt(const FileId& dir, std::string_view name, const FileId& id) override {
    if (undo_.watches(set())) return fail(ErrorCode::internal, "\"{}\" is adopted while its history is kept", name);
    return tree_->adopt(dir, name, id);
  }
  Status bring(const FileId& id, const FileId& dir, std::string_view name) override {
    HF_TRY(left(id));
    HF_TRY(entry(dir, name));
    return tree_->bring(id, dir, name);
  }
  Status set_aside(const FileId& folder) override {
    HF_TRY(left(folder));
    return tree_->set_aside(folder);
  }
  Result<bool> is_empty() override { return tree_->is_empty(); }
  Result<Bytes> read_xattrs(const FileId& id) override { return tree_->read_xattrs(id); }
  Result<std::uint64_t> next_data(const FileId& id, std::uint64_t at) override { return tree_->next_data(id, at); }
  Result<std::uint64_t> next_hole(const FileId& id, std::uint64_t at) override { return tree_->next_hole(id, at); }
  void burial_stamp(std::uint64_t stamp) override { tree_->burial_stamp(stamp); }
  Result<std::vector<ports::GraveEntry>> graves(ports::Grave what) override { return tree_->graves(what); }
  Result<bool> purge_one(ports::Grave what, const FileId& id, std::uint64_t stamp, std::size_t& most) override {
    return tree_->purge_one(what, id, stamp, most);
  }
  Status settle_limbo(std::uint64_t stamp) override { return tree_->settle_limbo(stamp); }
  Result<std::optional<std::pair<FileId, std::string>>> place_of(const FileId& folder) override {
    return tree_->place_of(folder);
  }
  Result<FileId> identify(const FileId& dir, std::string_view name) override { return tree_->identify(dir, name); }
  Result<ports::NamesMark> names_mark() override { return tree_->names_mark(); }
  Status set_names_mark(ports::NamesMark mark) override { return tree_->set_names_mark(mark); }
  Result<Bytes> mark(ports::Mark which) override { return tree_->mark(which); }
  Status set_mark(ports::Mark which, ByteView value) override { return tree_->set_mark(which, value); }
  bool is_another() const override { return tree_->is_another(); }
  Status adopt_root() override { return tree_->adopt_root(); }
  Status sync() override { return tree_->sync(); }

 private:
  Status object(const FileId& id) {
    if (!undo_.watches(set()) || undo_.durable(set()).objects.contains(id)) return {};
    return fail(ErrorCode::internal, "{} is changed, and its old attributes are in no history", id.to_hex());
  }
  Status data(const FileId& id, std::uint64_t offset, std::uint64_t length) {
    HF_TRY(object(id));
    if (!undo_.watches(set())) return {};
    auto& covered = undo_.durable(set()).objects[id];
    const std::uint64_t end = length > covered.size || offset > covered.size - length ? covered.size : offset + length;
    if (covered.absent || offset >= end) return {};
    return covered.data.for_each_missing<Status>(offset, end, [&](std::uint64_t b, std::uint64_t e) -> Status {
      return fail(ErrorCode::internal, "{} is changed from {} to {}, and no history has what is there", id.to_hex(), b,
                  e);
    });
  }
  Status entry(const FileId& dir, std::string_view name) {
    HF_TRY(object(dir));
    if (!undo_.watches(set())) return {};
    CoveredSet& covered = undo_.durable(set());
    if (covered.objects[dir].absent || covered.names[dir].contains(std::string(name))) return {};
    return fail(ErrorCode::internal, "\"{}\" in {} is changed, and its old meaning is in no history", name,
                dir.to_hex());
  }
  // Where a folder stands now loses it.
  Status left(const FileId& id) {
    HF_ASSIGN(const auto there, tree_->attributes(id));
    if (!undo_.watches(set()) || !there || !is_folder(there->mode)) return {};
    HF_ASSIGN(const auto place, tree_->place_of(id));
    return place ? entry(place->first, place->second) : Status{};
  }

  std::shared_ptr<ports::Tree> tree_;
  CheckedUndo& undo_;
};

}  // namespace holdfast::mirror::testing
