// SPDX-License-Identifier: Apache-2.0
// The steps of a switchover on the old active, and what its plan waits for.
#include "daemon/holdfastd/role_steps.h"

#include "base/log.h"
#include "daemon/holdfastd/json_read.h"

namespace holdfast::daemon {

using control::StepContext;

Status still_in_office(Daemon& d, Epoch epoch) {
  const Epoch now = d.loop().call(
      "epoch for a plan", [&d] { return d.office_epoch(); }, Epoch{});
  if (now == epoch) return {};
  return fail(ErrorCode::stale, "this node is not the active of epoch {} any more", epoch.value);
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

Epoch Switchover::value_epoch() const {
  return d.loop().call(
      "epoch for a plan", [this] { return d.engine() != nullptr ? d.engine()->core().epoch() : Epoch{}; }, Epoch{});
}
NodeId Switchover::active() const {
  return d.loop().call(
      "active for a plan", [this] { return d.engine() != nullptr ? d.engine()->core().active() : NodeId{}; }, NodeId{});
}
bool Switchover::in_office() const {
  return d.loop().call(
      "office for a plan", [this] { return d.office_epoch().value != 0; }, false);
}
nlohmann::json Switchover::successor_summary() const {
  const Snapshot s = d.snapshot();
  const auto it = s.peers.find(order.target);
  return it == s.peers.end() ? nlohmann::json() : it->second.json;
}

std::string Switchover::successor_says(const char* member) const {
  const nlohmann::json summary = successor_summary();
  const nlohmann::json& v = member_of(summary, member);
  return v.is_null() ? std::string() : v.is_string() ? v.get<std::string>() : v.dump();
}

Result<bool> Switchover::epoch_is_recorded() const {
  if (handed_over()) return true;
  if (overtaken() || in_office()) return false;
  return fail(ErrorCode::unavailable, "no majority says yet who the active is");
}

Status Switchover::stop_applications(StepContext& step) const {
  HF_TRY(still_in_office(d, order.epoch));
  return d.apps().stop([&step](std::string text) { step.say(std::move(text)); }, [&step] { return step.cancelled(); });
}

Status Switchover::start_applications_again(StepContext& step) const {
  if (!in_office()) return {};
  return d.apps().start([&step](std::string text) { step.say(std::move(text)); }, [&step] { return step.cancelled(); });
}

Status Switchover::drain(StepContext& step) const {
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

Status Switchover::end_capture(StepContext& step) const {
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

Status Switchover::capture_again(StepContext& step) const {
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

Status Switchover::successor_applies(StepContext& step) const {
  nlohmann::json body = {{"epoch", order.epoch.value}, {"seq", step.get("end")}};
  return wait_until(step, "applying the receive queue", [&]() -> Result<bool> {
    HF_ASSIGN(const std::string reply, d.ask_peer(order.target, "applied", body, 5'000));
    step.say(reply);
    return reply == "applied";
  });
}

Status Switchover::hand_over(StepContext& step) const {
  if (!handed_over()) {
    if (!step.resumed()) HF_TRY(still_in_office(d, order.epoch));
    if (still_in_office(d, order.epoch)) {
      cluster::in::Handover handover{order.target};
      if (order.back) handover.order = order_id(order.id);
      HF_TRY(d.ask_core(handover, 6'000));
    }
  }
  return wait_until(step, "the election of the successor", [&]() -> Result<bool> {
    if (overtaken()) return fail(ErrorCode::stale, "another node has become the active");
    return handed_over();
  });
}

Status Switchover::successor_captures(StepContext& step) const {
  return wait_until(step, "the successor's capture", [&]() -> Result<bool> {
    if (overtaken()) return true;
    step.say(order.target_name + " captures and appears on the network");
    return successor_says("captures") == "yes";
  });
}

Status Switchover::become_passive(StepContext& step) const {
  return wait_until(step, "following the new active", [&]() -> Result<bool> {
    if (overtaken()) return true;
    HF_ASSIGN(const nlohmann::json status, call_mirror_in_step(d.mirror(), step, "status", nlohmann::json::object()));
    return text_of(status, "role") == "passive" && d.loop().call(
                                                       "fence", [this] { return d.fence_done(); }, false);
  });
}

Status Switchover::successor_starts(StepContext& step) const {
  return wait_until(step, "starting the applications", [&]() -> Result<bool> {
    if (overtaken()) return true;
    step.say(order.target_name + ": " + successor_says("activity"));
    return successor_says("applications_running") == "yes";
  });
}

}  // namespace holdfast::daemon
