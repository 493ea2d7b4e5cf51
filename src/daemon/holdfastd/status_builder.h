// SPDX-License-Identifier: Apache-2.0
// The cluster's status from what this node knows: its own state, its mirror, and the newest summaries of the others.
// Pure: everything comes in as values. Old news is not shown as present (I4): without fresh word of the active a passive is
// not "synchronized" and its recovery point is unknown.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "control/model.h"
#include "daemon/holdfastd/daemon.h"

namespace holdfast::daemon {

struct StatusSources {
  Snapshot snapshot;
  std::vector<control::ApplicationStatus> applications;  // of this node
  std::vector<control::Alert> application_alerts;
  bool network_open = false;
  std::optional<control::PlanStatus> plan;
  std::map<NodeId, std::vector<network::PathState>> paths;
  std::map<NodeId, bool> connected;
  std::int64_t now_ms = 0;  // the scale of PeerSummary::received_ms
  std::int64_t wall_ms = 0;
};

control::ClusterStatus build_status(const StatusSources& sources);

}  // namespace holdfast::daemon
