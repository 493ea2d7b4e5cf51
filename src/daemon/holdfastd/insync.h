// SPDX-License-Identifier: Apache-2.0
// The in-sync set on the active (R2): the mirror begins to wait for a joiner before it is proposed, and stops waiting for a
// lost one only after its removal was recorded. Loop thread only; no I/O: what to do goes out through Port.
//
//   peer synchronized, keeps up -> mirror told to wait for it -> mirror: all that was acknowledged before is there -> WaitingFor -> recorded
//   peer lost or stuck          -> PeerLost -> recorded without it -> mirror told to stop waiting
//
// What the mirror was told only shrinks when the core said InSyncRecorded; it answers every PeerLost with one.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/types.h"

namespace holdfast::daemon {

class InSync {
 public:
  class Port {
   public:
    virtual ~Port() = default;
    // fsyncs wait for exactly these from now on; later calls replace earlier ones, in order. done(true): those peers hold
    // everything that was acknowledged without them. On the loop, once, perhaps seconds later.
    virtual void set_wait_set(const std::vector<NodeId>& peers, std::function<void(bool ok)> done) = 0;
    virtual void waiting_for(NodeId node, std::uint64_t in_sync_version) = 0;
    virtual void peer_lost(NodeId node) = 0;
  };
  struct Peer {
    std::string state;                  // as the mirror says: lost | connecting | resync | streaming | synchronized
    std::uint64_t last = 0, acked = 0;  // the log's last sequence here; what the peer has acknowledged
    std::int64_t recovery_point_ms = 0;
  };

  InSync(NodeId self, Port& port) : self_(self), port_(port) {}

  // Data loss avoidance: who is further behind leaves the set, and is back at half of it. 0: no limit.
  void limit(std::int64_t recovery_point_ms) { limit_ms_ = recovery_point_ms; }

  void begin_office();
  void end_office();
  void recorded(std::uint64_t version, const std::vector<NodeId>& set);
  void observe(NodeId node, const Peer& peer, std::int64_t now_ms);
  void tick(std::int64_t now_ms);  // every 250 ms or so
  void mirror_restarted();         // forgets what it was told

  bool recorded_in(NodeId node) const { return in_set_.contains(node); }
  bool synchronized(NodeId node) const;

  // A peer that is not synchronized, or acknowledges nothing of what waits, for this long leaves the set.
  static constexpr std::int64_t patience_ms = 1200;
  // The core does not take every WaitingFor (it has just begun, the version was old), so it is said again until it is recorded.
  static constexpr std::int64_t repeat_ms = 500;

 private:
  struct Watched {
    Peer peer;
    std::int64_t good_ms = 0;  // last moment of progress, or of nothing to do
    std::int64_t said_lost_ms = 0;
  };
  bool too_old(NodeId node, const Peer& peer) const {
    return limit_ms_ > 0 && peer.recovery_point_ms > (in_set_.contains(node) ? limit_ms_ : limit_ms_ / 2);
  }
  bool good(const Watched& w, std::int64_t now_ms) const {
    return w.peer.state == "synchronized" && now_ms - w.good_ms <= patience_ms;
  }
  void tell_mirror();
  void settled(std::uint64_t turn, bool ok, std::uint64_t version, const std::vector<NodeId>& told);
  void lost(NodeId id, std::int64_t now_ms);

  const NodeId self_;
  Port& port_;
  bool office_ = false;
  std::int64_t limit_ms_ = 0;
  std::uint64_t turn_ = 0;                 // of the newest wait set; answers to older ones don't count
  bool answered_ = true, told_ok_ = true;  // the newest one; the last one that was
  // In this office. Before that what peers seem to be is left over from an earlier epoch, and the mirror is told nothing: it takes the first word
  // for leave to touch their copies.
  bool recorded_ = false;
  std::uint64_t version_ = 0;
  std::int64_t now_ms_ = 0;
  std::set<NodeId> in_set_;  // as recorded, without this node
  struct Said {
    std::uint64_t version = 0;
    std::int64_t at_ms = 0;
  };
  bool due(NodeId node, std::uint64_t version) const;
  std::map<NodeId, Said> said_;  // WaitingFor was said, and no PeerLost since
  std::set<NodeId> told_;        // the mirror waits for these
  std::map<NodeId, Watched> peers_;
};

}  // namespace holdfast::daemon
