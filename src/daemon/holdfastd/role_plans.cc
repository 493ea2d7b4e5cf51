// SPDX-License-Identifier: Apache-2.0
// The plan of a promotion (failover, or this node's half of a switchover or rollback), and that of a switchover on the old active.
#include <algorithm>
#include <array>

#include "base/log.h"
#include "control/when.h"
#include "daemon/holdfastd/json_read.h"
#include "daemon/holdfastd/role_steps.h"

namespace holdfast::daemon {

using control::PlanSpec;
using control::StepContext;
using control::StepSpec;

namespace {

constexpr int attempts_to_capture = 3;
constexpr int capture_ms = 600'000;
constexpr std::int64_t knows_ms = 5'000;

// Trying again changes nothing.
bool hopeless(ErrorCode code) {
  constexpr std::array codes = {ErrorCode::refused, ErrorCode::not_found, ErrorCode::no_space, ErrorCode::corrupt,
                                ErrorCode::invalid};
  return std::find(codes.begin(), codes.end(), code) != codes.end();
}

// The mirror says it itself; an older one would have ignored what it was asked for.
Status check_went_back(Daemon& d, StepContext& step, const RollbackOrder& back, const nlohmann::json& reply) {
  if (member_of(reply, "went_back").is_object()) return {};
  HF_ASSIGN(const nlohmann::json status, call_mirror_in_step(d.mirror(), step, "status", nlohmann::json::object()));
  if (text_of(member_of(status, "went_back"), "plan") == back.plan) return {};
  return fail(ErrorCode::refused, "holdfast-mirror did not go back: it is of another version");
}

void give_up(Daemon& d, const std::string& why) {
  d.loop().post("the capture does not begin", [&d, why] {
    d.give_up_office("the capture can't begin: " + why,
                     d.last_passive_active() == d.node().node_id ? NodeId{} : d.last_passive_active());
  });
}

Result<nlohmann::json> activate(Daemon& d, const PromotionOrder& order, StepContext& step) {
  nlohmann::json request = {{"epoch", order.epoch.value}, {"allow_older", order.older}};
  if (order.back) {
    request["to"] = {{"batch", order.back->batch}};
    request["plan"] = order.back->plan;
  }
  HF_ASSIGN(nlohmann::json reply, call_mirror_in_step(d.mirror(), step, "activate", request,
                                                      [&] { return !still_in_office(d, order.epoch); }));
  if (order.back) HF_TRY(check_went_back(d, step, *order.back, reply));
  return reply;
}

void tell_what_is_gone(Daemon& d, const PromotionOrder& order, const nlohmann::json& reply) {
  if (order.back)
    d.event("warning", "went_back", order.actor.empty() ? "holdfastd" : order.actor,
            fmt::format("{} went back to {}{}: what came after it is taken back", d.snapshot().node.node_name,
                        control::local_time(order.back->time_ns / ns_per_ms, wall_ms()),
                        order.back->label.empty() ? "" : " (" + order.back->label + ")"));
  if (order.older && reply.contains("age_of_data_s"))
    d.event("warning", "older_data", "holdfastd",
            fmt::format("the data of epoch {} is that of {:.0f} s before: the last consistent point of this node",
                        order.epoch.value, real_of(reply, "age_of_data_s")));
}

// Its votes may have brought a folder that was protected a moment ago. A mirror that is activated without it would take the folder for
// new when it hears of it, and the empty one here for all there is; one that knows it knows that its copy lacks it, and refuses.
Status knows_what_is_protected(Daemon& d, Epoch epoch, StepContext& step) {
  const std::int64_t until_ms = steady_ms() + knows_ms;
  return wait_until(step, "telling holdfast-mirror of every protected folder", [&]() -> Result<bool> {
    HF_TRY(still_in_office(d, epoch));
    HF_ASSIGN(const nlohmann::json status, call_mirror_in_step(d.mirror(), step, "status", nlohmann::json::object()));
    const Snapshot s = d.snapshot();
    if (knows_every_set(status, s.config)) return true;
    if (steady_ms() < until_ms) return false;
    return fail(ErrorCode::unavailable, "holdfast-mirror was not told of every protected folder: {}",
                s.setup_error.empty() ? "the configuration is not applied yet" : s.setup_error);
  });
}

Status capture(Daemon& d, const PromotionOrder& order, StepContext& step) {
  const Epoch epoch = order.epoch;
  if (!d.setup().settle(step.timeout_ms()))
    return fail(ErrorCode::timeout, "the configuration was not applied in time");
  const Status fenced = wait_until(step, "the fence of the epoch before", [&]() -> Result<bool> {
    HF_TRY(still_in_office(d, epoch));
    return d.loop().call(
        "fence", [&d] { return d.fence_done(); }, false);
  });
  HF_TRY(fenced);
  step.say(order.back    ? "the mirror goes back and mounts"
           : order.older ? "the mirror goes back to its last consistent point and mounts"
                         : "the mirror applies what it received and mounts");
  const Status knows = knows_what_is_protected(d, epoch, step);
  const auto reply = knows ? activate(d, order, step) : Result<nlohmann::json>(tl::unexpected(knows.error()));
  HF_TRY(still_in_office(d, epoch));
  if (!reply) {
    // While it tries, nobody else can serve: after a few failures, or one that stays, the others get their chance.
    if (step.attempt() >= attempts_to_capture || (order.back && hopeless(reply.error().code)))
      give_up(d, reply.error().to_string());
    return tl::unexpected(reply.error());
  }
  // Durable before anybody can be served: it is never carried out a second time.
  if (order.back) HF_TRY(d.rollbacks().done(*order.back, epoch));
  d.loop().post("the mirror captures", [&d, epoch] { d.engine()->feed(cluster::in::Activated{epoch}); });
  if (const auto p = position_from(*reply, "position"))
    step.say(fmt::format("captures from sequence {}", p->sequence.value));
  tell_what_is_gone(d, order, *reply);
  return {};
}

// The order that this epoch was won for is noted as begun; any other is void from here on.
Status take_order(Daemon& d, const PromotionOrder& order, StepContext& step) {
  step.say(fmt::format("epoch {}", order.epoch.value));
  if (order.back) return d.rollbacks().begin(*order.back, order.epoch);
  const auto last = d.rollbacks().last();
  if (!last || last->state == OrderState::done) return {};
  HF_TRY(d.rollbacks().forget());
  d.event("warning", "rollback_void", "holdfastd",
          fmt::format(
              "the rollback that {} asked for is void: this node became the active for another reason, with everything",
              last->actor));
  return {};
}

Status start_applications(Daemon& d, Epoch epoch, StepContext& step) {
  HF_TRY(still_in_office(d, epoch));
  return d.apps().start([&step](std::string text) { step.say(std::move(text)); },
                        [&d, epoch, &step] { return step.cancelled() || !still_in_office(d, epoch); });
}

Status confirm_health(Daemon& d, Epoch epoch, StepContext& step) {
  HF_TRY(still_in_office(d, epoch));
  const Status healthy =
      d.apps().confirm([&step](std::string text) { step.say(std::move(text)); },
                       [&d, epoch, &step] { return step.cancelled() || !still_in_office(d, epoch); });
  if (healthy) return {};
  return tl::unexpected(
      with_hint(Error{healthy.error().code, healthy.error().message, {}, 0},
                fmt::format("clients are kept out; another point: holdfast rollback --to TIME; let them in as it "
                            "is: holdfast plan --skip \"{}\"",
                            confirm_step)));
}

}  // namespace

PlanSpec PlanKeeper::promotion_spec(const PromotionOrder& order) {
  Daemon& d = daemon_;
  const Epoch epoch = order.epoch;
  PlanSpec spec;
  spec.id = order.id;
  spec.kind = order.kind;
  spec.from = order.from;
  spec.to = d.node().node_name;
  spec.actor = order.actor;
  spec.reason = order.reason;
  spec.undo_with = order.back           ? "holdfast rollback --to before-rollback"
                   : order.from.empty() ? ""
                                        : "holdfast make-active " + order.from;
  spec.values = {{"plan", "promotion"},
                 {"epoch", std::to_string(epoch.value)},
                 {"older", order.older ? "yes" : "no"},
                 {"confirm", order.confirm ? "yes" : "no"}};
  if (order.back) to_values(*order.back, spec.values);
  spec.epoch_is_recorded = [] { return Result<bool>(true); };

  StepSpec win{"win the epoch", "cluster", 5'000, [&d, order](StepContext& step) { return take_order(d, order, step); },
               nullptr};
  win.records_epoch = true;
  StepSpec apply{order.back ? "go back and capture" : "apply the receive queue and capture", "mirror",
                 order.back ? going_back_ms(order.back->data_bytes) : capture_ms,
                 [&d, order](StepContext& step) { return capture(d, order, step); }, nullptr};
  StepSpec network{"appear on the network", "network", 10'000,
                   [&d, epoch](StepContext& step) { return appear(d, epoch, step); }, nullptr};
  StepSpec apps{"start the applications", "applications", 300'000,
                [&d, epoch](StepContext& step) { return start_applications(d, epoch, step); }, nullptr};
  StepSpec confirm{confirm_step, "applications", 60'000,
                   [&d, epoch](StepContext& step) { return confirm_health(d, epoch, step); }, nullptr};
  if (order.confirm)
    spec.steps = {win, apply, apps, confirm, network};
  else
    spec.steps = {win, apply, network, apps};
  return spec;
}

PlanSpec PlanKeeper::switchover_spec(const SwitchoverOrder& order) {
  const auto s = std::make_shared<Switchover>(Switchover{daemon_, order});
  PlanSpec spec;
  spec.id = order.id;
  spec.kind = "switchover";
  spec.from = order.self_name;
  spec.to = order.target_name;
  spec.actor = order.actor;
  spec.reason = order.reason;
  spec.undo_with = "holdfast make-active " + order.self_name;
  spec.values = {
      {"plan", "switchover"}, {"epoch", std::to_string(order.epoch.value)}, {"target", to_hex(order.target)}};
  spec.epoch_is_recorded = [s] { return s->epoch_is_recorded(); };
  StepSpec hand_over{order.target_name + " wins the next epoch", "cluster", 8'000,
                     [s](StepContext& c) { return s->hand_over(c); }, nullptr};
  hand_over.records_epoch = true;
  spec.steps = {
      {"stop the applications", "applications", 120'000, [s](StepContext& c) { return s->stop_applications(c); },
       [s](StepContext& c) { return s->start_applications_again(c); }},
      {"send what is left in the send queue", "mirror", 60'000, [s](StepContext& c) { return s->drain(c); }, nullptr},
      {"stop being the active: hide, end the capture", "mirror", 30'000,
       [s](StepContext& c) { return s->end_capture(c); }, [s](StepContext& c) { return s->capture_again(c); }},
      {order.target_name + " applies its receive queue", "mirror", 60'000,
       [s](StepContext& c) { return s->successor_applies(c); }, nullptr},
      hand_over,
      {order.target_name + " captures and appears on the network", "mirror", 60'000,
       [s](StepContext& c) { return s->successor_captures(c); }, nullptr},
      {order.self_name + " becomes passive", "mirror", 30'000, [s](StepContext& c) { return s->become_passive(c); },
       nullptr},
      {"start the applications on " + order.target_name, "applications", 120'000,
       [s](StepContext& c) { return s->successor_starts(c); }, nullptr},
  };
  return spec;
}

Result<std::string> PlanKeeper::switchover(SwitchoverOrder order) {
  if (order.id.empty()) order.id = next_id("switchover");
  HF_TRY(start_command(switchover_spec(order), true));
  return order.id;
}

}  // namespace holdfast::daemon
