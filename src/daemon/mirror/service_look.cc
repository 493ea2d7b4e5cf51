// SPDX-License-Identifier: Apache-2.0
// Views of the past, read-only or with a place of their own for what is written to them: mounted on request, gone with the process, with their
// history, or with a folder that is protected no more.
#include <filesystem>

#include "base/log.h"
#include "daemon/mirror/service.h"
#include "platform/scratch_file.h"

namespace holdfast::mirror_process {
namespace {

constexpr std::size_t most_looks = 8;  // each may hold some hundred MiB of old values in memory, which is locked
constexpr std::uint64_t mib = 1ULL << 20;
constexpr std::uint64_t most_by_itself = 1024 * mib, part_of_free = 10;  // a tenth
constexpr std::uint64_t least_scratch = 16 * mib, most_asked_mib = 1ULL << 30;
// What a view leaves free where the receive log grows: two segments on their way, and some air.
constexpr std::uint64_t keep_free = 2 * log::default_segment_bytes + 256 * mib;

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

// The view itself, and where in it each folder stands.
Result<Service::AskedFor> Service::asked_for(const Json& request) {
  AskedFor asked;
  asked.dir = request.at("dir").get<std::string>();
  asked.look.batch = request.at("batch").get<std::uint64_t>();
  if (!log_) return fail(ErrorCode::unavailable, "not configured yet");
  drop_ended_looks();
  {
    const std::lock_guard lock(looks_mutex_);
    if (looks_.size() >= most_looks)
      return tl::unexpected(
          Error{ErrorCode::refused,
                fmt::format("{} views of the past are mounted on this node, and it takes no more", looks_.size()),
                "holdfast look --list shows them, holdfast look --end DIR ends one", 0});
  }
  std::vector<std::string> taken = {paths_.state_dir};
  for (const auto& set : sets()) taken.push_back(set->config().path);
  HF_TRY(check_place(asked.dir, taken));
  if (!history()) return fail(ErrorCode::refused, "this node keeps no undo history");
  HF_ASSIGN(asked.view, log_->look(asked.look.batch));
  for (const SetNumber set : asked.view->sets())
    for (const auto& here : sets())
      if (here->config().set == set) asked.roots.push_back({set, here->config().path.substr(1)});
  if (sets().size() == 1)
    for (auto& root : asked.roots) root.path.clear();
  return asked;
}

void Service::remember_look(const std::string& dir, Look look) {
  const auto point = history() ? history()->first_from(look.batch) : std::nullopt;
  if (point) look.time_ns = point->head.first_time_ns;
  log_info("{} shows the folders as of point {}{}", dir, look.batch, look.scratch ? ", and can be written to" : "");
  const std::lock_guard lock(looks_mutex_);
  looks_[dir] = std::move(look);
}

Result<nlohmann::json> Service::look(const Json& request) {
  const std::lock_guard transition(transition_mutex_);
  HF_ASSIGN(AskedFor asked, asked_for(request));
  HF_ASSIGN(asked.look.mount,
            capture::LookMount::mount(asked.dir, asked.roots, std::shared_ptr<ports::PastTree>(std::move(asked.view))));
  remember_look(asked.dir, std::move(asked.look));
  return Json{{"dir", asked.dir}};
}

Result<std::uint64_t> Service::scratch_limit(const Json& request) const {
  std::error_code error;
  const auto space = std::filesystem::space(paths_.state_dir, error);
  if (error) return fail(ErrorCode::io, "cannot ask for the free space under {}", paths_.state_dir);
  const std::uint64_t free = space.available - std::min<std::uint64_t>(space.available, keep_free);
  const std::uint64_t asked = std::min(request.value("limit_mib", std::uint64_t{0}), most_asked_mib) * mib;
  const std::uint64_t limit = asked != 0 ? asked : std::min(most_by_itself, free / part_of_free);
  if (limit > free || limit < least_scratch)
    return tl::unexpected(Error{
        ErrorCode::no_space,
        fmt::format("there is no room for {} MiB of scratch data under {}: {} MiB are free beside what the log needs",
                    std::max(limit, least_scratch) / mib, paths_.state_dir, free / mib),
        "free space there, or give --scratch-mib", 0});
  return limit;
}

namespace {

// The nearest folder above that keeps others out of what is below it, whatever is open to them there; empty: there is none.
std::string closed_above(const std::filesystem::path& path) {
  for (std::filesystem::path at = path.parent_path(); at.has_relative_path(); at = at.parent_path()) {
    std::error_code error;
    const auto mode = std::filesystem::status(at, error).permissions();
    if (error || (mode & std::filesystem::perms::others_exec) == std::filesystem::perms::none) return at.string();
  }
  return {};
}

}  // namespace

Result<nlohmann::json> Service::look_writable(const Json& request) {
  const std::lock_guard transition(transition_mutex_);
  HF_ASSIGN(AskedFor asked, asked_for(request));
  HF_ASSIGN(const std::uint64_t limit, scratch_limit(request));
  HF_ASSIGN(auto store, platform::ScratchFile::open(paths_.state_dir, keep_free));
  const std::string& dir = asked.dir;
  Look& look = asked.look;
  look.scratch = std::make_shared<mirror::ScratchView>(std::shared_ptr<ports::PastTree>(std::move(asked.view)),
                                                       std::move(store), times_, mirror::ScratchView::Limits{limit});
  const auto trouble = [this, dir](const Error& why) {
    log_warning("{}: {}", dir, why.to_string());
    push_({{"event", "look"},
           {"dir", dir},
           {"state", why.code == ErrorCode::no_space ? "full" : "over"},
           {"text", why.message}});
  };
  // The view stands elsewhere: whom a folder above the protected one keeps out must not get in here.
  std::string closed;
  for (const auto& set : sets())
    if (closed.empty()) closed = closed_above(set->config().path);
  if (!closed.empty()) log_info("{}: for root only, because {} is not open to others", dir, closed);
  HF_ASSIGN(look.mount, capture::LookMount::mount(dir, asked.roots, std::shared_ptr<ports::ScratchTree>(look.scratch),
                                                  trouble, closed.empty()));
  remember_look(dir, std::move(look));
  return Json{{"dir", dir}, {"writable", true}, {"limit_bytes", limit}, {"closed_above", closed}};
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
  for (const auto& [dir, look] : looks_) {
    Json row = {{"dir", dir}, {"batch", look.batch}, {"time_ns", look.time_ns}};
    if (look.scratch) {
      const ports::ScratchUse use = look.scratch->use();
      row["writable"] = true;
      row["bytes"] = use.bytes;
      row["limit_bytes"] = use.limit_bytes;
    }
    all.push_back(std::move(row));
  }
  return Json{{"looks", std::move(all)}};
}

// Of those that can be written to. Who ends one holds the list for as long as that takes, and a status does not wait.
nlohmann::json Service::status_of_looks() {
  Json all = Json::array();
  const std::unique_lock lock(looks_mutex_, std::try_to_lock);
  if (!lock) return all;
  for (const auto& [dir, look] : looks_) {
    if (!look.scratch || look.mount->ended()) continue;
    const ports::ScratchUse use = look.scratch->use();
    all.push_back({{"dir", dir}, {"bytes", use.bytes}, {"limit_bytes", use.limit_bytes}});
  }
  return all;
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
