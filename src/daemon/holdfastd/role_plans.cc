// SPDX-License-Identifier: Apache-2.0
// The steps of a promotion (failover, or this node's half of a switchover) and of a switchover on the old active.
#include "base/log.h"
#include "daemon/holdfastd/daemon.h"
#include "daemon/holdfastd/json_read.h"
#include "daemon/holdfastd/plan_keeper.h"

namespace holdfast::daemon {

using control::PlanSpec;
using control::StepContext;
using control::StepSpec;

namespace {

constexpr auto look_again = std::chrono::milliseconds(25);
constexpr int attempts_to_capture = 3;

// Steps of an office end when it ends; what they would do belongs to whoever holds the next one.
Status still_in_office(Daemon& d, Epoch epoch) {
  const Epoch now = d.loop().call(
      "epoch for a plan", [&d] { return d.office_epoch(); }, Epoch{});
  if (now == epoch) return {};
  return fail(ErrorCode::stale, "this node is not the active of epoch {} any more", epoch.value);
}

// Other nodes' state comes in with their summaries; it can only be looked at.
template <class Predicate>
Status wait_until(const StepContext& step, const char* what, Predicate holds) {
  for (;;) {
    const Result<bool> now = holds();
    if (!now) return tl::unexpected(now.error());
    if (*now) return {};
    if (step.cancelled()) return fail(ErrorCode::timeout, "{} took too long", what);
    std::this_thread::sleep_for(look_again);
  }
}

Status appear(Daemon& d, Epoch epoch, StepContext& step) {
  if (d.network() == nullptr) return {};
  return wait_until(step, "the lease", [&]() -> Result<bool> {
    HF_TRY(still_in_office(d, epoch));
    const auto lease = d.loop().call(
        "lease for the gate", [&d] { return d.gate_lease(); }, std::optional<network::GateLease>());
    if (!lease) return false;
    HF_TRY(d.network()->appear(epoch, *lease));
    return true;
  });
}

Status capture(Daemon& d, Epoch epoch, bool older, StepContext& step) {
  if (!d.setup().settle(step.timeout_ms()))
    return fail(ErrorCode::timeout, "the configuration was not applied in time");
  HF_TRY(wait_until(step, "the fence of the epoch before", [&]() -> Result<bool> {
    HF_TRY(still_in_office(d, epoch));
    return d.loop().call(
        "fence", [&d] { return d.fence_done(); }, false);
  }));
  step.say(older ? "the mirror goes back to its last consistent point and mounts"
                 : "the mirror applies what it received and mounts");
  const auto reply = call_mirror_in_step(d.mirror(), step, "activate", {{"epoch", epoch.value}, {"allow_older", older}},
                                         [&] { return !still_in_office(d, epoch); });
  HF_TRY(still_in_office(d, epoch));
  if (!reply) {
    // While it tries, nobody else can serve: after a few failures the others get their chance.
    if (step.attempt() >= attempts_to_capture) {
      d.loop().post("the capture does not begin", [&d, why = reply.error().to_string()] {
        d.give_up_office("the capture can't begin: " + why,
                         d.last_passive_active() == d.node().node_id ? NodeId{} : d.last_passive_active());
      });
    }
    return tl::unexpected(reply.error());
  }
  d.loop().post("the mirror captures", [&d, epoch] { d.engine()->feed(cluster::in::Activated{epoch}); });
  if (const auto p = position_from(*reply, "position"))
    step.say(fmt::format("captures from sequence {}", p->sequence.value));
  if (older && reply->contains("age_of_data_s"))
    d.event("warning", "older_data", "holdfastd",
            fmt::format("the data of epoch {} is that of {:.0f} s before: the last consistent point of this node",
                        epoch.value, (*reply)["age_of_data_s"].get<double>()));
  return {};
}

}  // namespace

PlanSpec PlanKeeper::promotion_spec(Epoch epoch, const std::string& kind, const std::string& id,
                                    const std::string& from, const std::string& actor, const std::string& reason,
                                    bool older) {
  Daemon& d = daemon_;
  PlanSpec spec;
  spec.id = id;
  spec.kind = kind;
  spec.from = from;
  spec.to = d.node().node_name;
  spec.actor = actor;
  spec.reason = reason;
  spec.undo_with = from.empty() ? "" : "holdfast make-active " + from;
  spec.values = {{"plan", "promotion"}, {"epoch", std::to_string(epoch.value)}, {"older", older ? "yes" : "no"}};
  spec.epoch_is_recorded = [] { return Result<bool>(true); };

  StepSpec win{"win the epoch", "cluster", 5'000,
               [epoch](StepContext& step) -> Status {
                 step.say(fmt::format("epoch {}", epoch.value));
                 return {};
               },
               nullptr};
  win.records_epoch = true;
  StepSpec apply{"apply the receive queue and capture", "mirror", 600'000,
                 [&d, epoch, older](StepContext& step) { return capture(d, epoch, older, step); }, nullptr};
  StepSpec network{"appear on the network", "network", 10'000,
                   [&d, epoch](StepContext& step) { return appear(d, epoch, step); }, nullptr};
  StepSpec apps{"start the applications", "applications", 300'000,
                [&d, epoch](StepContext& step) -> Status {
                  HF_TRY(still_in_office(d, epoch));
                  return d.apps().start([&step](std::string text) { step.say(std::move(text)); },
                                        [&d, epoch, &step] { return step.cancelled() || !still_in_office(d, epoch); });
                },
                nullptr};
  spec.steps = {win, apply, network, apps};
  return spec;
}

namespace {

// What the old active and its plan know of the successor.
struct Switchover {
  Daemon& d;
  SwitchoverOrder order;

