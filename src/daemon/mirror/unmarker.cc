// SPDX-License-Identifier: Apache-2.0
#include "daemon/mirror/unmarker.h"

#include <algorithm>
#include <chrono>

#include <nlohmann/json.hpp>

#include "base/log.h"
#include "platform/durable_file.h"

namespace holdfast::mirror_process {
namespace {

constexpr std::chrono::milliseconds breath(10);  // so often that nobody who uses the disk notices

bool holds(const std::string& folder, const std::string& path) {
  return path == folder || path.starts_with(folder + "/");
}

}  // namespace

std::vector<std::string> Unmarker::load() const {
  std::vector<std::string> paths;
  const auto text = platform::read_file(file_);
  if (!text) return paths;
  const auto json = nlohmann::json::parse(text->begin(), text->end(), nullptr, false);
  if (!json.is_array()) {
    log_warning("{} is damaged: attributes of folders that were protected may stay", file_);
    return paths;
  }
  for (const auto& path : json)
    if (path.is_string()) paths.push_back(path.get<std::string>());
  return paths;
}

Status Unmarker::store(const std::vector<std::string>& paths) const {
  return platform::write_file_durably(file_, as_bytes(nlohmann::json(paths).dump()));
}

Status Unmarker::add(const std::vector<std::string>& paths) {
  std::vector<std::string> all = load();
  for (const std::string& path : paths)
    if (std::find(all.begin(), all.end(), path) == all.end()) all.push_back(path);
  return store(all);
}

void Unmarker::start(const std::vector<std::string>& protected_paths, platform::StillProtected others) {
  stop();
  std::vector<std::string> paths = load();
  const bool changed = std::erase_if(paths, [&](const std::string& path) {
                         return std::any_of(protected_paths.begin(), protected_paths.end(),
                                            [&](const std::string& p) { return holds(p, path) || holds(path, p); });
                       }) != 0;
  if (changed)
    if (Status stored = store(paths); !stored) log_warning("{}", stored.error().to_string());
  if (paths.empty()) return;
  stopping_ = false;
  thread_ = std::thread(
      [this, paths = std::move(paths), others = std::move(others)]() mutable { run(std::move(paths), others); });
}

void Unmarker::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    cv_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

bool Unmarker::wait_a_little() {
  std::unique_lock lock(mutex_);
  return cv_.wait_for(lock, breath, [this] { return stopping_; });
}

void Unmarker::run(std::vector<std::string> paths, const platform::StillProtected& others) {
  while (!paths.empty()) {
    const std::string path = paths.front();
    const auto done = platform::remove_marks(path, others, [this] { return wait_a_little(); });
    if (done && !done->to_the_end) return;
    if (!done)
      log_warning("Holdfast's attributes may stay: {}", done.error().to_string());
    else if (done->kept != 0)
      log_warning("{}: Holdfast's attributes stay on {} of {} objects: {}", path, done->kept, done->objects,
                  done->why_kept);
    else
      log_info("{}: Holdfast's attributes are gone from {} objects{}", path, done->objects - done->shared,
               done->shared == 0
                   ? ""
                   : fmt::format("; {} with other names, perhaps in protected folders, keep their ids", done->shared));
    paths.erase(paths.begin());
    if (Status stored = store(paths); !stored) return log_warning("{}", stored.error().to_string());
  }
}

}  // namespace holdfast::mirror_process
