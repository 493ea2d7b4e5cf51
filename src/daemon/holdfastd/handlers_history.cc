// SPDX-License-Identifier: Apache-2.0
// timeline, shadows, look and verify: what each node's mirror knows, asked for over the control links.
#include <algorithm>
#include <array>
#include <chrono>
#include <thread>

#include "base/log.h"
#include "control/when.h"
#include "daemon/holdfastd/handlers.h"
#include "daemon/holdfastd/json_read.h"
#include "daemon/holdfastd/past.h"
#include "daemon/holdfastd/shadow_schedule.h"

namespace holdfast::daemon {

using control::Accepted;
using control::Caller;
using nlohmann::json;

namespace {

constexpr int quick_ms = 5'000;
constexpr int mount_ms = 120'000;         // a view merges all of the history since its point
constexpr int shadow_arrives_ms = 5'000;  // a passive applies within a second or so
constexpr int quiesce_ms = 60'000;
constexpr std::uint64_t points_of_an_answer = 1000;

// What peers may ask of this node's mirror: nothing that changes roles.
constexpr std::array asked_by_peers = {"timeline", "resolve", "shadow_keep", "shadow_delete", "look",
                                       "look_end", "looks",   "status",      "look_writable"};

const cluster::Member* data_member(const cluster::Value& value, const std::string& name) {
  for (const cluster::Member& m : value.members)
    if (m.kind == cluster::MemberKind::data && m.name == name) return &m;
  return nullptr;
}

std::string name_in(const Snapshot& s, NodeId id) {
  const cluster::Member* m = s.value->member(id);
  return m != nullptr ? m->name : to_hex(id);
}

Error no_such_shadow(const std::string& name) {
  return Error{ErrorCode::not_found, fmt::format("there is no shadow {}", name), "holdfast shadow list", 0};
}

bool has_shadow(const json& timeline, const std::string& name) {
  const json& rows = list_of(timeline, "shadows");
  return std::any_of(rows.begin(), rows.end(), [&](const json& row) { return text_of(row, "name") == name; });
}

}  // namespace

Result<nlohmann::json> ApiHandlers::ask_mirror(const Snapshot& s, NodeId node, const std::string& op,
                                               const json& arguments, int timeout_ms) {
  if (node == s.node.node_id) return call_mirror(d_.mirror(), op, arguments, timeout_ms);
  HF_ASSIGN(
      const std::string text,
      d_.ask_peer(node, "mirror", {{"op", op}, {"arguments", arguments}, {"timeout_ms", timeout_ms}}, timeout_ms));
  json parsed = json::parse(text, nullptr, false);
  if (!parsed.is_object()) return fail(ErrorCode::corrupt, "{} answered something odd", name_in(s, node));
  return parsed;
}

Result<std::string> ApiHandlers::mirror_for_peer(const json& body) {
  const std::string op = text_of(body, "op");
  if (std::find(asked_by_peers.begin(), asked_by_peers.end(), op) == asked_by_peers.end())
    return fail(ErrorCode::invalid, "this version does not know the request '{}'", op);
  const json& arguments = member_of(body, "arguments");
  const auto patience_ms = static_cast<int>(std::clamp<std::uint64_t>(number_of(body, "timeout_ms"), 1'000, 300'000));
  HF_ASSIGN(const json reply,
            call_mirror(d_.mirror(), op, arguments.is_object() ? arguments : json::object(), patience_ms));
  return dump(reply);
}

Result<NodeId> ApiHandlers::node_or_self(const Snapshot& s, const std::string& name) const {
  if (name.empty()) return s.node.node_id;
  const cluster::Member* m = data_member(*s.value, name);
  if (m == nullptr)
    return tl::unexpected(Error{ErrorCode::not_found, fmt::format("there is no node '{}' in this cluster", name),
                                "holdfast status shows its nodes", 0});
  return m->id;
}

std::vector<ApiHandlers::NodePast> ApiHandlers::ask_pasts(const Snapshot& s, const std::string& only,
                                                          const json& request) {
  std::vector<NodePast> all;
  for (const cluster::Member& m : s.value->members) {
    if (m.kind != cluster::MemberKind::data || (!only.empty() && m.name != only)) continue;
    NodePast past{m.id, m.name, m.id == s.value->active ? "active" : "passive", json(),
                  fail(ErrorCode::unavailable, "")};
    past.timeline = ask_mirror(s, m.id, "timeline", request, quick_ms);
    if (m.id == s.node.node_id)
      past.undo = member_of(s.mirror, "undo");
    else if (const auto peer = s.peers.find(m.id); peer != s.peers.end())
      past.undo = member_of(member_of(peer->second.json, "mirror"), "undo");
    all.push_back(std::move(past));
  }
  return all;
}

Result<control::Timeline> ApiHandlers::timeline(const control::TimelineRequest& r) {
  const Snapshot s = d_.snapshot();
  if (!s.member || !s.value) return tl::unexpected(not_a_member());
  HF_TRY(node_or_self(s, r.node));
  const std::int64_t now_ns = wall_ms() * ns_per_ms;
  json request = {{"limit", std::clamp<std::uint64_t>(r.points, 1, points_of_an_answer)}};
  for (const auto& [text, member] : {std::pair{&r.from, "from_ns"}, std::pair{&r.to, "to_ns"}}) {
    if (text->empty()) continue;
    HF_ASSIGN(const control::When when, control::parse_when(*text, now_ns));
    if (when.kind == control::When::Kind::shadow)
      return fail(ErrorCode::invalid, "a stretch of time has no shadow as its end: give a time");
    request[member] = when.at_ns(now_ns);
  }
  control::Timeline all;
  all.time_ms = wall_ms();
  for (const NodePast& past : ask_pasts(s, r.node, request)) {
    const json answer = past.timeline ? *past.timeline : json();
    control::NodeTimeline n = node_timeline(past.name, past.role, answer, past.undo, r.points);
    if (!past.timeline) {
      n.detail = past.timeline.error().to_string();
      if (past.timeline.error().code == ErrorCode::unavailable || past.timeline.error().code == ErrorCode::timeout)
        n.state = "unreachable";
      if (n.state == "off") n.detail += ": holdfast config set undo_mib auto turns it on";
    }
    add_shadows(past.name, answer, all.shadows);
    all.nodes.push_back(std::move(n));
  }
  sort_shadows(all.shadows);
  all.reach = cluster_reach(all.nodes);
  return all;
}

Result<control::ShadowReply> ApiHandlers::shadow_create(const Caller& caller, const control::ShadowRequest& r) {
  HF_TRY(control::check_shadow_name(r.name));
  HF_ASSIGN(const auto forwarded,
            forward("shadow_create", caller, control::to_json(r), quiesce_ms + 2 * shadow_arrives_ms));
  if (forwarded) return control::shadow_reply_from_json(*forwarded);
  return make_shadow(r.name, "user", r.keep, r.quiesce);
}

// On the active. The mark goes through the log, so every passive has the shadow at the same place.
Result<control::ShadowReply> ApiHandlers::make_shadow(const std::string& name, const std::string& origin, bool keep,
                                                      bool quiesce) {
  const Snapshot s = d_.snapshot();
  control::ShadowReply reply;
  const json nothing = {{"limit", 1}};
  std::vector<NodePast> holders;
  for (NodePast& past : ask_pasts(s, "", nothing)) {
    if (past.timeline && has_shadow(*past.timeline, name))
      return tl::unexpected(Error{ErrorCode::exists,
                                  fmt::format("there is a shadow {} already, on {}", name, past.name),
                                  "choose another name, or: holdfast shadow delete " + name, 0});
    if (past.node != s.node.node_id && past.timeline && s.value->is_in_sync(past.node))
      holders.push_back(std::move(past));
  }
  if (holders.empty())
    return tl::unexpected(Error{ErrorCode::refused,
                                "no synchronized passive keeps an undo history, so a shadow would be nowhere",
                                "holdfast timeline shows why", 0});
  bool consistent = false;
  if (quiesce) {
    auto quiet = d_.apps().quiesce(quiesce_ms);
    if (quiet)
      consistent = *quiet;
    else
      reply.warnings.push_back("the application did not bring its files in order: " + quiet.error().message);
  }
  HF_ASSIGN(const json marked,
            call_mirror(d_.mirror(), "shadow_mark",
                        {{"name", name}, {"origin", origin}, {"application_consistent", consistent}}, quick_ms));
  const json& at = member_of(marked, "time_ns");
  reply.shadow = {
      name, at.is_number_integer() ? at.get<std::int64_t>() / ns_per_ms : wall_ms(), {}, origin, keep, consistent, 0};
  for (const NodePast& holder : holders) {
    if (!shadow_arrives(s, holder.node, name)) {
      reply.warnings.push_back(holder.name + " has not applied it yet");
      continue;
    }
    reply.shadow.nodes.push_back(holder.name);
    if (!keep) continue;
    if (const auto kept = ask_mirror(s, holder.node, "shadow_keep", {{"name", name}, {"keep", true}}, quick_ms); !kept)
      reply.warnings.push_back(fmt::format("{} does not keep it: {}", holder.name, kept.error().to_string()));
  }
  return reply;
}

void ApiHandlers::scheduled_shadow(const std::string& name, const std::string& thinning) {
  ++busy_;
  std::thread([this, name, thinning] {
    const auto made = make_shadow(name, "schedule", false, true);
    // Without a passive that keeps a history there is nothing to name, and somebody else may have named it before.
    if (!made && made.error().code != ErrorCode::refused && made.error().code != ErrorCode::exists)
      d_.event("warning", "scheduled_shadow", "holdfastd",
               fmt::format("the shadow {} was not made: {}", name, made.error().to_string()));
    const auto policy = parse_thinning(thinning);
    const auto all = made && policy ? timeline({}) : Result<control::Timeline>(control::Timeline{});
    if (all && policy)
      for (const std::string& old : shadows_to_drop(all->shadows, *policy))
        if (const auto gone = change_shadow("shadow_delete", {old, "", false}, {{"name", old}}); !gone)
          log_warning("the shadow {} is not dropped: {}", old, gone.error().to_string());
    --busy_;
    busy_.notify_all();
  }).detach();
}

bool ApiHandlers::shadow_arrives(const Snapshot& s, NodeId node, const std::string& name) {
  const std::int64_t until = steady_ms() + shadow_arrives_ms;
  while (steady_ms() < until) {
    const auto timeline = ask_mirror(s, node, "timeline", {{"limit", 1}}, quick_ms);
    if (timeline && has_shadow(*timeline, name)) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));  // another node's state can only be looked at
  }
  return false;
}