  Epoch value_epoch() const {
    return d.loop().call(
        "epoch for a plan", [this] { return d.engine() != nullptr ? d.engine()->core().epoch() : Epoch{}; }, Epoch{});
  }
  NodeId active() const {
    return d.loop().call(
        "active for a plan", [this] { return d.engine() != nullptr ? d.engine()->core().active() : NodeId{}; },
        NodeId{});
  }
  bool handed_over() const { return value_epoch() > order.epoch && active() == order.target; }
  bool overtaken() const { return value_epoch() > order.epoch && active() != order.target; }
  bool in_office() const {
    return d.loop().call(
        "office for a plan", [this] { return d.office_epoch().value != 0; }, false);
  }
  // A word of the successor's newest summary; empty when it says nothing.
  std::string successor_says(const char* member) const {
    const Snapshot s = d.snapshot();
    const auto it = s.peers.find(order.target);
    if (it == s.peers.end() || !it->second.json.is_object() || !it->second.json.contains(member)) return {};
    const nlohmann::json& v = it->second.json[member];
    return v.is_string() ? v.get<std::string>() : v.dump();
  }

  Status stop_applications(StepContext& step) const {
    HF_TRY(still_in_office(d, order.epoch));
    return d.apps().stop([&step](std::string text) { step.say(std::move(text)); },
                         [&step] { return step.cancelled(); });
  }

  Status start_applications_again(StepContext& step) const {
    if (!in_office()) return {};
    return d.apps().start([&step](std::string text) { step.say(std::move(text)); },
                          [&step] { return step.cancelled(); });
  }

  Status drain(StepContext& step) const {
    return wait_until(step, "sending the queue", [&]() -> Result<bool> {
      HF_TRY(still_in_office(d, order.epoch));
      HF_ASSIGN(const nlohmann::json status, call_mirror_in_step(d.mirror(), step, "status", nlohmann::json::object()));
      for (const auto& peer : list_of(status, "peers")) {
        if (text_of(peer, "node_id") != to_hex(order.target)) continue;
        const auto sent = number_of(peer, "sent_seq"), acked = number_of(peer, "acked_seq");
        if (text_of(peer, "state") != "synchronized")
          return fail(ErrorCode::refused, "{} is not synchronized any more", order.target_name);
        step.say(fmt::format("{} bytes left", number_of(peer, "queue_bytes")));
        const auto position = position_from(status, "position");
        return acked >= sent && (!position || acked >= position->sequence.value);
      }
      return fail(ErrorCode::unavailable, "the mirror does not know {}", order.target_name);
    });
  }

