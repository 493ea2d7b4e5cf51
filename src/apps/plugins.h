// SPDX-License-Identifier: Apache-2.0
// The built-in plug-ins: what Holdfast knows of each kind of application. Facts about the host come in as values (platform/ gathers them).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "apps/application.h"
#include "base/result.h"

namespace holdfast::apps {

struct HostFacts {
  std::vector<PostgresqlInstance> postgresql;  // clusters on this host; empty when PostgreSQL is not installed
};

struct ProtectRequest {
  std::string plugin;              // "postgresql", "systemd", "files"
  std::string name;                // "" = the plug-in's own
  std::vector<std::string> units;  // systemd: in start order
  std::vector<std::string> paths;  // files, systemd; postgresql: folders of tablespaces beside /var/lib/postgresql
};

struct Plugin {
  const char* name;
  const char* summary;  // one line for `holdfast protect --help`
  Result<Application> (*make)(const ProtectRequest& request, const HostFacts& facts);
  QuiesceKind quiesce = QuiesceKind::none;
};

const std::vector<Plugin>& plugins();
const Plugin* find_plugin(std::string_view name);
QuiesceKind quiesce_of(std::string_view plugin);  // none for one that is not known

// Looks the plug-in up, makes the application and validates it.
Result<Application> make_application(const ProtectRequest& request, const HostFacts& facts);

// Can `peer_facts`'s host run what `application` needs (same major version under the same cluster name)? `peer` names it in the error.
Status check_peer(const Application& application, const HostFacts& peer_facts, std::string_view peer);

// One alert line for each location outside the application's data paths, with the command that adds it.
std::vector<std::string> unprotected_locations(const Application& application,
                                               const std::vector<std::string>& locations);

}  // namespace holdfast::apps