Result<std::string> ApiHandlers::change_shadow(const std::string& op, const control::ShadowChange& r,
                                               const json& arguments) {
  const Snapshot s = d_.snapshot();
  if (!s.member || !s.value) return tl::unexpected(not_a_member());
  HF_TRY(node_or_self(s, r.node));
  std::string changed, trouble;
  for (const NodePast& past : ask_pasts(s, r.node, {{"limit", 1}})) {
    if (past.timeline && !has_shadow(*past.timeline, r.name)) continue;
    const auto done = past.timeline ? ask_mirror(s, past.node, op, arguments, quick_ms) : past.timeline;
    std::string& into = done ? changed : trouble;
    // A node that keeps no history has no shadow to change.
    if (!done && (done.error().code == ErrorCode::refused || done.error().code == ErrorCode::not_found)) continue;
    into += (into.empty() ? "" : ", ") + past.name + (done ? "" : " (" + done.error().message + ")");
  }
  if (changed.empty() && trouble.empty()) return tl::unexpected(no_such_shadow(r.name));
  if (!trouble.empty())
    return fail(ErrorCode::unavailable, "not everywhere: {}{}", trouble, changed.empty() ? "" : "; done on " + changed);
  return changed;
}

Result<Accepted> ApiHandlers::shadow_keep(const Caller&, const control::ShadowChange& r) {
  HF_ASSIGN(const std::string nodes, change_shadow("shadow_keep", r, {{"name", r.name}, {"keep", r.keep}}));
  return Accepted{"", r.keep ? "holdfast shadow keep " + r.name + " --no-keep" : "holdfast shadow keep " + r.name,
                  r.keep ? fmt::format("{} is kept on {}, and the history since then", r.name, nodes)
                         : fmt::format("{} is not kept any more on {}", r.name, nodes)};
}

