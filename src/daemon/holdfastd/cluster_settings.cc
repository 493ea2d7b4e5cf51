// SPDX-License-Identifier: Apache-2.0
// The settings that `holdfast config` shows and changes: one table, so that what is shown, checked and explained is one thing.
#include <algorithm>
#include <charconv>

#include "daemon/holdfastd/cluster_config.h"
#include "daemon/holdfastd/shadow_schedule.h"
#include "daemon/holdfastd/undo_default.h"
#include "network/ip_address.h"

namespace holdfast::daemon {
namespace {

struct Setting {
  const char* key;
  const char* text;  // for people: what it does, with unit and range
  std::string (*show)(const ClusterConfig&);
  Status (*set)(ClusterConfig&, const std::string&);
};

std::string on_off(bool value) { return value ? "on" : "off"; }

Status parse_bool(const std::string& value, bool& into) {
  if (value == "on" || value == "true" || value == "yes")
    into = true;
  else if (value == "off" || value == "false" || value == "no")
    into = false;
  else
    return fail(ErrorCode::invalid, "'{}' is neither on nor off", value);
  return {};
}

Status parse_number(const std::string& value, std::uint32_t least, std::uint32_t most, std::uint32_t& into) {
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size() || number < least || number > most)
    return fail(ErrorCode::invalid, "'{}' is not a whole number from {} to {}", value, least, most);
  into = number;
  return {};
}

Status parse_choice(const std::string& value, std::initializer_list<const char*> choices, std::string& into) {
  std::string list;
  for (const char* choice : choices) {
    if (value == choice) {
      into = value;
      return {};
    }
    list += list.empty() ? choice : std::string(" or ") + choice;
  }
  return fail(ErrorCode::invalid, "'{}' is not {}", value, list);
}

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> parts;
  std::string part;
  for (const char c : text + ",") {
    if (c != ',' && c != ' ') {
      part += c;
      continue;
    }
    if (!part.empty()) parts.push_back(part);
    part.clear();
  }
  return parts;
}

std::string join(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& p : parts) text += (text.empty() ? "" : ",") + p;
  return text;
}

// "192.0.2.10/24" or "192.0.2.10/24@site", comma between two. Without a site: those that the address had, else the only site there is.
Status set_public_addresses(ClusterConfig& c, const std::string& value) {
  std::vector<PublicAddressConfig> next;
  for (const std::string& item : split(value)) {
    const std::size_t at = item.find('@');
    PublicAddressConfig p{item.substr(0, at), at == std::string::npos ? "" : item.substr(at + 1), "move"};
    HF_ASSIGN(const network::IpPrefix prefix, network::IpPrefix::parse(p.address));
    p.address = prefix.to_string();
    if (p.site.empty() && !c.public_addresses.empty()) p.site = c.public_addresses.front().site;
    for (const auto& old : c.public_addresses)
      if (at == std::string::npos && old.address == p.address) p.site = old.site;
    if (p.site.empty()) p.site = "default";
    next.push_back(p);
  }
  c.public_addresses = std::move(next);
  return {};
}

std::string duration_text(std::uint32_t seconds) {
  if (seconds == 0) return "off";
  if (seconds % 86'400 == 0) return fmt::format("{}d", seconds / 86'400);
  if (seconds % 3600 == 0) return fmt::format("{}h", seconds / 3600);
  return fmt::format("{}m", seconds / 60);
}

Status set_shadow_every(ClusterConfig& c, const std::string& value) {
  if (value == "off" || value == "0") {
    c.shadow_every_s = 0;
    return {};
  }
  constexpr std::uint32_t least_s = 300, most_s = 7 * 86'400;
  const std::uint32_t unit = value.ends_with('m')   ? 60
                             : value.ends_with('h') ? 3600
                             : value.ends_with('d') ? 86'400
                                                    : 0;
  std::uint32_t count = 0;
  if (unit != 0) HF_TRY(parse_number(value.substr(0, value.size() - 1), 1, most_s / unit, count));
  if (unit == 0 || count * unit < least_s)
    return fail(ErrorCode::invalid, "'{}' is neither off nor a time from 5m to 7d", value);
  c.shadow_every_s = count * unit;
  return {};
}

