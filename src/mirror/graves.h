// SPDX-License-Identifier: Apache-2.0
// The deleted objects of one tree: those that the undo history may still need, by the number of the batch that buried them, and those that nobody
// needs any more and that are still to go. Giving up is quick, going takes as long as unlinking takes: it is done in steps, beside everything else.
#pragma once

#include <algorithm>
#include <map>
#include <optional>
#include <queue>
#include <string>
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
// Of that, by the batch that buried them: what is in folders and was only counted. It is no memory here, and its bytes are a guess.
using GravesInside = std::map<std::uint64_t, GravesHeld>;

// Of this very grave, and no sign of anything else: what can't be taken away now may be later, and others can.
bool is_of_one_grave(const Error& e);

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
  // Of what was given up about `most` objects go, biggest first; counted down. What can't go is put aside, and in the way of nothing else; an error
  // is the disk's, and puts aside what it was met at.
  Status purge(ports::Tree& tree, std::size_t& most);
  void try_aside_again() { next_aside_ = FileId{}; }  // by purge(), after all others
  void clear();
  GravesHeld held() const { return held_; }
  void add_inside(GravesInside& to) const;
  std::size_t doomed() const { return doomed_.size(); }
  std::uint64_t doomed_bytes() const { return doomed_bytes_; }
  bool has_work() const { return !doomed_.empty() || (next_aside_ && !aside_.empty()); }
  std::size_t aside() const { return aside_.size(); }
  const std::string& why_aside() const { return why_aside_; }  // of one of them
  // Of the lowest stamp that is kept; the highest number when there is none.
  std::uint64_t oldest() const { return kept_.empty() ? ~std::uint64_t{0} : kept_.begin()->first.first; }

 private:
  struct Doomed {
    std::uint64_t stamp = 0, bytes = 0;
  };
  using Kept = std::map<std::pair<std::uint64_t, FileId>, GravesHeld>;
  Kept::iterator doom(Kept::iterator it);
  Kept::iterator drop(Kept::iterator it);
  void forget(const FileId& id);  // as one that is to go
  Status put_aside(ports::Tree& tree, const FileId& id, std::uint64_t stamp, const Error& why);
  Status purge_aside(ports::Tree& tree, std::size_t& most);

  Kept kept_, inside_;
  std::unordered_map<FileId, Doomed> doomed_;                      // one id has one grave
  std::priority_queue<std::pair<std::uint64_t, FileId>> by_size_;  // the same, and some that are none any more
  std::map<FileId, std::uint64_t> aside_;                          // -> stamp
  std::optional<FileId> next_aside_;                               // from here on they are tried again
  std::string why_aside_, said_;
  GravesHeld held_;
  std::uint64_t doomed_bytes_ = 0;
};

}  // namespace holdfast::mirror
