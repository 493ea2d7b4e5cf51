// SPDX-License-Identifier: Apache-2.0
#include "mirror/full_walk.h"

namespace holdfast::mirror {

Result<std::optional<ShipJob>> FullWalk::next() {
  ShipJob job;
  if (!parents_of_.empty()) {
    job.what = ShipJob::What::parent;
    job.id = parents_of_.back();
    parents_of_.pop_back();
    return std::optional(std::move(job));
  }
  while (!stack_.empty()) {
    job.id = stack_.back();
    stack_.pop_back();
    if (!shipped_.insert(job.id).second) continue;
    job.listing = true;
    job.content = peer_empty_ && !again_.contains(job.id) ? ShipJob::Content::fresh : ShipJob::Content::hashes;
    job.extents = {{0, end_of_file}};
    return std::optional(std::move(job));
  }
  return std::optional<ShipJob>{};
}

void FullWalk::listed(const std::vector<ports::TreeEntry>& entries) {
  for (const auto& e : entries)
    if (!shipped_.contains(e.id)) stack_.push_back(e.id);
}

Status FullWalk::again(const Nak& nak) {
  shipped_.erase(nak.file);
  again_.insert(nak.file);
  stack_.push_back(nak.file);
  if (nak.offset == nak_with_parent) parents_of_.push_back(nak.file);
  return {};
}

void FullWalk::moved(const FileId& id) {
  if (!shipped_.contains(id)) stack_.push_back(id);
}

}  // namespace holdfast::mirror
