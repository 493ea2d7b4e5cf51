// SPDX-License-Identifier: Apache-2.0
// The recorded configuration, applied to this machine: members' addresses, units, public addresses, the mirror.
#include <algorithm>

#include "base/log.h"
#include "control/pki.h"
#include "daemon/holdfastd/daemon.h"
#include "daemon/holdfastd/json_read.h"
#include "daemon/holdfastd/undo_default.h"

namespace holdfast::daemon {

std::string with_port(const std::string& address, int port) {
  const bool plain_v6 = address.find('[') == std::string::npos && std::count(address.begin(), address.end(), ':') > 1;
  if (plain_v6) return fmt::format("[{}]:{}", address, port);
  return address.find(':') == std::string::npos ? fmt::format("{}:{}", address, port) : address;
}

void Daemon::value_recorded(const cluster::ValuePtr& value) { take_value(value); }

void Daemon::take_value(const cluster::ValuePtr& value) {
  value_ = value;
  auto config = config_from_text(value->config);
  if (!config) {
    setup_error_ = config.error().to_string();
    log_error("{}", setup_error_);
    return;
  }
  config_ = std::move(*config);
  refresh_peers();
  apply_setup();
}

std::vector<network::LinkPeer> Daemon::peers_from_value() const {
  std::vector<network::LinkPeer> peers;
  for (const cluster::Member& m : value_->members) {
    if (m.id == node_.node_id) continue;
    network::LinkPeer p;
    p.id = m.id;
    p.name = m.name;
    p.kind = m.kind == cluster::MemberKind::witness ? network::PeerKind::witness : network::PeerKind::node;
    if (const auto it = config_.nodes.find(to_hex(m.id)); it != config_.nodes.end())
      for (const std::string& a : it->second.channel)
        p.addresses.push_back(with_port(a, p.kind == network::PeerKind::witness ? 9729 : 9727));
    peers.push_back(std::move(p));
  }
  return peers;
}

void Daemon::refresh_peers() {
  // A joiner's first values may not hold it yet; until they do it keeps the addresses that it was given.
  const cluster::Member* self = value_->member(node_.node_id);
  if (!links_ || self == nullptr) return;
  const std::vector<network::LinkPeer> peers = peers_from_value();
  links_->set_peers(node_.cluster_id, peers);
  NodeState next = node_;
  next.peers = peers;
  next.cluster_name = config_.name;
  next.node_name = self->name;
  if (peers_to_text(next.peers) == peers_to_text(node_.peers) && next.cluster_name == node_.cluster_name &&
      next.node_name == node_.node_name)
    return;
  node_ = next;
  setup_->post([file = paths_.node_file(), next] {
    if (const Status stored = store_node_state(file, next); !stored) log_error("{}", stored.error().to_string());
  });
}

nlohmann::json Daemon::mirror_configuration() const {
  nlohmann::json sets = nlohmann::json::array(), peers = nlohmann::json::array();
  for (const SetConfig& s : config_.sets)
    sets.push_back({{"set", s.set}, {"path", s.path}, {"write_policy", s.write_policy}, {"epoch", s.epoch}});
  bool v6 = false;
  for (const auto& [id, node] : config_.nodes) {
    for (const std::string& a : node.channel) v6 = v6 || std::count(a.begin(), a.end(), ':') > 1;
    const auto member_id = node_id_from_hex(id);
    const cluster::Member* m = member_id && value_ ? value_->member(*member_id) : nullptr;
    if (m == nullptr || m->id == node_.node_id || m->kind != cluster::MemberKind::data) continue;
    nlohmann::json addresses = nlohmann::json::array();
    for (const std::string& a : node.channel) addresses.push_back(with_port(a, 9728));
    peers.push_back({{"node_id", id}, {"name", m->name}, {"addresses", addresses}});
  }
  nlohmann::json message = {{"cluster", node_.cluster_id},
                            {"node", node_.node_name},
                            {"node_id", to_hex(node_.node_id)},
                            {"mode", config_.mode},
                            {"ring_mib", config_.ring_mib},
                            {"send_queue_mib", config_.send_queue_mib},
                            {"send_keep_free_mib", config_.send_keep_free_mib},
                            {"receive_queue_mib", config_.receive_queue_mib},
                            {"scrub", config_.scrub},
                            {"scrub_mib_s", config_.scrub_mib_s},
                            {"listen", v6 ? "[::]:9728" : "0.0.0.0:9728"},
                            {"tls_dir", paths_.tls()},
                            {"sets", sets},
                            {"next_set", config_.next_set},
                            {"peers", peers},
                            {"founder", founder_}};
  if (config_.undo_mib != undo_auto) message["undo_mib"] = config_.undo_mib;
  return message;
}

Status Daemon::apply_units_and_network(const ClusterConfig& config) {
  HF_TRY(apps_->configure(config.applications));
  std::vector<network::IpPrefix> addresses;
  for (const PublicAddressConfig& p : config.public_addresses) {
    if (p.site != node_.site) continue;
    HF_ASSIGN(const network::IpPrefix prefix, network::IpPrefix::parse(p.address));
    addresses.push_back(prefix);
  }
  return network_->configure(addresses);
}

// Not the active: nothing of it may serve here. A capture of an epoch that is over goes first, for what waits in it can't be killed.
Status Daemon::make_passive(const ClusterConfig& config) {
  HF_TRY(network_->hide());
  const auto status = call_mirror(*mirror_, "status", nlohmann::json::object(), 5'000);
  if (status && text_of(*status, "role") == "active") {
    const auto ended = call_mirror(*mirror_, "abort", {{"epoch", number_of(*status, "epoch")}}, 30'000);
    if (!ended) return tl::unexpected(ended.error());
  }
  return apps_->rest(config.applications);
}

void Daemon::apply_setup() {
  const nlohmann::json mirror = mirror_configuration();
  const std::string wanted = dump(mirror) + to_text(config_);
  if (wanted == applied_) return;
  applied_ = wanted;
  setup_->post([this, config = config_, mirror, wanted] {
    const bool active = loop_.call(
        "role for the setup",
        [this] {
          const bool resuming =
              !engine_started_ && value_ && value_->active == node_.node_id && lease_word_->valid(value_->epoch());
          return office_epoch_.value != 0 || resuming;
        },
        false);
    Status done = apply_units_and_network(config);
    if (done && !active) done = make_passive(config);
    if (done) {
      const auto configured = call_mirror(*mirror_, "configure", mirror, 60'000);
      if (!configured) done = tl::unexpected(configured.error());
    }
    loop_.post("the setup is applied", [this, wanted, done] {
      const std::string error = done ? "" : done.error().to_string();
      if (error != setup_error_ && !error.empty())
        event("error", "setup", "holdfastd", "the configuration can't be applied here: " + error);
      setup_error_ = error;
      if (wanted != applied_) return;  // a newer one is on its way
      if (done) {
        setup_done_ = true;
        send_follow();
        return;
      }
      applied_.clear();
      loop_.after(std::chrono::milliseconds(1000), "apply the setup again", [this] {
        if (applied_.empty() && member_ && mirror_->connected()) apply_setup();
      });
    });
  });
}

// Twice a day: this node signs its own next certificate when the present one is in its last months, or over.
void Daemon::renew_certificate() {
  const auto renewed = control::renew_if_due({paths_.tls()}, wall_ms() / 1000);
  const std::string error = renewed ? "" : renewed.error().to_string();
  if (!renewed && error != certificate_error_)
    event("error", "certificate", "holdfastd", "the certificate could not be renewed: " + error);
  certificate_error_ = error;
  if (renewed && *renewed) {
    event("info", "certificate", "holdfastd", "the certificate was renewed");
    if (door_) (void)door_->reload(paths_.tls());
  }
  loop_.after(renewed ? std::chrono::minutes(12 * 60) : std::chrono::minutes(10), "renew the certificate", [this] {
    if (member_) renew_certificate();
  });
}

Status Daemon::settle_setup(int timeout_ms) {
  const std::int64_t until = steady_ms() + timeout_ms;
  for (;;) {
    const int left = static_cast<int>(until - steady_ms());
    if (left <= 0 || !setup_->settle(left))
      return fail(ErrorCode::timeout, "the configuration was not applied in time");
    const Status state = loop_.call(
        "is the setup applied",
        [this]() -> Status {
          if (!setup_error_.empty()) return fail(ErrorCode::refused, "{}", setup_error_);
          return setup_done_ && !applied_.empty() ? Status{} : Status(fail(ErrorCode::busy, "not yet"));
        },
        Status(fail(ErrorCode::unavailable, "holdfastd is stopping")));
    if (state || state.error().code != ErrorCode::busy) return state;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

}  // namespace holdfast::daemon
