// SPDX-License-Identifier: Apache-2.0
// The cluster's configuration: the document that the register carries as text, the same on all members. Every change goes
// through the register, so it is versioned and never half there. Plain values, no I/O.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "apps/application.h"
#include "base/result.h"
#include "cluster/types.h"
#include "control/requests.h"
#include "daemon/holdfastd/undo_default.h"

namespace holdfast::daemon {

struct NodeConfig {
  std::vector<std::string> channel;      // addresses without port; each a path
  std::vector<std::int64_t> failures_s;  // when it failed as the active and another took over, Unix time, oldest first
  std::string held;                      // why it is not a target of automatic role changes; empty: it is
  std::int64_t held_since_s = 0;
};

struct PublicAddressConfig {
  std::string address;  // "192.0.2.10/24"
  std::string site;
  std::string policy = "move";
};

struct SetConfig {
  std::uint16_t set = 0;  // never used again after an unprotect
  std::string path;
  std::string application;
  std::string write_policy = "write-back";
  std::uint64_t epoch = 0;  // whose active was told to protect it; 0: not known (an older program recorded it)
};

struct ClusterConfig {
  std::string name;
  std::string mode = "async";       // async | fsync
  std::string profile = "default";  // default | fast
  std::uint32_t lease_ms = 0;       // 0 = the profile's
  std::uint32_t ring_mib = 64;
  std::uint32_t send_queue_mib = 4096;  // on the active's disk, for each peer; 0 = none
  std::uint32_t send_keep_free_mib = 512;
  std::uint32_t receive_queue_mib = 4096;
  std::uint32_t undo_mib = undo_auto;   // history on the passives; 0 = none
  bool undo_chosen = false;             // somebody said 0; else it is what clusters began with before there was one
  std::uint32_t shadow_every_s = 3600;  // scheduled shadows; 0 = none
  std::string shadow_thinning = "24h,7d,4w";  // how many of them are left, by age; see shadow_schedule.h
  bool scrub = true;                          // the active compares its passives slowly, all the time
  std::uint32_t scrub_mib_s = 0;              // 0 = a week for all of it, at least 1 MiB/s
  bool automatic_failover = true;
  bool automatic_switchover = false;     // of an application that restarts did not help
  bool false_failover_avoidance = true;  // a passive first looks whether the active still answers at a public address
  std::uint32_t recovery_point_limit_s = 60;  // async: who is further behind is no target; 0 = no limit
  std::uint32_t failures_limit = 3;           // a node that failed so often is held; 0 = never
  std::uint32_t failures_minutes = 60;        // ... within this time
  std::map<std::string, NodeConfig> nodes;    // by node id, hex
  std::vector<PublicAddressConfig> public_addresses;
  std::vector<apps::Application> applications;
  std::vector<SetConfig> sets;
  std::uint16_t next_set = 1;

  const apps::Application* application(const std::string& application_name) const;
  const std::string& held(NodeId node) const;  // why; empty when it is not
  cluster::Settings settings() const;          // what the register's core needs of it
};

std::string to_text(const ClusterConfig& config);
// Members that are missing get their defaults, wrong ones are an error.
Result<ClusterConfig> config_from_text(const std::string& text);

// The active failed and another node has taken over: noted, and held when it failed too often. Says whether it is held by this.
bool note_failure(ClusterConfig& config, NodeId node, std::int64_t now_s);
// It is a target again, and what it failed before counts no more. False: it was not held.
bool release(ClusterConfig& config, NodeId node);

// `config show`, and `config set KEY VALUE`: the changed copy, or one line that says what the key takes.
std::vector<control::ConfigItem> config_items(const ClusterConfig& config);
Result<ClusterConfig> with_setting(ClusterConfig config, const std::string& key, const std::string& value);

}  // namespace holdfast::daemon
