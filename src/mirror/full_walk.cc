// SPDX-License-Identifier: Apache-2.0
#include "mirror/full_walk.h"

#include <algorithm>

namespace holdfast::mirror {
namespace {

constexpr std::size_t objects_ahead = 32;

}  // namespace

// Of the objects that are waiting, those that newly belong to the next few.
void FullWalk::look_ahead(std::size_t came_nearer) {
  const std::size_t near = std::min(objects_ahead, stack_.size());
  for (std::size_t back = near; back > near - std::min(near, came_nearer); --back)
    soon_.push_back(stack_[stack_.size() - back]);
}

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
    look_ahead(1);
    job.listing = true;
    job.content = peer_empty_ && !again_.contains(job.id) ? ShipJob::Content::fresh : ShipJob::Content::hashes;
    job.extents = {{0, end_of_file}};
    return std::optional(std::move(job));
  }
  return std::optional<ShipJob>{};
}

void FullWalk::listed(const std::vector<ports::TreeEntry>& entries) {
  for (auto e = entries.rbegin(); e != entries.rend(); ++e)  // the first is taken first
    if (!shipped_.contains(e->id)) stack_.push_back(e->id);
  look_ahead(entries.size());
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
