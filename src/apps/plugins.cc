// SPDX-License-Identifier: Apache-2.0
#include "apps/plugins.h"

#include <algorithm>

namespace holdfast::apps {
namespace {

constexpr const char* postgresql_data = "/var/lib/postgresql";

std::string cluster_label(const PostgresqlInstance& i) { return i.version + "/" + i.name; }

std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& p : parts) text += (text.empty() ? "" : ", ") + p;
  return text;
}

// All clusters of the host as one application: they share /var/lib/postgresql. /etc/postgresql stays a host's own for now: it holds what
// may differ (memory, listen addresses); the administrator keeps it alike on the nodes.
Result<Application> make_postgresql(const ProtectRequest& request, const HostFacts& facts) {
  if (facts.postgresql.empty())
    return fail(ErrorCode::not_found,
                "there is no PostgreSQL cluster on this node: apt-get install postgresql, or pg_createcluster");
  if (!request.units.empty()) return fail(ErrorCode::invalid, "postgresql finds its units itself: leave them out");
  Application a;
  a.name = request.name.empty() ? "postgresql" : request.name;
  a.plugin = "postgresql";
  a.data_paths = {postgresql_data};
  a.data_paths.insert(a.data_paths.end(), request.paths.begin(), request.paths.end());
  a.probe = ProbeKind::postgresql_write;
  a.check_timeout_ms = 3'000;
  std::vector<std::string> labels;
  for (PostgresqlInstance i : facts.postgresql) {
    const auto inside = [&](const std::string& path) { return path_within(i.data_dir, path); };
    if (std::none_of(a.data_paths.begin(), a.data_paths.end(), inside))
      return fail(
          ErrorCode::refused,
          "the data of PostgreSQL {} is in {}, outside {}: name its folder as well: holdfast protect postgresql {}",
          cluster_label(i), i.data_dir, joined(a.data_paths), i.data_dir);
    if (i.unit.empty()) i.unit = fmt::format("postgresql@{}-{}.service", i.version, i.name);
    // pg_ctlcluster waits for crash recovery, which takes as long as the write-ahead log since the last checkpoint.
    a.resources.push_back({i.unit, 300'000, 120'000});
    labels.push_back(cluster_label(i));
    a.postgresql.push_back(std::move(i));
  }
  std::sort(labels.begin(), labels.end());
  a.compatibility = "postgresql " + joined(labels);
  return a;
}

Result<Application> make_systemd(const ProtectRequest& request, const HostFacts&) {
  if (request.units.empty())
    return fail(ErrorCode::invalid,
                "name the units to protect, in the order in which they start: --unit nginx.service");
  Application a;
  a.name = request.name;
  if (a.name.empty()) a.name = request.units.front().substr(0, request.units.front().rfind('.'));
  a.plugin = "systemd";
  for (const std::string& unit : request.units) a.resources.push_back({unit});
  a.data_paths = request.paths;
  a.probe = ProbeKind::units;
  return a;
}

Result<Application> make_files(const ProtectRequest& request, const HostFacts&) {
  if (request.paths.empty()) return fail(ErrorCode::invalid, "name the folders to protect");
  if (!request.units.empty())
    return fail(ErrorCode::invalid, "files has no units: use the systemd plug-in for {}", request.units.front());
  Application a;
  a.name = request.name;
  if (a.name.empty()) {
    for (const char c : request.paths.front()) a.name += c == '/' ? '-' : c;
    a.name = "files" + a.name;
  }
  a.plugin = "files";
  a.data_paths = request.paths;
  return a;
}

}  // namespace

const std::vector<Plugin>& plugins() {
  static const std::vector<Plugin> table = {
      {"postgresql", "all PostgreSQL clusters of this host, with a probe that writes", make_postgresql,
       QuiesceKind::postgresql_checkpoint},
      {"systemd", "any systemd units, and folders with their data", make_systemd, QuiesceKind::none},
      {"files", "folders only", make_files, QuiesceKind::none},
  };
  return table;
}

QuiesceKind quiesce_of(std::string_view plugin) {
  const Plugin* found = find_plugin(plugin);
  return found != nullptr ? found->quiesce : QuiesceKind::none;
}

const Plugin* find_plugin(std::string_view name) {
  for (const Plugin& p : plugins())
    if (name == p.name) return &p;
  return nullptr;
}

Result<Application> make_application(const ProtectRequest& request, const HostFacts& facts) {
  const Plugin* plugin = find_plugin(request.plugin);
  if (plugin == nullptr) {
    std::vector<std::string> names;
    for (const Plugin& p : plugins()) names.emplace_back(p.name);
    return fail(ErrorCode::not_found, "there is no plug-in \"{}\": choose one of {}", request.plugin, joined(names));
  }
  HF_ASSIGN(Application a, plugin->make(request, facts));
  HF_TRY(validate(a));
  return a;
}

Status check_peer(const Application& application, const HostFacts& peer, std::string_view name) {
  for (const PostgresqlInstance& needed : application.postgresql) {
    const auto same_name = [&](const PostgresqlInstance& p) { return p.name == needed.name; };
    const auto same = [&](const PostgresqlInstance& p) { return p.name == needed.name && p.version == needed.version; };
    if (std::any_of(peer.postgresql.begin(), peer.postgresql.end(), same)) continue;
    const auto other = std::find_if(peer.postgresql.begin(), peer.postgresql.end(), same_name);
    if (other != peer.postgresql.end())
      return fail(ErrorCode::refused,
                  "{} has PostgreSQL {}, but the protected data is of {}: install postgresql-{} there; data of one "
                  "major version "
                  "can't be run by another",
                  name, other->version, needed.version, needed.version);
    return fail(ErrorCode::refused,
                "{} has no PostgreSQL cluster {}: install postgresql-{} there (or pg_createcluster {} {})", name,
                cluster_label(needed), needed.version, needed.version, needed.name);
  }
  return {};
}

std::vector<std::string> unprotected_locations(const Application& application,
                                               const std::vector<std::string>& locations) {
  std::vector<std::string> alerts;
  for (const std::string& location : locations) {
    const auto covers = [&](const std::string& path) { return path_within(location, path); };
    if (std::any_of(application.data_paths.begin(), application.data_paths.end(), covers)) continue;
    alerts.push_back(fmt::format("{} keeps data in {}, which is not protected: holdfast protect files {}",
                                 application.name, location, location));
  }
  return alerts;
}

}  // namespace holdfast::apps
