// SPDX-License-Identifier: Apache-2.0
// rollback and failover --to: which node can go back to the point, what it would mean, and the order that makes it happen.
#include "base/log.h"
#include "control/when.h"
#include "daemon/holdfastd/handlers.h"
#include "daemon/holdfastd/json_read.h"
#include "daemon/holdfastd/past.h"
#include "daemon/holdfastd/plan_keeper.h"

namespace holdfast::daemon {

using control::Caller;
using nlohmann::json;

namespace {

constexpr int quick_ms = 5'000;
constexpr int verify_ms = 150'000;  // reads the history from the point on
constexpr std::uint64_t slow_bytes = std::uint64_t{10} << 30;

bool keeps_history(const json& undo) {
  const std::string state = text_of(undo, "state");
  return !state.empty() && state != "off" && state != "damaged";
}

RollbackOrder order_of(const PastPoint& point) {
  RollbackOrder o;
  o.batch = point.batch;
  o.point = point.position;
  o.time_ns = point.time_ns;
  o.label = point.label;
  o.data_bytes = point.data_bytes;
  return o;
}

}  // namespace

// On the active: each passive that could become the active without loss says whether it can go back there.
std::vector<PastCandidate> ApiHandlers::candidates(const Snapshot& s, const control::RollbackRequest& r,
                                                   const control::When& when) {
  const std::int64_t now_ns = wall_ms() * ns_per_ms;
  std::vector<PastCandidate> all;
  for (const cluster::Member& m : s.value->members) {
    if (m.kind != cluster::MemberKind::data || m.id == s.node.node_id || (!r.node.empty() && m.name != r.node))
      continue;
    PastCandidate c{m.id, m.name, m.identity, fail(ErrorCode::refused, "it is not synchronized")};
    if (s.value->is_in_sync(m.id)) {
      const auto resolve = [&]() -> Result<PastPoint> {
        HF_ASSIGN(const json timeline, ask_mirror(s, m.id, "timeline", {{"limit", 1}}, quick_ms));
        json request = resolve_request(when, r.batch, timeline, now_ns);
        request["verify"] = true;
        HF_ASSIGN(const json reply, ask_mirror(s, m.id, "resolve", request, verify_ms));
        return past_point(reply);
      };
      c.point = resolve();
    }
    all.push_back(std::move(c));
  }
  return all;
}

// What somebody should know before the answer yes.
std::vector<std::string> ApiHandlers::rollback_warnings(const Snapshot& s, const PastCandidate& target) {
  std::vector<std::string> warnings;
  if (s.value->data_nodes() == 2 && !s.value->has_witness())
    warnings.push_back(
        fmt::format("without a witness nobody takes over by itself while {} goes back: if it fails then, type "
                    "holdfast failover --force on {}",
                    target.name, s.node.node_name));
  else if (!s.config.automatic_failover)
    warnings.push_back(
        fmt::format("automatic failover is off: if {} fails while it goes back, type holdfast failover on {}",
                    target.name, s.node.node_name));
  if (target.point->data_bytes > slow_bytes)
    warnings.push_back(fmt::format("{} rewrites about {} GiB, nobody is served meanwhile", target.name,
                                   target.point->data_bytes >> 30));
  return warnings;
}

Result<control::RollbackReply> ApiHandlers::rollback(const Caller& caller, const control::RollbackRequest& r) {
  Snapshot s = d_.snapshot();
  if (!s.member || !s.value) return tl::unexpected(not_a_member());
  HF_TRY(node_or_self(s, r.node));
  if (r.batch != 0 && r.node.empty())
    return fail(ErrorCode::invalid, "a batch is a number of one node: name the node too");
  HF_ASSIGN(const control::When when, control::parse_when(r.to, wall_ms() * ns_per_ms));
  HF_ASSIGN(const auto forwarded, forward("rollback", caller, control::to_json(r), verify_ms + 30'000));
  if (forwarded) return control::rollback_reply_from_json(*forwarded);
  if (r.node == s.node.node_name)
    return tl::unexpected(Error{ErrorCode::refused,
                                fmt::format("{} is the active: it has no history of its own to go back in", r.node),
                                "a passive goes back and becomes the active: leave --node out", 0});
  if (!keeps_history(member_of(s.mirror, "undo")))
    return tl::unexpected(
        Error{ErrorCode::refused,
              fmt::format("{} keeps no undo history, so what is taken back would be gone for good", s.node.node_name),
              "holdfast config set undo_mib auto turns it on, from then on", 0});
  std::vector<PastCandidate> asked = candidates(s, r, when);
  auto best = best_candidate(asked, r.to);
  if (!best) {
    std::vector<std::string> reaches;
    for (const NodePast& past : ask_pasts(s, "", {{"limit", 1}}))
      reaches.push_back(reach_of(past.name, past.role, past.timeline, wall_ms()));
    best = best_candidate(std::move(asked), r.to, reaches);
  }
  HF_ASSIGN(const PastCandidate target, std::move(best));
  control::RollbackReply reply;
  reply.from = s.node.node_name;
  reply.node = target.name;
  reply.batch = target.point->batch;
  reply.time_ms = target.point->time_ns / ns_per_ms;
  reply.label = target.point->label;
  reply.taken_back_s = std::max(0.0, static_cast<double>(wall_ms() - reply.time_ms) / 1000);
  reply.undo_with = "holdfast rollback --to before-rollback";
  reply.warnings = rollback_warnings(s, target);
  if (r.dry_run) return reply;

  SwitchoverOrder order;
  order.id = d_.plans().next_id("rollback");
  order.target = target.node;
  order.target_name = target.name;
  order.self_name = s.node.node_name;
  order.actor = caller.actor;
  order.reason =
      fmt::format("back to {}, asked for by {}", control::local_time(reply.time_ms, wall_ms()), caller.actor);
  order.back = order_of(*target.point);
  order.back->plan = order.id;
  s = d_.snapshot();  // reading the history took its time
  if (!is_active(s)) return fail(ErrorCode::unavailable, "{} is not the active any more: try again", s.node.node_name);
  order.epoch = s.office_epoch;
  HF_TRY(ask_ready(order));
  HF_ASSIGN(reply.plan, d_.plans().rollback(order));
  reply.text = fmt::format("{} goes back and becomes the active", target.name);
  return reply;
}

// On the successor. Only what it knows as the present epoch can be followed by the one that goes back.
Result<std::string> ApiHandlers::order_rollback(const json& body) {
  const Snapshot s = d_.snapshot();
  RollbackOrder o;
  o.state = OrderState::ordered;
  o.plan = text_of(body, "plan");
  o.actor = text_of(body, "actor");
  o.from = text_of(body, "from");
  o.after = Epoch(number_of(body, "after"));
  o.batch = number_of(body, "batch");
  o.point = {Epoch(number_of(body, "epoch")), Sequence(number_of(body, "seq"))};
  o.time_ns = static_cast<std::int64_t>(number_of(body, "time_ns"));
  o.label = text_of(body, "label");
  o.data_bytes = number_of(body, "data_bytes");
  if (o.plan.empty() || o.batch == 0)
    return fail(ErrorCode::invalid, "the order of a rollback names no plan or no point");
  if (!s.value || is_active(s) || s.value->epoch() != o.after)
    return fail(ErrorCode::stale, "{} knows of another epoch than {}", s.node.node_name, o.after.value);
  HF_TRY(d_.rollbacks().store(o));
  return std::string("stored");
}

Result<std::string> ApiHandlers::forget_rollback(const json& body) {
  const std::string plan = text_of(body, "plan");
  if (plan.empty()) return fail(ErrorCode::invalid, "which rollback is not named");
  HF_TRY(d_.rollbacks().forget(plan));
  return std::string("forgotten");
}

// failover --to, here: the wish is durable before the core hears of it, so that a restart in the middle can't lose what it was for.
Result<RollbackOrder> ApiHandlers::wish_for(const Snapshot& s, const Caller& caller, const std::string& to) {
  const std::int64_t now_ns = wall_ms() * ns_per_ms;
  HF_ASSIGN(const control::When when, control::parse_when(to, now_ns));
  HF_ASSIGN(const json timeline, ask_mirror(s, s.node.node_id, "timeline", {{"limit", 1}}, quick_ms));
  json request = resolve_request(when, 0, timeline, now_ns);
  request["verify"] = true;
  request["pin"] = true;
  HF_ASSIGN(const json answer, ask_mirror(s, s.node.node_id, "resolve", request, verify_ms));
  HF_ASSIGN(const PastPoint point, past_point(answer));
  if (point.now)
    return tl::unexpected(Error{ErrorCode::refused, "nothing is known here that came after " + to,
                                "holdfast failover takes over with everything", 0});
  RollbackOrder o = order_of(point);
  o.state = OrderState::wished;
  o.plan = d_.plans().next_id("failover");
  o.actor = caller.actor;
  const cluster::Member* active = s.value->member(s.value->active);
  o.from = active != nullptr ? active->name : "";
  o.after = s.value->epoch();
  HF_TRY(d_.rollbacks().store(o));
  return o;
}

}  // namespace holdfast::daemon
