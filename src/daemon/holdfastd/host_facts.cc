// SPDX-License-Identifier: Apache-2.0
// What the plug-ins need to know of a host, of this one or as told by a peer.
#include <nlohmann/json.hpp>

#include "daemon/holdfastd/app_supervisor.h"
#include "platform/postgresql_probe.h"

namespace holdfast::daemon {

apps::HostFacts host_facts() {
  apps::HostFacts facts;
  const auto clusters = platform::list_postgresql_clusters();
  if (!clusters) return facts;  // not installed
  for (const auto& c : *clusters)
    facts.postgresql.push_back({c.version, c.name, c.port, c.owner, c.data_dir, c.unit()});
  return facts;
}

std::string host_facts_text() {
  nlohmann::json list = nlohmann::json::array();
  for (const auto& p : host_facts().postgresql)
    list.push_back({{"version", p.version},
                    {"name", p.name},
                    {"port", p.port},
                    {"owner", p.owner},
                    {"data_dir", p.data_dir},
                    {"unit", p.unit}});
  return list.dump();
}

Result<apps::HostFacts> host_facts_from_text(const std::string& text) {
  try {
    apps::HostFacts facts;
    for (const auto& p : nlohmann::json::parse(text))
      facts.postgresql.push_back({p.at("version").get<std::string>(), p.at("name").get<std::string>(),
                                  p.at("port").get<int>(), p.at("owner").get<std::string>(),
                                  p.at("data_dir").get<std::string>(), p.at("unit").get<std::string>()});
    return facts;
  } catch (const nlohmann::json::exception& e) {
    return fail(ErrorCode::corrupt, "the peer's list of PostgreSQL clusters can't be read: {}", e.what());
  }
}

}  // namespace holdfast::daemon
