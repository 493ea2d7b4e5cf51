// SPDX-License-Identifier: Apache-2.0
// One function a command: options in, exit status out. The options are what app.cc parsed.
#pragma once

#include <string>
#include <vector>

#include "cli/session.h"

namespace holdfast::cli {

struct InitOptions {
  std::string name, node, site, mode;
  std::vector<std::string> channel, public_addresses;
};
struct TokenOptions {
  bool witness = false;
  std::string ttl = "15m";
};
struct JoinCommandOptions {
  std::string address, token, node, site;
  std::vector<std::string> channel, public_addresses;
};
struct ProtectOptions {
  std::string what, name;
  bool write_through = false;
};
struct FailoverOptions {
  bool force = false;
  std::string node;
};
struct StatusOptions {
  bool watch = false;
};
struct EventsOptions {
  std::string since;
  int last = 50;
  bool follow = false;
};
struct PlanOptions {
  std::string id, skip;
  bool follow = false;
};

int init_command(Session& session, const InitOptions& options);
int token_command(Session& session, const TokenOptions& options);
int join_command(Session& session, const JoinCommandOptions& options);
int protect_command(Session& session, const ProtectOptions& options);
int unprotect_command(Session& session, const std::string& what);
int make_active_command(Session& session, const std::string& node);
int failover_command(Session& session, const FailoverOptions& options);
int release_command(Session& session);
int status_command(Session& session, const StatusOptions& options);
int wait_command(Session& session);
int events_command(Session& session, const EventsOptions& options);
int config_get_command(Session& session, const std::string& key);
int config_set_command(Session& session, const std::string& key, const std::string& value);
int config_show_command(Session& session);
int plan_command(Session& session, const PlanOptions& options);

// "90", "90s", "15m", "2h", "1d" in seconds.
Result<std::int64_t> parse_duration(const std::string& text);

}  // namespace holdfast::cli
