// SPDX-License-Identifier: Apache-2.0
// What a resynchronization ships, and in which order; how is said in resync.h. Two plans: full_walk.h (the whole tree) and changed_walk.h (what
// a change set names).
// Threads: the one that runs the resynchronization.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mirror/change_set.h"
#include "mirror/channel.h"
#include "ports/tree.h"

namespace holdfast::mirror {

struct ShipJob {
  enum class What {
    object,      // attributes; contents of a file where `extents` say; names of a folder if `listing`
    name_gone,   // if the name means nothing here, that is said
    name_there,  // what the name means here
    parent,      // the names of the folder in which this one stands
    bytes,       // an answer to a NAK: the one extent, as it is
  };
  enum class Content {
    fresh,   // the peer has nothing there: bytes, and no holes
    bytes,   // the peer may have anything, but not this: bytes and holes
    hashes,  // the peer may have exactly this: hashes first
  };
  What what = What::object;
  FileId id;         // the object, or the name's folder
  std::string name;  // names
  bool listing = false;
  bool unless_file = false;   // a regular file comes anyway
  bool names_follow = false;  // of a folder, by jobs of their own
  Content content = Content::hashes;
  std::vector<Extent> extents;
};

class ResyncPlan {
 public:
  virtual ~ResyncPlan() = default;
  // Only part of the tree is shipped: the peer asks for whatever it misses.
  virtual bool is_partial() const = 0;
  virtual void peer_is_empty() {}  // before begin(): it holds nothing of the set
  // Once, before next(): about how much there is to ship. Partial: the peer has the resync_begin, so all before it was taken from the queue.
  virtual Result<std::uint64_t> begin() = 0;
  virtual Result<std::optional<ShipJob>> next() = 0;  // nothing: all is said, until again() or moved()
  // A listing's entry that can't be made empty and filled later (symlink, device): must it be shipped before it is named?
  virtual bool must_precede(const FileId& id) = 0;
  virtual void listed(const std::vector<ports::TreeEntry>& entries) = 0;  // a chunk of a folder was shipped
  virtual Status again(const Nak& nak) = 0;                               // the peer asks for all of the object
  virtual void moved(const FileId& id) = 0;                               // it has another name since
  // Objects whose contents are read soon, not given before: disks are asked for them while others are shipped.
  virtual std::vector<FileId> take_soon() { return {}; }
  virtual void gone(const FileId&) {}  // it has no name here, now
};

}  // namespace holdfast::mirror
