// SPDX-License-Identifier: Apache-2.0
// make-active, failover, release, and what the successor of a switchover answers.
#include <chrono>
#include <thread>

#include "base/log.h"
#include "daemon/holdfastd/handlers.h"
#include "daemon/holdfastd/json_read.h"
#include "daemon/holdfastd/plan_keeper.h"

namespace holdfast::daemon {

using control::Accepted;
using control::Caller;
using nlohmann::json;

namespace {

constexpr std::int64_t plan_begins_ms = 10'000;
constexpr int looks_for_ms = 1'500;

std::string node_names(const cluster::Value& value) {
  std::string names;
  for (const cluster::Member& m : value.members)
    if (m.kind == cluster::MemberKind::data) names += (names.empty() ? "" : ", ") + m.name;
  return names;
}

const cluster::Member* node_named(const cluster::Value& value, const std::string& name) {
  for (const cluster::Member& m : value.members)
    if (m.kind == cluster::MemberKind::data && m.name == name) return &m;
  return nullptr;
}

Error no_such_node(const cluster::Value& value, const std::string& name) {
  return Error{ErrorCode::not_found, fmt::format("there is no node '{}' in this cluster", name),
               "its nodes are " + node_names(value), 0};
}

}  // namespace

Result<Accepted> ApiHandlers::make_active(const Caller& caller, const control::MakeActiveRequest& r) {
  const Snapshot s = d_.snapshot();
  if (!s.member || !s.value) return tl::unexpected(not_a_member());
  const cluster::Member* target = node_named(*s.value, r.node);
  if (target == nullptr) return tl::unexpected(no_such_node(*s.value, r.node));
  HF_ASSIGN(const auto forwarded, forward("make_active", caller, control::to_json(r)));
  if (forwarded) return control::accepted_from_json(*forwarded);
  if (target->id == s.node.node_id) return Accepted{"", "", r.node + " is the active already"};
  return switch_over(target->id, caller.actor, "asked for by " + caller.actor);
}

Result<Accepted> ApiHandlers::switch_over(NodeId target, const std::string& actor, const std::string& reason) {
  const Snapshot s = d_.snapshot();
  const cluster::Member* m = s.value->member(target);
  if (m == nullptr) return fail(ErrorCode::not_found, "the successor is not a member any more");
  if (!s.value->is_in_sync(target))
    return tl::unexpected(Error{ErrorCode::refused,
                                m->name + " is not synchronized, so it can't take over without loss",
                                "wait until holdfast status shows it synchronized", 0});
  if (const std::string& why = s.config.held(target); !why.empty())
    return tl::unexpected(Error{ErrorCode::refused, m->name + " is held: " + why,
                                fmt::format("holdfast release {}, when you have looked at it", m->name), 0});
  SwitchoverOrder order;
  order.id = d_.plans().next_id("switchover");
  order.target = target;
  order.target_name = m->name;
  order.self_name = s.node.node_name;
  order.actor = actor;
  order.reason = reason;
  order.epoch = s.office_epoch;
  HF_TRY(ask_ready(order));
  HF_ASSIGN(const std::string id, d_.plans().switchover(order));
  return Accepted{id, "holdfast make-active " + order.self_name, fmt::format("{} becomes the active", m->name)};
}

Status ApiHandlers::ask_ready(const SwitchoverOrder& order) {
  const json notice = {{"plan", order.id}, {"from", order.self_name}, {"actor", order.actor}, {"reason", order.reason}};
  const auto ready = d_.ask_peer(order.target, "prepare_switchover", notice, 5'000);
  if (ready) return {};
  return tl::unexpected(with_hint(
      Error{ready.error().code, fmt::format("{} can't take over: {}", order.target_name, ready.error().message), {}, 0},
      ready.error().hint));
}

// On the successor: veto now, while nothing has been stopped yet.
Result<std::string> ApiHandlers::prepare_switchover(NodeId, const json& body) {
  const Snapshot s = d_.snapshot();
  if (!s.mirror_connected || s.mirror.is_null())
    return fail(ErrorCode::unavailable, "its holdfast-mirror does not answer");
  if (!s.fault.empty()) return fail(ErrorCode::refused, "its mirror has a fault: {}", s.fault);
  if (const std::string why = why_it_cant_lead(s.mirror); !why.empty()) return fail(ErrorCode::refused, "{}", why);
  if (!s.setup_error.empty()) return fail(ErrorCode::refused, "its configuration can't be applied: {}", s.setup_error);
  const apps::HostFacts facts = host_facts();
  for (const apps::Application& a : s.config.applications) HF_TRY(apps::check_peer(a, facts, s.node.node_name));
  ExpectedSwitchover e;
  e.plan_id = text_of(body, "plan");
  e.from = text_of(body, "from");
  e.actor = text_of(body, "actor");
  e.reason = text_of(body, "reason");
  e.until_ms = steady_ms() + 180'000;
  d_.loop().call(
      "expect a switchover",
      [this, e] {
        d_.expect_switchover(e);
        return 0;
      },
      0);
  return std::string("ready");
}

// Has this passive applied everything up to the end of the epoch?
Result<std::string> ApiHandlers::applied(const json& body) const {
  const std::string end = text_of(body, "seq");
  const auto status = call_mirror(d_.mirror(), "status", json::object(), 3'000);
  if (!status) return tl::unexpected(status.error());
  const json& receive = member_of(*status, "receive");
  const std::uint64_t applied_seq = number_of(receive, "applied_seq");
  if (end.empty() || end.find_first_not_of("0123456789") != std::string::npos || end.size() > 19)
    return std::string("applied");
  if (applied_seq >= std::stoull(end)) return std::string("applied");
  return fmt::format("applied up to {} of {}", applied_seq, end);
}

Result<Accepted> ApiHandlers::failover(const Caller& caller, const control::FailoverRequest& r) {
  const Snapshot s = d_.snapshot();
  if (!s.member || !s.value) return tl::unexpected(not_a_member());
  if (!r.node.empty() && r.node != s.node.node_name) {
    const cluster::Member* target = node_named(*s.value, r.node);
    if (target == nullptr) return tl::unexpected(no_such_node(*s.value, r.node));
    control::FailoverRequest there = r;
    there.node.clear();
    const json body = {
        {"op", "failover"}, {"actor", caller.actor + " via " + s.node.node_name}, {"request", control::to_json(there)}};
    HF_ASSIGN(const std::string text, d_.ask_peer(target->id, "do", body, r.force ? 160'000 : 30'000));
    return control::accepted_from_json(json::parse(text, nullptr, false));
  }
  if (is_active(s))
    return tl::unexpected(Error{ErrorCode::exists, s.node.node_name + " is the active already",
                                "holdfast failover is for the node that is to take over", 0});
  const auto active = s.peers.find(s.value->active);
  const bool alive = active != s.peers.end() && steady_ms() - active->second.received_ms < 2'500 &&
                     text_of(active->second.json, "role") == "active";
  if (alive) {
    const std::string name = text_of(active->second.json, "name");
    return tl::unexpected(
        Error{ErrorCode::refused, fmt::format("{} is the active and answers, so nothing has failed", name),
              fmt::format("holdfast make-active {} changes the roles without loss", s.node.node_name), 0});
  }
  if (r.force && !r.although_it_answers && s.config.false_failover_avoidance) {
    const std::string where = d_.address_where_answers(s.value->active, Daemon::public_doors(s.config), looks_for_ms);
    const cluster::Member* lost = s.value->member(s.value->active);
    if (!where.empty() && lost != nullptr)
      return tl::unexpected(Error{
          ErrorCode::refused, fmt::format("{} is alive: it answers its clients at {}", lost->name, where),
          "end it there first, or cut it from its clients; holdfast failover --force --although-it-answers vouches "
          "that it will be",
          0});
  }
  d_.event("warning", "failover_asked", caller.actor,
           fmt::format("failover to {} was asked for{}", s.node.node_name, r.force ? ", accepting loss" : ""));
  std::optional<RollbackOrder> wish;
  if (!r.to.empty()) {
    HF_ASSIGN(wish, wish_for(s, caller, r.to));
  }
  cluster::in::Failover input;
  if (wish) input.order = order_id(wish->plan);
  input.force = r.force;
  input.at_s = static_cast<std::uint64_t>(wall_ms() / 1000);
  // With force the mirror may have to look through its history for a consistent point first.
  const Status won = d_.ask_core(input, r.force ? 150'000 : 20'000);
  if (!won) {
    if (wish) HF_TRY(d_.rollbacks().forget(wish->plan));
    const std::string hint =
        r.force ? "holdfast status shows what is missing"
                : "holdfast failover --force accepts what may be lost and vouches that the active is gone";
    return tl::unexpected(Error{won.error().code, "no failover: " + won.error().message, hint, 0});
  }
  if (wish) {
    // Its plan is journalled beside this; whoever asked wants to follow it.
    const std::int64_t until = steady_ms() + plan_begins_ms;
    while (!d_.plans().find(wish->plan) && steady_ms() < until)
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    if (!d_.plans().find(wish->plan))
      return tl::unexpected(Error{ErrorCode::stale, s.node.node_name + " has won the epoch but does not go back",
                                  "holdfast plan and holdfast events show what it does", 0});
    return Accepted{wish->plan, "holdfast rollback --to before-rollback",
                    s.node.node_name + " has won the epoch and goes back"};
  }
  const auto running = d_.plans().running();
  return Accepted{running ? running->id : "", "", s.node.node_name + " has won the epoch"};
}

Result<Accepted> ApiHandlers::release(const Caller& caller, const control::ReleaseRequest& r) {
  const Snapshot s = d_.snapshot();
  if (!s.member || !s.value) return tl::unexpected(not_a_member());
  std::vector<const cluster::Member*> held;
  for (const cluster::Member& m : s.value->members)
    if (!s.config.held(m.id).empty() && (r.node.empty() || r.node == m.name)) held.push_back(&m);
  if (!r.node.empty() && node_named(*s.value, r.node) == nullptr) return tl::unexpected(no_such_node(*s.value, r.node));
  if (held.empty())
    return tl::unexpected(
        Error{ErrorCode::refused, r.node.empty() ? "no node is held" : r.node + " is not held",
              "release is for a node that may not take over by itself: holdfast status says so, and why", 0});
  if (held.size() > 1)
    return tl::unexpected(
        Error{ErrorCode::invalid, "more than one node is held", "name one: holdfast release NODE", 0});
  const NodeId node = held.front()->id;
  const std::string name = held.front()->name;
  HF_ASSIGN(const auto forwarded, forward("release", caller, control::to_json(control::ReleaseRequest{name})));
  if (forwarded) return control::accepted_from_json(*forwarded);
  HF_TRY(d_.propose_config([&](ClusterConfig c) -> Result<ClusterConfig> {
    daemon::release(c, node);
    return c;
  }));
  d_.event("info", "released", caller.actor, fmt::format("{} may take over by itself again", name));
  return Accepted{"", "", fmt::format("{} may take over by itself again; what it failed before is forgotten", name)};
}

Result<Accepted> ApiHandlers::skip_step(const Caller& caller, const control::SkipStepRequest& r) {
  HF_TRY(d_.plans().skip(r.plan, r.step, caller.actor));
  return Accepted{"", "", "step '" + r.step + "' is skipped"};
}

void ApiHandlers::automatic_switchover(const std::string& application, const std::string& reason) {
  const Snapshot s = d_.snapshot();
  if (!is_active(s) || !s.config.automatic_switchover) return;
  for (const cluster::Member& m : s.value->members) {
    if (m.id == s.node.node_id || m.kind != cluster::MemberKind::data || !s.value->is_in_sync(m.id)) continue;
    if (!s.config.held(m.id).empty()) continue;
    const auto done = switch_over(m.id, "holdfastd", application + ": " + reason);
    if (done) return;
    d_.event("error", "switchover_refused", "holdfastd", done.error().message);
  }
}

}  // namespace holdfast::daemon
