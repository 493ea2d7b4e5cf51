// SPDX-License-Identifier: Apache-2.0
// A tree whose changes can be undone: before each primitive, the cells that it will touch and that the batch has not covered yet are written to
// the undo history and made durable. Capturing at first touch is right without a dry run: a cell that is not covered has its value of before
// the batch. So nothing depends on foreseeing; about_to_change() only saves syncs (mirror/predict.h).
//
//   primitive                              cells
//   write punch zero_range                 object, data of the range
//   truncate collapse insert               object, data to the end
//   fallocate set_* remove_xattr replace   object
//   stage revive                           object (absent, or with all data)
//   place link unlink rename bury exhume   the names, their folders' objects (times)
//   bring set_aside                        also the name where the folder stands now
#pragma once

#include <functional>
#include <memory>

#include "mirror/capture_cells.h"
#include "ports/tree.h"

namespace holdfast::mirror {

class UndoTree final : public ports::Tree {
 public:
  // `undo` and `covered` outlive it; `covered` belongs to the present batch, of all trees.
  UndoTree(std::shared_ptr<ports::Tree> tree, UndoWriter& undo, Covered& covered)
      : tree_(std::move(tree)), undo_(undo), capture_(*tree_, undo, covered) {}
  // Nothing is captured: the set has no history yet, or redo knows better (R21).
  void set_capturing(bool capturing) { capturing_ = capturing; }
  bool capturing() const { return capturing_; }
  std::uint64_t captured() const { return capture_.captured(); }  // cells, ever
  Result<std::uint64_t> estimate(const ports::Touches& touches) { return capture_.estimate(touches); }
  // Told of each object that went into Grave::deleted.
  void on_burial(std::function<Status(const FileId&)> told) { buried_ = std::move(told); }
  ports::Tree& raw() { return *tree_; }
  const std::shared_ptr<ports::Tree>& shared() const { return tree_; }

  SetNumber set() const override { return tree_->set(); }
  Result<std::optional<ports::NodeAttributes>> attributes(const FileId& id) override { return tree_->attributes(id); }
  Result<std::size_t> read(const FileId& id, std::uint64_t offset, std::span<std::uint8_t> into) override {
    return tree_->read(id, offset, into);
  }
  Result<std::size_t> read_aside(const FileId& id, std::uint64_t offset, std::span<std::uint8_t> into) override {
    return tree_->read_aside(id, offset, into);
  }
  Result<std::string> read_target(const FileId& id) override { return tree_->read_target(id); }
  Result<Bytes> read_xattrs(const FileId& id) override { return tree_->read_xattrs(id); }
  Result<std::uint64_t> next_data(const FileId& id, std::uint64_t o) override { return tree_->next_data(id, o); }
  Result<std::uint64_t> next_hole(const FileId& id, std::uint64_t o) override { return tree_->next_hole(id, o); }
  Status write(const FileId& id, std::uint64_t offset, std::span<const ByteView> pieces) override;
  Status truncate(const FileId& id, std::uint64_t size) override;
  Status fallocate(const FileId& id, std::uint32_t mode_flags, std::uint64_t offset, std::uint64_t length) override;
  Status punch(const FileId& id, std::uint64_t offset, std::uint64_t length) override;
  Status set_attributes(const FileId& id, std::uint32_t valid, const ports::NodeAttributes& to) override;
  Status set_xattr(const FileId& id, std::string_view name, ByteView value) override;
  Status remove_xattr(const FileId& id, std::string_view name) override;
  Status replace_xattrs(const FileId& id, ByteView list) override;

  Status stage(const FileId& id, const ports::NewNode& node) override;
  Status commit_ids() override { return tree_->commit_ids(); }
  Status unstage() override { return tree_->unstage(); }
  Status place(const FileId& id, const FileId& dir, std::string_view name) override;
  Status place_in_grave(const FileId& id, ports::Grave why) override { return tree_->place_in_grave(id, why); }
  Status revive(const FileId& id, const ports::NewNode& node) override;

