// SPDX-License-Identifier: Apache-2.0
// Verify on the passive: a check_* record says what an object is on the active at exactly this sequence; this tree, which stands at the same one,
// is compared with it and what differs is answered. repair_* records make it so, by the ways of a resync, while the set stays complete.
//
// A tree that may be ahead of the record (a redo) can't be compared: that is answered too, and the active asks again.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "mirror/apply_resync.h"

namespace holdfast::mirror {

constexpr bool is_check(log::Kind kind) { return kind >= log::Kind::check_node && kind <= log::Kind::check_data; }
constexpr bool is_repair(log::Kind kind) { return kind >= log::Kind::repair_node && kind <= log::Kind::repair_data; }

// What outlives a batch: listings whose last chunk has not come yet. Ordinary changes of names in between belong to them.
class VerifyMemory {
 public:
  void note(const log::Record& record);
  void forget() {
    checked_.clear();
    repair_ = {};
  }

 private:
  friend class VerifyApply;
  std::unordered_map<FileId, std::unordered_set<std::string>> checked_;
  ResyncMemory repair_;
};

class VerifyApply {
 public:
  using Sink = std::function<void(const Differs&)>;
  // `raw`: the tree below the undo history; looking gives nothing an id. `exact`: the tree is not ahead of the record.
  VerifyApply(TreeBatch& batch, ports::Tree& raw, VerifyMemory& memory, bool exact, const Sink& answer)
      : batch_(batch), raw_(raw), memory_(memory), exact_(exact), answer_(answer) {}
  Status apply(const log::Record& record);
  static constexpr std::uint64_t zeros_limit_bytes = std::uint64_t{4} << 20;

 private:
  Status check(const log::Record& r);
  Status check_node(const log::Record& r);
  Status check_dir(const log::Record& r);
  Status check_data(const log::Record& r);
  Status find_extra(const log::Record& r, const std::unordered_set<std::string>& listed, std::size_t& answered);
  Result<bool> same_bytes(const log::Record& r);
  Result<bool> is_hole(const log::Record& r);
  Status repair(const log::Record& r);
  void differs(const log::Record& r, std::uint32_t what, std::string_view name = {});

  TreeBatch& batch_;
  ports::Tree& raw_;
  VerifyMemory& memory_;
  const bool exact_;
  const Sink& answer_;
};

}  // namespace holdfast::mirror
