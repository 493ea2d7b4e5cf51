// SPDX-License-Identifier: Apache-2.0
// What is protected, over restarts of this process, and what was and is not any more.
#include <algorithm>

#include "base/log.h"
#include "daemon/mirror/service.h"
#include "platform/durable_file.h"

namespace holdfast::mirror_process {

// covers.json: a list of {set, path}; of an older program only the paths, with set 0 here. Nothing: there is none, or it is damaged.
std::optional<std::vector<Service::Covered>> Service::known_covers() const {
  const auto text = platform::read_file(paths_.state_dir + "/covers.json");
  if (!text) return std::vector<Covered>{};
  const Json list = Json::parse(text->begin(), text->end(), nullptr, false);
  if (!list.is_array()) return {};
  std::vector<Covered> covers;
  for (const Json& each : list) {
    if (each.is_string()) covers.push_back({0, each.get<std::string>()});
    if (each.is_object()) covers.push_back({each.value("set", SetNumber{0}), each.value("path", std::string())});
  }
  return covers;
}

// For the next start of this process: covers stand before holdfastd says anything. What is not in the list is not let go by that: holdfastd may not
// know yet what is protected. A number below next_set that it does not name was unprotected.
Status Service::remember_paths(const MirrorConfig& config) {
  std::vector<Covered> covers;
  for (const auto& set : config.sets) covers.push_back({set.set, set.path});
  std::vector<std::string> gone;
  const auto before = known_covers();
  for (const Covered& old : before.value_or(std::vector<Covered>{})) {
    const auto same = [&](const Covered& now) { return now.path == old.path; };
    if (std::any_of(covers.begin(), covers.end(), same)) continue;
    if (old.set != 0 && old.set < config.next_set)
      gone.push_back(old.path);
    else
      covers.push_back(old);
  }
  HF_ASSIGN(const auto stay, let_go(gone));
  for (const Covered& old : before.value_or(std::vector<Covered>{}))
    if (std::find(stay.begin(), stay.end(), old.path) != stay.end()) covers.push_back(old);
  Json list = Json::array();
  for (const Covered& each : covers) list.push_back({{"set", each.set}, {"path", each.path}});
  const std::string file = paths_.state_dir + "/covers.json", text = list.dump();
  if (const auto old = platform::read_file(file); old && as_text(*old) == text) return {};
  return platform::write_file_durably(file, as_bytes(text));
}

// They are protected no more. Also those whose protection ended while this node was down, and that only its start has covered. What somebody holds
// stays as it is until the next time.
Result<std::vector<std::string>> Service::let_go(std::vector<std::string> paths) {
  std::vector<std::string> stay;
  std::erase_if(paths, [&](const std::string& path) {
    const Status free = uncover_path(path);
    if (free) return false;
    log_warning("{}", free.error().to_string());
    stay.push_back(path);
    return true;
  });
  if (!paths.empty()) HF_TRY(unmarker_.add(paths));
  return stay;
}

void Service::cover_known_paths() {
  capture::LookMount::clear_dead();
  const auto covers = known_covers();
  if (!covers)
    return log_error("{}/covers.json is damaged; folders are covered when holdfastd says which", paths_.state_dir);
  for (const Covered& each : *covers)
    if (auto done = cover_path(each.path); !done) log_error("{}", done.error().to_string());
}

}  // namespace holdfast::mirror_process
