// SPDX-License-Identifier: Apache-2.0
// An epoch goes on in another process of the same node (a planned restart). What the first one knew of its peers and kept for them is not handed
// over; it waits until they hold all there is, so that there is nothing to know.
#include <algorithm>
#include <chrono>

#include "base/log.h"
#include "mirror/node_log.h"

namespace holdfast::mirror {

Result<NodeLog::Handed> NodeLog::hand_on(int timeout_ms) {
  const std::lock_guard one(transition_mutex_);
  Handed handed;
  {
    const std::lock_guard lock(mutex_);
    if (!fault_.empty()) return fail(ErrorCode::unavailable, "this node has stopped: {}", fault_);
    if (role_ != Role::active || ended_) return fail(ErrorCode::invalid, "this node leads no epoch");
    if (hold_peers_) return fail(ErrorCode::busy, "the epoch has only just begun");
    handed.epoch = epoch_;
  }
  for (const auto& s : senders()) s->cancel_resync();
  handed.waits = active_.wait_set();
  // Who has no whole copy yet gets one in any case.
  std::set<NodeId> must = handed.waits;
  for (const auto& s : senders())
    if (!s->is_away() && s->status().complete) must.insert(s->peer());
  const auto all_hold = [&](Sequence end) {
    return std::all_of(must.begin(), must.end(), [&](NodeId peer) { return active_.acked(peer) >= end; });
  };
  handed.end = active_.ring().last_position();
  active_.hurry_now();
  {
    ++progress_waits_;
    std::unique_lock lock(mutex_);
    const bool hold = progress_cv_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] {
      return stopped_ || role_ != Role::active || all_hold(handed.end.sequence);
    });
    --progress_waits_;
    if (stopped_ || role_ != Role::active) return fail(ErrorCode::stale, "the epoch has ended");
    if (!hold) return fail(ErrorCode::busy, "a peer does not hold sequence {} yet", handed.end.sequence.value);
  }
  HF_TRY(ports_.ids.make_ids_durable());
  if (active_.ring().last_position() != handed.end) return fail(ErrorCode::busy, "something was appended meanwhile");
  active_.ring().close();
  log_info("epoch {} goes on in the next process after sequence {}", handed.epoch.value, handed.end.sequence.value);
  return handed;
}

Status NodeLog::resume(const Handed& handed) {
  const std::lock_guard one(transition_mutex_);
  const NodeState state = snapshot();
  {
    const std::lock_guard lock(mutex_);
    if (!fault_.empty()) return fail(ErrorCode::unavailable, "this node has stopped: {}", fault_);
    if (role_ != Role::idle) return fail(ErrorCode::busy, "this node is {}", to_string(role_));
    if (state.active_epoch != handed.epoch || state.clean || handed.end.epoch != handed.epoch)
      return fail(ErrorCode::stale, "this node led epoch {}, not {}", state.active_epoch.value, handed.epoch.value);
    if (receiver_.sealed() > handed.epoch)
      return fail(ErrorCode::stale, "epoch {} was promised already", receiver_.sealed().value);
    if (!complete_locked()) return fail(ErrorCode::refused, "not every folder that this node led with is here");
  }
  // Notes of before are about what everybody who is connected holds, and the trees have been synced since.
  HF_TRY(begin_hot(handed.epoch, handed.end));
  active_.begin_epoch();
  active_.set_wait_set(handed.waits);  // before anything is answered
  for (const auto& s : senders()) {
    s->cancel_resync();
    s->queue().end();
    s->epoch_began();
  }
  active_.ring().open(handed.epoch, handed.end);
  for (const auto& s : senders()) s->begin_queue(handed.end);
  applier_.changed_until(0);
  {
    const std::lock_guard lock(mutex_);
    role_ = Role::active;
    ended_ = hold_peers_ = false;
    led_from_.reset();  // its peers can't be told from there on any more
    epoch_ = handed.epoch;
    follows_ = NodeId(0);
  }
  log_info("active: epoch {} goes on after sequence {}", handed.epoch.value, handed.end.sequence.value);
  wake_applier();
  changed();
  return {};
}

}  // namespace holdfast::mirror
