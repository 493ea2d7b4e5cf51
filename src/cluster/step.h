// SPDX-License-Identifier: Apache-2.0
// What goes into a core and what comes out. The driver carries out actions in order, and feeds back what completes.
#pragma once

#include <variant>

#include "cluster/messages.h"

namespace holdfast::cluster {

namespace in {
// First input, exactly once.
struct Started {
  std::optional<VoterState>
      state;          // nullopt: nothing on disk; never after an error reading it (that is a reason to stop)
  Incarnation fresh;  // random; used only without state
  bool lease_word_valid = false;  // the lease word was held until now and neither fence has fired: same epoch may go on
  bool machine_rebooted = false;  // the machine started since this cluster was last driven here (R8)
};
struct Received {
  Envelope envelope;
};
struct Persisted {
  std::uint64_t id = 0;
};  // Persist{id} and all before it are on disk
struct MirrorSealed {
  Epoch epoch;
  Position position;
  bool complete = false;
  // Of a seal that was asked to look: not complete, but the way back to the last consistent point was checked and is open (I6).
  bool fallback = false;
  std::string no_fallback;  // why it is not
};                          // position was read after the seal was durable
struct SealFailed {
  Epoch epoch;
  std::string reason;
};
// At the start and whenever it changes (complete, sealed) or every second or so (position: a hint). `sealed`: the epoch
// its durable seal stands at; above what the voter has promised (it crashed in between) it counts as a promise to nobody.
struct MirrorState {
  Position position;
  bool complete = false;
  Epoch sealed;
  bool fallback = false;  // not complete, but it knows a consistent point: for an administrator's force only
  // It would refuse to become the active, for now: why, and what helps. No candidacy begins, and others do not stand back for this node.
  std::string cant_lead;
};
struct Observed {
  bool active_seen = false;
};               // false-failover avoidance: the active still answers on some path (level; default false)
struct Tick {};  // at the latest after wake_after(); more often is fine

// Creates the cluster on its first node: a value with one member (this node); active and voter are filled in.
struct Found {
  Value value;
  std::uint64_t ticket = 0;
};

// On the active. A ticket (not 0) is answered by exactly one Answer.
// The mirror's wait set is always: the set of the last InSyncRecorded, plus those it was told to wait for since, until
// PeerLost or an InSyncRecorded without them. A joiner that was reported by WaitingFor stays in it until then.
// WaitingFor: new fsyncs wait for `node`, and it has acked everything that was acknowledged before they began to wait.
struct WaitingFor {
  NodeId node;
  std::uint64_t in_sync_version = 0;
};  // fsyncs wait for it; version: of the last InSyncRecorded handled before the mirror was told
struct PeerLost {
  NodeId node;
};  // lost or slow: take it out of the in-sync set
struct Activated {
  Epoch epoch;
};  // with CoreOptions::wait_for_activation: the mirror captures; if it can't: Resign{the active before}
struct ProposeConfig {
  std::string config;
  Settings settings;
  std::uint64_t expected_version = 0;
  std::uint64_t ticket = 0;
};
struct AddMember {
  Member member;
  std::uint64_t ticket = 0;
};  // also renames (same id); `voter` is ignored
struct RemoveMember {
  NodeId node;
  std::uint64_t ticket = 0;
};  // not the active; removed from the in-sync set as well
struct Handover {
  NodeId successor;
  std::uint64_t ticket = 0;
  std::uint64_t order = 0;  // see Resign
};                          // drained, unmounted: answered ok once the successor was asked, then watch the epoch
// Nothing can be written here any more (clean stop, mirror's death, a fence fired): give the lease back at once.
struct Resign {
  NodeId successor;
};

// On a passive. force: the administrator accepts loss (not in-sync) and vouches that the active is gone (no majority).
// at_s: with force the present time (Unix seconds): of two promotions that knew nothing of each other the later one counts.
struct Failover {
  bool force = false;
  std::uint64_t at_s = 0;
  std::uint64_t ticket = 0;
  std::uint64_t order = 0;  // comes back with BecomeActive if it is this wish that is won
};
}  // namespace in

using Input = std::variant<in::Started, in::Received, in::Persisted, in::MirrorSealed, in::SealFailed, in::MirrorState,
                           in::Observed, in::Tick, in::Found, in::WaitingFor, in::PeerLost, in::Activated,
                           in::ProposeConfig, in::AddMember, in::RemoveMember, in::Handover, in::Resign, in::Failover>;

namespace out {
struct Persist {
  std::uint64_t id = 0;
  VoterState state;
};  // answer with Persisted{id}; what depends on it comes out only then
struct Send {
  Envelope envelope;
};  // best effort, to another member
struct SealMirror {
  Epoch epoch;
  bool look_back =
      false;  // for a forced candidacy here: when the copy is not complete, say if the consistent point can be reached
};            // answer MirrorSealed or SealFailed
struct ExtendLease {
  Epoch epoch;
  std::int64_t valid_until_holder_ns = 0;
};
struct ClearLease {
  Epoch epoch;
};  // before any later action: the lease word is void
struct BecomeActive {
  Epoch epoch;
  ValuePtr value;
  bool older = false;  // forced, with a copy that is not complete: its last consistent point is what was voted for
  // What this epoch was won for: named by the last holder's Resign to us, or by the wish that was won. 0: nothing special.
  std::uint64_t order = 0;
  ValuePtr
      over;  // the newest value of the votes, on top of which it was won; null: founded anew, or the same epoch goes on
};           // recorded; the first ExtendLease comes when {self} is recorded, after Activated if that is waited for
struct StepDown {
  Epoch epoch;
  std::string reason;
};  // fence now: abort capture of that epoch; follows a ClearLease
struct Follow {
  Epoch epoch;
  NodeId active;
};  // somebody else is the active of a newer epoch
struct InSyncRecorded {
  Epoch epoch;
  std::uint64_t version = 0;
  std::vector<NodeId> set;
};  // only now may the mirror stop waiting for who is not in it
struct ValueRecorded {
  ValuePtr value;
};  // newest value known to be held by a majority (config, members)
struct Answer {
  std::uint64_t ticket = 0;
  bool ok = false;
  std::string reason;
};
struct Note {
  std::string text;
};  // one line for the event log
}  // namespace out

using Action =
    std::variant<out::Persist, out::Send, out::SealMirror, out::ExtendLease, out::ClearLease, out::BecomeActive,
                 out::StepDown, out::Follow, out::InSyncRecorded, out::ValueRecorded, out::Answer, out::Note>;
using Actions = std::vector<Action>;

}  // namespace holdfast::cluster
