// SPDX-License-Identifier: Apache-2.0
// The deleted objects of one tree that the undo history may still need, by the number of the batch that buried them.
#pragma once

#include <map>

#include "ports/tree.h"

namespace holdfast::mirror {

class Graves {
 public:
  // What the tree says, after a start. A grave whose id leads nowhere (a copy of the folder made without attributes) is nobody's: it would be taken
  // for the object that has this id now.
  Status load(ports::Tree& tree) {
    list_.clear();
    bytes_ = 0;
    HF_ASSIGN(const auto found, tree.graves(ports::Grave::deleted));
    for (const auto& g : found) {
      HF_ASSIGN(const auto there, tree.attributes(g.id));
      if (there)
        add(g);
      else
        HF_TRY(tree.purge_one(ports::Grave::deleted, g.id, g.stamp));
    }
    return {};
  }
  void add(const ports::GraveEntry& grave) {
    if (list_.try_emplace({grave.stamp, grave.id}, grave.allocated_bytes).second) bytes_ += grave.allocated_bytes;
  }
  // Purges those that no batch from `oldest` to `newest` needs. Numbers above `newest` are of a history that was lost.
  Status purge(ports::Tree& tree, std::uint64_t oldest, std::uint64_t newest) {
    for (auto it = list_.begin(); it != list_.end();) {
      const auto& [stamp, id] = it->first;
      if (stamp >= oldest && stamp <= newest) {
        it = newest == ~std::uint64_t{0} ? list_.end() : list_.upper_bound({newest, max_id()});
        continue;
      }
      HF_TRY(tree.purge_one(ports::Grave::deleted, id, stamp));
      bytes_ -= it->second;
      it = list_.erase(it);
    }
    return {};
  }
  void clear() {
    list_.clear();
    bytes_ = 0;
  }
  std::uint64_t bytes() const { return bytes_; }
  std::size_t size() const { return list_.size(); }
  // Of the lowest stamp; the highest number when there is none.
  std::uint64_t oldest() const { return list_.empty() ? ~std::uint64_t{0} : list_.begin()->first.first; }

 private:
  static FileId max_id() {
    FileId id;
    id.bytes.fill(0xff);
    return id;
  }
  std::map<std::pair<std::uint64_t, FileId>, std::uint64_t> list_;  // -> allocated bytes
  std::uint64_t bytes_ = 0;
};

}  // namespace holdfast::mirror