  Result<ports::Standing> at(const FileId& dir, std::string_view name, const FileId& expected) override {
    return tree_->at(dir, name, expected);
  }
  // While capturing, whatever is found has an id: what can't be found again can't be brought back. So nothing is adopted either.
  Result<std::optional<ports::TreeEntry>> lookup(const FileId& dir, std::string_view name) override;
  Result<ports::TreeListing> list(const FileId& dir, std::uint64_t cookie, std::size_t max_entries) override {
    return tree_->list(dir, cookie, max_entries);
  }
  Status for_each_name(const FileId& dir, const std::function<void(std::string_view)>& see) override {
    return tree_->for_each_name(dir, see);
  }
  Status link(const FileId& id, const FileId& dir, std::string_view name) override;
  Status unlink(const FileId& dir, std::string_view name) override;
  Status rename(const FileId& dir, std::string_view name, const FileId& dir2, std::string_view name2,
                std::uint32_t flags) override;

  Result<std::optional<ports::Grave>> in_grave(const FileId& id) override { return tree_->in_grave(id); }
  Status bury(const FileId& dir, std::string_view name, const FileId& id, ports::Grave why) override;
  Status exhume(const FileId& id, ports::Grave from, const FileId& dir, std::string_view name) override;
  Status purge(ports::Grave what) override { return tree_->purge(what); }
  void burial_stamp(std::uint64_t stamp) override { tree_->burial_stamp(stamp); }
  Result<std::vector<ports::GraveEntry>> graves(ports::Grave what) override { return tree_->graves(what); }
  Result<bool> purge_one(ports::Grave what, const FileId& id, std::uint64_t stamp, std::size_t& most) override {
    return tree_->purge_one(what, id, stamp, most);
  }
  Status settle_limbo(std::uint64_t stamp) override { return tree_->settle_limbo(stamp); }
  Status adopt(const FileId& dir, std::string_view name, const FileId& id) override;
  Status bring(const FileId& id, const FileId& dir, std::string_view name) override;
  Status set_aside(const FileId& folder) override;
  Result<std::optional<std::pair<FileId, std::string>>> place_of(const FileId& folder) override {
    return tree_->place_of(folder);
  }
  Result<FileId> identify(const FileId& dir, std::string_view name) override { return tree_->identify(dir, name); }
  Result<bool> is_empty() override { return tree_->is_empty(); }
  Status about_to_change(const ports::Touches& touches) override;
  Result<ports::Digest> digest(const FileId& id, std::uint64_t offset, std::uint64_t length) override {
    return tree_->digest(id, offset, length);
  }
  void will_digest(const FileId& id, std::uint64_t offset, std::uint64_t length) override {
    tree_->will_digest(id, offset, length);
  }
  void forget_digests() override { tree_->forget_digests(); }
  Result<ports::NamesMark> names_mark() override { return tree_->names_mark(); }
  Status set_names_mark(ports::NamesMark mark) override { return tree_->set_names_mark(mark); }
  Result<Bytes> mark(ports::Mark which) override { return tree_->mark(which); }
  Status set_mark(ports::Mark which, ByteView value) override { return tree_->set_mark(which, value); }
  bool is_another() const override { return tree_->is_another(); }
  Status adopt_root() override { return tree_->adopt_root(); }
  Status sync() override { return tree_->sync(); }
  Result<std::uint64_t> free_bytes() override { return tree_->free_bytes(); }

 private:
  // What was captured is durable, if the batch is sealed already.
  Status settle();
  Status cover_place(const FileId& folder);

  std::shared_ptr<ports::Tree> tree_;
  UndoWriter& undo_;
  CellCapture capture_;
  bool capturing_ = false;
  std::uint64_t settled_ = 0;  // how many captured cells are durable
  std::function<Status(const FileId&)> buried_;
};

}  // namespace holdfast::mirror
