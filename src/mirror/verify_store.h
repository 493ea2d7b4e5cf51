// SPDX-License-Identifier: Apache-2.0
// What is remembered of comparisons over a restart, for each peer and set: where the scrub stands, when all was compared last, what is known to
// differ. One durable value, replaced as a whole (docs/formats/log.md). What can't be read is forgotten: the scrub begins anew.
// Threads: any.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "mirror/verify_walk.h"
#include "ports/durable_cell.h"

namespace holdfast::mirror {

enum class VerifyResult : std::uint8_t { none = 0, clean, repaired, differs, interrupted };
const char* to_string(VerifyResult result);

struct VerifyMemo {
  VerifyPlace place;               // of the scrub's present pass
  std::int64_t pass_began_ns = 0;  // wall clock; 0: none is under way
  std::uint64_t pass_bytes = 0;    // so far
  std::int64_t last_scrub_ns = 0;  // when a pass ended
  std::uint64_t last_bytes = 0;    // of that pass
  std::int64_t last_full_ns = 0;   // when a full verify ended
  VerifyResult last_result = VerifyResult::none;
  std::uint64_t open = 0;  // objects known to differ
  std::vector<VerifyExample> examples;
};

class VerifyStore {
 public:
  // `cell` may be null: nothing outlives the process.
  explicit VerifyStore(ports::DurableCell* cell);
  VerifyMemo get(NodeId peer, SetNumber set) const;
  Status put(NodeId peer, SetNumber set, VerifyMemo memo);
  bool any_open(SetNumber set) const;  // of any peer something is known to differ

 private:
  using Key = std::pair<NodeId, SetNumber>;
  Status load();

  ports::DurableCell* const cell_;
  std::mutex store_mutex_;  // one store at a time; taken first, so that nobody who looks waits for a disk
  mutable std::mutex mutex_;
  std::map<Key, VerifyMemo> memos_;
};

Bytes encode(const std::map<std::pair<NodeId, SetNumber>, VerifyMemo>& memos);
Result<std::map<std::pair<NodeId, SetNumber>, VerifyMemo>> decode_verify_memos(ByteView bytes);

}  // namespace holdfast::mirror
