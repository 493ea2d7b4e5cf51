// SPDX-License-Identifier: Apache-2.0
// What the core decides about this node's role, carried out: leases on both fences, promotion, the fence, following.
#include <cstdlib>

#include "base/log.h"
#include "control/when.h"
#include "daemon/holdfastd/daemon.h"
#include "daemon/holdfastd/json_read.h"
#include "daemon/holdfastd/plan_keeper.h"

namespace holdfast::daemon {

void Daemon::persist(std::uint64_t id, const cluster::VoterState& state) { register_store_->write(id, state); }

void Daemon::send(NodeId to, Bytes message) {
  if (links_) links_->send(node_.cluster_id, to, std::move(message));
}

void Daemon::extend_lease(Epoch epoch, const platform::ClockReading& at, std::int64_t left_ns) {
  const Status extended = lease_word_->extend(epoch, at, left_ns);
  if (!extended) {
    log_error("the lease word does not take epoch {}: {}", epoch.value, extended.error().to_string());
    return;
  }
  had_lease_ = true;
  if (left_ns >= ns_per_ms) network_->renew(epoch, network::GateLease{at, left_ns});
}

void Daemon::clear_lease(Epoch epoch) {
  lease_word_->revoke(epoch);
  network_->close_now();
  if (office_epoch_ != epoch) return;
  office_epoch_ = Epoch{};
  bear_until_ms_ = 0;
  role_since_wall_ms_ = wall_ms();
  insync_->end_office();
}

void Daemon::become_active(const cluster::out::BecomeActive& won) {
  const Epoch epoch = won.epoch;
  const bool mounted = text_of(mirror_status_, "role") == "active" && flag_of(mirror_status_, "mounted") &&
                       number_of(mirror_status_, "epoch") == epoch.value;
  const NodeId before = last_active_.value != 0 ? last_active_ : node_.node_id;
  office_epoch_ = epoch;
  before_office_ = before;
  had_lease_ = has_captured_ = false;
  lapsed_since_ms_ = 0;
  last_active_ = node_.node_id;
  follow_.reset();
  fault_.clear();
  role_since_wall_ms_ = wall_ms();
  insync_->begin_office();
  take_value(won.value);
  if (mounted) {
    network_->adopt(epoch);
    apps_->adopt_running();
    event(
        "info", "resumed", "holdfastd",
        fmt::format("{} goes on as the active of epoch {} after a restart of holdfastd", node_.node_name, epoch.value));
    plans_->resume_in_office(epoch);
    return;
  }
  if (number_of(mirror_status_, "ended_epoch") == epoch.value) {
    // The capture of this epoch has ended for good, the hand-over was cut short: only the next one can be captured.
    event("warning", "epoch_ended", "holdfastd",
          fmt::format("epoch {} has ended here; {} asks for the next one", epoch.value, node_.node_name));
    loop_.post("ask for the next epoch", [this] { engine_->feed(cluster::in::Resign{node_.node_id}); });
    return;
  }
  take_office(won, before);
}

// What this node has become the active for decides what its promotion does.
void Daemon::take_office(const cluster::out::BecomeActive& won, NodeId before) {
  const bool expected = expected_.until_ms > steady_ms() && !expected_.plan_id.empty();
  PromotionOrder order;
  order.epoch = won.epoch;
  order.kind = expected ? "switchover" : before == node_.node_id ? "activation" : "failover";
  order.id = expected ? expected_.plan_id : plans_->next_id(order.kind);
  order.from = before == node_.node_id ? "" : name_of(before);
  order.actor = expected ? expected_.actor : "holdfastd";
  order.reason = expected ? expected_.reason : order.kind == "failover" ? order.from + " is gone" : "";
  order.older = won.older;
  // Folders that stand at an earlier point because an office of before was lost in the middle are checked as well.
  order.confirm = member_of(mirror_status_, "went_back").is_object();
  const auto ordered = rollbacks_.last();
  if (ordered && carries_out(*ordered, won.order, won.over, node_.node_id)) {
    order.back = ordered;
    order.confirm = true;
    order.kind = ordered->state == OrderState::ordered ? "rollback" : "failover";
    order.id = ordered->plan;
    order.from = ordered->from == node_.node_name ? "" : ordered->from;
    order.actor = ordered->actor;
    order.reason = "back to " + control::local_time(ordered->time_ns / ns_per_ms, wall_ms());
    if (ordered->state == OrderState::begun) order.id = plans_->next_id(order.kind = "rollback");
  }
  event(order.kind == "failover" || order.back ? "warning" : "info", "role_active", order.actor,
        fmt::format("{} becomes the active of epoch {} ({})", node_.node_name, won.epoch.value, order.kind));
  plans_->promote(order);
  // A node that gave the role away by itself is looked at before it may have it again; one that failed has failed once more.
  const bool automatic = order.kind == "switchover" && order.actor == "holdfastd";
  if (before != node_.node_id && (order.kind == "failover" || automatic))
    note_takeover(before, automatic ? "it switched over by itself: " + order.reason : "");
  expected_ = {};
}

void Daemon::step_down(Epoch epoch, const std::string& reason) {
  event("warning", "role_lost", "holdfastd",
        fmt::format("{} is not the active any more (epoch {}): {}", node_.node_name, epoch.value, reason));
  fence(epoch, reason);
}

// The fast fences are closed already (clear_lease). Now the capture ends, the addresses go, the applications are killed;
// seals and following wait until that is done, for what an old application still writes must not land in a passive's tree (R23).
void Daemon::fence(Epoch epoch, const std::string& reason) {
  plans_->abandon_role_plan(reason);
  for (const char* part : {"mirror", "address", "applications"}) fence_news_.forget(part);
  fencing_ += 2;
  fence_mirror(epoch);
  fence_applications(epoch);
}

// A thread of the old capture that is stuck in the disk below may still write there: nothing goes on before it is gone.
void Daemon::fence_mirror(Epoch epoch) {
  if (!mirror_->connected()) return fence_part_done();
  mirror_->request("abort", {{"epoch", epoch.value}}, 30'000, [this, epoch](Result<nlohmann::json> r) {
    loop_.post("the mirror is fenced", [this, epoch, r = std::move(r)] {
      if (r || r.error().code == ErrorCode::stale) return fence_part_done();
      if (fence_news_.first("mirror", r.error().to_string()))
        log_error("holdfast-mirror is not fenced in epoch {} yet: {}", epoch.value, r.error().to_string());
      loop_.after(std::chrono::milliseconds(500), "fence the mirror again", [this, epoch] { fence_mirror(epoch); });
    });
  });
}

