// SPDX-License-Identifier: Apache-2.0
// What of the undo history may be given up, and what it looks like from outside. Whole segments go, oldest first: a batch is gone as soon as its
// head is. Nothing is given up in memory only: after a restart it would seem to be there, without the graves it needs.
#include <algorithm>
#include <utility>

#include "base/log.h"
#include "mirror/undo_journal.h"

namespace holdfast::mirror {
namespace {

// A segment is closed after this part of the age bound, so that a quiet history ages too.
constexpr std::int64_t age_parts = 8;
// What is in deleted folders counts for what it may cost only after this part of it: until then a resynchronization that displaced a big one has
// not cost the history of before it (I5). Bytes that it really holds count at once.
constexpr std::int64_t guess_parts = 4;

}  // namespace

std::uint64_t UndoJournal::current_batch() const {
  if (is_open_) return open_.number;
  const std::lock_guard lock(mutex_);
  return batches_.empty() ? log_.end().sequence.value : batches_.back().number;
}

std::uint64_t UndoJournal::oldest_batch() const {
  const std::lock_guard lock(mutex_);
  std::uint64_t gap = 0;  // what lies before it and shares a segment with it comes back with a restart
  if (pins_.empty())
    for (const auto& g : gaps_)
      if (g.set == 0) gap = g.number;
  for (const auto& b : batches_)
    if (b.number > gap) return b.number;
  return log_.end().sequence.value + 1;
}

Result<bool> UndoJournal::drop_oldest(std::string_view why) {
  HF_ASSIGN(const bool dropped, drop_oldest_segment());
  if (dropped) note_shortened(why);
  return dropped;
}

void UndoJournal::note_shortened(std::string_view why) {
  const std::lock_guard lock(mutex_);
  if (!shortened_ || shortened_->why != why) log_warning("undo history: older points are given up: {}", why);
  const std::uint64_t oldest = batches_.empty() ? log_.end().sequence.value + 1 : batches_.front().number;
  shortened_ = UndoGap{oldest, 0, std::string(why), times_.realtime_ns()};
  shortened_untold_ = shortened_;
}

std::optional<UndoGap> UndoJournal::shortened() const {
  const std::lock_guard lock(mutex_);
  return shortened_;
}

std::optional<UndoGap> UndoJournal::take_shortened() {
  const std::lock_guard lock(mutex_);
  return std::exchange(shortened_untold_, std::nullopt);
}

bool UndoJournal::is_older(std::uint64_t batch, std::int64_t than_ns) const {
  const auto it = std::lower_bound(batches_.begin(), batches_.end(), batch,
                                   [](const UndoBatch& b, std::uint64_t n) { return b.number < n; });
  return it != batches_.end() && it->made_ns < than_ns;
}

Result<bool> UndoJournal::drop_oldest_segment() {
  if (!on_) return false;
  const auto end = log_.oldest_segment_end();
  if (!end) return false;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [holder, batch] : pins_)
      if (batch <= end->value) return false;
    // Redo needs the last one (R21).
    if (const UndoBatch* last = last_batch(); last && last->number <= end->value) return false;
  }
  HF_TRY(give_up_to(*end));
  return true;
}

Status UndoJournal::give_up_to(Sequence end) {
  HF_TRY(log_.trim(end));
  const std::lock_guard lock(mutex_);
  while (!batches_.empty() && batches_.front().number <= end.value) batches_.pop_front();
  while (!gaps_.empty() && gaps_.front().number <= end.value) gaps_.pop_front();
  // A continuation without the batch that it continues is no point, and nothing is lost with it.
  while (!batches_.empty() && batches_.front().head.why == BatchWhy::resume) batches_.pop_front();
  return {};
}

// A segment a call: there may be thousands of them.
Result<bool> UndoJournal::shed() {
  if (!opened_) return false;
  const auto end = log_.oldest_segment_end();
  if (!end) return false;
  {
    const std::lock_guard lock(mutex_);
    std::uint64_t gap = 0;
    for (const auto& g : gaps_)
      if (g.set == 0) gap = g.number;
    if (!pins_.empty() || end->value >= gap) return false;
  }
  HF_TRY(give_up_to(*end));
  return true;
}

