// SPDX-License-Identifier: Apache-2.0
// What a sender does for a peer that is not whole, or that fell behind further than its queue.
#include <chrono>

#include "base/log.h"
#include "mirror/changed_walk.h"
#include "mirror/full_walk.h"
#include "mirror/sender.h"

namespace holdfast::mirror {
namespace {

constexpr std::chrono::seconds map_look_every{1};

}  // namespace

bool Sender::find_in_map(const Welcome& welcome, Start& start, PeerQueue::Source source) {
  if (!map_ || (welcome.features & shared_.features & feature_partial_resync) == 0 || map_->overflowed()) return false;
  std::optional<Partial> before;
  {
    const std::lock_guard lock(mutex_);
    before = partial_;
  }
  // It was told so already, and was not ready, or never heard it.
  const bool again = before && welcome.position == before->from;
  Position base;
  if (source != PeerQueue::Source::map && again) {
    source = queue_.resume(before->base);
    base = before->base;
  }
  if (source == PeerQueue::Source::map) {
    const auto from_map = queue_.resume_from_map();
    if (!from_map) return false;
    base = *from_map;
  } else if (source != PeerQueue::Source::queue) {
    return false;
  }
  map_->begin_partial();
  queue_.fold_taken_until(Sequence(~std::uint64_t{0}));
  start = {true, base, true};
  Partial partial{{}, welcome.position, base};
  for (const auto& s : welcome.sets)
    if (s.complete || (before && before->sets.contains(s.set))) partial.sets.insert(s.set);
  log_info("peer {}: it is too far behind for its queue: it gets what changed since epoch {} sequence {}", name_,
           welcome.position.epoch.value, welcome.position.sequence.value);
  const std::lock_guard lock(mutex_);
  partial_ = std::move(partial);
  return true;
}

// Sets of the partial resynchronization that the map names as a whole.
Result<std::set<SetNumber>> Sender::sets_to_compare() const {
  std::set<SetNumber> sets, all;
  {
    const std::lock_guard lock(mutex_);
    if (partial_) sets = partial_->sets;
  }
  for (const SetNumber set : sets) {
    HF_ASSIGN(const bool whole, map_->is_whole(set));
    if (whole) all.insert(set);
  }
  return all;
}

// The peer is whole again, and nothing that was noted concerns it any more.
void Sender::partial_ends() {
  {
    const std::lock_guard lock(mutex_);
    if (!partial_) return;
    partial_.reset();
  }
  queue_.fold_taken_until(Sequence(0));
  queue_.settled();
}

std::shared_ptr<Resync> Sender::make_resync(const Need& need) {
  std::unique_ptr<ResyncPlan> plan;
  if (need.partial)
    plan = std::make_unique<ChangedWalk>(*map_, need.set, name_);
  else
    plan = std::make_unique<FullWalk>(need.set, need.empty);
  return std::make_shared<Resync>(shared_.log, shared_.live, peer_, need.set, std::move(plan));
}

// What was named to the peer, and not confirmed: whatever it asked then was lost with the connection.
void Sender::note_unsettled(const Resync& resync) {
  if (!resync.is_partial()) return;
  for (const auto& [id, folder] : resync.unsettled()) {
    map_->note_object(resync.set(), id);
    map_->note_place(resync.set(), folder);
  }
}

// Meanwhile what is noted of a peer that is away moves from memory to the disk.
void Sender::wait_for_resync(std::unique_lock<std::mutex>& lock) {
  const auto wanted = [&] { return stopped_ || (connected_ && !resync_barred_ && !needs_.empty()); };
  if (!map_) return resync_work_.wait(lock, wanted);
  while (!resync_work_.wait_for(lock, map_look_every, wanted)) {
    if (!map_->wants_flush()) continue;
    lock.unlock();
    if (Status flushed = map_->flush(); !flushed)
      log_warning("peer {}: what changed can't be put on disk: {}", name_, flushed.error().to_string());
    lock.lock();
  }
}

void Sender::resync_loop() {
  for (;;) {
    std::shared_ptr<Resync> resync;
    std::uint64_t session = 0;
    {
      std::unique_lock lock(mutex_);
      wait_for_resync(lock);
      if (stopped_) return;
      session = session_;
      resync_ = resync = make_resync(needs_.front());
    }
    update_state();
    log_info("peer {}: set {} is being {}", name_, resync->set(),
             resync->is_partial() ? "brought up to date with what changed" : "copied");
    Status done = resync->run();
    note_unsettled(*resync);
    {
      const std::lock_guard lock(mutex_);
      resync_.reset();
      resync_work_.notify_all();
      const bool counts = done && connected_ && session == session_;
      if (counts && !needs_.empty()) needs_.pop_front();
      if (counts && needs_.empty()) {
        complete_ = true;
        counts_from_ = resync->end();
        caught_up_at_ = shared_.log.last_sequence();
      }
    }
    if (!done && done.error().code == ErrorCode::no_space) {  // of the change map: whole comparisons need none
      log_warning("peer {}: what changed can't be put on disk: {}", name_, done.error().to_string());
      end_session();
    } else if (!done && done.error().code != ErrorCode::unavailable) {
      log_error("peer {}: the copy of set {} failed: {}", name_, resync->set(), done.error().message);
      shared_.fault(done.error());
      return;
    }
    if (done) verifier_.copied(resync->set());
    update_state();
  }
}

void Sender::cancel_resync() {
  verifier_.bar();
  std::unique_lock lock(mutex_);
  resync_barred_ = true;
  if (resync_) resync_->cancel();
  resync_work_.wait(lock, [&] { return !resync_; });
}

}  // namespace holdfast::mirror