void Daemon::fence_applications(Epoch epoch) {
  fencer_->post([this, epoch] {
    const Status hidden = network_->hide();
    if (!hidden && fence_news_.first("address", hidden.error().to_string()))
      event("error", "fence", "holdfastd", "a public address could not be taken off: " + hidden.error().to_string());
    const Status killed = apps_->kill();
    if (!killed && fence_news_.first("applications", killed.error().to_string()))
      event("error", "fence", "holdfastd", "the applications are not all gone: " + killed.error().to_string());
    loop_.post("the applications are fenced", [this, epoch, again = !killed || !hidden] {
      if (!again || office_epoch_.value != 0) return fence_part_done();
      // Processes in D state go when the mirror's connection is aborted; until then this node follows nobody.
      loop_.after(std::chrono::milliseconds(1000), "fence again", [this, epoch] { fence_applications(epoch); });
    });
  });
}

void Daemon::fence_part_done() {
  if (--fencing_ > 0) return;
  fencing_ = 0;
  for (const auto& [epoch, look_back] : std::exchange(seals_waiting_, {})) send_seal(epoch, look_back);
  send_follow();
}

void Daemon::seal_mirror(Epoch epoch, bool look_back) {
  if (fencing_ > 0) {
    seals_waiting_.emplace_back(epoch, look_back);
    return;
  }
  send_seal(epoch, look_back);
}

