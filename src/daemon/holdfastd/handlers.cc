// SPDX-License-Identifier: Apache-2.0
// Reading, settings, and what peers ask.
#include "daemon/holdfastd/handlers.h"

#include <algorithm>
#include <thread>

#include "base/log.h"
#include "daemon/holdfastd/json_read.h"
#include "daemon/holdfastd/plan_keeper.h"
#include "daemon/holdfastd/status_builder.h"

namespace holdfast::daemon {

using control::Accepted;
using control::Caller;

Error not_a_member() {
  return Error{ErrorCode::unavailable, "this node is in no cluster yet",
               "holdfast init makes one, holdfast join enters one", 0};
}

bool is_active(const Snapshot& s) { return s.member && s.office_epoch.value != 0; }

ApiHandlers::ApiHandlers(Daemon& daemon) : d_(daemon), tokens_(daemon.paths().tokens()) {}

ApiHandlers::~ApiHandlers() {
  for (int n = busy_; n != 0; n = busy_) busy_.wait(n);
}

Result<control::ClusterStatus> ApiHandlers::status() {
  StatusSources sources;
  sources.snapshot = d_.snapshot();
  sources.applications = d_.apps().status();
  sources.application_alerts = d_.apps().alerts();
  sources.network_open = d_.network() != nullptr && d_.network()->open();
  sources.plan = d_.plans().running();
  sources.now_ms = steady_ms();
  sources.wall_ms = wall_ms();
  if (sources.snapshot.member && sources.snapshot.value) {
    for (const cluster::Member& m : sources.snapshot.value->members) {
      if (m.id == sources.snapshot.node.node_id) continue;
      sources.paths[m.id] = d_.links().paths(sources.snapshot.node.cluster_id, m.id);
      sources.connected[m.id] = d_.links().connected(sources.snapshot.node.cluster_id, m.id);
    }
  }
  return build_status(sources);
}

// Each node keeps its own events; who is asked fetches what it lacks from the others first.
Result<control::EventPage> ApiHandlers::events(const control::EventCursor& since, std::size_t limit, int wait_ms) {
  control::EventStore* store = d_.event_store();
  if (store == nullptr) return control::EventPage{};
  const Snapshot s = d_.snapshot();
  const auto fetch = [&] {
    if (!s.value) return;
    for (const cluster::Member& m : s.value->members) {
      if (m.id == s.node.node_id || m.kind != cluster::MemberKind::data ||
          !d_.links().connected(s.node.cluster_id, m.id))
        continue;
      const auto text = d_.ask_peer(m.id, "events", {{"since", control::to_text(store->end())}}, 1'000);
      const json parsed = text ? json::parse(*text, nullptr, false) : json();
      if (const auto page = control::event_page_from_json(parsed); page) (void)store->ingest(page->events);
    }
  };
  fetch();
  for (int waited = 0;; waited += 1'000) {
    control::EventPage page = store->wait_after(since, limit, std::min(1'000, wait_ms - waited));
    if (!page.events.empty() || waited + 1'000 >= wait_ms) return page;
    fetch();
  }
}

Result<control::ConfigReply> ApiHandlers::config() {
  const Snapshot s = d_.snapshot();
  if (!s.member) return tl::unexpected(not_a_member());
  return control::ConfigReply{s.value ? s.value->config_version : 0, config_items(s.config)};
}

Result<control::PlanStatus> ApiHandlers::plan(const std::string& id) {
  auto own = d_.plans().find(id);
  if (id.empty() || (own && own->kind != "switchover")) return own;
  // The whole of a switchover is told by the old active; this node's half is second best. One that was cut off by a restart of holdfastd there
  // is told by nobody but the successor.
  const auto running = d_.plans().running();
  const bool open = own && (own->state == "running" || own->state == "reverting" || own->state == "halted");
  const bool cut_off = open && (!running || running->id != id);
  if (own && own->from == d_.snapshot().node.node_name && !cut_off) return own;
  const Snapshot s = d_.snapshot();
  std::string silent;  // who might know it
  if (s.value) {
    for (const cluster::Member& m : s.value->members) {
      if (m.id == s.node.node_id || m.kind != cluster::MemberKind::data) continue;
      const auto text = d_.links().connected(s.node.cluster_id, m.id)
                            ? d_.ask_peer(m.id, "plan", {{"id", id}}, 1'000)
                            : Result<std::string>(fail(ErrorCode::unavailable, ""));
      const auto parsed = text ? json::parse(*text, nullptr, false) : json();
      if (auto found = control::plan_status_from_json(parsed); parsed.is_object() && found) return found;
      const bool asked =
          text || (text.error().code != ErrorCode::unavailable && text.error().code != ErrorCode::timeout);
      if (!asked) silent += (silent.empty() ? "" : ", ") + m.name;
    }
  }
  if (!own && own.error().code == ErrorCode::not_found && !silent.empty())
    return tl::unexpected(Error{ErrorCode::unavailable,
                                fmt::format("the plan is not known here, and {} can't be asked now", silent),
                                "holdfast plan, when the nodes see each other again", 0});
  return own;
}

// Both nodes of a switchover keep their part; the old active's is the whole.
Result<std::vector<control::PlanStatus>> ApiHandlers::plans(std::size_t limit) {
  HF_ASSIGN(std::vector<control::PlanStatus> all, d_.plans().history());
  const Snapshot s = d_.snapshot();
  std::map<std::string, std::size_t> known;
  for (std::size_t i = 0; i < all.size(); ++i) known[all[i].id] = i;
  const auto take = [&](control::PlanStatus plan) {
    const auto [at, fresh] = known.emplace(plan.id, all.size());
    if (fresh)
      all.push_back(std::move(plan));
    else if (plan.steps.size() > all[at->second].steps.size())
      all[at->second] = std::move(plan);
  };
  for (const cluster::Member& m : s.value ? s.value->members : std::vector<cluster::Member>{}) {
    if (m.id == s.node.node_id || m.kind != cluster::MemberKind::data || !d_.links().connected(s.node.cluster_id, m.id))
      continue;
    const auto text = d_.ask_peer(m.id, "plans", json::object(), 2'000);
    const json told = text ? json::parse(*text, nullptr, false) : json();
    for (const json& each : list_of(told, "plans"))
      if (auto plan = control::plan_status_from_json(each)) take(std::move(*plan));
  }
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.started_ms > b.started_ms; });
  if (all.size() > limit) all.resize(limit);
  return all;
}

Result<Accepted> ApiHandlers::config_set(const Caller& caller, const control::ConfigSetRequest& request) {
  const Snapshot s = d_.snapshot();
  if (!s.member) return tl::unexpected(not_a_member());
  HF_ASSIGN(const ClusterConfig wanted, with_setting(s.config, request.key, request.value));
  if (request.key == "public_addresses") {
    std::vector<std::string> here;
    for (const auto& p : wanted.public_addresses)
      if (p.site == s.node.site) here.push_back(p.address);
    HF_TRY(check_addresses({}, here));
  }
  HF_ASSIGN(const auto forwarded, forward("config_set", caller, control::to_json(request)));
  if (forwarded) return control::accepted_from_json(*forwarded);
  std::string before;
  HF_TRY(d_.propose_config([&](ClusterConfig c) -> Result<ClusterConfig> {
    for (const auto& item : config_items(c))
      if (item.key == request.key) before = item.value;
    return with_setting(std::move(c), request.key, request.value);
  }));
  return Accepted{"", fmt::format("holdfast config set {} {}", request.key, before.empty() ? "''" : before),
                  fmt::format("{} is {} (was {})", request.key, request.value, before.empty() ? "not set" : before)};
}

void ApiHandlers::record(const control::EventDraft& event) {
  d_.event(event.severity, event.code, event.actor, event.text);
}

Result<std::optional<nlohmann::json>> ApiHandlers::forward(const std::string& op, const Caller& caller,
                                                           const json& request, int timeout_ms) {
  const Snapshot s = d_.snapshot();
  if (!s.member || !s.value) return tl::unexpected(not_a_member());
  if (is_active(s)) return std::optional<json>();
  const cluster::Member* active = s.value->member(s.value->active);
  const std::string name = active != nullptr ? active->name : "nobody";
  if (s.value->active == s.node.node_id)
    return tl::unexpected(Error{ErrorCode::unavailable, "this node was the active but has no majority now",
                                "holdfast status shows who is missing", 0});
  if (!d_.links().connected(s.node.cluster_id, s.value->active))
    return tl::unexpected(Error{ErrorCode::unavailable, fmt::format("the active, {}, can't be reached from here", name),
                                "holdfast failover makes this node the active when it is gone for good", 0});
  const json body = {{"op", op}, {"actor", caller.actor + " via " + s.node.node_name}, {"request", request}};
  HF_ASSIGN(const std::string text, d_.ask_peer(s.value->active, "do", body, timeout_ms));
  json parsed = json::parse(text, nullptr, false);
  if (!parsed.is_object()) return fail(ErrorCode::corrupt, "{} answered something odd", name);
  return std::optional<json>(std::move(parsed));
}

void ApiHandlers::serve_peer(NodeId from, std::string op, std::string body, network::Responder respond) {
  if (busy_ >= 64) return respond(fail(ErrorCode::busy, "too many requests at once"));
  ++busy_;
  std::thread([this, from, op = std::move(op), body = std::move(body), respond = std::move(respond)] {
    const json parsed = json::parse(body, nullptr, false);
    respond(parsed.is_object() ? answer_peer(from, op, parsed)
                               : Result<std::string>(fail(ErrorCode::invalid, "not a JSON object")));
    --busy_;
    busy_.notify_all();
  }).detach();
}

Result<std::string> ApiHandlers::answer_peer(NodeId from, const std::string& op, const json& body) {
  const Snapshot s = d_.snapshot();
  const cluster::Member* asker = s.value ? s.value->member(from) : nullptr;
  if (asker != nullptr && asker->kind == cluster::MemberKind::witness)
    return fail(ErrorCode::denied, "a witness votes, and asks for nothing");
  if (op == "events") {
    if (d_.event_store() == nullptr) return fail(ErrorCode::unavailable, "no events here");
    HF_ASSIGN(const control::EventCursor since, control::event_cursor_from_text(text_of(body, "since")));
    return dump(control::to_json(d_.event_store()->after(since, 500)));
  }
  if (op == "plan") {
    HF_ASSIGN(const control::PlanStatus plan, d_.plans().find(text_of(body, "id")));
    return dump(control::to_json(plan));
  }
  if (op == "plans") {
    HF_ASSIGN(const std::vector<control::PlanStatus> plans, d_.plans().history());
    json list = json::array();
    for (const control::PlanStatus& plan : plans) list.push_back(control::to_json(plan));
    return dump(json{{"plans", list}});
  }
  if (op == "has_addresses") return has_addresses(body);
  if (op == "facts") return host_facts_text();
  if (op == "protect_facts") return protect_facts(body);
  if (op == "make_folders") return make_folders(body);
  if (op == "prepare_switchover") return prepare_switchover(from, body);
  if (op == "applied") return applied(body);
  if (op == "mirror") return mirror_for_peer(body);
  if (op == "order_rollback") return order_rollback(body);
  if (op == "forget_rollback") return forget_rollback(body);
  if (op == "do") {
    Caller caller;
    caller.origin = control::Origin::peer;
    caller.actor = text_of(body, "actor", "a peer");
    HF_ASSIGN(const json reply, do_for_peer(text_of(body, "op"), caller, member_of(body, "request")));
    return dump(reply);
  }
  return fail(ErrorCode::invalid, "this version does not know the request '{}'", op);
}

Result<nlohmann::json> ApiHandlers::do_for_peer(const std::string& op, const Caller& caller, const json& request) {
  const Snapshot s = d_.snapshot();
  if (op != "failover" && !is_active(s))
    return fail(ErrorCode::unavailable, "{} is not the active any more: try again", s.node.node_name);
  const auto recorded = [&](auto reply) -> Result<json> {
    if (!reply) {
      d_.event("warning", op, caller.actor, fmt::format("{} refused: {}", op, reply.error().message));
      return tl::unexpected(reply.error());
    }
    return control::to_json(*reply);
  };
  if (op == "judge_joiner") return judge_joiner(request);
  if (op == "add_member") return add_member(request);
  if (op == "remove_member") return remove_member(request);
  if (op == "config_set") {
    HF_ASSIGN(const auto r, control::config_set_request_from_json(request));
    return recorded(config_set(caller, r));
  }
  if (op == "protect") {
    HF_ASSIGN(const auto r, control::protect_request_from_json(request));
    return recorded(protect(caller, r));
  }
  if (op == "unprotect") {
    HF_ASSIGN(const auto r, control::unprotect_request_from_json(request));
    return recorded(unprotect(caller, r));
  }
  if (op == "make_active") {
    HF_ASSIGN(const auto r, control::make_active_request_from_json(request));
    return recorded(make_active(caller, r));
  }
  if (op == "shadow_create") {
    HF_ASSIGN(const auto r, control::shadow_request_from_json(request));
    return recorded(shadow_create(caller, r));
  }
  if (op == "rollback") {
    HF_ASSIGN(const auto r, control::rollback_request_from_json(request));
    return recorded(rollback(caller, r));
  }
  if (op == "verify") {
    HF_ASSIGN(const auto r, control::verify_request_from_json(request));
    return recorded(verify(caller, r));
  }
  if (op == "member_remove") {
    HF_ASSIGN(const auto r, control::member_remove_request_from_json(request));
    return recorded(member_remove(caller, r));
  }
  if (op == "member_change") {
    HF_ASSIGN(const auto r, control::member_change_request_from_json(request));
    return recorded(member_change(caller, r));
  }
  if (op == "release") {
    HF_ASSIGN(const auto r, control::release_request_from_json(request));
    return recorded(release(caller, r));
  }
  if (op == "verify_stop") return recorded(verify_stop(caller));
  if (op == "failover") {
    HF_ASSIGN(const auto r, control::failover_request_from_json(request));
    return recorded(failover(caller, r));
  }
  return fail(ErrorCode::invalid, "this version does not know '{}'", op);
}

}  // namespace holdfast::daemon