  Status end_capture(StepContext& step) const {
    HF_TRY(still_in_office(d, order.epoch));
    if (d.network() != nullptr) HF_TRY(d.network()->hide());
    step.say("hidden from the network");
    if (step.resumed() && step.get("released") == "yes") return {};
    HF_ASSIGN(const nlohmann::json reply,
              call_mirror_in_step(d.mirror(), step, "release_capture",
                                  {{"epoch", order.epoch.value}, {"successor", to_hex(order.target)}}));
    step.set("released", "yes");
    if (const auto p = position_from(reply, "position")) step.set("end", std::to_string(p->sequence.value));
    return {};
  }

  // Nothing follows the end of an epoch: after the unmount this node can only win the next one.
  Status capture_again(StepContext& step) const {
    if (handed_over() || overtaken()) return {};
    const Epoch office = d.loop().call(
        "office for a plan", [this] { return d.office_epoch(); }, Epoch{});
    if (office == order.epoch) {
      // The mirror is asked, not the journal: it may have ended the epoch although nobody heard of it.
      HF_ASSIGN(const nlohmann::json status, call_mirror_in_step(d.mirror(), step, "status", nlohmann::json::object()));
      const bool captures = text_of(status, "role") == "active" && flag_of(status, "mounted") &&
                            number_of(status, "epoch") == order.epoch.value;
      if (captures) return appear(d, order.epoch, step);
      d.loop().call(
          "win the next epoch",
          [this] {
            d.engine()->feed(cluster::in::Resign{d.node().node_id});
            return 0;
          },
          0);
    }
    return wait_until(step, "winning the next epoch", [&]() -> Result<bool> {
      if (handed_over()) return true;
      const Epoch now = d.loop().call(
          "office for a plan", [this] { return d.office_epoch(); }, Epoch{});
      return now > order.epoch && !d.plans().role_plan_running();
    });
  }

  Status successor_applies(StepContext& step) const {
    nlohmann::json body = {{"epoch", order.epoch.value}, {"seq", step.get("end")}};
    return wait_until(step, "applying the receive queue", [&]() -> Result<bool> {
      HF_ASSIGN(const std::string reply, d.ask_peer(order.target, "applied", body, 5'000));
      step.say(reply);
      return reply == "applied";
    });
  }

  Status hand_over(StepContext& step) const {
    if (!handed_over()) {
      if (!step.resumed()) HF_TRY(still_in_office(d, order.epoch));
      if (still_in_office(d, order.epoch)) HF_TRY(d.ask_core(cluster::in::Handover{order.target}, 6'000));
    }
    return wait_until(step, "the election of the successor", [&]() -> Result<bool> {
      if (overtaken()) return fail(ErrorCode::stale, "another node has become the active");
      return handed_over();
    });
  }

  Status successor_captures(StepContext& step) const {
    return wait_until(step, "the successor's capture", [&]() -> Result<bool> {
      if (overtaken()) return true;
      step.say(order.target_name + " captures and appears on the network");
      return successor_says("captures") == "yes";
    });
  }

  Status become_passive(StepContext& step) const {
    return wait_until(step, "following the new active", [&]() -> Result<bool> {
      if (overtaken()) return true;
      HF_ASSIGN(const nlohmann::json status, call_mirror_in_step(d.mirror(), step, "status", nlohmann::json::object()));
      return text_of(status, "role") == "passive" && d.loop().call(
                                                         "fence", [this] { return d.fence_done(); }, false);
    });
  }

  Status successor_starts(StepContext& step) const {
    return wait_until(step, "starting the applications", [&]() -> Result<bool> {
      if (overtaken()) return true;
      step.say(order.target_name + ": " + successor_says("activity"));
      return successor_says("applications_running") == "yes";
    });
  }
};

}  // namespace

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
  spec.epoch_is_recorded = [s]() -> Result<bool> {
    if (s->handed_over()) return true;
    if (s->overtaken() || s->in_office()) return false;
    return fail(ErrorCode::unavailable, "no majority says yet who the active is");
  };
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
  HF_TRY(start_command(switchover_spec(order)));
  return order.id;
}

}  // namespace holdfast::daemon
