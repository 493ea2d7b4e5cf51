// SPDX-License-Identifier: Apache-2.0
#include "control/model.h"

#include <cstdio>
#include <ctime>

#include "control/json_fields.h"

namespace holdfast::control {

std::string iso_time(std::int64_t wall_ms) {
  if (wall_ms == 0) return {};
  std::int64_t seconds = wall_ms / 1000;
  std::int64_t ms = wall_ms % 1000;
  if (ms < 0) ms += 1000, seconds -= 1;
  const std::time_t time = seconds;
  std::tm parts{};
  if (gmtime_r(&time, &parts) == nullptr) return {};
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec, ms);
}

Result<std::int64_t> from_iso_time(std::string_view text) {
  const std::string copy(text);
  std::tm parts{};
  int ms = 0, used = 0;
  char zone = 0;
  const int with_ms = std::sscanf(copy.c_str(), "%4d-%2d-%2dT%2d:%2d:%2d.%3d%c%n", &parts.tm_year, &parts.tm_mon,
                                  &parts.tm_mday, &parts.tm_hour, &parts.tm_min, &parts.tm_sec, &ms, &zone, &used);
  if (with_ms != 8) {
    ms = 0;
    if (std::sscanf(copy.c_str(), "%4d-%2d-%2dT%2d:%2d:%2d%c%n", &parts.tm_year, &parts.tm_mon, &parts.tm_mday,
                    &parts.tm_hour, &parts.tm_min, &parts.tm_sec, &zone, &used) != 7)
      return fail(ErrorCode::invalid, "must be a time such as 2026-01-31T12:00:00Z");
  }
  if (zone != 'Z' || static_cast<std::size_t>(used) != copy.size())
    return fail(ErrorCode::invalid, "must be a time in UTC, ending in Z");
  parts.tm_year -= 1900;
  parts.tm_mon -= 1;
  return static_cast<std::int64_t>(timegm(&parts)) * 1000 + ms;
}

