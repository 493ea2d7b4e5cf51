// SPDX-License-Identifier: Apache-2.0
#include "capture/space_gate.h"

namespace holdfast::capture {

bool SpaceGate::try_take(std::span<const std::size_t> pieces) {
  return waiting_.load(std::memory_order_relaxed) == 0 && log_.try_reserve_all(pieces);  // nobody is overtaken
}

bool SpaceGate::wait_take(std::span<const std::size_t> pieces) {
  waiting_.fetch_add(1);
  std::unique_lock lock(state_->mutex);
  const std::uint64_t ticket = state_->next_ticket++;
  state_->changed.wait(lock, [&] { return state_->serving == ticket || state_->stopped; });
  bool taken = false;
  while (!state_->stopped) {
    // Ask to be called before trying: space freed in between is then not missed.
    const std::uint64_t seen = state_->space_freed;
    lock.unlock();
    log_.when_space([state = state_] {
      const std::lock_guard guard(state->mutex);
      ++state->space_freed;
      state->changed.notify_all();
    });
    taken = log_.try_reserve_all(pieces);
    lock.lock();
    if (taken) break;
    state_->changed.wait(lock, [&] { return state_->space_freed != seen || state_->stopped; });
  }
  if (!state_->stopped || state_->serving == ticket) ++state_->serving;
  state_->changed.notify_all();
  waiting_.fetch_sub(1);
  return taken;
}

void SpaceGate::stop() {
  const std::lock_guard guard(state_->mutex);
  state_->stopped = true;
  state_->changed.notify_all();
}

}  // namespace holdfast::capture
