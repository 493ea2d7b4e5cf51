// SPDX-License-Identifier: Apache-2.0
#include "mirror/undo_tree.h"

#include "mirror/file_type.h"

namespace holdfast::mirror {

Status UndoTree::settle() {
  if (settled_ == capture_.captured()) return {};
  HF_TRY(undo_.flush_late());
  settled_ = capture_.captured();
  return {};
}

// Captures what `...` says, in order, and makes it durable, before the primitive goes on.
#define HF_COVER(...)                      \
  do {                                     \
    if (capturing_) {                      \
      for (Status covered : {__VA_ARGS__}) \
        if (!covered) return covered;      \
      HF_TRY(settle());                    \
    }                                      \
  } while (0)

Status UndoTree::write(const FileId& id, std::uint64_t offset, std::span<const ByteView> pieces) {
  std::uint64_t length = 0;
  for (const ByteView p : pieces) length += p.size();
  HF_COVER(capture_.data(id, offset, length));
  return tree_->write(id, offset, pieces);
}

Status UndoTree::truncate(const FileId& id, std::uint64_t size) {
  HF_COVER(capture_.data(id, size, ports::to_end));
  return tree_->truncate(id, size);
}

Status UndoTree::fallocate(const FileId& id, std::uint32_t mode_flags, std::uint64_t offset, std::uint64_t length) {
  if (shifts_range(mode_flags))
    HF_COVER(capture_.data(id, offset, ports::to_end));
  else if (clears_range(mode_flags))
    HF_COVER(capture_.data(id, offset, length));
  else
    HF_COVER(capture_.object(id));
  return tree_->fallocate(id, mode_flags, offset, length);
}

Status UndoTree::punch(const FileId& id, std::uint64_t offset, std::uint64_t length) {
  HF_COVER(capture_.data(id, offset, length));
  return tree_->punch(id, offset, length);
}

Status UndoTree::set_attributes(const FileId& id, std::uint32_t valid, const ports::NodeAttributes& to) {
  HF_COVER(capture_.object(id));
  return tree_->set_attributes(id, valid, to);
}

Status UndoTree::set_xattr(const FileId& id, std::string_view name, ByteView value) {
  HF_COVER(capture_.object(id));
  return tree_->set_xattr(id, name, value);
}

Status UndoTree::remove_xattr(const FileId& id, std::string_view name) {
  HF_COVER(capture_.object(id));
  return tree_->remove_xattr(id, name);
}

Status UndoTree::replace_xattrs(const FileId& id, ByteView list) {
  HF_COVER(capture_.object(id));
  return tree_->replace_xattrs(id, list);
}

Status UndoTree::stage(const FileId& id, const ports::NewNode& node) {
  HF_COVER(capture_.object(id));
  return tree_->stage(id, node);
}

Status UndoTree::revive(const FileId& id, const ports::NewNode& node) {
  HF_COVER(capture_.data(id, 0, ports::to_end));
  return tree_->revive(id, node);
}

Status UndoTree::place(const FileId& id, const FileId& dir, std::string_view name) {
  HF_COVER(capture_.entry(dir, name));
  return tree_->place(id, dir, name);
}

Status UndoTree::link(const FileId& id, const FileId& dir, std::string_view name) {
  HF_COVER(capture_.entry(dir, name));
  return tree_->link(id, dir, name);
}

Status UndoTree::unlink(const FileId& dir, std::string_view name) {
  HF_COVER(capture_.entry(dir, name));
  return tree_->unlink(dir, name);
}

Status UndoTree::rename(const FileId& dir, std::string_view name, const FileId& dir2, std::string_view name2,
                        std::uint32_t flags) {
  HF_COVER(capture_.entry(dir, name), capture_.entry(dir2, name2));
  return tree_->rename(dir, name, dir2, name2, flags);
}

Status UndoTree::bury(const FileId& dir, std::string_view name, const FileId& id, ports::Grave why) {
  HF_COVER(capture_.entry(dir, name));
  HF_TRY(tree_->bury(dir, name, id, why));
  return buried_ && why == ports::Grave::deleted ? buried_(id) : Status{};
}

Status UndoTree::exhume(const FileId& id, ports::Grave from, const FileId& dir, std::string_view name) {
  HF_COVER(capture_.entry(dir, name));
  return tree_->exhume(id, from, dir, name);
}

Result<std::optional<ports::TreeEntry>> UndoTree::lookup(const FileId& dir, std::string_view name) {
  HF_ASSIGN(auto found, tree_->lookup(dir, name));
  if (capturing_ && found && found->id.is_none()) {
    HF_ASSIGN(found->id, tree_->identify(dir, name));
  }
  return found;
}

// Old values of the object could not be said: before this it had no id, after it it is another object's.
Status UndoTree::adopt(const FileId& dir, std::string_view name, const FileId& id) {
  if (capturing_)
    return fail(ErrorCode::internal, "set {}: \"{}\" is adopted as {} while its history is kept", set(), name,
                id.to_hex());
  return tree_->adopt(dir, name, id);
}

Status UndoTree::cover_place(const FileId& folder) {
  HF_ASSIGN(const auto there, tree_->attributes(folder));
  if (!there || !is_folder(there->mode) || folder.is_root()) return {};
  HF_ASSIGN(const auto place, tree_->place_of(folder));
  return place ? capture_.entry(place->first, place->second) : Status{};
}

Status UndoTree::bring(const FileId& id, const FileId& dir, std::string_view name) {
  HF_COVER(capture_.entry(dir, name), cover_place(id));
  return tree_->bring(id, dir, name);
}

Status UndoTree::set_aside(const FileId& folder) {
  HF_COVER(cover_place(folder));
  return tree_->set_aside(folder);
}

Status UndoTree::about_to_change(const ports::Touches& touches) {
  if (!capturing_) return {};
  for (const auto& id : touches.objects) HF_TRY(capture_.object(id));
  for (const auto& [dir, name] : touches.names) HF_TRY(capture_.name(dir, name));
  for (const auto& d : touches.data) HF_TRY(capture_.data(d.id, d.offset, d.length));
  return settle();
}

#undef HF_COVER

}  // namespace holdfast::mirror
