// SPDX-License-Identifier: Apache-2.0
// The hot set of a leading node: begun with its epoch, turned to the next generation from time to time, sealed by a fence (mirror/hot_set.h).
#include "base/log.h"
#include "mirror/node_log.h"

namespace holdfast::mirror {
namespace {

constexpr int hot_look_ms = 1000;

}  // namespace

Status NodeLog::open_hot() {
  if (!ports_.hot) return {};
  HF_ASSIGN(hot_, HotSet::open({*ports_.hot, ports_.times, ports_.unused_block}, config_.hot));
  active_.set_hot(hot_.get());
  return {};
}

// Before anything is captured in it. What an epoch that ended uncleanly left in the page cache only, perhaps acknowledged long ago, is noted
// nowhere as soon as the notes of that epoch are dropped: it has to be on the disk first.
Status NodeLog::begin_hot(Epoch epoch, Position base) {
  if (!hot_) return {};
  Status done = applier_.for_each_tree([](ports::Tree& tree) { return tree.sync(); });
  if (done) done = hot_->begin(epoch, base);
  if (!done) fault(done.error());
  return done;
}

Status NodeLog::end_hot(Position end) {
  if (!hot_) return {};
  Status done = hot_->end(end);
  if (!done) fault(done.error());
  return done;
}

bool NodeLog::leads(Epoch epoch) const {
  const std::lock_guard lock(mutex_);
  return role_ == Role::active && !ended_ && epoch_ == epoch && !stopped_ && fault_.empty();
}

bool NodeLog::everybody_covers(Sequence end) const {
  for (const auto& s : senders())
    if (!s->covers(end)) return false;
  return true;
}

Status NodeLog::turn_hot(Epoch epoch) {
  HF_ASSIGN(const HotSet::Turn turn, hot_->open_next());
  const auto over = [&] { return !leads(epoch); };
  if (turn.epoch != epoch || !hot_->wait_left_behind(turn, over)) return fail(ErrorCode::stale, "the epoch has ended");
  // All changes under the older notes have been appended by now; to this log, if it is still open: what a fence refused is in nobody's log.
  const std::optional<Position> end = active_.ring().end_in(epoch);
  if (!end) return fail(ErrorCode::stale, "the epoch has ended");
  HF_TRY(ports_.ids.make_ids_durable());
  for (const auto& tree : applier_.trees()) HF_TRY(tree->sync());
  std::unique_lock lock(mutex_, std::defer_lock);
  while (!everybody_covers(end->sequence)) {
    ++progress_waits_;
    lock.lock();
    progress_cv_.wait_for(lock, std::chrono::milliseconds(hot_look_ms));  // a peer's acknowledgement; a role that ends
    lock.unlock();
    --progress_waits_;
    if (over()) return fail(ErrorCode::stale, "the epoch has ended");
    HF_TRY(hot_->prepare_block());
  }
  return hot_->drop(turn, *end);
}

void NodeLog::run_hot() {
  if (!hot_) return;
  std::int64_t turned_ns = ports_.times.steady_ns();
  Epoch epoch;
  for (;;) {
    const bool scarce = hot_->wait_due(hot_look_ms);
    {
      const std::lock_guard lock(mutex_);
      if (stopped_ || !fault_.empty()) return;
      if (role_ != Role::active || ended_) continue;
      if (std::exchange(epoch, epoch_) != epoch_) turned_ns = ports_.times.steady_ns();
    }
    Status done = hot_->prepare_block();
    if (done && (scarce || ports_.times.steady_ns() - turned_ns >= config_.hot_generation_ns)) {
      if (hot_->status().used > 1) done = turn_hot(epoch);  // more than the block of ids: something was changed
      turned_ns = ports_.times.steady_ns();
    }
    if (!done && done.error().code != ErrorCode::stale) return fault(done.error());
  }
}

}  // namespace holdfast::mirror
