// SPDX-License-Identifier: Apache-2.0
// What an object is, but for its contents and names, as a record that makes a peer's equal: of a resynchronization (ship_node) or of a repair.
#pragma once

#include <string>

#include "log/record.h"
#include "mirror/file_type.h"
#include "ports/live_tree.h"

namespace holdfast::mirror {

// The record refers to `xattrs` and `target`, which outlive it. Under the object's lock.
inline Result<log::Record> node_record(log::Kind kind, const FileId& id, const ports::NodeAttributes& attributes,
                                       ByteView xattrs, ports::LiveObject& object, std::string& target) {
  log::Record r;
  r.kind = kind;
  r.file = id;
  r.mode = attributes.mode;
  r.uid = attributes.uid;
  r.gid = attributes.gid;
  r.rdev = attributes.rdev;
  r.length = attributes.size;
  r.mtime_ns = attributes.mtime_ns;
  r.atime_ns = attributes.atime_ns;
  r.payload = xattrs;
  if (is_symlink(attributes.mode)) {
    HF_ASSIGN(target, object.target());
    r.name2 = target;
  }
  return r;
}

}  // namespace holdfast::mirror
