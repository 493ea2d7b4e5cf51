// SPDX-License-Identifier: Apache-2.0
#include "control/api_routes.h"

#include <algorithm>
#include <charconv>

#include "control/metrics.h"

namespace holdfast::control {
namespace {

constexpr std::size_t plans_told = 50;  // as many as a node keeps

using nlohmann::json;

template <class T>
Result<json> answer(Result<T> value) {
  if (!value) return tl::unexpected(std::move(value).error());
  return to_json(*value);
}

Result<int> number_of(const HttpRequest& request, const char* name, int fallback, int most) {
  const auto found = request.query.find(name);
  if (found == request.query.end()) return fallback;
  const std::string& text = found->second;
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < 0)
    return fail(ErrorCode::invalid, "{} must be a whole number from 0 to {}", name, most);
  return std::min(value, most);
}

Result<json> get_events(ApiCall& c) {
  const auto since = c.request.query.find("since");
  EventCursor cursor;
  if (since != c.request.query.end()) {
    HF_ASSIGN(cursor, event_cursor_from_text(since->second));
  }
  HF_ASSIGN(const int limit, number_of(c.request, "limit", 200, 1000));
  HF_ASSIGN(const int wait_s, number_of(c.request, "wait_s", 0, 25));
  return answer(c.handlers.events(cursor, static_cast<std::size_t>(limit), wait_s * 1000));
}

Result<json> get_metrics(ApiCall& c) {
  HF_ASSIGN(const ClusterStatus status, c.handlers.status());
  return json(prometheus_text(status));
}

Result<json> get_plan(ApiCall& c) {
  const std::string prefix = "/v1/plans/";
  return answer(c.handlers.plan(c.request.path.starts_with(prefix) ? c.request.path.substr(prefix.size()) : ""));
}

std::string text_of(const HttpRequest& request, const char* name) {
  const auto found = request.query.find(name);
  return found == request.query.end() ? std::string() : found->second;
}

Result<json> get_timeline(ApiCall& c) {
  TimelineRequest request{text_of(c.request, "from"), text_of(c.request, "to"), text_of(c.request, "node"), 0};
  HF_ASSIGN(const int points, number_of(c.request, "points", 0, 1000));
  request.points = static_cast<std::uint64_t>(points);
  return answer(c.handlers.timeline(request));
}

Result<json> post_init(ApiCall& c) {
  HF_ASSIGN(const InitRequest request, init_request_from_json(c.body));
  c.subject = request.name;
  return answer(c.handlers.init(c.caller, request));
}

Result<json> post_token(ApiCall& c) {
  HF_ASSIGN(const TokenRequest request, token_request_from_json(c.body));
  c.subject = request.kind.empty() ? "node" : request.kind;
  return answer(c.handlers.token(c.caller, request));
}

Result<json> get_plans(ApiCall& c) {
  HF_ASSIGN(const std::vector<PlanStatus> plans, c.handlers.plans(plans_told));
  json list = json::array();
  for (const PlanStatus& plan : plans) list.push_back(to_json(plan));
  return json{{"plans", list}};
}

Result<json> post_join(ApiCall& c) {
  if (c.caller.origin == Origin::local) {
    HF_ASSIGN(const JoinRequest request, join_request_from_json(c.body));
    c.subject = request.address;
    return answer(c.handlers.join(c.caller, request));
  }
  HF_ASSIGN(const AdmitRequest request, admit_request_from_json(c.body));
  c.subject = request.node.substr(0, 64) + " from " + c.caller.address;
  return answer(c.handlers.admit(c.caller, request));
}

Result<json> post_join_asks(ApiCall& c) {
  HF_ASSIGN(const JoinAsksRequest request, join_asks_request_from_json(c.body));
  return answer(c.handlers.join_asks(c.caller, request));
}

Result<json> post_renew(ApiCall& c) {
  HF_ASSIGN(const RenewRequest request, renew_request_from_json(c.body));
  c.subject = c.caller.peer_node_id;
  return answer(c.handlers.renew(c.caller, request));
}

Result<json> post_protect(ApiCall& c) {
  HF_ASSIGN(const ProtectRequest request, protect_request_from_json(c.body));
  c.subject = request.what;
  return answer(c.handlers.protect(c.caller, request));
}

Result<json> post_unprotect(ApiCall& c) {
  HF_ASSIGN(const UnprotectRequest request, unprotect_request_from_json(c.body));
  c.subject = request.what;
  return answer(c.handlers.unprotect(c.caller, request));
}

Result<json> post_make_active(ApiCall& c) {
  HF_ASSIGN(const MakeActiveRequest request, make_active_request_from_json(c.body));
  c.subject = request.node;
  return answer(c.handlers.make_active(c.caller, request));
}

Result<json> post_failover(ApiCall& c) {
  HF_ASSIGN(const FailoverRequest request, failover_request_from_json(c.body));
  c.subject = (request.node.empty() ? std::string("this node") : request.node) + (request.force ? ", forced" : "");
  return answer(c.handlers.failover(c.caller, request));
}

Result<json> post_member_remove(ApiCall& c) {
  HF_ASSIGN(const MemberRemoveRequest request, member_remove_request_from_json(c.body));
  c.subject = request.name.substr(0, 64);
  return answer(c.handlers.member_remove(c.caller, request));
}

Result<json> post_member_change(ApiCall& c) {
  HF_ASSIGN(const MemberChangeRequest request, member_change_request_from_json(c.body));
  c.subject = request.name.substr(0, 64);
  return answer(c.handlers.member_change(c.caller, request));
}

Result<json> post_release(ApiCall& c) {
  HF_ASSIGN(const ReleaseRequest request, release_request_from_json(c.body));
  return answer(c.handlers.release(c.caller, request));
}

Result<json> post_skip(ApiCall& c) {
  HF_ASSIGN(const SkipStepRequest request, skip_step_request_from_json(c.body));
  c.subject = request.step + (request.plan.empty() ? "" : " of " + request.plan);
  return answer(c.handlers.skip_step(c.caller, request));
}

Result<json> put_config(ApiCall& c) {
  HF_ASSIGN(const ConfigSetRequest request, config_set_request_from_json(c.body));
  c.subject = request.key + " = " + request.value.substr(0, 200);
  return answer(c.handlers.config_set(c.caller, request));
}

Result<json> post_shadow(ApiCall& c) {
  HF_ASSIGN(const ShadowRequest request, shadow_request_from_json(c.body));
  c.subject = request.name.substr(0, 64);
  return answer(c.handlers.shadow_create(c.caller, request));
}

Result<json> post_shadow_keep(ApiCall& c) {
  HF_ASSIGN(const ShadowChange request, shadow_change_from_json(c.body));
  c.subject = request.name.substr(0, 64) + (request.keep ? "" : ", not any more");
  return answer(c.handlers.shadow_keep(c.caller, request));
}

Result<json> post_shadow_delete(ApiCall& c) {
  HF_ASSIGN(const ShadowChange request, shadow_change_from_json(c.body));
  c.subject = request.name.substr(0, 64);
  return answer(c.handlers.shadow_delete(c.caller, request));
}

Result<json> post_rollback(ApiCall& c) {
  HF_ASSIGN(const RollbackRequest request, rollback_request_from_json(c.body));
  c.subject = "to " + request.to.substr(0, 64) + (request.node.empty() ? "" : " on " + request.node.substr(0, 64)) +
              (request.dry_run ? ", dry run" : "");
  return answer(c.handlers.rollback(c.caller, request));
}

Result<json> post_look(ApiCall& c) {
  HF_ASSIGN(const LookRequest request, look_request_from_json(c.body));
  c.subject = request.at.substr(0, 64) + " at " + request.dir.substr(0, 200);
  return answer(c.handlers.look(c.caller, request));
}

Result<json> post_look_end(ApiCall& c) {
  HF_ASSIGN(const LookEndRequest request, look_end_request_from_json(c.body));
  c.subject = request.dir.substr(0, 200);
  return answer(c.handlers.look_end(c.caller, request));
}

Result<json> post_verify(ApiCall& c) {
  HF_ASSIGN(const VerifyRequest request, verify_request_from_json(c.body));
  c.subject = request.mode.empty() ? "full" : request.mode.substr(0, 64);
  return answer(c.handlers.verify(c.caller, request));
}

Result<json> post_verify_stop(ApiCall& c) {
  if (!c.body.empty()) return fail(ErrorCode::invalid, "verify/stop takes no members but actor");
  return answer(c.handlers.verify_stop(c.caller));
}

}  // namespace

