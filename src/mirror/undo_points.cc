// SPDX-License-Identifier: Apache-2.0
// Times and points. The history is a line although it was gone back on: a rewind is one more batch, and what it undid is passed over.
#include <algorithm>

#include "mirror/undo_journal.h"

namespace holdfast::mirror {

std::optional<UndoBatch> UndoJournal::first_from(std::uint64_t number) const {
  const std::lock_guard lock(mutex_);
  auto it = std::lower_bound(batches_.begin(), batches_.end(), number,
                             [](const UndoBatch& b, std::uint64_t n) { return b.number < n; });
  while (it != batches_.end() && it->head.why == BatchWhy::resume) ++it;
  return it == batches_.end() ? std::nullopt : std::optional(*it);
}

bool UndoJournal::is_reachable(std::uint64_t number) const {
  const std::lock_guard lock(mutex_);
  for (const auto& g : gaps_)
    if (g.set == 0 && g.number >= number) return false;
  return batches_.empty() || batches_.front().number <= number;
}

std::int64_t UndoJournal::time_before(const UndoBatch& batch) const {
  const std::lock_guard lock(mutex_);
  Position before = batch.head.before;
  std::int64_t time_ns = batch.head.first_time_ns;
  for (auto it = batches_.rbegin(); it != batches_.rend(); ++it) {
    if (it->number >= batch.number || it->head.why == BatchWhy::resume || it->head.after != before) continue;
    time_ns = it->head.last_time_ns;
    if (it->head.why != BatchWhy::jump) break;
    before = it->head.before;  // nothing happened there, and its time may not be known
  }
  return time_ns;
}

std::uint64_t UndoJournal::bytes_since(std::uint64_t number) const {
  return log_.size_bytes() - log_.size_bytes_below(Sequence(number));
}

// From now backwards. `next` is the batch whose start is the moment looked at.
//   a batch that ended after the time     it happened later: its start is closer
//   a rewind                              what lies between it and its target did not happen on this line
//   a jump                                nothing happened, whenever it was: the trees stayed as they were
//   a batch that ended at or before it    the start of the one after it holds everything up to the time
Result<std::optional<UndoBatch>> UndoJournal::point_at(std::int64_t time_ns) const {
  const std::vector<UndoBatch> all = batches();
  std::uint64_t gap = 0;
  for (const auto& g : gaps())
    if (g.set == 0) gap = g.number;
  std::optional<UndoBatch> next;
  for (auto it = all.rbegin(); it != all.rend() && it->number > gap;) {
    if (it->head.why == BatchWhy::resume) {
      ++it;
      continue;
    }
    if (it->head.why == BatchWhy::rewind) {
      const std::uint64_t target = it->head.target;
      while (it != all.rend() && it->number >= target) ++it;
      continue;
    }
    if (it->head.why != BatchWhy::jump && it->head.last_time_ns <= time_ns) return next;
    if (it->head.partial.empty()) next = *it;
    ++it;
  }
  // What the trees held as the history began is of before its first batch; of a jump the time may not be known.
  if (next && next->head.first_time_ns != 0 && next->head.first_time_ns <= time_ns) return next;
  return fail(ErrorCode::not_found, "there is no history of that time here: holdfast timeline shows what there is");
}

}  // namespace holdfast::mirror