Result<Accepted> ApiHandlers::shadow_delete(const Caller&, const control::ShadowChange& r) {
  HF_ASSIGN(const std::string nodes, change_shadow("shadow_delete", r, {{"name", r.name}}));
  return Accepted{"", "", fmt::format("{} is deleted on {}", r.name, nodes)};
}

Result<control::LookStatus> ApiHandlers::look(const Caller&, const control::LookRequest& r) {
  const Snapshot s = d_.snapshot();
  if (!s.member || !s.value) return tl::unexpected(not_a_member());
  if (r.dir.empty() || r.dir.front() != '/')
    return fail(ErrorCode::invalid, "the folder to mount it at must be an absolute path");
  HF_ASSIGN(const NodeId node, node_or_self(s, r.node));
  const std::int64_t now_ns = wall_ms() * ns_per_ms;
  HF_ASSIGN(const control::When when, control::parse_when(r.at, now_ns));
  HF_ASSIGN(const json timeline, ask_mirror(s, node, "timeline", {{"limit", 1}}, quick_ms));
  HF_ASSIGN(const json resolved, ask_mirror(s, node, "resolve", resolve_request(when, 0, timeline, now_ns), quick_ms));
  HF_ASSIGN(const PastPoint point, past_point(resolved));
  if (point.now)
    return tl::unexpected(Error{ErrorCode::refused, "nothing was changed since then: that is what the folders hold now",
                                "give an earlier time; holdfast timeline shows what there is", 0});
  json arguments = {{"batch", point.batch}, {"dir", r.dir}};
  if (r.writable && r.scratch_mib != 0) arguments["limit_mib"] = r.scratch_mib;
  // A request of its own: an older node would take it for one that only looks.
  const char* op = r.writable ? "look_writable" : "look";
  const auto mounted = ask_mirror(s, node, op, arguments, mount_ms);
  if (!mounted && r.writable && does_not_know(mounted.error(), op))
    return tl::unexpected(Error{ErrorCode::refused,
                                fmt::format("{} runs an older version, without writable views", name_in(s, node)),
                                "upgrade it, or look without --writable", 0});
  if (!mounted) return tl::unexpected(mounted.error());
  return control::LookStatus{name_in(s, node),
                             text_of(*mounted, "dir", r.dir.c_str()),
                             point.batch,
                             point.time_ns / ns_per_ms,
                             flag_of(*mounted, "writable"),
                             0,
                             number_of(*mounted, "limit_bytes"),
                             text_of(*mounted, "closed_above")};
}

