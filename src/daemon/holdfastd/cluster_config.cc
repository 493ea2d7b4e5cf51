// SPDX-License-Identifier: Apache-2.0
#include "daemon/holdfastd/cluster_config.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace holdfast::daemon {
namespace {

using nlohmann::json;

json application_json(const apps::Application& a) {
  json resources = json::array(), instances = json::array();
  for (const auto& r : a.resources)
    resources.push_back(
        {{"unit", r.unit}, {"start_timeout_ms", r.start_timeout_ms}, {"stop_timeout_ms", r.stop_timeout_ms}});
  for (const auto& p : a.postgresql)
    instances.push_back({{"version", p.version},
                         {"name", p.name},
                         {"port", p.port},
                         {"owner", p.owner},
                         {"data_dir", p.data_dir},
                         {"unit", p.unit}});
  return {{"name", a.name},
          {"plugin", a.plugin},
          {"resources", resources},
          {"data_paths", a.data_paths},
          {"probe", static_cast<int>(a.probe)},
          {"check_interval_ms", a.check_interval_ms},
          {"check_timeout_ms", a.check_timeout_ms},
          {"postgresql", instances},
          {"compatibility", a.compatibility}};
}

apps::Application application_from(const json& j) {
  apps::Application a;
  a.name = j.at("name").get<std::string>();
  a.plugin = j.at("plugin").get<std::string>();
  for (const json& r : j.at("resources"))
    a.resources.push_back(
        {r.at("unit").get<std::string>(), r.at("start_timeout_ms").get<int>(), r.at("stop_timeout_ms").get<int>()});
  a.data_paths = j.at("data_paths").get<std::vector<std::string>>();
  const int probe = j.at("probe").get<int>();
  a.probe = probe < 0 || probe > static_cast<int>(apps::ProbeKind::postgresql_write)
                ? apps::ProbeKind::units
                : static_cast<apps::ProbeKind>(probe);
  a.check_interval_ms = j.at("check_interval_ms").get<int>();
  a.check_timeout_ms = j.at("check_timeout_ms").get<int>();
  for (const json& p : j.at("postgresql"))
    a.postgresql.push_back({p.at("version").get<std::string>(), p.at("name").get<std::string>(),
                            p.at("port").get<int>(), p.at("owner").get<std::string>(),
                            p.at("data_dir").get<std::string>(), p.at("unit").get<std::string>()});
  a.compatibility = j.value("compatibility", std::string());
  return a;
}

void read_members(const json& j, ClusterConfig& c) {
  c.name = j.value("name", c.name);
  c.mode = j.value("mode", c.mode);
  c.profile = j.value("profile", c.profile);
  c.lease_ms = j.value("lease_ms", c.lease_ms);
  c.ring_mib = j.value("ring_mib", c.ring_mib);
  c.send_queue_mib = j.value("send_queue_mib", c.send_queue_mib);
  c.send_keep_free_mib = j.value("send_keep_free_mib", c.send_keep_free_mib);
  c.receive_queue_mib = j.value("receive_queue_mib", c.receive_queue_mib);
  c.undo_mib = j.value("undo_mib", c.undo_mib);
  c.undo_chosen = j.value("undo_chosen", c.undo_chosen);
  c.shadow_every_s = j.value("shadow_every_s", c.shadow_every_s);
  c.shadow_thinning = j.value("shadow_thinning", c.shadow_thinning);
  c.scrub = j.value("scrub", c.scrub);
  c.scrub_mib_s = j.value("scrub_mib_s", c.scrub_mib_s);
  c.automatic_failover = j.value("automatic_failover", c.automatic_failover);
  c.automatic_switchover = j.value("automatic_switchover", c.automatic_switchover);
  c.false_failover_avoidance = j.value("false_failover_avoidance", c.false_failover_avoidance);
  c.recovery_point_limit_s = j.value("recovery_point_limit_s", c.recovery_point_limit_s);
  c.failures_limit = j.value("failures_limit", c.failures_limit);
  c.failures_minutes = j.value("failures_minutes", c.failures_minutes);
  const json nodes = j.value("nodes", json::object());  // a name of its own: items() does not keep a temporary alive
  for (const auto& [id, node] : nodes.items())
    c.nodes[id] = {node.at("channel").get<std::vector<std::string>>(),
                   node.value("failures_s", std::vector<std::int64_t>{}), node.value("held", std::string()),
                   node.value("held_since_s", std::int64_t{0})};
  for (const json& p : j.value("public", json::array()))
    c.public_addresses.push_back(
        {p.at("address").get<std::string>(), p.value("site", std::string()), p.value("policy", std::string("move"))});
  for (const json& a : j.value("applications", json::array())) c.applications.push_back(application_from(a));
  for (const json& s : j.value("sets", json::array()))
    c.sets.push_back({s.at("set").get<std::uint16_t>(), s.at("path").get<std::string>(),
                      s.value("application", std::string()), s.value("write_policy", std::string("write-back")),
                      s.value("epoch", std::uint64_t{0})});
  c.next_set = j.value("next_set", c.next_set);
}

}  // namespace

