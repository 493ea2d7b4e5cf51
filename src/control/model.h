// SPDX-License-Identifier: Apache-2.0
// The status model: what GET /v1/status answers and what `holdfast status` draws. Plain values; JSON in docs/formats/api.md.
// Words that are states are text, so that an older client shows a newer word instead of failing. Times are wall-clock
// milliseconds since 1970 here and ISO 8601 UTC in JSON; 0 = unknown (absent or null in JSON). Durations are seconds.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"

namespace holdfast::control {

struct ChannelPath {
  std::string path;   // "10.0.0.1 -> 10.0.0.2"
  std::string state;  // up | down | unknown
  std::optional<double> rtt_ms;
};

struct Queues {
  std::uint64_t send_bytes = 0;       // on the active: log that this node has not confirmed
  std::string send_mode;              // ring | disk | map | lost; empty = unknown
  std::uint64_t send_disk_bytes = 0;  // of it on the active's disk
  std::uint64_t changed_objects = 0;  // mode map: what it has to be compared with
  double send_age_s = 0;
  std::uint64_t receive_bytes = 0;  // on a passive: logged, not yet applied
  double receive_age_s = 0;
};

struct SyncProgress {
  std::string kind;    // first copy | resync | catch-up
  double percent = 0;  // 0..100
  std::uint64_t done_objects = 0;
  std::uint64_t total_objects = 0;
  std::uint64_t bytes = 0;  // shipped so far
  std::optional<double> remaining_s;
};

// How a node was last made whole, as the active tells; since its mirror began.
struct LastSync {
  std::string kind;              // full: everything was compared or copied | partial: only what had changed
  std::uint64_t objects = 0;     // objects and names that were shipped
  std::uint64_t opened = 0;      // objects that the active opened for it
  std::uint64_t bytes = 0;       // of contents, shipped or compared
  std::uint64_t sent_bytes = 0;  // on the wire for it
};

// Of the active: what would be compared with its successor's should it die now and return.
struct HotStatus {
  std::uint64_t noted = 0;                // objects, about
  std::vector<std::uint64_t> whole_sets;  // all of these
};

// What a node can be taken back to (GET /v1/timeline says more).
struct UndoStatus {
  std::string state;  // off | on | damaged | waiting_for_space | rewinding | ...
  std::uint64_t bytes = 0, limit_bytes = 0;
  std::int64_t oldest_ms = 0, newest_ms = 0;  // the active's clock
  std::uint64_t shadows = 0;
};

struct NodeStatus {
  std::string name;
  std::string node_id;   // 16 hex digits
  std::string identity;  // primary | secondary | tertiary
  std::string role;      // active | passive | unknown
  std::string site;
  std::int64_t since_ms = 0;  // in this role since
  bool synchronized = false;  // I4: never true when not so; the active's own is true (it is the original)
  std::optional<double>
      recovery_point_s;  // upper bound of the truth; nullopt = unknown, never a guess; 0 on the active
  // Of a copy that is not complete: how old the point is at which it could be promoted by force; nullopt: there is none.
  std::optional<double> consistent_point_age_s;
  std::string state;   // healthy | info | warning | error | busy | connecting | stopped
  std::string detail;  // one line for a person; may be empty
  std::string version;
  bool self = false;  // the node that answers
  bool held = false;  // keeps receiving and voting, but neither applies nor is a target
  std::optional<SyncProgress> sync_progress;
  std::optional<LastSync> last_sync;
  std::optional<HotStatus> hot;
  std::vector<ChannelPath> channel;
  Queues queues;
  std::optional<UndoStatus> undo;
};

struct LeaseStatus {
  std::string holder;  // node name; empty = nobody
  std::int64_t remaining_ms = 0;
  std::uint64_t epoch = 0;
};

struct VoteStatus {
  std::string voter;  // name
  std::string kind;   // node | witness
  bool reachable = false;
  bool granted = false;  // its promise counts for the lease of this epoch
};

struct WitnessStatus {
  std::string name;
  std::string address;  // "10.0.0.9:9729"
  std::string state;    // healthy | connecting | not admitted | error
  std::string detail;
};

struct PublicAddress {
  std::string address;  // "192.0.2.10/24"
  std::string site;
  std::string policy;  // move | hide (later) | dns (later)
  std::string on;      // node name; empty = nowhere
};

struct ClientNetwork {
  std::string state;  // open | closed | unknown
  std::string on;
  std::string detail;
};

struct ResourceStatus {
  std::string name;   // "postgresql@15-main.service", "probe: write"
  std::string kind;   // unit | probe | ...
  std::string state;  // running | stopped | failed | ok | unknown
  std::string detail;
};

struct ApplicationStatus {
  std::string name;
  std::string plugin;
  std::string state;   // running | stopped | starting | stopping | failed
  std::string health;  // healthy | warning | error | unknown
  std::string on;      // node it runs on
  std::string detail;
  std::vector<ResourceStatus> resources;
};

struct ProtectedSet {
  std::uint16_t set = 0;
  std::string path;
  std::string plugin;  // empty = plain folder
  std::string application;
  std::string write_policy;  // write-back | write-through
};

struct OptionStatus {
  std::string name;         // "data loss avoidance"
  std::string state;        // on | off | limit text
  std::string change_with;  // a command that can be pasted
};

struct AutomaticFailover {
  bool available = false;
  std::string reason;  // why (not)
  std::string change_with;
};

struct PlanStepStatus {
  std::string name;
  std::string owner;  // mirror | network | applications | cluster
  std::string state;  // pending | running | done | failed | undoing | undone | skipped
  double seconds = 0;
  double timeout_s = 0;
  int attempts = 0;
  bool background = false;
  std::string detail;  // last error or progress
};

struct PlanStatus {
  std::string id;
  std::string kind;   // switchover | failover | release | ...
  std::string state;  // running | reverting | done | reverted | abandoned | halted
  std::string from;
  std::string to;
  std::string actor;
  std::string reason;
  std::int64_t started_ms = 0;
  double seconds = 0;
  bool epoch_recorded = false;  // from here on only forward
  std::string error;            // why it reverts, or what it retries
  std::string undo_with;        // command that takes the finished change back; may be empty
  std::vector<PlanStepStatus> steps;
};

struct Alert {
  std::string severity;  // info | warning | error
  std::string code;      // stable word for scripts: "peer_lost"
  std::string text;
  std::string hint;  // what to do
  std::int64_t since_ms = 0;
};

struct ClusterStatus {
  std::int64_t time_ms = 0;  // when this was true, on the answering node's clock
  std::string name;
  std::string id;      // 16 hex digits
  std::string mode;    // async | fsync
  std::string state;   // healthy | info | warning | error | busy | connecting | stopped
  std::string detail;  // the one line that sums up the state
  std::vector<NodeStatus> nodes;
  std::optional<LeaseStatus> lease;
  std::vector<VoteStatus> votes;
  std::optional<WitnessStatus> witness;
  std::vector<PublicAddress> public_addresses;
  ClientNetwork client_network;
  std::vector<ApplicationStatus> applications;
  std::vector<ProtectedSet> protected_sets;  // "protected" in JSON
  std::vector<OptionStatus> options;
  AutomaticFailover automatic_failover;
  std::optional<PlanStatus> plan;  // the running one
  std::vector<Alert> alerts;
};

nlohmann::json to_json(const ClusterStatus& status);
nlohmann::json to_json(const NodeStatus& node);
nlohmann::json to_json(const PlanStatus& plan);
// Missing members get their defaults (an older server); wrong types are an error, never a crash.
Result<ClusterStatus> cluster_status_from_json(const nlohmann::json& json);
Result<PlanStatus> plan_status_from_json(const nlohmann::json& json);

// "2026-11-25T17:40:00.123Z"; empty for 0.
std::string iso_time(std::int64_t wall_ms);
Result<std::int64_t> from_iso_time(std::string_view text);

}  // namespace holdfast::control