Result<Accepted> ApiHandlers::look_end(const Caller&, const control::LookEndRequest& r) {
  const Snapshot s = d_.snapshot();
  if (!s.member || !s.value) return tl::unexpected(not_a_member());
  HF_ASSIGN(const NodeId node, node_or_self(s, r.node));
  HF_TRY(ask_mirror(s, node, "look_end", {{"dir", r.dir}}, mount_ms));
  return Accepted{"", "", r.dir + " shows the past no more"};
}

Result<control::LooksReply> ApiHandlers::looks() {
  const Snapshot s = d_.snapshot();
  if (!s.member || !s.value) return tl::unexpected(not_a_member());
  control::LooksReply reply;
  for (const cluster::Member& m : s.value->members) {
    if (m.kind != cluster::MemberKind::data) continue;
    const auto answer = ask_mirror(s, m.id, "looks", json::object(), quick_ms);
    if (!answer) continue;  // it is not there, and neither are its views
    for (const json& l : list_of(*answer, "looks")) {
      const json& at = member_of(l, "time_ns");
      reply.looks.push_back({m.name, text_of(l, "dir"), number_of(l, "batch"),
                             at.is_number_integer() ? at.get<std::int64_t>() / ns_per_ms : 0, flag_of(l, "writable"),
                             number_of(l, "bytes"), number_of(l, "limit_bytes")});
    }
  }
  return reply;
}

Result<Accepted> ApiHandlers::verify(const Caller& caller, const control::VerifyRequest& r) {
  if (!r.mode.empty() && r.mode != "full" && r.mode != "sample")
    return fail(ErrorCode::invalid, "mode is full or sample, not '{}'", r.mode);
  HF_ASSIGN(const auto forwarded, forward("verify", caller, control::to_json(r)));
  if (forwarded) return control::accepted_from_json(*forwarded);
  json arguments = {{"set", 0}, {"mode", r.mode.empty() ? "full" : r.mode}, {"repair", r.repair}};
  if (r.trust_active) arguments["trust_active"] = true;
  if (r.rate_mib_s != 0) arguments["rate_mib_s"] = r.rate_mib_s;
  HF_TRY(call_mirror(d_.mirror(), "verify", arguments, quick_ms));
  return Accepted{"", "holdfast verify --stop", "the copies are compared; see it with: holdfast verify --status"};
}

Result<Accepted> ApiHandlers::verify_stop(const Caller& caller) {
  HF_ASSIGN(const auto forwarded, forward("verify_stop", caller, json::object()));
  if (forwarded) return control::accepted_from_json(*forwarded);
  HF_TRY(call_mirror(d_.mirror(), "verify_stop", json::object(), quick_ms));
  return Accepted{"", "", "the verification is stopped"};
}

Result<control::VerifyStatus> ApiHandlers::verify_status() {
  const Snapshot s = d_.snapshot();
  if (!s.member || !s.value) return tl::unexpected(not_a_member());
  std::vector<std::pair<std::string, std::string>> names;
  for (const cluster::Member& m : s.value->members) names.emplace_back(to_hex(m.id), m.name);
  // Asked anew: a summary of half a second ago does not know yet what was begun since, and who waits for that would be told that it is over.
  const NodeId active = s.value->active;
  HF_ASSIGN(const json status, ask_mirror(s, active, "status", json::object(), quick_ms));
  return verify_status_of(name_in(s, active), status, names);
}

}  // namespace holdfast::daemon