const apps::Application* ClusterConfig::application(const std::string& application_name) const {
  for (const apps::Application& a : applications)
    if (a.name == application_name) return &a;
  return nullptr;
}

const std::string& ClusterConfig::held(NodeId node) const {
  static const std::string not_held;
  const auto it = nodes.find(to_hex(node));
  return it == nodes.end() ? not_held : it->second.held;
}

bool note_failure(ClusterConfig& config, NodeId node, std::int64_t now_s) {
  const auto it = config.nodes.find(to_hex(node));
  if (it == config.nodes.end() || config.failures_limit == 0) return false;
  NodeConfig& n = it->second;
  const std::int64_t since_s = now_s - std::int64_t{60} * config.failures_minutes;
  std::erase_if(n.failures_s, [&](std::int64_t s) { return s < since_s || s > now_s; });
  n.failures_s.push_back(now_s);
  if (!n.held.empty() || n.failures_s.size() < config.failures_limit) return false;
  n.held =
      fmt::format("it failed as the active {} times within {} minutes", n.failures_s.size(), config.failures_minutes);
  n.held_since_s = now_s;
  return true;
}

bool release(ClusterConfig& config, NodeId node) {
  const auto it = config.nodes.find(to_hex(node));
  if (it == config.nodes.end() || it->second.held.empty()) return false;
  it->second.held.clear();
  it->second.held_since_s = 0;
  it->second.failures_s.clear();
  return true;
}

cluster::Settings ClusterConfig::settings() const {
  cluster::Settings s;
  s.lease_ms = lease_ms != 0 ? lease_ms : profile == "fast" ? 700 : 2000;
  s.automatic_failover = automatic_failover;
  return s;
}

std::string to_text(const ClusterConfig& c) {
  json nodes = json::object(), publics = json::array(), applications = json::array(), sets = json::array();
  for (const auto& [id, node] : c.nodes) {
    nodes[id] = {{"channel", node.channel}};
    if (!node.failures_s.empty()) nodes[id]["failures_s"] = node.failures_s;
    if (!node.held.empty()) nodes[id].update({{"held", node.held}, {"held_since_s", node.held_since_s}});
  }
  for (const auto& p : c.public_addresses)
    publics.push_back({{"address", p.address}, {"site", p.site}, {"policy", p.policy}});
  for (const auto& a : c.applications) applications.push_back(application_json(a));
  for (const auto& s : c.sets)
    sets.push_back({{"set", s.set},
                    {"path", s.path},
                    {"application", s.application},
                    {"write_policy", s.write_policy},
                    {"epoch", s.epoch}});
  return json{{"name", c.name},
              {"mode", c.mode},
              {"profile", c.profile},
              {"lease_ms", c.lease_ms},
              {"ring_mib", c.ring_mib},
              {"send_queue_mib", c.send_queue_mib},
              {"send_keep_free_mib", c.send_keep_free_mib},
              {"receive_queue_mib", c.receive_queue_mib},
              {"undo_mib", c.undo_mib},
              {"undo_chosen", c.undo_chosen},
              {"shadow_every_s", c.shadow_every_s},
              {"shadow_thinning", c.shadow_thinning},
              {"scrub", c.scrub},
              {"scrub_mib_s", c.scrub_mib_s},
              {"automatic_failover", c.automatic_failover},
              {"automatic_switchover", c.automatic_switchover},
              {"false_failover_avoidance", c.false_failover_avoidance},
              {"recovery_point_limit_s", c.recovery_point_limit_s},
              {"failures_limit", c.failures_limit},
              {"failures_minutes", c.failures_minutes},
              {"nodes", nodes},
              {"public", publics},
              {"applications", applications},
              {"sets", sets},
              {"next_set", c.next_set}}
      .dump();
}

Result<ClusterConfig> config_from_text(const std::string& text) {
  try {
    ClusterConfig config;
    if (text.empty()) return config;
    read_members(json::parse(text), config);
    return config;
  } catch (const json::exception& e) {
    return fail(ErrorCode::corrupt, "the cluster's configuration can't be read: {}", e.what());
  }
}

}  // namespace holdfast::daemon
