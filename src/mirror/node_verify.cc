// SPDX-License-Identifier: Apache-2.0
// Comparing the peers with this node, as it is asked for from outside.
#include "mirror/node_log.h"

namespace holdfast::mirror {

Status NodeLog::verify(const VerifyRequest& request) {
  if (active_epoch() == Epoch(0)) return fail(ErrorCode::refused, "this node is not active: ask the active one");
  Status last = fail(ErrorCode::refused, "no connected peer holds a whole copy: there is nothing to compare with yet");
  bool begun = false;
  for (const auto& sender : senders()) {
    const PeerStatus peer = sender->status();
    if (!peer.complete || peer.state == PeerState::lost || peer.state == PeerState::connecting) continue;
    Status started = sender->verifier().begin(request);
    if (!started && started.error().code == ErrorCode::busy) return started;
    begun = begun || started.has_value();
    if (!started) last = std::move(started);
  }
  return begun ? Status{} : last;
}

void NodeLog::verify_stop() {
  for (const auto& sender : senders()) sender->verifier().cancel();
}

void NodeLog::set_scrub(ScrubSettings settings) {
  {
    const std::lock_guard lock(mutex_);
    scrub_ = settings;
  }
  for (const auto& sender : senders()) sender->verifier().set_scrub(settings);
}

ScrubSettings NodeLog::scrub() const {
  const std::lock_guard lock(mutex_);
  return scrub_;
}

std::vector<VerifyStatus> NodeLog::verify_status() const {
  std::vector<VerifyStatus> all;
  for (const auto& sender : senders()) all.push_back(sender->verifier().status());
  return all;
}

}  // namespace holdfast::mirror
