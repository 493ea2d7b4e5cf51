// SPDX-License-Identifier: Apache-2.0
// The undo history as the daemon sees it: settings, points, shadows, going back.
#include <algorithm>
#include <filesystem>
#include <limits>

#include "base/log.h"
#include "daemon/mirror/service.h"
#include "mirror/utc_name.h"

namespace holdfast::mirror_process {
namespace {

constexpr std::uint64_t mib = 1ULL << 20;
constexpr std::uint64_t part_of_file_system = 10;                 // a tenth
constexpr std::uint64_t least_auto = log::default_segment_bytes;  // less is nothing
constexpr std::size_t default_points = 1000, most_points = 1000;  // of one answer: one message
constexpr std::int64_t plan_holds_ns = 600'000'000'000;           // what a plan looked at stays for 10 min
// On the file system of the state folder: two receive segments on their way, the mirror's small files, and some air.
constexpr std::uint64_t air_bytes = 2 * log::default_segment_bytes + 256 * mib;

std::filesystem::space_info space_of(const std::string& path) {
  std::error_code error;
  const auto space = std::filesystem::space(path, error);
  return error ? std::filesystem::space_info{0, 0, 0} : space;
}

nlohmann::json to_json(Position p) { return {{"epoch", p.epoch.value}, {"seq", p.sequence.value}}; }

// A point, with the name of the shadow that stands there.
nlohmann::json point_json(const mirror::UndoBatch& batch, const std::map<std::uint64_t, std::string>& labels) {
  nlohmann::json point = {{"batch", batch.number},
                          {"position", to_json(batch.head.before)},
                          {"time_ns", batch.head.first_time_ns},
                          {"consistent", batch.head.consistent},
                          {"rewind", batch.head.why == mirror::BatchWhy::rewind}};
  if (const auto label = labels.find(batch.number); label != labels.end()) point["label"] = label->second;
  return point;
}

}  // namespace

// History: a tenth of the state's file system, unless it is said otherwise. Deleted files stay on their own: a tenth of the smallest.
mirror::UndoSettings Service::undo_settings(const MirrorConfig& config) const {
  mirror::UndoSettings settings;
  settings.max_bytes =
      config.undo_mib ? *config.undo_mib * mib
                      : std::max<std::uint64_t>(space_of(paths_.state_dir).capacity / part_of_file_system, least_auto);
  settings.max_grave_bytes = settings.max_bytes;
  // Never through a capture: it may be one that waits for this very process to serve it.
  std::map<std::string, std::string> below;
  std::vector<platform::UniqueFd> roots;
  if (inherited_)
    for (const auto& each : inherited_->captures) below[each.path] = fmt::format("/proc/self/fd/{}", each.root.get());
  for (const auto& set : sets())
    if (auto root = set->duplicate_root()) {
      below[set->config().path] = fmt::format("/proc/self/fd/{}", root->get());
      roots.push_back(std::move(*root));
    }
  for (const auto& set : config.sets)
    if (const std::uint64_t tenth =
            space_of(below.contains(set.path) ? below[set.path] : set.path).capacity / part_of_file_system;
        tenth != 0)
      settings.max_grave_bytes = std::min(settings.max_grave_bytes, tenth);
  settings.max_age_ns = config.undo_age_s * 1'000'000'000;
  settings.free_bytes = [dir = paths_.state_dir] { return static_cast<std::uint64_t>(space_of(dir).available); };
  // A small file system is not given to its air alone.
  settings.reserve_bytes = std::min<std::uint64_t>(air_bytes, space_of(paths_.state_dir).capacity / 20);
  return settings;
}

// What is there is opened also where none is wanted any more: this node may have to go back first.
Status Service::open_history(const MirrorConfig& config) {
  shadow_file_ = std::make_unique<platform::DurableSlots>(paths_.state_dir + "/shadows");
  HF_ASSIGN(undo_segments_, platform::FolderSegmentStore::open(paths_.state_dir + "/undo", log::default_segment_bytes));
  const auto open = [&](bool on) {
    return mirror::UndoJournal::open(*undo_segments_, times_, undo_settings(config), log::default_segment_bytes, on);
  };
  auto journal = open(config.keeps_history());
  // A full disk is no reason not to start: history begins when there is room.
  if (!journal && journal.error().code == ErrorCode::no_space) journal = open(false);
  if (!journal) return tl::unexpected(std::move(journal).error());
  undo_ = std::move(*journal);
  return {};
}

mirror::UndoJournal* Service::history() const { return undo_ && undo_->on() ? undo_.get() : nullptr; }

nlohmann::json Service::status_of_undo(const mirror::NodeLogStatus& s) {
  Json undo = {{"state", "off"}};
  if (const auto* journal = history()) {
    const auto stats = journal->stats();
    undo["state"] = s.receive.waits_for_space ? "waiting_for_space" : stats.damage.empty() ? "on" : "damaged";
    undo["bytes"] = stats.bytes;
    undo["limit_bytes"] = stats.limit_bytes;
    undo["grave_bytes"] = s.receive.grave_bytes;
    undo["deleted_to_go"] = s.receive.doomed_graves + s.receive.graves_aside;
    undo["batches"] = stats.batches;
    undo["late_captures"] = stats.late_groups;
    undo["pinned"] = journal->pinned();
    undo["oldest_time_ns"] = stats.oldest_time_ns;
    undo["newest_time_ns"] = stats.newest_time_ns;
    undo["shadows"] = log_->shadows().list().size();
    if (!stats.damage.empty()) undo["damage"] = stats.damage;
  }
  if (s.receive.rewinding) undo["state"] = "rewinding";
  if (s.receive.graves_aside != 0) {
    undo["deleted_stuck"] = s.receive.graves_aside;
    undo["deleted_stuck_why"] = s.receive.why_aside;
  }
  const auto age_s = [this](std::int64_t time_ns) { return static_cast<double>(times_.realtime_ns() - time_ns) / 1e9; };
  if (s.receive.point)
    undo["consistent_point"] = {
        {"position", to_json(s.receive.point->applied)},
        {"time_ns", s.receive.point_time_ns},
        {"age_s", s.receive.point_time_ns == 0 ? Json() : Json(age_s(s.receive.point_time_ns))}};
  else if (s.receive.leads_as_it_is) {
    const bool known = s.receive.doubted.empty();  // else nobody knows how old those are
    undo["consistent_point"] = {{"position", to_json(s.position)},
                                {"time_ns", known ? times_.realtime_ns() : 0},
                                {"age_s", known ? Json(0.0) : Json()},
                                {"without_sets", s.receive.first_copies},
                                {"as_they_stand", s.receive.doubted}};
  }
  if (const std::string state = undo["state"]; told_undo_state_.exchange(state) != state)
    push_({{"event", "undo"}, {"state", state}});
  return undo;
}

nlohmann::json Service::shadow_json(const mirror::Shadow& shadow) const {
  Json row = {{"name", shadow.name},
              {"batch", shadow.batch},
              {"time_ns", shadow.time_ns},
              {"position", to_json(shadow.position)},
              {"keep", shadow.keep},
              {"origin", mirror::to_string(shadow.origin)},
              {"application_consistent", shadow.application_consistent},
              {"reachable", history() && history()->is_reachable(shadow.batch)}};
  if (history()) row["bytes_since"] = history()->bytes_since(shadow.batch);
  return row;
}

// Points that can be gone back to here, newest first; gaps; shadows.
Result<nlohmann::json> Service::timeline(const Json& request) {
  if (!log_ || !history()) return fail(ErrorCode::refused, "this node keeps no undo history");
  const auto from = request.value("from_ns", std::int64_t{0});
  const auto to = request.value("to_ns", std::numeric_limits<std::int64_t>::max());
  const std::size_t limit = std::min(request.value("limit", default_points), most_points);
  std::map<std::uint64_t, std::string> labels;
  Json points = Json::array(), gaps = Json::array(), shadows = Json::array();
  for (const auto& shadow : log_->shadows().list()) {
    shadows.push_back(shadow_json(shadow));
    if (const auto point = undo_->first_from(shadow.batch)) labels[point->number] = shadow.name;
  }
  if (const auto s = undo_->shortened())
    gaps.push_back({{"before_batch", s->number},
                    {"set", 0},
                    {"why", "what lay before was given up: " + s->why},
                    {"time_ns", s->made_ns}});
  std::uint64_t newest_gap = 0;
  for (const auto& gap : undo_->gaps()) {
    gaps.push_back({{"before_batch", gap.number}, {"set", gap.set}, {"why", gap.why}, {"time_ns", gap.made_ns}});
    if (gap.set == 0) newest_gap = gap.number;
  }
  const auto batches = undo_->batches();
  std::int64_t oldest = 0, newest = 0;
  for (auto it = batches.rbegin(); it != batches.rend() && it->number > newest_gap; ++it) {
    const auto& head = it->head;
    if (head.why == mirror::BatchWhy::resume || head.sets.empty() || !head.partial.empty()) continue;
    if (newest == 0) newest = head.last_time_ns;
    if (head.first_time_ns != 0) oldest = head.first_time_ns;
    if (head.first_time_ns >= from && head.first_time_ns <= to && points.size() < limit)
      points.push_back(point_json(*it, labels));
  }
  return Json{{"points", std::move(points)},
              {"gaps", std::move(gaps)},
              {"shadows", std::move(shadows)},
              {"oldest_time_ns", oldest},
              {"newest_time_ns", newest}};
}

// nullopt: that is now.
Result<std::optional<mirror::UndoBatch>> Service::wanted_point(const Json& request) const {
  if (const auto time = request.find("time_ns"); time != request.end())
    return undo_->point_at(time->get<std::int64_t>());
  std::uint64_t number = 0;
  if (const auto name = request.find("shadow"); name != request.end()) {
    const auto shadow = log_->shadows().find(name->get<std::string>());
    if (!shadow)
      return fail(ErrorCode::not_found, "there is no shadow '{}' here: holdfast shadow list shows which there are",
                  name->get<std::string>());
    if (!undo_->is_reachable(shadow->batch))
      return fail(ErrorCode::not_found, "the history since shadow '{}' has a gap here: holdfast timeline shows it",
                  shadow->name);
    number = shadow->batch;
  } else {
    number = request.at("batch").get<std::uint64_t>();
    if (!undo_->is_reachable(number))
      return fail(ErrorCode::not_found,
                  "there is no history from point {} on here: holdfast timeline shows what there is", number);
  }
  return undo_->first_from(number);
}

Result<nlohmann::json> Service::resolve(const Json& request) {
  if (!log_ || !history()) return fail(ErrorCode::refused, "this node keeps no undo history");
  if (request.value("unpin", false)) {
    log_->hold_for_plan(0, 0);
    return Json::object();
  }
  HF_ASSIGN(const auto batch, wanted_point(request));
  if (!batch) return Json{{"now", true}};
  std::map<std::uint64_t, std::string> labels;
  for (const auto& shadow : log_->shadows().list())
    if (const auto point = undo_->first_from(shadow.batch)) labels[point->number] = shadow.name;
  Json reply = point_json(*batch, labels);
  if (request.value("pin", false)) log_->hold_for_plan(batch->number, times_.steady_ns() + plan_holds_ns);
  if (request.value("verify", false)) {
    HF_ASSIGN(const auto plan, log_->look_back(batch->number));
    reply["data_bytes"] = plan.data_bytes;
    reply["cells"] = plan.cells;
  }
  return reply;
}

Result<nlohmann::json> Service::rewind(const Json& request) {
  const std::lock_guard transition(transition_mutex_);
  if (!log_) return fail(ErrorCode::unavailable, "not configured yet");
  HF_ASSIGN(const Position there,
            log_->rewind(request.at("batch").get<std::uint64_t>(), request.value("irreversible", false)));
  push_({{"event", "rewound"}, {"position", to_json(there)}});
  return Json{{"position", to_json(there)}};
}

// --- shadows

namespace {
Result<mirror::Shadow> shadow_from(const nlohmann::json& request) {
  mirror::Shadow shadow;
  shadow.name = request.at("name").get<std::string>();
  HF_TRY(mirror::check_shadow_name(shadow.name));
  const auto origin = mirror::shadow_origin(request.value("origin", "user"));
  if (!origin) return fail(ErrorCode::invalid, "a shadow's origin is user, schedule or auto");
  shadow.origin = *origin;
  shadow.application_consistent = request.value("application_consistent", false);
  return shadow;
}
}  // namespace

// What the application wrote before this is in it, also what the kernel still held back.
Result<nlohmann::json> Service::shadow_mark(const Json& request) {
  HF_ASSIGN(const mirror::Shadow shadow, shadow_from(request));
  if (!log_ || !pusher_) return fail(ErrorCode::unavailable, "not configured yet");
  pusher_->push_now();
  HF_ASSIGN(const auto mark, log_->mark_shadow(shadow));
  return Json{{"position", to_json(mark.position)}, {"time_ns", mark.time_ns}};
}

Result<nlohmann::json> Service::shadow_here(const Json& request) {
  HF_ASSIGN(mirror::Shadow shadow, shadow_from(request));
  const std::lock_guard transition(transition_mutex_);
  if (!log_) return fail(ErrorCode::unavailable, "not configured yet");
  HF_ASSIGN(const mirror::Shadow there, log_->shadow_here(std::move(shadow)));
  return shadow_json(there);
}

Result<nlohmann::json> Service::shadow_keep(const Json& request) {
  if (!log_) return fail(ErrorCode::unavailable, "not configured yet");
  HF_ASSIGN(const mirror::Shadow kept,
            log_->keep_shadow(request.at("name").get<std::string>(), request.at("keep").get<bool>()));
  return shadow_json(kept);
}

Result<nlohmann::json> Service::shadow_delete(const Json& request) {
  if (!log_) return fail(ErrorCode::unavailable, "not configured yet");
  HF_TRY(log_->delete_shadow(request.at("name").get<std::string>()));
  return Json::object();
}

}  // namespace holdfast::mirror_process