template <class V>
void fields(V& v, ChannelPath& t) {
  v("path", t.path), v("state", t.state), v("rtt_ms", t.rtt_ms);
}
template <class V>
void fields(V& v, Queues& t) {
  v("send_bytes", t.send_bytes), v("send_age_s", t.send_age_s);
  v("receive_bytes", t.receive_bytes), v("receive_age_s", t.receive_age_s);
  v("send_mode", t.send_mode), v("send_disk_bytes", t.send_disk_bytes), v("changed_objects", t.changed_objects);
}
template <class V>
void fields(V& v, UndoStatus& t) {
  v("state", t.state), v("bytes", t.bytes), v("limit_bytes", t.limit_bytes), v("oldest", WallTime{t.oldest_ms});
  v("newest", WallTime{t.newest_ms}), v("shadows", t.shadows);
}
template <class V>
void fields(V& v, SyncProgress& t) {
  v("kind", t.kind), v("percent", t.percent), v("done_objects", t.done_objects), v("total_objects", t.total_objects);
  v("bytes", t.bytes), v("remaining_s", t.remaining_s);
}
template <class V>
void fields(V& v, LastSync& t) {
  v("kind", t.kind), v("objects", t.objects), v("opened", t.opened), v("bytes", t.bytes);
  v("sent_bytes", t.sent_bytes);
}
template <class V>
void fields(V& v, HotStatus& t) {
  v("noted", t.noted), v("whole_sets", t.whole_sets);
}
template <class V>
void fields(V& v, NodeStatus& t) {
  v("name", t.name), v("node_id", t.node_id), v("identity", t.identity), v("role", t.role), v("site", t.site);
  v("since", WallTime{t.since_ms}), v("synchronized", t.synchronized), v("recovery_point_s", t.recovery_point_s);
  v("consistent_point_age_s", t.consistent_point_age_s);
  v("state", t.state), v("detail", t.detail), v("version", t.version), v("self", t.self), v("held", t.held);
  v("sync_progress", t.sync_progress), v("channel", t.channel), v("queues", t.queues);
  v("undo", t.undo), v("last_sync", t.last_sync), v("hot", t.hot);
}
template <class V>
void fields(V& v, LeaseStatus& t) {
  v("holder", t.holder), v("remaining_ms", t.remaining_ms), v("epoch", t.epoch);
}
template <class V>
void fields(V& v, VoteStatus& t) {
  v("voter", t.voter), v("kind", t.kind), v("reachable", t.reachable), v("granted", t.granted);
}
template <class V>
void fields(V& v, WitnessStatus& t) {
  v("name", t.name), v("address", t.address), v("state", t.state), v("detail", t.detail);
}
template <class V>
void fields(V& v, PublicAddress& t) {
  v("address", t.address), v("site", t.site), v("policy", t.policy), v("on", t.on);
}
template <class V>
void fields(V& v, ClientNetwork& t) {
  v("state", t.state), v("on", t.on), v("detail", t.detail);
}
template <class V>
void fields(V& v, ResourceStatus& t) {
  v("name", t.name), v("kind", t.kind), v("state", t.state), v("detail", t.detail);
}
template <class V>
void fields(V& v, ApplicationStatus& t) {
  v("name", t.name), v("plugin", t.plugin), v("state", t.state), v("health", t.health), v("on", t.on);
  v("detail", t.detail), v("resources", t.resources);
}
template <class V>
void fields(V& v, ProtectedSet& t) {
  v("set", t.set), v("path", t.path), v("plugin", t.plugin), v("application", t.application);
  v("write_policy", t.write_policy);
}
template <class V>
void fields(V& v, OptionStatus& t) {
  v("name", t.name), v("state", t.state), v("change_with", t.change_with);
}
template <class V>
void fields(V& v, AutomaticFailover& t) {
  v("available", t.available), v("reason", t.reason), v("change_with", t.change_with);
}
template <class V>
void fields(V& v, PlanStepStatus& t) {
  v("name", t.name), v("owner", t.owner), v("state", t.state), v("seconds", t.seconds), v("timeout_s", t.timeout_s);
  v("attempts", t.attempts), v("background", t.background), v("detail", t.detail);
}
template <class V>
void fields(V& v, PlanStatus& t) {
  v("id", t.id), v("kind", t.kind), v("state", t.state), v("from", t.from), v("to", t.to), v("actor", t.actor);
  v("reason", t.reason), v("started", WallTime{t.started_ms}), v("seconds", t.seconds);
  v("epoch_recorded", t.epoch_recorded), v("error", t.error), v("undo_with", t.undo_with), v("steps", t.steps);
}
template <class V>
void fields(V& v, Alert& t) {
  v("severity", t.severity), v("code", t.code), v("text", t.text), v("hint", t.hint), v("since", WallTime{t.since_ms});
}

namespace {
// "cluster" groups what is about the whole; the struct is flat because nobody passes that group around.
struct ClusterHead {
  ClusterStatus& s;
};
template <class V>
void fields(V& v, ClusterHead& t) {
  v("name", t.s.name), v("id", t.s.id), v("mode", t.s.mode), v("state", t.s.state), v("detail", t.s.detail);
}
}  // namespace

template <class V>
void fields(V& v, ClusterStatus& t) {
  ClusterHead head{t};
  v("time", WallTime{t.time_ms}), v("cluster", head), v("nodes", t.nodes), v("lease", t.lease), v("votes", t.votes);
  v("witness", t.witness), v("public_addresses", t.public_addresses), v("client_network", t.client_network);
  v("applications", t.applications), v("protected", t.protected_sets), v("options", t.options);
  v("automatic_failover", t.automatic_failover), v("plan", t.plan), v("alerts", t.alerts);
}

nlohmann::json to_json(const ClusterStatus& status) { return write_fields(status); }
nlohmann::json to_json(const NodeStatus& node) { return write_fields(node); }
nlohmann::json to_json(const PlanStatus& plan) { return write_fields(plan); }

Result<ClusterStatus> cluster_status_from_json(const nlohmann::json& json) {
  return read_fields<ClusterStatus>(json, "status", Unknown::ignored);
}
Result<PlanStatus> plan_status_from_json(const nlohmann::json& json) {
  return read_fields<PlanStatus>(json, "plan", Unknown::ignored);
}

}  // namespace holdfast::control
