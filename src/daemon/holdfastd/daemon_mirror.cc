// SPDX-License-Identifier: Apache-2.0
// The mirror as the daemon sees it: its death, its events, its status twice a second, and what peers are told of it.
#include <algorithm>

#include "base/log.h"
#include "daemon/holdfastd/daemon.h"
#include "daemon/holdfastd/handlers.h"
#include "daemon/holdfastd/json_read.h"
#include "daemon/holdfastd/plan_keeper.h"
#include "daemon/holdfastd/shadow_schedule.h"

namespace holdfast::daemon {
namespace {
constexpr auto poll_every = std::chrono::milliseconds(500);
constexpr int hang_ms = 3'000;  // on an active: longer than a lease, so that nothing that is only slow costs the role
constexpr std::int64_t passive_hang_ms = 15'000;  // nobody waits for it
constexpr int restart_ms = 8'000;                 // its planned restart; applications wait meanwhile
constexpr std::int64_t lapse_ms = 800;            // the mirror's watchdog acts 700 ms after the lapse

// Of a peer in the mirror's status. One that is not known is no reason by itself: the state says what is wrong then.
std::int64_t recovery_point_ms(const nlohmann::json& peer) {
  return static_cast<std::int64_t>(real_of(peer, "recovery_point_s") * 1000);
}

}  // namespace

void Daemon::mirror_connected() {
  log_info("holdfast-mirror is there");
  mirror_heard_ms_ = steady_ms();
  if (insync_) insync_->mirror_restarted();
  setup_done_ = false;
  follow_sent_ = false;
  applied_.clear();
  if (member_) apply_setup();
}

// Writes are impossible from this moment, so the lease is given back at once and others need not wait for it to lapse.
void Daemon::mirror_gone() {
  mirror_status_ = nullptr;
  mirror_status_ms_ = 0;
  follow_sent_ = false;
  if (office_epoch_.value == 0) {
    log_warning("holdfast-mirror is gone");
    return;
  }
  if (bears_restart()) return log_info("holdfast-mirror is being restarted");
  give_up_office("holdfast-mirror is gone", NodeId{});
}

// The captures wait in the kernel and nobody serves them: nothing can be changed, so the lease may go on. Should the next process not come in time,
// the lease is given back, and with it the captures end (the watchdog of whoever has them, or the kernel when nobody has).
void Daemon::mirror_restarts(Epoch epoch) {
  if (office_epoch_.value == 0 || epoch != office_epoch_ || plans_->running() || bears_restart()) return;
  bear_until_ms_ = steady_ms() + restart_ms;
  mirror_->request("restart_agreed", {{"epoch", epoch.value}}, 1'000, [](const Result<nlohmann::json>&) {});
  loop_.after(std::chrono::milliseconds(restart_ms), "the mirror's restart", [this, epoch, until = bear_until_ms_] {
    if (bear_until_ms_ != until) return;
    bear_until_ms_ = 0;
    if (office_epoch_ == epoch) give_up_office("holdfast-mirror did not come back from its restart in time", NodeId{});
  });
}

void Daemon::restart_is_over(const nlohmann::json& e) {
  bear_until_ms_ = 0;
  if (Epoch(number_of(e, "epoch")) != office_epoch_) return;
  if (text_of(e, "event") == "restart_failed")
    return give_up_office("the captures did not outlast a restart of holdfast-mirror: " + text_of(e, "reason"),
                          NodeId{});
  const auto waited = member_of(e, "waited_s");
  event("info", "mirror_restarted", "holdfastd",
        fmt::format("holdfast-mirror of {} was restarted with the applications running: they waited {:.2f} s",
                    node_.node_name, waited.is_number() ? waited.get<double>() : 0.0));
}

void Daemon::mirror_event(const nlohmann::json& e) {
  if (!member_) return;
  const std::string kind = text_of(e, "event");
  if (kind == "restarting") {
    mirror_restarts(Epoch(number_of(e, "epoch")));
  } else if (kind == "restarted" || kind == "restart_failed") {
    restart_is_over(e);
  } else if (kind == "peer") {
    const auto id = node_id_from_hex(text_of(e, "node_id"));
    if (!id) return;
    InSync::Peer peer{text_of(e, "state"), 0, 0};
    for (const auto& p : list_of(mirror_status_, "peers"))
      if (text_of(p, "node_id") == to_hex(*id))
        peer = {peer.state, number_of(mirror_status_, "last_seq"), number_of(p, "acked_seq"), recovery_point_ms(p)};
    insync_->observe(*id, peer, steady_ms());
    // Attempts to connect to a peer that is down for a week are no events.
    std::string& told = channel_told_[*id];
    if (peer.state == "connecting" || peer.state == "streaming" || peer.state == told) return;
    told = peer.state;
    event(peer.state == "lost" ? "warning" : "info", "peer_" + peer.state, "holdfastd",
          fmt::format("data channel with {}: {}", name_of(*id), peer.state));
  } else if (kind == "space" || kind == "shadow_dropped" || kind == "verify" || kind == "undo" || kind == "returned" ||
             kind == "look" || kind == "history_shortened" || kind == "doubted") {
    tell_of_the_past(kind, e);
  } else if (kind == "fault" || kind == "aborted") {
    const std::string reason = kind == "fault" ? text_of(e, "reason", "unknown fault")
                                               : "the watchdog ended the capture because the lease had lapsed";
    if (kind == "fault") fault_ = reason;
    event("error", "mirror_" + kind, "holdfastd", "holdfast-mirror: " + reason);
    const bool ours = kind == "fault" || number_of(e, "epoch") == office_epoch_.value;
    if (ours) give_up_office(reason, NodeId{});
  }
  poll_mirror();
}

// What the mirror says of its history, its disks and the comparisons becomes an event for people.
void Daemon::tell_of_the_past(const std::string& kind, const nlohmann::json& e) {
  if (kind == "space") {
    const bool full = flag_of(e, "full");
    if (text_of(e, "where") == "send") {
      const auto peer = node_id_from_hex(text_of(e, "peer"));
      const std::string who = peer ? name_of(*peer) : "a peer";
      if (full)
        event("warning", "queue_given_up", "holdfastd",
              fmt::format("the send queue of {} for {} was given up ({}): {} gets what changed when it returns",
                          node_.node_name, who, text_of(e, "text"), who));
      else
        event("info", "queue_given_up", "holdfastd",
              fmt::format("{} has a send queue for {} again", node_.node_name, who));
      return;
    }
    event(full ? "warning" : "info", "space", "holdfastd",
          fmt::format("{} under {} of {}: {}", text_of(e, "path", "the disk"), text_of(e, "where", "a queue"),
                      node_.node_name, full ? "full; free space there, it goes on by itself" : "there is space again"));
  } else if (kind == "doubted") {
    event("warning", "folder_doubted", "holdfastd",
          fmt::format("set {} on {}: {}: it counts as no copy, and is compared as a whole with the active's",
                      number_of(e, "set"), node_.node_name, text_of(e, "why")));
  } else if (kind == "shadow_dropped") {
    event("warning", "shadow_dropped", "holdfastd",
          fmt::format("the shadow {} is gone on {}: {}", text_of(e, "name"), node_.node_name, text_of(e, "why")));
  } else if (kind == "look") {
    const bool full = text_of(e, "state") == "full";
    event("warning", full ? "look_full" : "look_over", "holdfastd",
          fmt::format("the view of the past at {} of {} {}: {}", text_of(e, "dir"), node_.node_name,
                      full ? "takes no more" : "is over", text_of(e, "text")));
  } else if (kind == "history_shortened") {
    event(
        "warning", "history_shortened", "holdfastd",
        fmt::format("{} goes back less far: {}; holdfast timeline shows how far", node_.node_name, text_of(e, "why")));
  } else if (kind == "returned") {
    const auto peer = node_id_from_hex(text_of(e, "node_id"));
    const std::string who = peer ? name_of(*peer) : "a node", why = text_of(e, "why_whole");
    std::string text = fmt::format("{} returned without having handed over: ", who);
    if (why.empty())
      text += fmt::format("reconciles {} files and {} folders instead of the whole tree", number_of(e, "files"),
                          number_of(e, "folders"));
    else
      text += "the whole tree is compared, because " + why;
    if (why.empty() && !list_of(e, "whole_sets").empty())
      text += fmt::format("; {} folders of the cluster as a whole: too much was changed there at once",
                          list_of(e, "whole_sets").size());
    event("info", "returned", "holdfastd", text);
  } else if (kind == "undo") {
    const std::string state = text_of(e, "state");
    event(state == "on" ? "info" : "warning", "undo", "holdfastd",
          fmt::format("undo history of {}: {}", node_.node_name, state));
  } else {
    const auto peer = node_id_from_hex(text_of(e, "node_id"));
    const std::string who = peer ? name_of(*peer) : text_of(e, "peer");
    const std::uint64_t differences = number_of(e, "differences"), repaired = number_of(e, "repaired"),
                        open = number_of(e, "open");
    std::string examples;
    for (const auto& x : list_of(e, "examples"))
      if (examples.size() < 500) examples += fmt::format("; {}: {}", text_of(x, "path"), text_of(x, "what"));
    event(open > 0          ? "error"
          : differences > 0 ? "warning"
                            : "info",
          "verify", "holdfastd",
          fmt::format("{} compared ({}): {} differences, {} repaired, {} open{}", who, text_of(e, "kind", "verify"),
                      differences, repaired, open, examples));
  }
}

void Daemon::poll_again(std::chrono::milliseconds delay) {
  if (poll_timer_ != 0) loop_.cancel(poll_timer_);
  poll_timer_ = loop_.after(delay, "look at the mirror", [this] {
    poll_timer_ = 0;
    poll_mirror();
  });
}

void Daemon::poll_mirror() {
  if (mirror_polling_) return;
  if (!mirror_->connected()) return poll_again(std::chrono::milliseconds(20));
  mirror_polling_ = true;
  mirror_->request("status", nlohmann::json::object(), hang_ms, [this](Result<nlohmann::json> reply) {
    loop_.post("status of the mirror", [this, reply = std::move(reply)] {
      mirror_polling_ = false;
      if (reply)
        take_mirror_status(*reply);
      else
        watch_mirror();
      // While this node's own mirror says nothing, nothing is known of the peers: it is not they who are stuck.
      if (insync_ && reply) insync_->tick(steady_ms());
      publish_summary();
      poll_again(poll_every);
    });
  });
}

// The applications wait in a mirror that does not run, in D state, and it does not come back by itself. An abort of its connection may not
// reach them (requests on their way into its io_uring are ended by its own threads), its death does. systemd starts it again.
void Daemon::watch_mirror() {
  const std::int64_t silent_ms = steady_ms() - mirror_heard_ms_;
  if (!mirror_->connected() || silent_ms < (office_epoch_.value != 0 ? hang_ms : passive_hang_ms)) return;
  if (!mirror_->kill()) return;
  mirror_heard_ms_ = steady_ms();
  event(
      "error", "mirror_hung", "holdfastd",
      fmt::format("holdfast-mirror did not answer for {:.1f} s and was killed", static_cast<double>(silent_ms) / 1000));
  give_up_office("holdfast-mirror hangs", NodeId{});
}

void Daemon::take_mirror_status(const nlohmann::json& status) {
  mirror_status_ = status;
  mirror_status_ms_ = mirror_heard_ms_ = steady_ms();
  if (!engine_started_) return;
  const bool active = text_of(status, "role") == "active";
  if (bears_restart() && !(active && flag_of(status, "mounted"))) return;  // not what it will be
  if (const auto position = position_from(status, "position")) {
    const bool whole = flag_of(status, "complete") || flag_of(member_of(status, "receive"), "complete");
    const bool complete = active || (whole && knows_every_set(status, config_));
    engine_->feed(cluster::in::MirrorState{*position, complete, Epoch(number_of(status, "sealed")),
                                           has_consistent_point(status), why_it_cant_lead(status)});
  }
  if (office_epoch_.value == 0) return;
  watch_capture(active && flag_of(status, "mounted") && number_of(status, "epoch") == office_epoch_.value);
  if (office_epoch_.value == 0) return;
  // In mode fsync nothing that was acknowledged can be lost, however old the rest is.
  insync_->limit(config_.mode == "async" ? std::int64_t{1000} * config_.recovery_point_limit_s : 0);
  for (const auto& p : list_of(status, "peers")) {
    const auto id = node_id_from_hex(text_of(p, "node_id"));
    if (id)
      insync_->observe(
          *id, {text_of(p, "state"), number_of(status, "last_seq"), number_of(p, "acked_seq"), recovery_point_ms(p)},
          steady_ms());
  }
}

// An active that captures nothing serves nobody and keeps others from it: outside of a change of roles it gives up. A promotion that has
// captured already needs that capture to the end: it would try to start applications on nothing for ever.
void Daemon::watch_capture(bool captures) {
  if (captures) has_captured_ = true;
  const auto plan = plans_->running();
  const bool own_promotion = plan && plan->to == node_.node_name && plans_->role_plan_running();
  if (captures || (plan && !(own_promotion && has_captured_))) {
    uncaptured_since_ms_ = 0;
    return;
  }
  if (uncaptured_since_ms_ == 0) uncaptured_since_ms_ = steady_ms();
  if (steady_ms() - uncaptured_since_ms_ < 2'000) return;
  uncaptured_since_ms_ = 0;
  give_up_office("the protected folders are not captured", NodeId{});
}

// The active makes the scheduled shadows. Each stretch of the schedule has one name, so a role change makes no second one.
void Daemon::watch_schedule() {
  loop_.after(std::chrono::seconds(10), "scheduled shadows", [this] { watch_schedule(); });
  if (office_epoch_.value == 0 || !has_captured_ || config_.shadow_every_s == 0 || config_.sets.empty() ||
      plans_->running())
    return;
  const std::string due = scheduled_name(wall_ms(), config_.shadow_every_s);
  if (due == scheduled_shadow_) return;
  scheduled_shadow_ = due;
  handlers_->scheduled_shadow(due, config_.shadow_thinning);
}

// A lapse that lasts means that the watchdog has ended the capture: this epoch is over here, whoever wins the next one.
void Daemon::watch_lease() {
  loop_.after(std::chrono::milliseconds(200), "watch the lease", [this] { watch_lease(); });
  if (office_epoch_.value == 0 || !had_lease_ || lease_word_->valid(office_epoch_)) {
    lapsed_since_ms_ = 0;
    return;
  }
  if (lapsed_since_ms_ == 0) lapsed_since_ms_ = steady_ms();
  if (steady_ms() - lapsed_since_ms_ < lapse_ms) return;
  lapsed_since_ms_ = 0;
  give_up_office("its lease lapsed: no majority of the voters answers", NodeId{});
}

void Daemon::give_up_office(const std::string& reason, NodeId successor) {
  if (office_epoch_.value == 0) return;
  const Epoch epoch = office_epoch_;
  // A node that is held takes over by nobody's naming but an administrator's.
  if (!config_.held(successor).empty()) successor = NodeId{};
  engine_->feed(cluster::in::Resign{successor});
  event("error", "resigned", "holdfastd",
        fmt::format("{} resigned from epoch {}: {}", node_.node_name, epoch.value, reason));
  fence(epoch, reason);
}

// What the others show of this node, and what their plans wait for.
// What became of the last order to go back here: the node that gave it waits for that.
nlohmann::json Daemon::last_rollback() const {
  const auto order = rollbacks_.last();
  if (!order) return nullptr;
  return {{"plan", order->plan},
          {"state", order->state == OrderState::done ? "done" : "open"},
          {"time_ns", order->time_ns},
          {"applied", order->applied.value}};
}

void Daemon::publish_summary() {
  if (!member_ || !links_) return;
  const bool active = office_epoch_.value != 0;
  const bool captures = active && text_of(mirror_status_, "role") == "active" && flag_of(mirror_status_, "mounted") &&
                        number_of(mirror_status_, "epoch") == office_epoch_.value &&
                        (network_->open() || config_.public_addresses.empty());
  nlohmann::json applications = nlohmann::json::array();
  for (const auto& a : apps_->status()) {
    nlohmann::json resources = nlohmann::json::array();
    for (const auto& r : a.resources)
      resources.push_back({{"name", r.name}, {"kind", r.kind}, {"state", r.state}, {"detail", r.detail}});
    applications.push_back({{"name", a.name},
                            {"plugin", a.plugin},
                            {"state", a.state},
                            {"health", a.health},
                            {"detail", a.detail},
                            {"resources", resources}});
  }
  nlohmann::json plan = nullptr;
  std::string activity = active ? "serves" : "follows";
  if (const auto running = plans_->running()) {
    plan = control::to_json(*running);
    for (const auto& step : running->steps)
      if (step.state == "running") activity = step.name + (step.detail.empty() ? "" : ": " + step.detail);
  }
  nlohmann::json votes = nullptr, automatic = nullptr;
  std::int64_t lease_left_ms = 0;
  if (active && engine_started_) {
    const Now now = engine_->now();
    votes = nlohmann::json::array();
    for (const auto& v : engine_->core().votes(now))
      if (v.voter)
        votes.push_back({{"voter", v.name},
                         {"kind", v.kind == cluster::MemberKind::witness ? "witness" : "node"},
                         {"reachable", v.reachable},
                         {"granted", v.granted}});
    const cluster::Availability a = engine_->core().automatic_failover(now);
    automatic = {{"available", a.available}, {"reason", a.reason}, {"change_with", a.change_with}};
    lease_left_ms = engine_->core().lease_left_ns(now) / ns_per_ms;
  }
  const nlohmann::json summary = {{"name", node_.node_name},
                                  {"version", HF_VERSION},
                                  {"role", active ? "active" : "passive"},
                                  {"since_ms", role_since_wall_ms_},
                                  {"epoch", office_epoch_.value},
                                  {"captures", captures ? "yes" : "no"},
                                  {"applications_running", active && apps_->running() ? "yes" : "no"},
                                  {"activity", activity},
                                  {"mirror", mirror_status_},
                                  {"applications", applications},
                                  {"network_open", network_->open()},
                                  {"fault", fault_.empty() ? setup_error_ : fault_},
                                  {"wall_ms", wall_ms()},
                                  {"votes", votes},
                                  {"automatic_failover", automatic},
                                  {"lease_left_ms", lease_left_ms},
                                  {"rollback", last_rollback()},
                                  {"plan", plan}};
  links_->set_summary(node_.cluster_id, dump(summary));
}

}  // namespace holdfast::daemon