const std::vector<Setting>& table() {
  static const std::vector<Setting> settings = {
      {"mode",
       "async: the application never waits for a passive; fsync: fsync returns when it is durable on every in-sync "
       "passive too",
       [](const ClusterConfig& c) { return c.mode; },
       [](ClusterConfig& c, const std::string& v) {
         return parse_choice(v, {"async", "fsync"}, c.mode);
       }},
      {"profile", "timings: default (lease 2 s) or fast (lease 0.7 s)",
       [](const ClusterConfig& c) { return c.profile; },
       [](ClusterConfig& c, const std::string& v) {
         return parse_choice(v, {"default", "fast"}, c.profile);
       }},
      {"lease_ms", "length of the lease in milliseconds, 500 to 2000; 0 = the profile's",
       [](const ClusterConfig& c) { return std::to_string(c.lease_ms); },
       [](ClusterConfig& c, const std::string& v) {
         return v == "0" ? (c.lease_ms = 0, Status{}) : parse_number(v, 500, 2000, c.lease_ms);
       }},
      {"ring_mib", "memory for the log of changes in MiB, 8 to 4096",
       [](const ClusterConfig& c) { return std::to_string(c.ring_mib); },
       [](ClusterConfig& c, const std::string& v) { return parse_number(v, 8, 4096, c.ring_mib); }},
      {"send_queue_mib",
       "on the active's disk, for each passive that is away or slow, in MiB, 64 to 1048576, or 0: none, memory only",
       [](const ClusterConfig& c) { return std::to_string(c.send_queue_mib); },
       [](ClusterConfig& c, const std::string& v) {
         return v == "0" ? parse_number(v, 0, 0, c.send_queue_mib) : parse_number(v, 64, 1048576, c.send_queue_mib);
       }},
      {"send_keep_free_mib", "what the send queues leave free on that disk in MiB, 0 to 1048576",
       [](const ClusterConfig& c) { return std::to_string(c.send_keep_free_mib); },
       [](ClusterConfig& c, const std::string& v) { return parse_number(v, 0, 1048576, c.send_keep_free_mib); }},
      {"receive_queue_mib",
       "what a passive holds received and not applied yet in MiB, 64 to 1048576; then it holds the active's queue up",
       [](const ClusterConfig& c) { return std::to_string(c.receive_queue_mib); },
       [](ClusterConfig& c, const std::string& v) { return parse_number(v, 64, 1048576, c.receive_queue_mib); }},
      {"undo_mib",
       "undo history on each passive in MiB, 64 to 1048576, or auto: a tenth of the file system of /var/lib/holdfast; "
       "or 0: none, and what there is goes",
       [](const ClusterConfig& c) {
         return c.undo_mib == undo_auto ? std::string("auto") : std::to_string(c.undo_mib);
       },
       [](ClusterConfig& c, const std::string& v) {
         c.undo_chosen = v == "0";
         if (v == "auto") {
           c.undo_mib = undo_auto;
           return Status{};
         }
         return v == "0" ? parse_number(v, 0, 0, c.undo_mib) : parse_number(v, 64, 1048576, c.undo_mib);
       }},
      {"shadow_every",
       "a shadow so often, where passives keep an undo history: 5m to 7d, or off; the application is asked to bring "
       "its "
       "files in order first",
       [](const ClusterConfig& c) { return duration_text(c.shadow_every_s); }, set_shadow_every},
      {"shadow_thinning",
       "how many scheduled shadows are left, the newest of each hour, day or week: COUNTh,COUNTd,COUNTw",
       [](const ClusterConfig& c) { return c.shadow_thinning; },
       [](ClusterConfig& c, const std::string& v) -> Status {
         HF_TRY(parse_thinning(v));
         c.shadow_thinning = v;
         return {};
       }},
      {"scrub", "on: the active compares its passives with itself, slowly and all the time, and repairs what differs",
       [](const ClusterConfig& c) { return on_off(c.scrub); },
       [](ClusterConfig& c, const std::string& v) { return parse_bool(v, c.scrub); }},
      {"scrub_mib_s",
       "how fast, in MiB a second, 1 to 4096, pass after pass; 0: once a day at most, a week for all of it",
       [](const ClusterConfig& c) { return std::to_string(c.scrub_mib_s); },
       [](ClusterConfig& c, const std::string& v) { return parse_number(v, 0, 4096, c.scrub_mib_s); }},
      {"automatic_failover",
       "on: a synchronized passive takes over when the active is gone; off: it waits for 'holdfast failover'",
       [](const ClusterConfig& c) { return on_off(c.automatic_failover); },
       [](ClusterConfig& c, const std::string& v) { return parse_bool(v, c.automatic_failover); }},
      {"automatic_switchover", "on: switch over when restarts in place do not bring an application back",
       [](const ClusterConfig& c) { return on_off(c.automatic_switchover); },
       [](ClusterConfig& c, const std::string& v) { return parse_bool(v, c.automatic_switchover); }},
      {"false_failover_avoidance",
       "on: a passive that hears nothing of the active does not take over by itself while that answers at a public "
       "address",
       [](const ClusterConfig& c) { return on_off(c.false_failover_avoidance); },
       [](ClusterConfig& c, const std::string& v) { return parse_bool(v, c.false_failover_avoidance); }},
      {"recovery_point_limit_s",
       "in mode async: a passive that is further behind than this does not take over by itself; seconds, 5 to 86400, "
       "or 0: no limit",
       [](const ClusterConfig& c) { return std::to_string(c.recovery_point_limit_s); },
       [](ClusterConfig& c, const std::string& v) {
         return v == "0" ? parse_number(v, 0, 0, c.recovery_point_limit_s)
                         : parse_number(v, 5, 86'400, c.recovery_point_limit_s);
       }},
      {"failures_limit",
       "a node that failed so often as the active within failures_minutes does not take over by itself before "
       "'holdfast release'; 1 to 100, or 0: never mind",
       [](const ClusterConfig& c) { return std::to_string(c.failures_limit); },
       [](ClusterConfig& c, const std::string& v) { return parse_number(v, 0, 100, c.failures_limit); }},
      {"failures_minutes", "for how long a failure counts, 1 to 10080",
       [](const ClusterConfig& c) { return std::to_string(c.failures_minutes); },
       [](ClusterConfig& c, const std::string& v) { return parse_number(v, 1, 10'080, c.failures_minutes); }},
      {"public_addresses", "what clients use: ADDRESS/LENGTH or ADDRESS/LENGTH@SITE, comma between",
       [](const ClusterConfig& c) {
         std::vector<std::string> parts;
         for (const auto& p : c.public_addresses) parts.push_back(p.address + "@" + p.site);
         return join(parts);
       },
       set_public_addresses},
  };
  return settings;
}

}  // namespace

std::vector<control::ConfigItem> config_items(const ClusterConfig& config) {
  static const ClusterConfig defaults;
  std::vector<control::ConfigItem> items;
  for (const Setting& s : table()) items.push_back({s.key, s.show(config), s.show(defaults), s.text});
  return items;
}

Result<ClusterConfig> with_setting(ClusterConfig config, const std::string& key, const std::string& value) {
  std::string known;
  for (const Setting& s : table()) {
    known += (known.empty() ? "" : ", ") + std::string(s.key);
    if (key != s.key) continue;
    const Status set = s.set(config, value);
    if (!set)
      return tl::unexpected(with_hint(Error{set.error().code, key + ": " + set.error().message, {}, 0}, s.text));
    return config;
  }
  return tl::unexpected(Error{ErrorCode::invalid, fmt::format("there is no setting '{}'", key), "one of: " + known, 0});
}

}  // namespace holdfast::daemon
