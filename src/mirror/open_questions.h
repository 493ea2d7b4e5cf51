// SPDX-License-Identifier: Apache-2.0
// What a passive asked for (NAK) and has not been answered: a connection may break under a question, so each later one begins with them all.
// Of one process's life: an active that meets another life begins the resynchronization anew.
// Threads: none; who owns one locks it.
#pragma once

#include <set>

#include "base/bytes.h"
#include "mirror/channel.h"

namespace holdfast::mirror {

class OpenQuestions {
 public:
  void ask(const Nak& nak) { open_.insert(nak); }
  // These were appended to the log now, so they are later than any record that was asked about: what they say of an object holds for the question.
  void answered_by(ByteView records);
  void settled(SetNumber set);  // it is whole
  void clear() { open_.clear(); }
  const std::set<Nak>& all() const { return open_; }

 private:
  void answered_by_object(SetNumber set, const FileId& id);
  void answered_by_bytes(SetNumber set, const FileId& id, std::uint64_t offset, std::uint64_t length);
  std::set<Nak> open_;
};

}  // namespace holdfast::mirror
