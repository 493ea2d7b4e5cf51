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
  bool although_it_answers = false;
  std::string node, to;
};
struct TimelineOptions {
  std::string from, to, node;
  int points = -1;  // -1: as many as make sense
};
struct ShadowOptions {
  std::string name, node;
  bool keep = false, no_keep = false, no_quiesce = false;
};
struct RollbackOptions {
  std::string to, node;
  bool dry_run = false;
};
struct LookOptions {
  std::string at, node, dir;
  bool end = false, list = false, writable = false;
  int scratch_mib = 0;
};
struct VerifyOptions {
  bool full = false, sample = false, stop = false, status = false, wait = false, no_repair = false,
       trust_active = false;
  int rate_mib_s = 0;
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
  bool history = false;
};

int init_command(Session& session, const InitOptions& options);
int token_command(Session& session, const TokenOptions& options);
int join_command(Session& session, const JoinCommandOptions& options);
int protect_command(Session& session, const ProtectOptions& options);
int unprotect_command(Session& session, const std::string& what);
int make_active_command(Session& session, const std::string& node);
int failover_command(Session& session, const FailoverOptions& options);
int release_command(Session& session, const std::string& node);
int revert_command(Session& session);
int member_change_command(Session& session, const std::string& name, const std::string& new_name,
                          const std::vector<std::string>& channel);
int member_remove_command(Session& session, const std::string& name);
int status_command(Session& session, const StatusOptions& options);
int metrics_command(Session& session);
int wait_command(Session& session);
int events_command(Session& session, const EventsOptions& options);
int config_get_command(Session& session, const std::string& key);
int config_set_command(Session& session, const std::string& key, const std::string& value);
int config_show_command(Session& session);
int timeline_command(Session& session, const TimelineOptions& options);
int shadow_create_command(Session& session, const ShadowOptions& options);
int shadow_list_command(Session& session);
int shadow_keep_command(Session& session, const ShadowOptions& options);
int shadow_delete_command(Session& session, const ShadowOptions& options);
int rollback_command(Session& session, const RollbackOptions& options);
int look_command(Session& session, const LookOptions& options);
int verify_command(Session& session, const VerifyOptions& options);
int plan_command(Session& session, const PlanOptions& options);

// "90", "90s", "15m", "2h", "1d" in seconds.
Result<std::int64_t> parse_duration(const std::string& text);

}  // namespace holdfast::cli
