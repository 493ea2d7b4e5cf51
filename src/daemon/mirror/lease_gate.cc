// SPDX-License-Identifier: Apache-2.0
#include "daemon/mirror/lease_gate.h"

namespace holdfast::mirror_process {

bool EpochLeaseGate::wait_valid() {
  if (lease_.valid(epoch_) && !ended_.load(std::memory_order_relaxed)) [[likely]] {
    if (blocked_.load(std::memory_order_relaxed)) blocked_ = false;
    return true;
  }
  if (!blocked_.exchange(true) && on_blocked_) on_blocked_();
  // Woken by extend, revoke and end(); the limit only bounds a wake-up that came between the look at ended_ and the sleep.
  constexpr std::int64_t look_again_ms = 100;
  while (!ended_) {
    switch (lease_.wait_valid(epoch_, look_again_ms)) {
      case platform::LeaseWait::valid:
        return !ended_;
      case platform::LeaseWait::epoch_over:
        return false;
      case platform::LeaseWait::timed_out:
        break;
    }
  }
  return false;
}

void EpochLeaseGate::end() {
  ended_ = true;
  lease_.wake();
}

}  // namespace holdfast::mirror_process
