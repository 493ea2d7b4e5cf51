// SPDX-License-Identifier: Apache-2.0
// Members of JSON that came from another process: a wrong type reads as absent, it never throws.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

#include "daemon/holdfastd/cluster_config.h"

namespace holdfast::daemon {

inline const nlohmann::json& member_of(const nlohmann::json& json, const char* name) {
  static const nlohmann::json none;
  if (!json.is_object()) return none;
  const auto it = json.find(name);
  return it == json.end() ? none : *it;
}

inline std::string text_of(const nlohmann::json& json, const char* name, const char* otherwise = "") {
  const nlohmann::json& v = member_of(json, name);
  return v.is_string() ? v.get<std::string>() : otherwise;
}

inline std::uint64_t number_of(const nlohmann::json& json, const char* name, std::uint64_t otherwise = 0) {
  const nlohmann::json& v = member_of(json, name);
  if (v.is_number_unsigned()) return v.get<std::uint64_t>();
  return v.is_number() && v.get<double>() >= 0 ? static_cast<std::uint64_t>(v.get<double>()) : otherwise;
}

inline double real_of(const nlohmann::json& json, const char* name, double otherwise = 0) {
  const nlohmann::json& v = member_of(json, name);
  return v.is_number() ? v.get<double>() : otherwise;
}

inline bool flag_of(const nlohmann::json& json, const char* name, bool otherwise = false) {
  const nlohmann::json& v = member_of(json, name);
  return v.is_boolean() ? v.get<bool>() : otherwise;
}

// Never null: an empty list when it is something else.
inline const nlohmann::json& list_of(const nlohmann::json& json, const char* name) {
  static const nlohmann::json none = nlohmann::json::array();
  const nlohmann::json& v = member_of(json, name);
  return v.is_array() ? v : none;
}

// Of the mirror's status, or its seal: it knows every protected folder that is recorded. An older one does not say.
inline bool knows_every_set(const nlohmann::json& mirror, const ClusterConfig& config) {
  if (!member_of(mirror, "sets").is_array()) return true;
  const nlohmann::json& known = list_of(mirror, "sets");
  return std::all_of(config.sets.begin(), config.sets.end(), [&](const SetConfig& recorded) {
    return std::any_of(known.begin(), known.end(),
                       [&](const nlohmann::json& one) { return number_of(one, "set") == recorded.set; });
  });
}

// Of the mirror's status: not complete, but it could be promoted by force at a consistent point (I6).
inline bool has_consistent_point(const nlohmann::json& mirror_status) {
  return member_of(member_of(mirror_status, "undo"), "consistent_point").is_object();
}

// Of the mirror's status: why it would refuse to become the active, and what helps; empty: it would not.
inline std::string why_it_cant_lead(const nlohmann::json& mirror_status) {
  for (const nlohmann::json& s : list_of(mirror_status, "space")) {
    const std::string where = text_of(s, "where");
    if (!flag_of(s, "full") || (where != "folder" && where != "history")) continue;
    const bool folder = where == "folder";
    return std::string("it has changes to apply and no space for ") +
           (folder ? "them under " : "their undo history under ") +
           text_of(s, "path", folder ? "the protected folder" : "the state folder") +
           ": free space there, it goes on by itself";
  }
  return {};
}

// What comes from outside may hold any bytes.
inline std::string dump(const nlohmann::json& json) {
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace holdfast::daemon
