// SPDX-License-Identifier: Apache-2.0
#include "mirror/graves.h"

#include <limits>

namespace holdfast::mirror {
namespace {

GravesHeld cost_of(const ports::GraveEntry& grave) {
  // A sparse sum for what lies below a folder: each of its objects costs at least its inode.
  return {std::max(grave.allocated_bytes, grave.objects * least_object_bytes), grave.objects};
}

}  // namespace

Status Graves::load(ports::Tree& tree) {
  clear();
  HF_ASSIGN(const auto found, tree.graves(ports::Grave::deleted));
  for (const auto& g : found) {
    HF_ASSIGN(const auto there, tree.attributes(g.id));
    if (there) {
      add(g);
    } else {
      std::size_t all = std::numeric_limits<std::size_t>::max();
      HF_TRY(tree.purge_one(ports::Grave::deleted, g.id, g.stamp, all));
    }
  }
  return {};
}

void Graves::add(const ports::GraveEntry& grave) {
  doomed_.erase(grave.id);
  if (const auto any = kept_.find({0, grave.id}); any != kept_.end()) {
    held_ -= any->second;
    kept_.erase(any);
  }
  if (kept_.try_emplace({grave.stamp, grave.id}, cost_of(grave)).second) held_ += cost_of(grave);
}

Graves::Kept::iterator Graves::doom(Kept::iterator it) {
  held_ -= it->second;
  doomed_.insert_or_assign(it->first.second, it->first.first);
  return kept_.erase(it);
}

void Graves::give_up(std::uint64_t oldest, std::uint64_t newest) {
  while (!kept_.empty() && kept_.begin()->first.first < oldest) doom(kept_.begin());
  if (newest == std::numeric_limits<std::uint64_t>::max()) return;
  for (auto it = kept_.lower_bound({newest + 1, FileId{}}); it != kept_.end();) it = doom(it);
}

Status Graves::purge(ports::Tree& tree, std::size_t& most) {
  while (most != 0 && !doomed_.empty()) {
    const auto [id, stamp] = *doomed_.begin();
    HF_ASSIGN(const bool gone, tree.purge_one(ports::Grave::deleted, id, stamp, most));
    if (!gone) return {};  // a folder, with something left in it
    doomed_.erase(doomed_.begin());
  }
  return {};
}

void Graves::clear() {
  kept_.clear();
  doomed_.clear();
  held_ = {};
}

}  // namespace holdfast::mirror
