// SPDX-License-Identifier: Apache-2.0
#include "control/requests.h"

#include "control/json_fields.h"

namespace holdfast::control {

// `actor` is part of every mutation's body and is taken out by the server before these see it.
template <class V>
void fields(V& v, InitRequest& t) {
  v("name", t.name), v("node", t.node), v("site", t.site), v("mode", t.mode), v("channel", t.channel);
  v("public", t.public_addresses);
}
template <class V>
void fields(V& v, InitReply& t) {
  v("cluster_id", t.cluster_id), v("node_id", t.node_id), v("warnings", t.warnings);
}
template <class V>
void fields(V& v, TokenRequest& t) {
  v("kind", t.kind), v("ttl_s", t.ttl_s);
}
template <class V>
void fields(V& v, TokenReply& t) {
  v("token", t.token), v("expires", WallTime{t.expires_ms}), v("join_with", t.join_with);
}
template <class V>
void fields(V& v, JoinRequest& t) {
  v("address", t.address), v("token", t.token), v("node", t.node), v("site", t.site), v("channel", t.channel);
  v("public", t.public_addresses);
}
template <class V>
void fields(V& v, JoinReply& t) {
  v("cluster", t.cluster), v("cluster_id", t.cluster_id), v("node_id", t.node_id), v("identity", t.identity);
}
template <class V>
void fields(V& v, JoinAsksRequest& t) {
  v("token", t.token), v("kind", t.kind);
}
template <class V>
void fields(V& v, JoinAsksReply& t) {
  v("asks", t.asks);
}
template <class V>
void fields(V& v, AdmitRequest& t) {
  v("token", t.token), v("kind", t.kind), v("node", t.node), v("node_id", t.node_id), v("site", t.site);
  v("csr", t.csr);
  v("channel", t.channel), v("public", t.public_addresses), v("version", t.version), v("incarnation", t.incarnation);
  v("facts", t.facts);
}
template <class V>
void fields(V& v, AdmitReply& t) {
  v("cluster", t.cluster), v("cluster_id", t.cluster_id), v("node_id", t.node_id), v("identity", t.identity);
  v("certificate", t.certificate), v("ca_certificate", t.ca_certificate), v("ca_key", t.ca_key);
  v("bootstrap", t.bootstrap);
}
template <class V>
void fields(V& v, ProtectRequest& t) {
  v("what", t.what), v("application", t.application), v("write_policy", t.write_policy);
}
template <class V>
void fields(V& v, ProtectReply& t) {
  v("application", t.application), v("paths", t.paths), v("warnings", t.warnings), v("plan", t.plan);
}
template <class V>
void fields(V& v, UnprotectRequest& t) {
  v("what", t.what);
}
template <class V>
void fields(V& v, MakeActiveRequest& t) {
  v("node", t.node);
}
template <class V>
void fields(V& v, FailoverRequest& t) {
  v("force", t.force), v("node", t.node), v("to", t.to), v("although_it_answers", t.although_it_answers);
}
template <class V>
void fields(V& v, ReleaseRequest& t) {
  v("node", t.node);
}
template <class V>
void fields(V& v, MemberRemoveRequest& t) {
  v("name", t.name);
}
template <class V>
void fields(V& v, MemberChangeRequest& t) {
  v("name", t.name), v("new_name", t.new_name), v("channel", t.channel);
}
template <class V>
void fields(V& v, SkipStepRequest& t) {
  v("plan", t.plan), v("step", t.step);
}
template <class V>
void fields(V& v, ConfigSetRequest& t) {
  v("key", t.key), v("value", t.value);
}
template <class V>
void fields(V& v, ConfigItem& t) {
  v("key", t.key), v("value", t.value), v("default", t.default_value), v("text", t.text);
}
template <class V>
void fields(V& v, ConfigReply& t) {
  v("version", t.version), v("items", t.items);
}
template <class V>
void fields(V& v, RenewRequest& t) {
  v("csr", t.csr);
}
template <class V>
void fields(V& v, RenewReply& t) {
  v("certificate", t.certificate);
}
template <class V>
void fields(V& v, Accepted& t) {
  v("plan", t.plan), v("undo_with", t.undo_with), v("text", t.text);
}

#define HF_JSON_BOTH(Type, reader, what, unknown)                           \
  nlohmann::json to_json(const Type& value) { return write_fields(value); } \
  Result<Type> reader(const nlohmann::json& json) { return read_fields<Type>(json, what, unknown); }

HF_JSON_BOTH(InitRequest, init_request_from_json, "init", Unknown::refused)
HF_JSON_BOTH(InitReply, init_reply_from_json, "answer to init", Unknown::ignored)
HF_JSON_BOTH(TokenRequest, token_request_from_json, "token", Unknown::refused)
HF_JSON_BOTH(TokenReply, token_reply_from_json, "answer to token", Unknown::ignored)
HF_JSON_BOTH(JoinRequest, join_request_from_json, "join", Unknown::refused)
HF_JSON_BOTH(JoinReply, join_reply_from_json, "answer to join", Unknown::ignored)
// A newer node may join an older one: what it says more is not needed to decide.
HF_JSON_BOTH(JoinAsksRequest, join_asks_request_from_json, "join", Unknown::ignored)
HF_JSON_BOTH(JoinAsksReply, join_asks_reply_from_json, "answer to join", Unknown::ignored)
HF_JSON_BOTH(AdmitRequest, admit_request_from_json, "join", Unknown::ignored)
HF_JSON_BOTH(AdmitReply, admit_reply_from_json, "answer to join", Unknown::ignored)
HF_JSON_BOTH(ProtectRequest, protect_request_from_json, "protect", Unknown::refused)
HF_JSON_BOTH(ProtectReply, protect_reply_from_json, "answer to protect", Unknown::ignored)
HF_JSON_BOTH(UnprotectRequest, unprotect_request_from_json, "unprotect", Unknown::refused)
HF_JSON_BOTH(ReleaseRequest, release_request_from_json, "release", Unknown::refused)
HF_JSON_BOTH(MakeActiveRequest, make_active_request_from_json, "make-active", Unknown::refused)
// A node that knows of no points must not be told of none.
nlohmann::json to_json(const FailoverRequest& value) {
  nlohmann::json json = write_fields(value);
  if (value.to.empty()) json.erase("to");
  if (!value.although_it_answers) json.erase("although_it_answers");
  return json;
}
Result<FailoverRequest> failover_request_from_json(const nlohmann::json& json) {
  return read_fields<FailoverRequest>(json, "failover", Unknown::refused);
}
HF_JSON_BOTH(MemberRemoveRequest, member_remove_request_from_json, "member", Unknown::refused)
HF_JSON_BOTH(MemberChangeRequest, member_change_request_from_json, "member", Unknown::refused)
HF_JSON_BOTH(SkipStepRequest, skip_step_request_from_json, "skip", Unknown::refused)
HF_JSON_BOTH(ConfigSetRequest, config_set_request_from_json, "config", Unknown::refused)
HF_JSON_BOTH(ConfigReply, config_reply_from_json, "answer to config", Unknown::ignored)
HF_JSON_BOTH(RenewRequest, renew_request_from_json, "renew", Unknown::refused)
HF_JSON_BOTH(RenewReply, renew_reply_from_json, "answer to renew", Unknown::ignored)
HF_JSON_BOTH(Accepted, accepted_from_json, "answer", Unknown::ignored)

}  // namespace holdfast::control