Result<bool> UndoJournal::keep_bounds(const GravesHeld& graves, const GravesInside& inside) {
  if (!on_) return false;
  UndoSettings bound;
  std::int64_t newest_of_oldest = 0;
  std::uint64_t kept = 0;
  GravesHeld counted = graves;
  const std::int64_t now = times_.realtime_ns();
  const auto end = log_.oldest_segment_end();
  {
    const std::lock_guard lock(mutex_);
    bound = settings_;
    kept = keep_from_ == 0 ? std::numeric_limits<std::uint64_t>::max() : keep_from_;
    if (end)
      for (const auto& b : batches_)
        if (b.number <= end->value) newest_of_oldest = std::max(newest_of_oldest, b.made_ns);
    for (const auto& [batch, held] : inside)
      if (!is_older(batch, now - bound.max_age_ns / guess_parts)) counted -= held;
  }
  const std::uint64_t max_grave_bytes = bound.max_grave_bytes ? bound.max_grave_bytes : bound.max_bytes;
  std::string deleted;
  if (counted.objects > max_graves)
    deleted = fmt::format("more than {} deleted files were kept for it", max_graves);
  else if (counted.bytes > max_grave_bytes)
    deleted = fmt::format("the deleted files that were kept for it held more than {} MiB", max_grave_bytes >> 20);
  const bool too_much = log_.size_bytes() > bound.max_bytes || batch_count() > max_undo_batches || !deleted.empty();
  if (segment_began_ns_ != 0 && (now - segment_began_ns_ > bound.max_age_ns / age_parts || (too_much && !end))) {
    HF_TRY(log_.rotate());
    segment_began_ns_ = 0;
  }
  if (!deleted.empty()) return drop_oldest(deleted);
  if (!too_much && (!end || kept <= end->value || now - newest_of_oldest <= bound.max_age_ns)) return false;
  HF_ASSIGN(const bool dropped, drop_oldest_segment());
  const std::lock_guard lock(mutex_);
  if (dropped) shortened_.reset();
  return dropped;
}

std::vector<UndoBatch> UndoJournal::batches() const {
  const std::lock_guard lock(mutex_);
  return {batches_.begin(), batches_.end()};
}

std::vector<UndoGap> UndoJournal::gaps() const {
  const std::lock_guard lock(mutex_);
  return {gaps_.begin(), gaps_.end()};
}

bool UndoJournal::reaches(std::uint64_t batch, SetNumber set) const {
  const std::lock_guard lock(mutex_);
  for (const auto& g : gaps_)
    if (g.number >= batch && (g.set == 0 || g.set == set)) return false;
  for (const auto& b : batches_)
    if (b.number == batch) return b.head.why != BatchWhy::resume && b.head.sets.contains(set);
  return false;
}

void UndoJournal::pin(const std::string& holder, std::uint64_t batch) {
  const std::lock_guard lock(mutex_);
  if (batch == 0)
    pins_.erase(holder);
  else
    pins_[holder] = batch;
}

void UndoJournal::keep_from(std::uint64_t batch) {
  const std::lock_guard lock(mutex_);
  keep_from_ = batch;
}

std::size_t UndoJournal::batch_count() const {
  const std::lock_guard lock(mutex_);
  return batches_.size();
}

bool UndoJournal::has_room(std::uint64_t bytes) const {
  std::function<std::uint64_t()> free_bytes;
  std::uint64_t reserve = 0;
  {
    const std::lock_guard lock(mutex_);
    free_bytes = settings_.free_bytes;
    reserve = settings_.reserve_bytes;
  }
  return !free_bytes || free_bytes() >= reserve + bytes;
}

bool UndoJournal::pinned() const {
  const std::lock_guard lock(mutex_);
  return !pins_.empty();
}

void UndoJournal::set_settings(UndoSettings settings) {
  const std::lock_guard lock(mutex_);
  settings_ = settings;
}

UndoStats UndoJournal::stats() const {
  UndoStats s;
  s.bytes = log_.size_bytes();
  s.late_groups = late_groups_.load();
  const std::lock_guard lock(mutex_);
  s.damage = damage_;
  s.limit_bytes = settings_.max_bytes;
  std::uint64_t gap = 0;
  for (const auto& g : gaps_)
    if (g.set == 0) gap = g.number;
  for (const auto& b : batches_) {
    if (b.number < gap || b.head.why == BatchWhy::resume) continue;
    ++s.batches;
    if (b.head.first_time_ns == 0) continue;
    if (s.oldest_time_ns == 0) s.oldest_time_ns = b.head.first_time_ns;
    s.newest_time_ns = b.head.last_time_ns;
  }
  return s;
}

}  // namespace holdfast::mirror