void Daemon::send_seal(Epoch epoch, bool look_back) {
  // Looking reads the history from the consistent point on.
  const int patience_ms = look_back ? 120'000 : 10'000;
  mirror_->request(
      "seal", {{"epoch", epoch.value}, {"look_back", look_back}}, patience_ms,
      [this, epoch](Result<nlohmann::json> reply) {
        loop_.post("the mirror is sealed", [this, epoch, reply = std::move(reply)] {
          const auto position =
              reply ? position_from(*reply, "position") : Result<Position>(tl::unexpected(reply.error()));
          if (!position) {
            log_warning("the mirror was not sealed for epoch {}: {}", epoch.value, position.error().to_string());
            return engine_->feed(cluster::in::SealFailed{epoch, position.error().to_string()});
          }
          // A folder that it was not told of yet it would take for empty.
          const bool complete = flag_of(*reply, "complete") && knows_every_set(*reply, config_);
          const bool fallback = flag_of(*reply, "fallback");
          engine_->feed(cluster::in::MirrorState{*position, complete, epoch, has_consistent_point(mirror_status_),
                                                 why_it_cant_lead(mirror_status_)});
          engine_->feed(
              cluster::in::MirrorSealed{epoch, *position, complete, fallback, text_of(*reply, "no_fallback")});
        });
      });
}

void Daemon::follow(Epoch epoch, NodeId active) {
  if (last_active_ != active)
    event("info", "follow", "holdfastd",
          fmt::format("{} follows {} in epoch {}", node_.node_name, name_of(active), epoch.value));
  last_active_ = active;
  plans_->close_what_a_restart_cut_off(name_of(active));
  if (const auto order = rollbacks_.last();
      order && (order->state == OrderState::ordered || order->state == OrderState::begun) && epoch > order->after)
    events_->post([this, plan = order->plan] {
      if (const Status gone = rollbacks_.forget(plan); !gone) log_error("{}", gone.error().to_string());
    });
  follow_ = {epoch, active};
  follow_sent_ = false;
  send_follow();
}

void Daemon::send_follow() {
  if (!follow_ || follow_sent_ || fencing_ > 0 || office_epoch_.value != 0 || !mirror_->connected() || !setup_done_)
    return;
  follow_sent_ = true;
  const auto [epoch, active] = *follow_;
  nlohmann::json addresses = nlohmann::json::array();
  if (const auto it = config_.nodes.find(to_hex(active)); it != config_.nodes.end())
    for (const std::string& a : it->second.channel)
      addresses.push_back(a.find(':') == std::string::npos ? a + ":9728" : "[" + a + "]:9728");
  mirror_->request("follow",
                   {{"epoch", epoch.value}, {"active", {{"node_id", to_hex(active)}, {"addresses", addresses}}}},
                   30'000, [this, epoch = epoch](Result<nlohmann::json> reply) {
                     if (reply) return;
                     loop_.post("the mirror does not follow", [this, epoch, e = reply.error()] {
                       if (!follow_ || follow_->first != epoch) return;
                       log_warning("holdfast-mirror does not follow in epoch {}: {}", epoch.value, e.to_string());
                       follow_sent_ = false;
                       loop_.after(std::chrono::milliseconds(500), "follow again", [this] { send_follow(); });
                     });
                   });
}

void Daemon::in_sync_recorded(Epoch epoch, std::uint64_t version, const std::vector<NodeId>& set) {
  if (epoch == office_epoch_) insync_->recorded(version, set);
}

void Daemon::set_wait_set(const std::vector<NodeId>& peers, std::function<void(bool ok)> done) {
  nlohmann::json list = nlohmann::json::array();
  for (const NodeId id : peers) list.push_back(to_hex(id));
  // The first one of an epoch says that a majority has recorded this node alone: only now may the mirror overwrite others' copies.
  mirror_->request("wait_set", {{"peers", list}, {"epoch", office_epoch_.value}}, 5'000,
                   [this, done = std::move(done)](Result<nlohmann::json> reply) {
                     if (!reply)
                       log_warning("holdfast-mirror did not take the set of peers to wait for: {}",
                                   reply.error().to_string());
                     loop_.post("the mirror waits for these peers", [done, ok = reply.has_value()] { done(ok); });
                   });
}

void Daemon::waiting_for(NodeId node, std::uint64_t in_sync_version) {
  engine_->feed(cluster::in::WaitingFor{node, in_sync_version});
}

void Daemon::peer_lost(NodeId node) {
  std::int64_t& logged = lost_logged_ms_[node];
  if (logged == 0 || steady_ms() - logged > 60'000)
    log_warning("{} does not keep up or is gone: it leaves the in-sync set", name_of(node));
  logged = steady_ms();
  engine_->feed(cluster::in::PeerLost{node});
}

void Daemon::note(const std::string& text) { event("info", "cluster", "holdfastd", text); }

}  // namespace holdfast::daemon
