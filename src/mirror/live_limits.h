// SPDX-License-Identifier: Apache-2.0
// What the other nodes' file systems can't hold of a set, and this node's could: read by capture at each change, replaced when a node says
// something new. Each limit stands for itself, so they need no common lock. Any thread.
#pragma once

#include <array>
#include <atomic>

#include "ports/tree_limits.h"

namespace holdfast::mirror {

class LiveLimits {
 public:
  LiveLimits() { set(ports::TreeLimits()); }
  void set(const ports::TreeLimits& limits) {
    for (std::size_t i = 0; i < ports::limit_count; ++i)
      most_[i].store(limits.most(ports::TreeLimits::at(i)), std::memory_order_relaxed);
  }
  std::uint64_t most(ports::Limit what) const {
    return most_[static_cast<std::size_t>(what) - 1].load(std::memory_order_relaxed);
  }

 private:
  std::array<std::atomic<std::uint64_t>, ports::limit_count> most_;
};

}  // namespace holdfast::mirror
