// SPDX-License-Identifier: Apache-2.0
// What is protected, over restarts of this process, and what was and is not any more.
#include <algorithm>

#include "base/log.h"
#include "daemon/mirror/service.h"
#include "platform/durable_file.h"

namespace holdfast::mirror_process {

// For the next start of this process: covers stand before holdfastd says anything.
Status Service::remember_paths(const MirrorConfig& config) {
  Json paths = Json::array();
  for (const auto& set : config.sets) paths.push_back(set.path);
  const std::string file = paths_.state_dir + "/covers.json";
  const auto old = platform::read_file(file);
  std::vector<std::string> gone;
  if (const Json before = old ? Json::parse(old->begin(), old->end(), nullptr, false) : Json(); before.is_array())
    for (const auto& path : before)
      if (path.is_string() && std::find(paths.begin(), paths.end(), path) == paths.end()) gone.push_back(path);
  HF_ASSIGN(const auto stay, let_go(std::move(gone)));
  for (const std::string& path : stay) paths.push_back(path);
  const std::string text = paths.dump();
  if (old && as_text(*old) == text) return {};
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
  const auto text = platform::read_file(paths_.state_dir + "/covers.json");
  if (!text) return;
  const Json paths = Json::parse(text->begin(), text->end(), nullptr, false);
  if (!paths.is_array())
    return log_error("{}/covers.json is damaged; folders are covered when holdfastd says which", paths_.state_dir);
  for (const auto& path : paths) {
    if (!path.is_string()) continue;
    if (auto done = cover_path(path.get<std::string>()); !done) log_error("{}", done.error().to_string());
  }
}

}  // namespace holdfast::mirror_process
