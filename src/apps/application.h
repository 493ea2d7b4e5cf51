// SPDX-License-Identifier: Apache-2.0
// What Holdfast protects and moves as one: resources with an order, data paths, checks. Values only; holdfastd carries out what they say.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace holdfast::apps {

enum class ProbeKind {
  none,              // data only
  units,             // every resource's unit is active
  postgresql_write,  // and a real write commits
};

// Of a plug-in: what brings its application's files in order before a named point of the history is made, so that it starts quickly from there.
// Without it a point is what a power cut would have left, which every application must survive anyway.
enum class QuiesceKind {
  none,
  postgresql_checkpoint,
};

// A systemd unit of the application. Resources are listed in start order; stopping is the reverse.
struct Resource {
  std::string unit;
  int start_timeout_ms = 90'000;
  int stop_timeout_ms = 90'000;
  bool operator==(const Resource&) const = default;
};

// A PostgreSQL cluster the application consists of; the probe writes to each.
struct PostgresqlInstance {
  std::string version;  // major, "15"
  std::string name;     // "main"
  int port = 5432;
  std::string owner = "postgres";
  std::string data_dir;
  std::string unit;
  bool operator==(const PostgresqlInstance&) const = default;
};

struct Application {
  std::string name;
  std::string plugin;
  std::vector<Resource> resources;
  std::vector<std::string> data_paths;
  ProbeKind probe = ProbeKind::none;
  int check_interval_ms = 1'000;
  int check_timeout_ms = 2'000;
  std::vector<PostgresqlInstance> postgresql;
  // "" when versions do not matter; else what must be equal on every node ("postgresql 15/main").
  std::string compatibility;
  bool operator==(const Application&) const = default;
};

std::vector<Resource> start_order(const std::vector<Application>& applications);  // of all, one after the other
std::vector<Resource> stop_order(const std::vector<Application>& applications);

// Names, units and paths that can't be right are refused here, before anything is asked of the system.
Status validate(const Application& application);
// A name or path already taken by another application, a unit in two of them, paths that lie inside each other.
Status check_against(const Application& added, const std::vector<Application>& existing);

// "a/b" lies in "a"; equal paths too. Both absolute and normalized.
bool path_within(std::string_view path, std::string_view folder);

}  // namespace holdfast::apps
