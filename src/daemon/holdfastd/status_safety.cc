// SPDX-License-Identifier: Apache-2.0
#include "daemon/holdfastd/status_safety.h"

#include <cmath>

#include "daemon/holdfastd/json_read.h"

namespace holdfast::daemon {
namespace {

std::string name_of(const cluster::Value& value, NodeId id) {
  const cluster::Member* m = value.member(id);
  return m != nullptr ? m->name : to_hex(id);
}

// Somebody has to be left who may take over by itself.
void judge_held(const Snapshot& s, const cluster::Value& value, control::AutomaticFailover& failover) {
  std::string why, first;
  for (const NodeId id : value.in_sync) {
    if (id == value.active) continue;
    const std::string& reason = s.config.held(id);
    if (reason.empty()) return;
    if (first.empty()) first = name_of(value, id);
    why += fmt::format("{}{} is held: {}", why.empty() ? "" : "; ", name_of(value, id), reason);
  }
  if (!why.empty()) failover = {false, why, "holdfast release " + first};
}

}  // namespace

// What has no switch is the cluster core's way: by itself it elects nobody outside of the in-sync set, and nobody without a majority.
void add_safety_options(const Snapshot& s, const cluster::Value& value, std::vector<control::OptionStatus>& options) {
  const ClusterConfig& c = s.config;
  const std::string limit =
      c.recovery_point_limit_s == 0 ? "no limit" : fmt::format("to {} s", c.recovery_point_limit_s);
  options.push_back({"data loss avoidance", c.mode == "fsync" ? "always on" : "on, " + limit,
                     c.mode == "fsync" ? "" : "holdfast config set recovery_point_limit_s N"});
  const bool alone = value.data_nodes() == 2 && !value.has_witness();
  options.push_back(
      {"split-brain avoidance", alone ? "on, it asks" : "always on", alone ? "holdfast token --witness" : ""});
  options.push_back({"active server isolation", "always on", ""});
  const bool possible = !c.public_addresses.empty();
  const char* state = !c.false_failover_avoidance   ? "off"
                      : !possible                   ? "no address"
                      : s.active_answers_at.empty() ? "on"
                                                    : "holds back";
  options.push_back({"false failover avoidance", state,
                     possible ? fmt::format("holdfast config set false_failover_avoidance {}",
                                            c.false_failover_avoidance ? "off" : "on")
                              : "holdfast config set public_addresses A/N"});
  options.push_back({"hold after failures",
                     c.failures_limit == 0 ? "off" : fmt::format("{} in {} m", c.failures_limit, c.failures_minutes),
                     "holdfast config set failures_limit N"});
}

void judge_targets(const Snapshot& s, const cluster::Value& value,
                   const std::function<const nlohmann::json&(NodeId)>& entry, control::AutomaticFailover& failover) {
  if (failover.available) return judge_held(s, value, failover);
  const ClusterConfig& c = s.config;
  if (c.mode != "async" || c.recovery_point_limit_s == 0) return;
  // "No passive is synchronized" is true, and no help.
  for (const cluster::Member& m : value.members) {
    const nlohmann::json& told = entry(m.id);
    const double point_s = real_of(told, "recovery_point_s");
    if (text_of(told, "state") != "synchronized" || value.is_in_sync(m.id) || 2 * point_s <= c.recovery_point_limit_s)
      continue;
    failover.reason = fmt::format("{} is {:.0f} s behind: the limit is {} s, and at half of it it is a target again",
                                  m.name, std::ceil(point_s), c.recovery_point_limit_s);
    failover.change_with = "holdfast config set recovery_point_limit_s N";
  }
}

void add_safety_alerts(const Snapshot& s, const cluster::Value& value, bool active_speaks,
                       std::vector<control::Alert>& alerts) {
  const NodeId self = s.node.node_id;
  const std::string active = name_of(value, value.active);
  if (!s.active_answers_at.empty())
    alerts.push_back({"error", "active_answers",
                      fmt::format("nothing is heard of {}, but it answers at {}: {} does not take over by itself",
                                  active, s.active_answers_at, s.node.node_name),
                      "mend the channel network; or end it there, then holdfast failover here", 0});
  const bool asks = !s.config.automatic_failover || !s.config.held(self).empty();
  if (!active_speaks && asks && value.active != self && value.is_in_sync(self) && s.active_answers_at.empty())
    alerts.push_back({"error", "failover_waits",
                      fmt::format("{} is gone; {} has its data and waits for your word", active, s.node.node_name),
                      "holdfast failover", 0});
  for (const cluster::Member& m : value.members)
    if (const std::string& why = s.config.held(m.id); !why.empty())
      alerts.push_back({"warning", "held", fmt::format("{} does not take over by itself: {}", m.name, why),
                        fmt::format("look at it (holdfast events), then holdfast release {}", m.name), 0});
}

}  // namespace holdfast::daemon
