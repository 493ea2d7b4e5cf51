// SPDX-License-Identifier: Apache-2.0
#include "daemon/mirror/covers.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace holdfast::mirror_process {

std::string encode_covers(const std::vector<Cover>& covers) {
  nlohmann::json list = nlohmann::json::array();
  for (const Cover& each : covers) list.push_back({{"set", each.set}, {"path", each.path}});
  return list.dump();
}

std::optional<std::vector<Cover>> decode_covers(std::string_view text) {
  const nlohmann::json list = nlohmann::json::parse(text, nullptr, false);
  if (!list.is_array()) return {};
  std::vector<Cover> covers;
  for (const auto& each : list) {
    const bool sound = each.is_object() && each.contains("set") && each["set"].is_number_unsigned() &&
                       each.contains("path") && each["path"].is_string();
    if (each.is_string())
      covers.push_back({0, each.get<std::string>()});
    else if (sound)
      covers.push_back({each["set"].get<SetNumber>(), each["path"].get<std::string>()});
    else
      return {};
  }
  return covers;
}

CoversNow covers_now(const std::vector<Cover>& before, const MirrorConfig& config) {
  CoversNow now;
  for (const auto& set : config.sets) now.stay.push_back({set.set, set.path});
  for (const Cover& old : before) {
    const bool named =
        std::any_of(config.sets.begin(), config.sets.end(), [&](const SetConfig& set) { return set.path == old.path; });
    if (named) continue;
    const bool unprotected = old.set != 0 && old.set < config.next_set;
    (unprotected ? now.gone : now.stay).push_back(old);
  }
  return now;
}

}  // namespace holdfast::mirror_process
