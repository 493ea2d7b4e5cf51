// SPDX-License-Identifier: Apache-2.0
// The lease word as capture's gate: past the deadline a request waits here until the same epoch's lease holds again or the epoch is over.
#pragma once

#include <atomic>
#include <functional>

#include "mirror/capture_log.h"
#include "platform/lease_word.h"

namespace holdfast::mirror_process {

class EpochLeaseGate final : public mirror::LeaseGate {
 public:
  // `lease` outlives the gate. `on_blocked` is called once per stretch of blocking, from a request's thread: it must only hand over.
  EpochLeaseGate(const platform::LeaseWord& lease, Epoch epoch, std::function<void()> on_blocked)
      : lease_(lease), epoch_(epoch), on_blocked_(std::move(on_blocked)) {}

  bool wait_valid() override;
  Epoch epoch() const { return epoch_; }
  // The epoch was aborted: nobody waits any longer, nothing succeeds.
  void end();

 private:
  const platform::LeaseWord& lease_;
  const Epoch epoch_;
  const std::function<void()> on_blocked_;
  std::atomic<bool> ended_{false};
  std::atomic<bool> blocked_{false};
};

}  // namespace holdfast::mirror_process
