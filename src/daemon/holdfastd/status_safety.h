// SPDX-License-Identifier: Apache-2.0
// The safety options in the status: what each of them does now, what it keeps from happening, and what would lift that. Pure.
#pragma once

#include <functional>
#include <vector>

#include <nlohmann/json.hpp>

#include "control/model.h"
#include "daemon/holdfastd/daemon.h"

namespace holdfast::daemon {

void add_safety_options(const Snapshot& snapshot, const cluster::Value& value,
                        std::vector<control::OptionStatus>& options);

// Could anybody take over by itself? Those who are held, or lag, can't. `entry`: what the active's mirror says of a peer, or null.
void judge_targets(const Snapshot& snapshot, const cluster::Value& value,
                   const std::function<const nlohmann::json&(NodeId)>& entry, control::AutomaticFailover& failover);

// What somebody has to decide.
void add_safety_alerts(const Snapshot& snapshot, const cluster::Value& value, bool active_speaks,
                       std::vector<control::Alert>& alerts);

}  // namespace holdfast::daemon
