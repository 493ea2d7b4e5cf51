// SPDX-License-Identifier: Apache-2.0
// A probe that really writes: updates the one row of holdfast.heartbeat in database "postgres" and commits. Reads that work prove nothing.
// The work is done by the helper program `holdfast-postgresql-probe`, run as the cluster's owner (peer authentication), so that a hanging
// server can be left by killing the helper and no thread of the daemon ever changes its user.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"

namespace holdfast::platform {

inline constexpr const char* postgresql_probe_helper = "/usr/lib/holdfast/holdfast-postgresql-probe";

struct PostgresqlProbe {
  std::string socket_dir = "/var/run/postgresql";
  int port = 5432;
  std::string owner = "postgres";  // system user, and database user
  int timeout_ms = 2'000;          // connect, statement and commit together
  std::string node;                // written into the row
  std::string helper = postgresql_probe_helper;
};

struct PostgresqlHealth {
  double commit_ms = 0;                  // of the write alone
  std::vector<std::string> tablespaces;  // absolute locations outside the data folder
};

// Any thread; blocks at most timeout_ms plus a moment. Errors: `unavailable` (no connection), `timeout`, `io` (the write failed).
Result<PostgresqlHealth> probe_postgresql(const PostgresqlProbe& probe);

// Everything that is in its memory goes to the data files (CHECKPOINT); recovery from a point after it begins there. As above.
Status checkpoint_postgresql(const PostgresqlProbe& probe);

struct PostgresqlCluster {
  std::string version;  // "15"
  std::string name;     // "main"
  int port = 5432;
  std::string owner;
  std::string data_dir;
  bool online = false;
  std::string unit() const { return "postgresql@" + version + "-" + name + ".service"; }
};

// The clusters of this host by Debian's pg_lsclusters; `not_found` when that is not installed.
Result<std::vector<PostgresqlCluster>> list_postgresql_clusters();
Result<std::vector<PostgresqlCluster>> parse_pg_lsclusters(const std::string& text);

}  // namespace holdfast::platform
