// SPDX-License-Identifier: Apache-2.0
// The deleted objects of one tree: those that the undo history may still need, by the number of the batch that buried them, and those that nobody
// needs any more and that are still to go. Giving up is quick, going takes as long as unlinking takes: it is done in steps, beside everything else.
#pragma once

#include <algorithm>
#include <map>
#include <unordered_map>

#include "ports/tree.h"

namespace holdfast::mirror {

// What the history keeps. A name and an inode cost something, however little is in them.
struct GravesHeld {
  std::uint64_t bytes = 0, objects = 0;
  GravesHeld& operator+=(const GravesHeld& o) {
    bytes += o.bytes, objects += o.objects;
    return *this;
  }
  GravesHeld& operator-=(const GravesHeld& o) {
    bytes -= o.bytes, objects -= o.objects;
    return *this;
  }
};
constexpr std::uint64_t least_object_bytes = 4096 + 256;

class Graves {
 public:
  // What the tree says. A grave whose id leads nowhere (a copy of the folder made without attributes) is nobody's: it would be taken for the object
  // that has this id now.
  Status load(ports::Tree& tree);
  // Stamp 0, where no history is kept: whatever it carries.
  void add(const ports::GraveEntry& grave);
  // Gives up those that no batch from `oldest` to `newest` needs. Numbers above `newest` are of a history that was lost.
  void give_up(std::uint64_t oldest, std::uint64_t newest);
  void give_up_all() { give_up(~std::uint64_t{0}, ~std::uint64_t{0}); }
  // Of what was given up at most about `most` objects go; counted down.
  Status purge(ports::Tree& tree, std::size_t& most);
  void clear();
  GravesHeld held() const { return held_; }
  std::size_t doomed() const { return doomed_.size(); }
  // Of the lowest stamp that is kept; the highest number when there is none.
  std::uint64_t oldest() const { return kept_.empty() ? ~std::uint64_t{0} : kept_.begin()->first.first; }

 private:
  using Kept = std::map<std::pair<std::uint64_t, FileId>, GravesHeld>;
  Kept::iterator doom(Kept::iterator it);

  Kept kept_;
  std::unordered_map<FileId, std::uint64_t> doomed_;  // -> stamp; one id has one grave
  GravesHeld held_;
};

}  // namespace holdfast::mirror
