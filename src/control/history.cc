// SPDX-License-Identifier: Apache-2.0
#include "control/history.h"

#include "control/json_fields.h"

namespace holdfast::control {

template <class V>
void fields(V& v, TimelineRequest& t) {
  v("from", t.from), v("to", t.to), v("node", t.node), v("points", t.points);
}
template <class V>
void fields(V& v, TimelinePoint& t) {
  v("batch", t.batch), v("time", WallTime{t.time_ms}), v("consistent", t.consistent), v("rewind", t.rewind);
  v("label", t.label);
}
template <class V>
void fields(V& v, TimelineSpan& t) {
  v("from", WallTime{t.from_ms}), v("to", WallTime{t.to_ms}), v("points", t.points);
}
template <class V>
void fields(V& v, TimelineGap& t) {
  v("time", WallTime{t.time_ms}), v("set", t.set), v("why", t.why);
}
template <class V>
void fields(V& v, ShadowStatus& t) {
  v("name", t.name), v("time", WallTime{t.time_ms}), v("nodes", t.nodes), v("origin", t.origin), v("keep", t.keep);
  v("application_consistent", t.application_consistent), v("bytes_since", t.bytes_since);
}
template <class V>
void fields(V& v, NodeTimeline& t) {
  v("node", t.node), v("role", t.role), v("state", t.state), v("detail", t.detail), v("bytes", t.bytes);
  v("limit_bytes", t.limit_bytes), v("spans", t.spans), v("gaps", t.gaps), v("points", t.points);
}
template <class V>
void fields(V& v, ReachSpan& t) {
  v("from", WallTime{t.from_ms}), v("to", WallTime{t.to_ms}), v("nodes", t.nodes);
}
template <class V>
void fields(V& v, Timeline& t) {
  v("time", WallTime{t.time_ms}), v("nodes", t.nodes), v("shadows", t.shadows), v("reach", t.reach);
}
template <class V>
void fields(V& v, ShadowRequest& t) {
  v("name", t.name), v("keep", t.keep), v("quiesce", t.quiesce);
}
template <class V>
void fields(V& v, ShadowChange& t) {
  v("name", t.name), v("node", t.node), v("keep", t.keep);
}
template <class V>
void fields(V& v, ShadowReply& t) {
  v("shadow", t.shadow), v("warnings", t.warnings);
}
template <class V>
void fields(V& v, RollbackRequest& t) {
  v("to", t.to), v("node", t.node), v("batch", t.batch), v("dry_run", t.dry_run);
}
template <class V>
void fields(V& v, RollbackReply& t) {
  v("plan", t.plan), v("undo_with", t.undo_with), v("text", t.text), v("from", t.from), v("node", t.node);
  v("batch", t.batch), v("time", WallTime{t.time_ms}), v("label", t.label), v("taken_back_s", t.taken_back_s);
  v("warnings", t.warnings);
}
template <class V>
void fields(V& v, LookRequest& t) {
  v("at", t.at), v("node", t.node), v("dir", t.dir), v("writable", t.writable), v("scratch_mib", t.scratch_mib);
}
template <class V>
void fields(V& v, LookEndRequest& t) {
  v("node", t.node), v("dir", t.dir);
}
template <class V>
void fields(V& v, LookStatus& t) {
  v("node", t.node), v("dir", t.dir), v("batch", t.batch), v("time", WallTime{t.time_ms});
  v("writable", t.writable), v("bytes", t.bytes), v("limit_bytes", t.limit_bytes);
  v("closed_above", t.closed_above);
}
template <class V>
void fields(V& v, LooksReply& t) {
  v("looks", t.looks);
}
template <class V>
void fields(V& v, VerifyRequest& t) {
  v("mode", t.mode), v("rate_mib_s", t.rate_mib_s), v("repair", t.repair), v("trust_active", t.trust_active);
}
template <class V>
void fields(V& v, VerifyPeer& t) {
  v("node", t.node), v("state", t.state), v("kind", t.kind), v("percent", t.percent), v("objects", t.objects);
  v("bytes", t.bytes), v("differences", t.differences), v("repaired", t.repaired), v("open", t.open);
  v("examples", t.examples), v("last_full", WallTime{t.last_full_ms}), v("last_scrub", WallTime{t.last_scrub_ms});
  v("last_result", t.last_result);
}
template <class V>
void fields(V& v, VerifyStatus& t) {
  v("node", t.node), v("state", t.state), v("scrub", t.scrub), v("peers", t.peers);
}

#define HF_JSON_BOTH(Type, reader, what, unknown)                           \
  nlohmann::json to_json(const Type& value) { return write_fields(value); } \
  Result<Type> reader(const nlohmann::json& json) { return read_fields<Type>(json, what, unknown); }

HF_JSON_BOTH(TimelineRequest, timeline_request_from_json, "timeline", Unknown::refused)
HF_JSON_BOTH(Timeline, timeline_from_json, "answer to timeline", Unknown::ignored)
HF_JSON_BOTH(ShadowRequest, shadow_request_from_json, "shadow", Unknown::refused)
HF_JSON_BOTH(ShadowChange, shadow_change_from_json, "shadow", Unknown::refused)
HF_JSON_BOTH(ShadowReply, shadow_reply_from_json, "answer to shadow", Unknown::ignored)
HF_JSON_BOTH(RollbackRequest, rollback_request_from_json, "rollback", Unknown::refused)
HF_JSON_BOTH(RollbackReply, rollback_reply_from_json, "answer to rollback", Unknown::ignored)
// A node of an older version refuses what it does not know: it shall do what it can.
nlohmann::json to_json(const LookRequest& value) {
  nlohmann::json json = write_fields(value);
  if (!value.writable) json.erase("writable");
  if (value.scratch_mib == 0) json.erase("scratch_mib");
  return json;
}
Result<LookRequest> look_request_from_json(const nlohmann::json& json) {
  return read_fields<LookRequest>(json, "look", Unknown::refused);
}
HF_JSON_BOTH(LookEndRequest, look_end_request_from_json, "look", Unknown::refused)
HF_JSON_BOTH(LookStatus, look_status_from_json, "answer to look", Unknown::ignored)
HF_JSON_BOTH(LooksReply, looks_reply_from_json, "answer to look", Unknown::ignored)
HF_JSON_BOTH(VerifyRequest, verify_request_from_json, "verify", Unknown::refused)
HF_JSON_BOTH(VerifyStatus, verify_status_from_json, "answer to verify", Unknown::ignored)

}  // namespace holdfast::control
