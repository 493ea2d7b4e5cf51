// SPDX-License-Identifier: Apache-2.0
#include "mirror/apply_ops.h"

#include "mirror/file_type.h"

namespace holdfast::mirror {
namespace {

constexpr std::size_t max_joined_pieces = 64;

}  // namespace

using log::Kind;
using ports::Grave;
using ports::Standing;

bool creates(Kind kind) {
  return kind == Kind::create || kind == Kind::mkdir || kind == Kind::symlink || kind == Kind::mknod;
}

ports::NewNode new_node(const log::Record& r) {
  ports::NewNode node;
  node.mode = r.mode;
  node.uid = r.uid;
  node.gid = r.gid;
  node.rdev = r.rdev;
  node.atime_ns = r.atime_ns;
  node.mtime_ns = r.mtime_ns;
  if (r.kind == Kind::symlink)
    node.target = as_text(r.payload);
  else
    node.xattrs = r.payload;
  return node;
}

Status TreeBatch::write(const log::Record& r) {
  if (!pieces_.empty() && (file_ != r.file || end_ != r.offset || pieces_.size() == max_joined_pieces))
    HF_TRY(flush_write());
  if (pieces_.empty()) {
    file_ = r.file;
    begin_ = end_ = r.offset;
  }
  pieces_.push_back(r.payload);
  end_ += r.payload.size();
  touched(r.file, r.mtime_ns);
  return {};
}

Status TreeBatch::flush_write() {
  if (pieces_.empty()) return {};
  HF_TRY(tree_.write(file_, begin_, pieces_));
  pieces_.clear();
  return {};
}

Status TreeBatch::flush() {
  HF_TRY(flush_write());
  for (const auto& [id, mtime] : times_) {
    HF_ASSIGN(const auto there, tree_.attributes(id));
    if (!there || there->mtime_ns == mtime) continue;
    ports::NodeAttributes to;
    to.mtime_ns = mtime;
    HF_TRY(tree_.set_attributes(id, log::valid_mtime, to));
  }
  times_.clear();
  return {};
}

Status TreeBatch::names_reached(Sequence sequence) {
  names_.done = sequence;
  names_.settled = true;
  return tree_.set_names_mark({names_.log, sequence});
}

bool changes_names(Kind kind) {
  return creates(kind) || kind == Kind::link || kind == Kind::unlink || kind == Kind::rmdir || kind == Kind::rename;
}

Status OrdinaryApply::differs(const log::Record& r, Result<bool> done, const char* what) {
  if (!done) return tl::unexpected(std::move(done).error());
  if (*done && !batch_.names_settled()) return {};
  return fail(ErrorCode::corrupt,
              "set {}: the tree is not what the log says before sequence {} ({} of \"{}\"): {}: this copy must be "
              "resynchronized",
              r.set, r.sequence.value, log::to_string(r.kind), r.name, what);
}

Status OrdinaryApply::apply(const log::Record& r) {
  if (r.kind == Kind::write) {
    HF_ASSIGN(const auto there, tree_.attributes(r.file));
    if (there) return batch_.write(r);
  }
  HF_TRY(batch_.flush_write());
  if (!changes_names(r.kind)) return change(r);
  if (!r.parent.is_none()) batch_.touched(r.parent, r.parent_mtime_ns);
  if (!r.parent2.is_none()) batch_.touched(r.parent2, r.parent2_mtime_ns);
  if (creates(r.kind)) batch_.touched(r.file, r.mtime_ns);
  if (batch_.names_done(r.sequence)) return {};
  HF_TRY(change_names(r));
  return unknown_file_ ? Status{} : batch_.names_reached(r.sequence);
}

Status OrdinaryApply::change_names(const log::Record& r) {
  switch (r.kind) {
    case Kind::link:
      return link(r);
    case Kind::unlink:
    case Kind::rmdir:
      return remove(r);
    case Kind::rename:
      return rename(r);
    default:
      return make(r);
  }
}

// An object that is there waits in the graveyard after a rewind: ids are never used twice, so it is the one that this record made before. An
// orphan's place is the graveyard, before as after.
Status OrdinaryApply::make(const log::Record& r) {
  if (!staged_.contains(r.file)) {
    HF_ASSIGN(const auto grave, tree_.in_grave(r.file));
    if (!grave) return differs(r, true, "the new object is there already");
    HF_TRY(tree_.revive(r.file, new_node(r)));
    if (r.flags & log::flag_orphan) return {};
    return tree_.exhume(r.file, *grave, r.parent, r.name);
  }
  if (r.flags & log::flag_orphan) return tree_.place_in_grave(r.file, Grave::orphan);
  return tree_.place(r.file, r.parent, r.name);
}

Status OrdinaryApply::link(const log::Record& r) {
  HF_ASSIGN(const Standing standing, tree_.at(r.parent, r.name, r.file));
  if (standing != Standing::absent) return differs(r, standing == Standing::expected, "the name is taken");
  HF_ASSIGN(const auto there, tree_.attributes(r.file));
  unknown_file_ = !there;
  if (unknown_file_) return {};
  HF_ASSIGN(const auto grave, tree_.in_grave(r.file));
  return grave ? tree_.exhume(r.file, *grave, r.parent, r.name) : tree_.link(r.file, r.parent, r.name);
}

// R16: only the last name moves to the graveyard, else the link count would lie.
Status OrdinaryApply::remove_name(const FileId& dir, std::string_view name, const FileId& id) {
  HF_ASSIGN(const auto there, tree_.attributes(id));
  if (!there) return fail(ErrorCode::corrupt, "the object {} vanished while it was removed", id.to_hex());
  if (!is_folder(there->mode) && there->links > 1) return tree_.unlink(dir, name);
  return tree_.bury(dir, name, id, Grave::deleted);
}

Status OrdinaryApply::remove(const log::Record& r) {
  HF_ASSIGN(const Standing standing, tree_.at(r.parent, r.name, r.file));
  if (standing != Standing::expected) return differs(r, standing == Standing::absent, "the name means something else");
  return remove_name(r.parent, r.name, r.file);
}

// Truth table (source, destination) -> action; anything else is corruption, but for the one change in doubt after a crash.
//   file     , nothing                expected none                    -> rename
//   file     , nothing                replaced is in the graveyard     -> rename (an interrupted replacement)
//   file     , replaced, last name                                     -> bury it, rename
//   file     , replaced, other names                                   -> rename over it
//   file     , replaced               exchange                         -> exchange
Status OrdinaryApply::rename(const log::Record& r) {
  if (r.file == r.replaced) return {};  // two names of one inode: POSIX renames nothing
  const bool exchange = (r.flags & log::flag_rename_exchange) != 0;
  HF_ASSIGN(const Standing source, tree_.at(r.parent, r.name, r.file));
  if (source != Standing::expected) {
    HF_ASSIGN(const Standing result, tree_.at(r.parent2, r.name2, r.file));
    HF_ASSIGN(const Standing other, tree_.at(r.parent, r.name, exchange ? r.replaced : FileId{}));
    return differs(r, result == Standing::expected && other == (exchange ? Standing::expected : Standing::absent),
                   "the source is not at its name");
  }
  HF_ASSIGN(const Standing destination, tree_.at(r.parent2, r.name2, r.replaced));
  if (exchange) {
    if (destination != Standing::expected) return differs(r, false, "the other end of the exchange is not at its name");
    return tree_.rename(r.parent, r.name, r.parent2, r.name2, log::flag_rename_exchange);
  }
  if (destination == Standing::other) return differs(r, false, "another object has the new name");
  if (!r.replaced.is_none() && destination == Standing::absent) {
    HF_ASSIGN(const auto grave, tree_.in_grave(r.replaced));
    if (!grave) return differs(r, false, "the replaced object is gone");
  }
  if (destination == Standing::expected) {
    HF_ASSIGN(const auto there, tree_.attributes(r.replaced));
    if (there && (is_folder(there->mode) || there->links == 1))
      HF_TRY(tree_.bury(r.parent2, r.name2, r.replaced, Grave::deleted));
  }
  return tree_.rename(r.parent, r.name, r.parent2, r.name2, 0);
}

Status OrdinaryApply::change(const log::Record& r) {
  HF_ASSIGN(const auto there, tree_.attributes(r.file));
  if (there) return apply_content(batch_, r);
  if (r.flags & log::flag_orphan) return {};  // had lost its last name before; nobody can see it
  return fail(
      ErrorCode::corrupt,
      "set {}: sequence {} ({}) is about the object {}, which is not in the tree: this copy must be resynchronized",
      r.set, r.sequence.value, log::to_string(r.kind), r.file.to_hex());
}

Status apply_content(TreeBatch& batch, const log::Record& r) {
  ports::Tree& tree = batch.tree();
  switch (r.kind) {
    case Kind::write:
      return batch.write(r);
    case Kind::truncate:
      HF_TRY(tree.truncate(r.file, r.length));
      batch.touched(r.file, r.mtime_ns);
      return {};
    case Kind::fallocate: {
      if (shifts_range(r.mode_flags)) {  // alone between two checkpoints: the size tells if it was done before a crash
        HF_ASSIGN(const auto there, tree.attributes(r.file));
        if (there && there->size == r.size) {
          batch.touched(r.file, r.mtime_ns);
          return {};
        }
      }
      HF_TRY(tree.fallocate(r.file, r.mode_flags, r.offset, r.length));
      batch.touched(r.file, r.mtime_ns);
      return {};
    }
    case Kind::set_attributes: {
      ports::NodeAttributes to;
      to.mode = r.mode;
      to.uid = r.uid;
      to.gid = r.gid;
      to.atime_ns = r.atime_ns;
      to.mtime_ns = r.mtime_ns;
      HF_TRY(tree.set_attributes(r.file, r.valid, to));
      if (r.valid & log::valid_mtime) batch.touched(r.file, r.mtime_ns);
      return {};
    }
    case Kind::set_xattr:
      return tree.set_xattr(r.file, r.name, r.payload);
    case Kind::remove_xattr:
      return tree.remove_xattr(r.file, r.name);
    default:
      return fail(ErrorCode::internal, "record kind {} has no place in a tree", log::to_string(r.kind));
  }
}

}  // namespace holdfast::mirror
