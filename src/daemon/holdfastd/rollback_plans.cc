// SPDX-License-Identifier: Apache-2.0
// A rollback on the old active. It is a switchover up to the vote: until the epoch is recorded the successor holds everything, like everybody
// else, so whoever wins in the middle has lost nothing. Only when it has won does it go back, and only because this node's resignation named
// the order that it was given (rollback_order.h). It becomes the only one that counts when its mirror has opened the epoch at the point; if
// it can't, this node is still eligible with everything.
#include "base/log.h"
#include "control/when.h"
#include "daemon/holdfastd/json_read.h"
#include "daemon/holdfastd/role_steps.h"

namespace holdfast::daemon {

using control::PlanSpec;
using control::StepContext;
using control::StepSpec;

namespace {

constexpr std::int64_t slowest_bytes_per_ms = 10 * 1024;  // of going back, generously
constexpr int least_going_back_ms = 600'000, most_going_back_ms = 6 * 3'600'000;
constexpr int verify_ms = 180'000;

// "before-rollback-20261125T140211": a name of its own for each, in UTC.
std::string way_back_name(std::int64_t now_ms) {
  std::string name = "before-rollback-";
  for (const char c : control::iso_time(now_ms).substr(0, 19))
    if (c != '-' && c != ':') name += c;
  return name;
}

nlohmann::json shadow_row(const std::string& name) {
  return {{"name", name}, {"origin", "auto"}, {"application_consistent", true}};
}

Result<nlohmann::json> successor_mirror(const Switchover& s, const std::string& op, const nlohmann::json& arguments,
                                        int timeout_ms) {
  HF_ASSIGN(const std::string text,
            s.d.ask_peer(s.order.target, "mirror", {{"op", op}, {"arguments", arguments}, {"timeout_ms", timeout_ms}},
                         timeout_ms));
  nlohmann::json parsed = nlohmann::json::parse(text, nullptr, false);
  if (!parsed.is_object()) return fail(ErrorCode::corrupt, "{} answered something odd", s.order.target_name);
  return parsed;
}

std::string point_text(const RollbackOrder& back) {
  return control::local_time(back.time_ns / ns_per_ms, wall_ms()) + (back.label.empty() ? "" : " (" + back.label + ")");
}

}  // namespace

int going_back_ms(std::uint64_t data_bytes) {
  const auto by_size = static_cast<std::int64_t>(data_bytes / slowest_bytes_per_ms);
  return static_cast<int>(std::min<std::int64_t>(least_going_back_ms + by_size, most_going_back_ms));
}

// The last thing in this epoch's log but its end: every passive has what is taken back under this name.
Status Switchover::mark_way_back(StepContext& step) const {
  HF_TRY(still_in_office(d, order.epoch));
  if (step.get("way_back").empty()) step.set("way_back", way_back_name(wall_ms()));
  const std::string name = step.get("way_back");
  const auto marked = call_mirror_in_step(d.mirror(), step, "shadow_mark", shadow_row(name));
  if (!marked && marked.error().code != ErrorCode::exists) return tl::unexpected(marked.error());
  step.say(name);
  return {};
}

Status Switchover::unmark_way_back(StepContext& step) const {
  const std::string name = step.get("way_back");
  if (name.empty()) return {};
  const auto gone = successor_mirror(*this, "shadow_delete", {{"name", name}}, 5'000);
  if (!gone) step.say(fmt::format("the shadow {} stays on {}: {}", name, order.target_name, gone.error().message));
  return {};
}

Status Switchover::end_capture_and_remember(StepContext& step) const {
  HF_TRY(end_capture(step));
  // Its folders will be made equal to the successor's: what they hold now is reached by this name afterwards.
  const auto noted = call_mirror_in_step(d.mirror(), step, "shadow_here", shadow_row(step.get("way_back")));
  if (noted || noted.error().code == ErrorCode::exists) return {};
  return tl::unexpected(with_hint(
      Error{noted.error().code, "no way back can be kept here: " + noted.error().message, {}, 0}, noted.error().hint));
}

Status Switchover::successor_can_go_back(StepContext& step) const {
  HF_TRY(successor_applies(step));
  step.say(order.target_name + " reads its history through once more");
  HF_ASSIGN(const nlohmann::json reply,
            successor_mirror(*this, "resolve", {{"batch", order.back->batch}, {"verify", true}, {"pin", true}},
                             std::max(1'000, std::min(verify_ms, step.timeout_ms()))));
  if (flag_of(reply, "now") || number_of(reply, "batch") != order.back->batch)
    return fail(ErrorCode::stale, "{} does not hold the point {} any more", order.target_name, point_text(*order.back));
  return {};
}

// The order is durable there before this node's word makes it valid.
Status Switchover::order_and_hand_over(StepContext& step) const {
  if (!handed_over()) {
    if (!step.resumed()) HF_TRY(still_in_office(d, order.epoch));
    const RollbackOrder& b = *order.back;
    const nlohmann::json body = {{"plan", order.id},
                                 {"actor", order.actor},
                                 {"from", order.self_name},
                                 {"after", order.epoch.value},
                                 {"batch", b.batch},
                                 {"epoch", b.point.epoch.value},
                                 {"seq", b.point.sequence.value},
                                 {"time_ns", b.time_ns},
                                 {"label", b.label},
                                 {"data_bytes", b.data_bytes}};
    HF_TRY(d.ask_peer(order.target, "order_rollback", body, 5'000));
  }
  return hand_over(step);
}

// Without this node's resignation in its name the order is nothing; this only tidies up.
Status Switchover::take_order_back(StepContext& step) const {
  if (handed_over()) return {};
  const auto forgotten = d.ask_peer(order.target, "forget_rollback", {{"plan", order.id}}, 3'000);
  if (!forgotten) step.say(order.target_name + " keeps a void order: " + forgotten.error().message);
  return {};
}

Status Switchover::successor_goes_back(StepContext& step) const {
  return wait_until(step, "going back", [&]() -> Result<bool> {
    if (overtaken())
      return tl::unexpected(Error{
          ErrorCode::stale,
          fmt::format("{} could not go back and another node is the active: nothing was taken back", order.target_name),
          "holdfast events shows why; try again", 0});
    const nlohmann::json summary = successor_summary();
    const nlohmann::json& back = member_of(summary, "rollback");
    const bool done = text_of(back, "plan") == order.id && text_of(back, "state") == "done";
    const bool captures = text_of(summary, "captures") == "yes";
    if (captures && !done && text_of(back, "plan") != order.id)
      return tl::unexpected(
          Error{ErrorCode::refused,
                fmt::format("{} became the active with everything: nothing was taken back", order.target_name),
                "holdfast events shows why; try again", 0});
    step.say(fmt::format("{} goes back to {}", order.target_name, point_text(*order.back)));
    return done && captures;
  });
}

Status Switchover::successor_serves(StepContext& step) const {
  return wait_until(step, "starting the applications", [&]() -> Result<bool> {
    if (overtaken()) return fail(ErrorCode::stale, "another node has become the active");
    const nlohmann::json summary = successor_summary();
    const nlohmann::json& plan = member_of(summary, "plan");
    step.say(order.target_name + ": " + text_of(summary, "activity"));
    return plan.is_null() && text_of(summary, "applications_running") == "yes";
  });
}

PlanSpec PlanKeeper::rollback_spec(const SwitchoverOrder& order) {
  const auto s = std::make_shared<Switchover>(Switchover{daemon_, order});
  const int back_ms = going_back_ms(order.back->data_bytes);
  PlanSpec spec;
  spec.id = order.id;
  spec.kind = "rollback";
  spec.from = order.self_name;
  spec.to = order.target_name;
  spec.actor = order.actor;
  spec.reason = order.reason;
  spec.undo_with = "holdfast rollback --to before-rollback";
  spec.values = {{"plan", "rollback"}, {"epoch", std::to_string(order.epoch.value)}, {"target", to_hex(order.target)}};
  to_values(*order.back, spec.values);
  spec.epoch_is_recorded = [s] { return s->epoch_is_recorded(); };

  StepSpec hand_over{order.target_name + " wins the next epoch", "cluster", 15'000,
                     [s](StepContext& c) { return s->order_and_hand_over(c); },
                     [s](StepContext& c) { return s->take_order_back(c); }};
  hand_over.records_epoch = true;
  StepSpec back{order.target_name + " goes back and captures", "mirror", back_ms + 60'000,
                [s](StepContext& c) { return s->successor_goes_back(c); }, nullptr};
  back.most_attempts = 1;
  StepSpec serves{order.target_name + " starts the applications, checks them and appears on the network",
                  "applications", 420'000, [s](StepContext& c) { return s->successor_serves(c); }, nullptr};
  serves.most_attempts = 1;
  spec.steps = {
      {"stop the applications", "applications", 120'000, [s](StepContext& c) { return s->stop_applications(c); },
       [s](StepContext& c) { return s->start_applications_again(c); }},
      {"name what is taken back", "mirror", 10'000, [s](StepContext& c) { return s->mark_way_back(c); },
       [s](StepContext& c) { return s->unmark_way_back(c); }},
      {"send what is left in the send queue", "mirror", 60'000, [s](StepContext& c) { return s->drain(c); }, nullptr},
      {"stop being the active: hide, end the capture", "mirror", 30'000,
       [s](StepContext& c) { return s->end_capture_and_remember(c); },
       [s](StepContext& c) { return s->capture_again(c); }},
      {order.target_name + " applies its receive queue and can go back", "mirror", 240'000,
       [s](StepContext& c) { return s->successor_can_go_back(c); }, nullptr},
      hand_over,
      back,
      {order.self_name + " becomes passive", "mirror", 30'000, [s](StepContext& c) { return s->become_passive(c); },
       nullptr},
      serves,
  };
  return spec;
}

void to_values(const RollbackOrder& b, std::map<std::string, std::string>& values) {
  values["batch"] = std::to_string(b.batch);
  values["point_epoch"] = std::to_string(b.point.epoch.value);
  values["point_seq"] = std::to_string(b.point.sequence.value);
  values["time_ns"] = std::to_string(b.time_ns);
  values["data_bytes"] = std::to_string(b.data_bytes);
  values["label"] = b.label;
  values["order"] = b.plan;
}

std::optional<RollbackOrder> rollback_from_values(const std::map<std::string, std::string>& values) {
  const auto number = [&](const char* key) -> std::uint64_t {
    const auto it = values.find(key);
    const bool plain = it != values.end() && !it->second.empty() && it->second.size() < 20 &&
                       it->second.find_first_not_of("0123456789") == std::string::npos;
    return plain ? std::stoull(it->second) : 0;
  };
  RollbackOrder b;
  b.batch = number("batch");
  b.point = {Epoch(number("point_epoch")), Sequence(number("point_seq"))};
  b.time_ns = static_cast<std::int64_t>(number("time_ns"));
  b.data_bytes = number("data_bytes");
  if (const auto label = values.find("label"); label != values.end()) b.label = label->second;
  if (const auto plan = values.find("order"); plan != values.end()) b.plan = plan->second;
  if (b.batch == 0) return std::nullopt;
  return b;
}

Result<std::string> PlanKeeper::rollback(const SwitchoverOrder& order) {
  HF_TRY(start_command(rollback_spec(order), true));
  return order.id;
}

}  // namespace holdfast::daemon
