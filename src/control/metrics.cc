// SPDX-License-Identifier: Apache-2.0
#include "control/metrics.h"

#include <cmath>
#include <map>
#include <utility>
#include <vector>

#include <fmt/format.h>

namespace holdfast::control {
namespace {

using Labels = std::vector<std::pair<const char*, std::string>>;

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
  return out;
}

// One family: its head is written with its first sample, so that a family without samples is not there at all.
class Family {
 public:
  Family(std::string& out, const char* name, const char* help) : out_(out), name_(name), help_(help) {}
  void add(const Labels& labels, double value) {
    if (!begun_) out_ += fmt::format("# HELP {0} {1}\n# TYPE {0} gauge\n", name_, help_);
    begun_ = true;
    out_ += name_;
    const char* before = "{";
    for (const auto& [label, text] : labels) {
      out_ += fmt::format("{}{}=\"{}\"", before, label, escaped(text));
      before = ",";
    }
    if (!labels.empty()) out_ += "}";
    out_ += std::floor(value) == value && std::abs(value) < 1e15 ? fmt::format(" {:.0f}\n", value)
                                                                 : fmt::format(" {}\n", value);
  }
  void add(const Labels& labels, bool value) { add(labels, value ? 1.0 : 0.0); }
  void add(const Labels& labels, std::uint64_t value) { add(labels, static_cast<double>(value)); }

 private:
  std::string& out_;
  const char* name_;
  const char* help_;
  bool begun_ = false;
};

void cluster(std::string& out, const ClusterStatus& s) {
  Family state(out, "holdfast_state", "1 for the overall state that the cluster is in.");
  for (const char* each : {"healthy", "info", "warning", "error", "busy", "connecting", "stopped"})
    state.add({{"cluster", s.name}, {"state", each}}, s.state == each);
  Family(out, "holdfast_automatic_failover_available", "1 if the active's failure would be answered by itself now.")
      .add({{"cluster", s.name}}, s.automatic_failover.available);
  if (s.lease) {
    Family(out, "holdfast_lease_epoch", "Epoch of the lease; it grows with each change of the active.")
        .add({{"cluster", s.name}}, s.lease->epoch);
    Family(out, "holdfast_lease_remaining_seconds", "How long the lease holds without another round of votes.")
        .add({{"cluster", s.name}}, static_cast<double>(s.lease->remaining_ms) / 1e3);
  }
  Family(out, "holdfast_plan_running", "1 while roles or membership are being changed.")
      .add({{"cluster", s.name}}, s.plan && (s.plan->state == "running" || s.plan->state == "reverting"));
  Family alerts(out, "holdfast_alerts", "Open alerts, by severity and code.");
  std::map<std::pair<std::string, std::string>, std::uint64_t> open;
  for (const Alert& a : s.alerts) ++open[{a.severity, a.code}];
  for (const auto& [what, count] : open) alerts.add({{"severity", what.first}, {"code", what.second}}, count);
  Family votes(out, "holdfast_voter_reachable", "1 if the voter answers.");
  for (const VoteStatus& v : s.votes) votes.add({{"voter", v.voter}, {"kind", v.kind}}, v.reachable);
}

void nodes(std::string& out, const ClusterStatus& s) {
  const auto each = [&](const char* name, const char* help, auto value) {
    Family family(out, name, help);
    for (const NodeStatus& n : s.nodes)
      if (const auto v = value(n)) family.add({{"node", n.name}}, *v);
  };
  using Maybe = std::optional<double>;
  const auto passive = [](const NodeStatus& n, double value) {
    return n.role == "passive" ? Maybe(value) : std::nullopt;
  };
  const auto number = [](std::uint64_t v) { return static_cast<double>(v); };
  each("holdfast_node_active", "1 on the node that serves.", [](auto& n) { return Maybe(n.role == "active"); });
  each("holdfast_node_synchronized", "1 if the node holds a complete copy and follows it.",
       [](auto& n) { return Maybe(n.synchronized); });
  each("holdfast_node_recovery_point_seconds", "Age of the oldest change that the node does not hold durably.",
       [](auto& n) { return n.recovery_point_s; });
  each("holdfast_node_consistent_point_age_seconds", "Of an incomplete copy: age of the point it can be promoted at.",
       [](auto& n) { return n.consistent_point_age_s; });
  each("holdfast_send_queue_bytes", "Log that the node has not confirmed, kept for it on the active.",
       [&](auto& n) { return passive(n, number(n.queues.send_bytes)); });
  each("holdfast_send_queue_disk_bytes", "The part of it on the active's disk.",
       [&](auto& n) { return passive(n, number(n.queues.send_disk_bytes)); });
  each("holdfast_send_queue_age_seconds", "Age of the oldest change in it.",
       [&](auto& n) { return passive(n, n.queues.send_age_s); });
  each("holdfast_changed_objects", "Objects that the node is to be compared with once it is back.",
       [&](auto& n) { return passive(n, number(n.queues.changed_objects)); });
  each("holdfast_receive_queue_bytes", "Log that the node holds and has not applied yet.",
       [&](auto& n) { return passive(n, number(n.queues.receive_bytes)); });
  each("holdfast_receive_queue_age_seconds", "Age of the oldest change in it.",
       [&](auto& n) { return passive(n, n.queues.receive_age_s); });
  each("holdfast_sync_progress_ratio", "How far a copy or resynchronization has come, 0 to 1.",
       [](auto& n) { return n.sync_progress ? Maybe(n.sync_progress->percent / 100) : std::nullopt; });
  each("holdfast_undo_bytes", "Size of the undo history.",
       [&](auto& n) { return n.undo ? Maybe(number(n.undo->bytes)) : std::nullopt; });
  each("holdfast_undo_limit_bytes", "Its bound.",
       [&](auto& n) { return n.undo ? Maybe(number(n.undo->limit_bytes)) : std::nullopt; });
  each("holdfast_undo_reach_seconds", "How far back the undo history goes.", [&](auto& n) {
    return n.undo && n.undo->oldest_ms != 0 ? Maybe(static_cast<double>(s.time_ms - n.undo->oldest_ms) / 1e3)
                                            : std::nullopt;
  });
  Family paths(out, "holdfast_channel_up", "1 if the channel path carries data.");
  for (const NodeStatus& n : s.nodes)
    for (const ChannelPath& p : n.channel) paths.add({{"node", n.name}, {"path", p.path}}, p.state == "up");
  Family trips(out, "holdfast_channel_round_trip_seconds", "Round trip of the channel path.");
  for (const NodeStatus& n : s.nodes)
    for (const ChannelPath& p : n.channel)
      if (p.rtt_ms) trips.add({{"node", n.name}, {"path", p.path}}, *p.rtt_ms / 1e3);
}

void applications(std::string& out, const ClusterStatus& s) {
  Family running(out, "holdfast_application_running", "1 if the application runs.");
  for (const ApplicationStatus& a : s.applications)
    running.add({{"application", a.name}, {"plugin", a.plugin}}, a.state == "running");
  Family healthy(out, "holdfast_application_healthy", "1 if its checks pass; left out when nobody knows.");
  for (const ApplicationStatus& a : s.applications)
    if (a.health != "unknown" && !a.health.empty())
      healthy.add({{"application", a.name}, {"plugin", a.plugin}}, a.health == "healthy");
}

}  // namespace

std::string prometheus_text(const ClusterStatus& status) {
  std::string out;
  cluster(out, status);
  nodes(out, status);
  applications(out, status);
  return out;
}

}  // namespace holdfast::control
