// SPDX-License-Identifier: Apache-2.0
// What the nodes' mirrors say of their undo histories, put together for people and for a rollback. Pure.
// Members that an older mirror does not send are absent, never an error.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "base/types.h"
#include "control/history.h"
#include "control/when.h"

namespace holdfast::daemon {

// A mirror's answer to `timeline` and its `undo` of `status`; either may be null. At most `points` of the newest points.
control::NodeTimeline node_timeline(const std::string& node, const std::string& role, const nlohmann::json& timeline,
                                    const nlohmann::json& undo, std::uint64_t points);
// All nodes' spans on one line of time: where each stretch of it can be gone back to, newest first.
std::vector<control::ReachSpan> cluster_reach(const std::vector<control::NodeTimeline>& nodes);
// One sentence, for who asked for a point that nobody has: how far this node goes back, or why not at all.
std::string reach_of(const std::string& node, const std::string& role, const Result<nlohmann::json>& timeline,
                     std::int64_t now_ms);
// The shadows of that answer, added to those of other nodes: one row a name.
void add_shadows(const std::string& node, const nlohmann::json& timeline, std::vector<control::ShadowStatus>& all);
void sort_shadows(std::vector<control::ShadowStatus>& all);  // newest first

// The shadow that is meant: the name itself, or of automatic ones the newest that begins with it ("before-rollback").
std::string shadow_meant(const nlohmann::json& timeline, const std::string& name);

// A point on one node, as its mirror resolved it.
struct PastPoint {
  std::uint64_t batch = 0;
  Position position;
  std::int64_t time_ns = 0;
  std::string label;
  bool now = false;  // nothing was changed since then
  std::uint64_t data_bytes = 0;
};
// What to ask of `resolve`. `batch` not 0: exactly that one.
nlohmann::json resolve_request(const control::When& when, std::uint64_t batch, const nlohmann::json& timeline,
                               std::int64_t now_ns);
Result<PastPoint> past_point(const nlohmann::json& reply);

// For a rollback: what each passive answered, and which one is taken: the one that can come nearest to the point, then by identity.
struct PastCandidate {
  NodeId node;
  std::string name;
  int identity = 0;
  Result<PastPoint> point;
};
// `reaches`: of all nodes, for the refusal.
Result<PastCandidate> best_candidate(std::vector<PastCandidate> candidates, const std::string& to,
                                     const std::vector<std::string>& reaches = {});

// A daemon or a mirror of an older version answered: it has no such request.
bool does_not_know(const Error& error, const std::string& op);

control::VerifyStatus verify_status_of(const std::string& node, const nlohmann::json& mirror_status,
                                       const std::vector<std::pair<std::string, std::string>>& names_by_id);

}  // namespace holdfast::daemon
