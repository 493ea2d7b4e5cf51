// SPDX-License-Identifier: Apache-2.0
// A past moment that can be written to (ports/past_tree.h): nothing of what is written reaches the protected folders, and all of it is gone with the
// view. As a file system behaves, as far as its kernel leaves it to it: who calls has checked rights, types and that no folder comes to lie in
// itself, and names an object only between its first look-up and forgotten(). Any thread.
// Errors of changes: not_found (no such name, no such xattr), exists, busy (the folder is not empty), invalid, denied (our own names), refused (this
// kind of xattr, this mode of fallocate), no_space; stale: the view is over, or there is no such object.
#pragma once

#include <optional>

#include "ports/past_tree.h"

namespace holdfast::ports {

struct ScratchUse {
  std::uint64_t bytes = 0, limit_bytes = 0;
  std::uint64_t objects = 0, most_objects = 0;  // what it remembers: files, names, ranges
};

struct ScratchNode {
  std::uint32_t mode = 0;  // with type bits
  std::uint32_t umask = 0, uid = 0, gid = 0;
  std::uint64_t rdev = 0;
  std::string_view target;  // symlink
};

struct ScratchChange {
  std::optional<std::uint32_t> mode, uid, gid;
  std::optional<std::uint64_t> size;
  std::optional<std::int64_t> atime_ns, mtime_ns;
  bool drop_set_id = false;  // with size: who changes it may not keep set-id bits
};

enum class XattrHow { any, create, replace };

class ScratchTree : public PastTree {
 public:
  // No name: it has none (O_TMPFILE) until link().
  virtual Result<FileId> make(SetNumber set, const FileId& dir, std::string_view name, const ScratchNode& node) = 0;
  virtual Status link(SetNumber set, const FileId& id, const FileId& dir, std::string_view name) = 0;
  virtual Status remove(SetNumber set, const FileId& dir, std::string_view name, bool folder) = 0;
  // `flags`: log::flag_rename_*. `left`: what is made at the old name in the same step; may be null.
  virtual Status rename(SetNumber set, const FileId& dir, std::string_view name, const FileId& dir2,
                        std::string_view name2, std::uint32_t flags, const ScratchNode* left) = 0;
  // All of it or nothing.
  virtual Status write(SetNumber set, const FileId& id, std::uint64_t offset, ByteView bytes, bool drop_set_id) = 0;
  // `mode_flags` as fallocate(2) has them. Room is not set aside.
  virtual Status fallocate(SetNumber set, const FileId& id, std::uint32_t mode_flags, std::uint64_t offset,
                           std::uint64_t length, bool drop_set_id) = 0;
  virtual Status change(SetNumber set, const FileId& id, const ScratchChange& change) = 0;
  // `drop_set_gid`: an access ACL of who may not keep that bit.
  virtual Status set_xattr(SetNumber set, const FileId& id, std::string_view name, ByteView value, XattrHow how,
                           bool drop_set_gid) = 0;
  virtual Status remove_xattr(SetNumber set, const FileId& id, std::string_view name) = 0;
  // Where data (a hole) begins at or after `offset`; the size when there is none. What was there in the past is data.
  virtual Result<std::uint64_t> next_data(SetNumber set, const FileId& id, std::uint64_t offset) = 0;
  virtual Result<std::uint64_t> next_hole(SetNumber set, const FileId& id, std::uint64_t offset) = 0;
  // Nobody has it open any more: what has no name is gone.
  virtual void forgotten(SetNumber set, const FileId& id) = 0;
  virtual ScratchUse use() const = 0;
};

}  // namespace holdfast::ports
