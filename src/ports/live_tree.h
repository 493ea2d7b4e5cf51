// SPDX-License-Identifier: Apache-2.0
// The active's tree while it is written to, as a resync reads it: one object at a time under that object's lock, so that what is read and the
// record that says so (appended before the lock is let go) are one step in the order of changes.
// The real one: platform/live_tree.h over capture's inode locks.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "ports/tree.h"

namespace holdfast::ports {

class LiveObject {
 public:
  virtual ~LiveObject() = default;
  virtual Result<NodeAttributes> attributes() = 0;
  virtual Result<Bytes> xattrs() = 0;        // log/xattrs.h list, the id apart
  virtual Result<std::string> target() = 0;  // symlink
  // Children without an accepted id get one here. A chunk is in the order of the disk where the file system tells one: it is read in that order.
  virtual Result<TreeListing> list(std::uint64_t cookie, std::size_t max_entries, std::size_t max_bytes) = 0;
  // Of a folder: what the name means, or nothing. A child without an accepted id gets one here.
  virtual Result<std::optional<TreeEntry>> lookup(std::string_view name) = 0;
  // Of a folder: the one it stands in; none: it is the root.
  virtual Result<FileId> parent() = 0;
  virtual Result<std::size_t> read(std::uint64_t offset, std::span<std::uint8_t> into) = 0;
  // As read(), for who reads everything once: what was not in the page cache does not stay there.
  virtual Result<std::size_t> read_aside(std::uint64_t offset, std::span<std::uint8_t> into) {
    return read(offset, into);
  }
  // First byte at or after `offset` that is data (or hole); the file's size when there is none.
  virtual Result<std::uint64_t> next_data(std::uint64_t offset) = 0;
  virtual Result<std::uint64_t> next_hole(std::uint64_t offset) = 0;
};

class LiveTree {
 public:
  virtual ~LiveTree() = default;
  // Runs `body` under the object's lock (shared with capture). ErrorCode::not_found: it is gone;
  // unavailable: the set is not here (any more), which says nothing about the object. Errors of `body` pass through.
  virtual Status with_object(SetNumber set, const FileId& id, const std::function<Status(LiveObject&)>& body) = 0;
  // A hint, never needed for correctness: a file's first bytes are read soon. Returns at once.
  virtual void will_read(SetNumber, const FileId&) {}
  // Nothing more is read of what was said, or begun: files that were kept open for it are closed.
  virtual void reads_end(SetNumber) {}
};

// Ids are durable before records that carry them are sent (R25). A no-op when nothing is pending. Any thread.
class IdBarrier {
 public:
  virtual ~IdBarrier() = default;
  virtual Status make_ids_durable() = 0;
};

}  // namespace holdfast::ports
