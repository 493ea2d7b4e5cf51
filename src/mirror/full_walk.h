// SPDX-License-Identifier: Apache-2.0
// The plan of a first copy, or of a comparison with what the peer has: the whole tree, by id from the root on, so that moves don't matter; a live
// rename or link queues the object again if it was not shipped yet.
#pragma once

#include <unordered_set>
#include <vector>

#include "mirror/resync_plan.h"

namespace holdfast::mirror {

class FullWalk final : public ResyncPlan {
 public:
  FullWalk(SetNumber set, bool peer_empty) : peer_empty_(peer_empty) { stack_.push_back(FileId::root(set)); }
  bool is_partial() const override { return false; }
  void peer_is_empty() override { peer_empty_ = true; }
  Result<std::uint64_t> begin() override { return 1; }
  Result<std::optional<ShipJob>> next() override;
  bool must_precede(const FileId& id) override { return shipped_.insert(id).second; }
  void listed(const std::vector<ports::TreeEntry>& entries) override;
  Status again(const Nak& nak) override;
  void moved(const FileId& id) override;
  std::vector<FileId> take_soon() override;

 private:
  bool peer_empty_;  // nothing is compared, and no holes are said
  std::vector<FileId> stack_;
  std::vector<FileId> parents_of_;
  std::unordered_set<FileId> told_soon_;  // take_soon() said so, and they wait still
  std::unordered_set<FileId> shipped_;
  std::unordered_set<FileId> again_;  // the peer asked for all of it, so it has something there
};

}  // namespace holdfast::mirror
