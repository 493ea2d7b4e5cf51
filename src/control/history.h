// SPDX-License-Identifier: Apache-2.0
// What the API says of the past: timeline, shadows, rollback, views of a past point, verification.
// Times are wall-clock milliseconds of the active's clock; 0 = unknown. Points are found again by (node, batch): batches are
// numbers of one node's history, the same time has another number on another node.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"

namespace holdfast::control {

// GET /v1/timeline. Times as control/when.h reads them.
struct TimelineRequest {
  std::string from, to;      // empty = everything
  std::string node;          // empty = all
  std::uint64_t points = 0;  // the newest so many points one by one; 0 = spans only
};
struct TimelinePoint {
  std::uint64_t batch = 0;
  std::int64_t time_ms = 0;
  bool consistent = false;  // a mark: everything written until then was in the log
  bool rewind = false;      // the folders went back here
  std::string label;
};
// Without a hole: each of its seconds can be gone back to.
struct TimelineSpan {
  std::int64_t from_ms = 0, to_ms = 0;
  std::uint64_t points = 0;
};
struct TimelineGap {  // nothing before it can be reached on this node, for this set
  std::int64_t time_ms = 0;
  std::uint16_t set = 0;  // 0 = all
  std::string why;
};
struct ShadowStatus {
  std::string name;
  std::int64_t time_ms = 0;
  std::vector<std::string> nodes;  // that can go back to it
  std::string origin;              // user | schedule | auto
  bool keep = false;               // never dropped for its age
  bool application_consistent = false;
  std::uint64_t bytes_since = 0;  // history that it takes to go back there; the most of any node
};
struct NodeTimeline {
  std::string node;
  std::string role;    // active | passive | unknown
  std::string state;   // on | off | unreachable | ...
  std::string detail;  // why there is nothing
  std::uint64_t bytes = 0, limit_bytes = 0;
  std::vector<TimelineSpan> spans;  // newest first
  std::vector<TimelineGap> gaps;    // newest first
  std::vector<TimelinePoint> points;
};
// What the cluster can go back to, and which of its nodes can. Between two that do not touch there is a time that nobody can go back to.
struct ReachSpan {
  std::int64_t from_ms = 0, to_ms = 0;
  std::vector<std::string> nodes;
};
struct Timeline {
  std::int64_t time_ms = 0;
  std::vector<NodeTimeline> nodes;
  std::vector<ShadowStatus> shadows;  // newest first
  std::vector<ReachSpan> reach;       // newest first
};

struct ShadowRequest {  // POST /v1/shadows
  std::string name;
  bool keep = false;
  bool quiesce = true;  // ask the application to bring its files in order first, where its plug-in can
};
struct ShadowChange {  // POST /v1/shadows/keep, /v1/shadows/delete
  std::string name;
  std::string node;  // empty = all that have it
  bool keep = true;  // of keep only
};
struct ShadowReply {
  ShadowStatus shadow;
  std::vector<std::string> warnings;
};

struct RollbackRequest {    // POST /v1/rollback
  std::string to;           // control/when.h
  std::string node;         // that goes back and becomes active; empty = the best
  std::uint64_t batch = 0;  // of `node`: exactly this point, as an earlier dry run answered; `to` is then only its name
  bool dry_run = false;
};
struct RollbackReply {
  std::string plan;  // empty when nothing was started
  std::string undo_with;
  std::string text;
  std::string from, node;
  std::uint64_t batch = 0;
  std::int64_t time_ms = 0;  // the point
  std::string label;
  double taken_back_s = 0;
  std::vector<std::string> warnings;
};

struct LookRequest {  // POST /v1/look
  std::string at;     // control/when.h
  std::string node;   // where it is mounted; empty = who is asked
  std::string dir;
  bool writable = false;          // what is written stays in the view, and is gone with it
  std::uint64_t scratch_mib = 0;  // at most so much of it; 0 = what the node thinks fit
};
struct LookEndRequest {
  std::string node, dir;
};
struct LookStatus {
  std::string node, dir;
  std::uint64_t batch = 0;
  std::int64_t time_ms = 0;
  bool writable = false;
  std::uint64_t bytes = 0, limit_bytes = 0;  // that was written, and may be
  std::string closed_above;  // when it is made, not empty: this folder keeps others out, so the view is root's
};
struct LooksReply {
  std::vector<LookStatus> looks;
};

struct VerifyRequest {           // POST /v1/verify
  std::string mode;              // full (default) | sample
  std::uint64_t rate_mib_s = 0;  // 0 = the default
  bool repair = true;
  bool trust_active = false;  // also where nobody knows which side is right: the active's is taken
};
struct VerifyPeer {
  std::string node;
  std::string state;  // idle | running | waiting | unsupported | unknown
  std::string kind;   // full | sample | scrub
  double percent = 0;
  std::uint64_t objects = 0, bytes = 0;
  std::uint64_t differences = 0, repaired = 0;  // of this run
  std::uint64_t open = 0;                       // known and not repaired, after the run too
  std::vector<std::string> examples;
  std::int64_t last_full_ms = 0, last_scrub_ms = 0;
  std::string last_result;  // clean | repaired | differs | interrupted
};
struct VerifyStatus {  // GET /v1/verify
  std::string node;    // the active, whose tree is the measure
  std::string state;   // running when any peer is compared because somebody asked; idle; unknown
  bool scrub = false;  // a slow comparison runs by itself
  std::vector<VerifyPeer> peers;
};

#define HF_JSON_REQUEST(Type, reader)        \
  nlohmann::json to_json(const Type& value); \
  Result<Type> reader(const nlohmann::json& json)

HF_JSON_REQUEST(TimelineRequest, timeline_request_from_json);
HF_JSON_REQUEST(Timeline, timeline_from_json);
HF_JSON_REQUEST(ShadowRequest, shadow_request_from_json);
HF_JSON_REQUEST(ShadowChange, shadow_change_from_json);
HF_JSON_REQUEST(ShadowReply, shadow_reply_from_json);
HF_JSON_REQUEST(RollbackRequest, rollback_request_from_json);
HF_JSON_REQUEST(RollbackReply, rollback_reply_from_json);
HF_JSON_REQUEST(LookRequest, look_request_from_json);
HF_JSON_REQUEST(LookEndRequest, look_end_request_from_json);
HF_JSON_REQUEST(LookStatus, look_status_from_json);
HF_JSON_REQUEST(LooksReply, looks_reply_from_json);
HF_JSON_REQUEST(VerifyRequest, verify_request_from_json);
HF_JSON_REQUEST(VerifyStatus, verify_status_from_json);
#undef HF_JSON_REQUEST

}  // namespace holdfast::control
