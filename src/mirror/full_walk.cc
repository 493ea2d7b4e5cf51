// SPDX-License-Identifier: Apache-2.0
#include "mirror/full_walk.h"

#include <algorithm>

namespace holdfast::mirror {
namespace {

constexpr std::size_t objects_ahead = 96;

}  // namespace

// Of the objects that are waiting, those whose turn is near. Looked at when they are asked for: what was near while a folder was listed may be far
// behind the rest of it by then.
std::vector<FileId> FullWalk::take_soon() {
  std::vector<FileId> soon;
  for (std::size_t back = 1; back <= std::min(objects_ahead, stack_.size()); ++back)
    if (const FileId& id = stack_[stack_.size() - back]; told_soon_.insert(id).second) soon.push_back(id);
  return soon;
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
    told_soon_.erase(job.id);
    if (!shipped_.insert(job.id).second) continue;
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