std::string dump(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

const std::vector<ApiRoute>& api_routes() {
  //  method  path               local  peer   join   mutation
  static const std::vector<ApiRoute> table{
      {"GET", "/v1/status", true, true, false, nullptr, [](ApiCall& c) { return answer(c.handlers.status()); }},
      {"GET", "/v1/metrics", true, true, false, nullptr, get_metrics},
      {"GET", "/v1/events", true, true, false, nullptr, get_events},
      {"GET", "/v1/config", true, true, false, nullptr, [](ApiCall& c) { return answer(c.handlers.config()); }},
      {"GET", "/v1/plan", true, true, false, nullptr, get_plan},
      {"GET", "/v1/plans", true, true, false, nullptr, get_plans},
      {"GET", "/v1/plans/", true, true, false, nullptr, get_plan},
      {"GET", "/v1/timeline", true, true, false, nullptr, get_timeline},
      {"GET", "/v1/looks", true, true, false, nullptr, [](ApiCall& c) { return answer(c.handlers.looks()); }},
      {"GET", "/v1/verify", true, true, false, nullptr, [](ApiCall& c) { return answer(c.handlers.verify_status()); }},
      {"POST", "/v1/init", true, false, false, "init", post_init},
      {"POST", "/v1/token", true, true, false, "token", post_token},
      {"POST", "/v1/join", true, true, true, "join", post_join},
      {"POST", "/v1/join/asks", false, true, true, nullptr, post_join_asks},
      {"POST", "/v1/renew", false, true, false, "renew", post_renew, true},
      {"POST", "/v1/protect", true, true, false, "protect", post_protect},
      {"POST", "/v1/unprotect", true, true, false, "unprotect", post_unprotect},
      {"POST", "/v1/make-active", true, true, false, "make_active", post_make_active},
      {"POST", "/v1/failover", true, true, false, "failover", post_failover},
      {"POST", "/v1/members/remove", true, true, false, "member_remove", post_member_remove},
      {"POST", "/v1/members/change", true, true, false, "member_change", post_member_change},
      {"POST", "/v1/release", true, true, false, "release", post_release},
      {"POST", "/v1/plan/skip", true, true, false, "skip_step", post_skip},
      {"PUT", "/v1/config", true, true, false, "config_set", put_config},
      {"POST", "/v1/shadows", true, true, false, "shadow_create", post_shadow},
      {"POST", "/v1/shadows/keep", true, true, false, "shadow_keep", post_shadow_keep},
      {"POST", "/v1/shadows/delete", true, true, false, "shadow_delete", post_shadow_delete},
      {"POST", "/v1/rollback", true, true, false, "rollback", post_rollback},
      {"POST", "/v1/look", true, true, false, "look", post_look},
      {"POST", "/v1/look/end", true, true, false, "look_end", post_look_end},
      {"POST", "/v1/verify", true, true, false, "verify", post_verify},
      {"POST", "/v1/verify/stop", true, true, false, "verify_stop", post_verify_stop},
  };
  return table;
}

}  // namespace holdfast::control
