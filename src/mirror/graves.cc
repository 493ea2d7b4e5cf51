// SPDX-License-Identifier: Apache-2.0
#include "mirror/graves.h"

#include <limits>

#include "base/log.h"

namespace holdfast::mirror {
namespace {

GravesHeld cost_of(const ports::GraveEntry& grave) {
  // A sparse sum for what lies below a folder: each of its objects costs at least its inode.
  return {std::max(grave.allocated_bytes, grave.objects * least_object_bytes), grave.objects};
}

}  // namespace

bool is_of_one_grave(const Error& e) {
  return e.code == ErrorCode::denied || e.code == ErrorCode::busy || e.code == ErrorCode::no_space ||
         e.code == ErrorCode::corrupt;
}

Status Graves::load(ports::Tree& tree) {
  clear();
  HF_ASSIGN(const auto found, tree.graves(ports::Grave::deleted));
  for (const auto& g : found) {
    if (g.objects == 0) {  // no way back needs it: it can't be brought back
      aside_[g.id] = 0;
      why_aside_ = "its file system is damaged: check it (fsck) as soon as this node can be stopped for that";
      continue;
    }
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
  forget(grave.id);
  if (const auto any = kept_.find({0, grave.id}); any != kept_.end()) drop(any);
  const GravesHeld cost = cost_of(grave);
  if (!kept_.try_emplace({grave.stamp, grave.id}, cost).second) return;
  held_ += cost;
  if (grave.objects > 1) inside_[{grave.stamp, grave.id}] = {cost.bytes - grave.allocated_bytes, grave.objects - 1};
}

Graves::Kept::iterator Graves::drop(Kept::iterator it) {
  held_ -= it->second;
  inside_.erase(it->first);
  return kept_.erase(it);
}

void Graves::add_inside(GravesInside& to) const {
  for (const auto& [grave, held] : inside_) to[grave.first] += held;
}

void Graves::forget(const FileId& id) {
  aside_.erase(id);
  const auto it = doomed_.find(id);
  if (it == doomed_.end()) return;
  doomed_bytes_ -= it->second.bytes;
  doomed_.erase(it);
}

Graves::Kept::iterator Graves::doom(Kept::iterator it) {
  const auto& [stamp, id] = it->first;
  forget(id);
  doomed_[id] = {stamp, it->second.bytes};
  by_size_.emplace(it->second.bytes, id);
  doomed_bytes_ += it->second.bytes;
  return drop(it);
}

void Graves::give_up(std::uint64_t oldest, std::uint64_t newest) {
  while (!kept_.empty() && kept_.begin()->first.first < oldest) doom(kept_.begin());
  if (newest == std::numeric_limits<std::uint64_t>::max()) return;
  for (auto it = kept_.lower_bound({newest + 1, FileId{}}); it != kept_.end();) it = doom(it);
}

Status Graves::purge(ports::Tree& tree, std::size_t& most) {
  while (most != 0 && !by_size_.empty()) {
    const auto [bytes, id] = by_size_.top();
    const auto it = doomed_.find(id);
    if (it == doomed_.end() || it->second.bytes != bytes) {
      by_size_.pop();
      continue;
    }
    const std::uint64_t stamp = it->second.stamp;
    const auto gone = tree.purge_one(ports::Grave::deleted, id, stamp, most);
    if (gone && !*gone) return {};  // a folder or a big file, with something left of it
    by_size_.pop();
    forget(id);
    if (!gone) HF_TRY(put_aside(tree, id, stamp, gone.error()));
  }
  return most == 0 ? Status{} : purge_aside(tree, most);
}

Status Graves::put_aside(ports::Tree& tree, const FileId& id, std::uint64_t stamp, const Error& why) {
  why_aside_ = why.to_string();
  // Once, and not again at each try.
  if (aside_.empty() && why_aside_ != std::exchange(said_, why_aside_))
    log_warning("set {}: a deleted object stays for now: {}", tree.set(), why_aside_);
  aside_[id] = stamp;
  return is_of_one_grave(why) ? Status{} : tl::unexpected(why);
}

Status Graves::purge_aside(ports::Tree& tree, std::size_t& most) {
  while (most != 0 && next_aside_) {
    const auto it = aside_.lower_bound(*next_aside_);
    if (it == aside_.end()) {
      next_aside_.reset();
      return {};
    }
    const auto [id, stamp] = *it;
    const auto gone = tree.purge_one(ports::Grave::deleted, id, stamp, most);
    if (gone && !*gone) return {};
    next_aside_ = std::next(it) == aside_.end() ? std::nullopt : std::optional(std::next(it)->first);
    if (gone)
      aside_.erase(it);
    else
      HF_TRY(put_aside(tree, id, stamp, gone.error()));
  }
  return {};
}

void Graves::clear() {
  kept_.clear();
  inside_.clear();
  doomed_.clear();
  by_size_ = {};
  aside_.clear();
  next_aside_.reset();
  held_ = {};
  doomed_bytes_ = 0;
}

}  // namespace holdfast::mirror
