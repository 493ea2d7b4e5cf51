// SPDX-License-Identifier: Apache-2.0
// Views of the past: mounted on request, gone with the process, with their history, or with a folder that is protected no more.
#include <filesystem>

#include "base/log.h"
#include "daemon/mirror/service.h"

namespace holdfast::mirror_process {
namespace {

// A view inside of what is protected would be copied, and one over our own folders would hide them.
Status check_place(const std::filesystem::path& dir, const std::vector<std::string>& taken) {
  std::error_code error;
  if (!dir.is_absolute() || dir.lexically_normal() != dir)
    return fail(ErrorCode::invalid, "{} is no absolute path without . and ..", dir.string());
  if (!std::filesystem::is_directory(std::filesystem::symlink_status(dir, error)) ||
      !std::filesystem::is_empty(dir, error))
    return tl::unexpected(Error{ErrorCode::invalid, fmt::format("{} is no empty folder on this node", dir.string()),
                                fmt::format("make one there: mkdir -p {}", dir.string()), 0});
  const auto real = std::filesystem::canonical(dir, error).string();
  for (const auto& path : taken) {
    const std::string below = path == "/" ? path : path + "/";
    if (real == path || real.starts_with(below) || path.starts_with(real + "/"))
      return fail(ErrorCode::invalid, "{} is inside or around {}", dir.string(), path);
  }
  return {};
}

}  // namespace

void Service::drop_ended_looks() {
  std::vector<Look> ended;  // their threads are waited for, without the lock
  const std::lock_guard lock(looks_mutex_);
  for (auto it = looks_.begin(); it != looks_.end();) {
    if (!it->second.mount->ended()) {
      ++it;
      continue;
    }
    ended.push_back(std::move(it->second));
    it = looks_.erase(it);
  }
}

Result<nlohmann::json> Service::look(const Json& request) {
  const std::lock_guard transition(transition_mutex_);
  if (!log_) return fail(ErrorCode::unavailable, "not configured yet");
  drop_ended_looks();
  const auto batch = request.at("batch").get<std::uint64_t>();
  const std::string dir = request.at("dir").get<std::string>();
  std::vector<std::string> taken = {paths_.state_dir};
  for (const auto& set : sets()) taken.push_back(set->config().path);
  HF_TRY(check_place(dir, taken));
  if (!history()) return fail(ErrorCode::refused, "this node keeps no undo history");
  const auto point = history()->first_from(batch);
  HF_ASSIGN(std::unique_ptr<mirror::PastView> view, log_->look(batch));
  std::vector<capture::LookMount::Root> roots;
  for (const SetNumber set : view->sets())
    for (const auto& here : sets())
      if (here->config().set == set) roots.push_back({set, here->config().path.substr(1)});
  if (sets().size() == 1)
    for (auto& root : roots) root.path.clear();
  HF_ASSIGN(auto mount, capture::LookMount::mount(dir, roots, std::move(view)));
  log_info("{} shows the folders as of point {}", dir, batch);
  const std::lock_guard lock(looks_mutex_);
  looks_[dir] = {std::move(mount), batch, point ? point->head.first_time_ns : 0};
  return Json{{"dir", dir}};
}

Result<nlohmann::json> Service::look_end(const Json& request) {
  const std::lock_guard transition(transition_mutex_);
  const std::string dir = request.at("dir").get<std::string>();
  Look gone;
  {
    const std::lock_guard lock(looks_mutex_);
    const auto it = looks_.find(dir);
    if (it == looks_.end())
      return fail(ErrorCode::not_found, "nothing of the past is mounted at {}: holdfast look --list shows what is",
                  dir);
    HF_TRY(it->second.mount->end());
    gone = std::move(it->second);
    looks_.erase(it);
  }
  return Json::object();
}

Result<nlohmann::json> Service::looks(const Json&) {
  drop_ended_looks();
  Json all = Json::array();
  const std::lock_guard lock(looks_mutex_);
  for (const auto& [dir, look] : looks_)
    all.push_back({{"dir", dir}, {"batch", look.batch}, {"time_ns", look.time_ns}});
  return Json{{"looks", std::move(all)}};
}

void Service::end_looks() {
  std::map<std::string, Look> gone;
  {
    const std::lock_guard lock(looks_mutex_);
    gone.swap(looks_);
  }
  for (const auto& [dir, look] : gone) log_info("{} shows the past no more", dir);
}

}  // namespace holdfast::mirror_process
