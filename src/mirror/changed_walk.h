// SPDX-License-Identifier: Apache-2.0
// The plan for a peer that had everything, and then fell behind further than its queue: only what its change set names, read from the live tree.
//   1 every object: attributes and the changed extents. What the peer does not know is made there, and waits for its name.
//   2 every name that means nothing here, then every other one: removals first, for a folder that moved out must have left before its old
//     ancestor comes into it.
//   3 the folders whose names are to be compared.
// Right because the set is closed: an object that it does not name is equal on both. Live changes go on meanwhile; what the peer can't apply for
// want of an object, or makes without knowing its contents, it asks for.
#pragma once

#include <deque>
#include <unordered_set>

#include "mirror/change_map.h"
#include "mirror/resync_plan.h"

namespace holdfast::mirror {

class ChangedWalk final : public ResyncPlan {
 public:
  ChangedWalk(ChangeMap& map, SetNumber set, std::string peer) : map_(map), set_(set), peer_(std::move(peer)) {}
  bool is_partial() const override { return true; }
  Result<std::uint64_t> begin() override;
  Result<std::optional<ShipJob>> next() override;
  bool must_precede(const FileId&) override { return false; }  // the peer asks for it
  void listed(const std::vector<ports::TreeEntry>&) override {}
  Status again(const Nak& nak) override;
  void moved(const FileId&) override {}  // the rename itself says so to the peer
  void gone(const FileId& id) override { gone_.insert(id); }

 private:
  enum class Phase { objects, names_gone, names_there, listings, done };
  Status fill();
  Status read_keys(ChangeKind kind);
  Status given_up(const Error& why);
  bool turn_is_to_come(const FileId& id) const;
  Result<bool> comes_whole(const FileId& id);

  ChangeMap& map_;
  const SetNumber set_;
  const std::string peer_;
  Phase phase_ = Phase::objects;
  Bytes after_;                // the last key of the phase that was read
  std::deque<ShipJob> ready_;  // of the phase
  std::deque<ShipJob> asked_;  // first
  std::vector<FileId> places_;
  std::vector<FileId> listings_;     // folders for the last phase
  std::unordered_set<FileId> gone_;  // not shipped: a file that was made without a name may get one later
};

}  // namespace holdfast::mirror
