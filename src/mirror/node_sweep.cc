// SPDX-License-Identifier: Apache-2.0
// NodeLog's part of taking away what nobody needs any more: when, how much at once, and what comes of it when it can't go.
#include "base/log.h"
#include "mirror/node_log.h"

namespace holdfast::mirror {
namespace {

// Beside everything else: never so much at once that a role change or apply would notice, and slowly beside an application, as long as that has room.
constexpr std::size_t sweep_step = 64;
constexpr std::int64_t sweep_turn_ns = 20'000'000;
constexpr std::int64_t try_again_ns = 300'000'000'000;

}  // namespace

// What fails here fails at something that nobody needs: no reason to end an office. A passive's disk that fails is one as any other (I7).
Result<NodeLog::Swept> NodeLog::sweep() {
  const std::int64_t now = ports_.times.steady_ns();
  if (now < sweep_again_ns_) return Swept::all;
  const bool aside_again = now >= aside_again_ns_;
  if (aside_again) aside_again_ns_ = now + try_again_ns;
  for (bool first = true;; first = false) {
    if (const std::unique_lock one(transition_mutex_, std::try_to_lock); !one) {
      if (first && aside_again) aside_again_ns_ = 0;
      return Swept::later;
    }
    const auto swept = applier_.sweep(sweep_step, first && aside_again);
    const bool leads = active_epoch() != Epoch(0);
    if (!swept && !leads) return tl::unexpected(swept.error());
    if (!swept) {
      log_error("what was deleted stays for some minutes: {}", swept.error().to_string());
      sweep_again_ns_ = now + try_again_ns;
      return Swept::all;
    }
    if (!swept->more) return Swept::all;
    if (leads && !swept->presses) return Swept::later;
    if (ports_.times.steady_ns() > now + sweep_turn_ns) return Swept::some;
  }
}

}  // namespace holdfast::mirror
