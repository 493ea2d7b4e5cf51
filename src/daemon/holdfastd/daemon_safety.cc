// SPDX-License-Identifier: Apache-2.0
// Safety options that live beside the cluster core: who is held, and whether the active still answers its clients. Both only take
// automatic candidacies away; a candidate's right to win is the core's business alone.
#include <thread>

#include "base/log.h"
#include "daemon/holdfastd/daemon.h"
#include "daemon/holdfastd/json_read.h"
#include "network/who_answers.h"

namespace holdfast::daemon {
namespace {

constexpr std::int64_t silent_ms = 1'200;         // a summary comes twice a second
constexpr std::int64_t answer_counts_ms = 1'500;  // a probe that hangs must not keep a node from taking over
constexpr int ask_ms = 700;
constexpr int attempts_to_note = 120;

}  // namespace

std::vector<std::string> Daemon::public_doors(const ClusterConfig& config) {
  std::vector<std::string> doors;
  for (const PublicAddressConfig& p : config.public_addresses)
    if (const auto prefix = network::IpPrefix::parse(p.address))
      doors.push_back(with_port(prefix->ip.to_string(), 9727));
  return doors;
}

std::string Daemon::address_where_answers(NodeId node, const std::vector<std::string>& doors, int timeout_ms) const {
  for (const std::string& door : doors) {
    const auto who = network::who_answers(door, node_.cluster_id, paths_.tls(), timeout_ms);
    if (who && who->id == node) return door.substr(0, door.rfind(':'));
  }
  return {};
}

// While nothing is heard of the active it is looked for where its clients find it. With a lease that has lapsed it can't answer there.
void Daemon::watch_active() {
  loop_.after(std::chrono::milliseconds(250), "is the active silent", [this] { watch_active(); });
  if (!engine_started_ || !value_ || value_->member(node_.node_id) == nullptr) return;
  const NodeId active = value_->active;
  const auto heard = summaries_.find(active);
  const bool silent = office_epoch_.value == 0 && active.value != 0 && active != node_.node_id &&
                      (heard == summaries_.end() || steady_ms() - heard->second.received_ms > silent_ms);
  if (!silent || !config_.false_failover_avoidance) {
    active_answers_at_.clear();
  } else if (!asking_for_active_) {
    asking_for_active_ = true;
    safety_->post([this, active, doors = public_doors(config_)] {
      const std::string where = address_where_answers(active, doors, ask_ms);
      loop_.post("does the active answer", [this, active, where] {
        asking_for_active_ = false;
        if (where.empty() || !value_ || value_->active != active) return;
        if (active_answers_at_.empty())
          event(
              "warning", "active_answers", "holdfastd",
              fmt::format("{} hears nothing of {}, but it answers at {}: {} does not take over by itself while it does",
                          node_.node_name, name_of(active), where, node_.node_name));
        active_answers_at_ = where;
        active_answered_ms_ = steady_ms();
      });
    });
  }
  if (!active_answers_at_.empty() && steady_ms() - active_answered_ms_ > answer_counts_ms) active_answers_at_.clear();
  engine_->feed(cluster::in::Observed{!active_answers_at_.empty() || !config_.held(node_.node_id).empty()});
}

// What made another node give its role to this one is noted where all see it. The office has to be open for that, which takes a moment.
void Daemon::note_takeover(NodeId from, const std::string& hold_because) {
  if (hold_because.empty() && config_.failures_limit == 0) return;
  notes_->post([this, from, hold_because, epoch = office_epoch_] {
    bool held = false;
    const auto change = [&](ClusterConfig c) -> Result<ClusterConfig> {
      const std::int64_t now_s = wall_ms() / 1000;
      const auto node = c.nodes.find(to_hex(from));
      if (node == c.nodes.end()) return c;
      held = hold_because.empty() ? note_failure(c, from, now_s) : node->second.held.empty();
      if (held && !hold_because.empty()) {
        node->second.held = hold_because;
        node->second.held_since_s = now_s;
      }
      return c;
    };
    for (int attempt = 0; attempt < attempts_to_note; ++attempt) {
      const Epoch now = loop_.call(
          "epoch for a note", [this] { return office_epoch_; }, Epoch{});
      if (now != epoch) return;
      if (propose_config(change)) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(500));
    }
    if (!held) return;
    const Snapshot s = snapshot();
    const std::string name = s.value && s.value->member(from) != nullptr ? s.value->member(from)->name : to_hex(from);
    event("warning", "held", "holdfastd",
          fmt::format("{} does not take over by itself any more, because {}; holdfast release {} ends that", name,
                      s.config.held(from), name));
  });
}

}  // namespace holdfast::daemon
