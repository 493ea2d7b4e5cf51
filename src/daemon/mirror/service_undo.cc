// SPDX-License-Identifier: Apache-2.0
// The undo history as the daemon sees it: settings, points, going back.
#include <algorithm>
#include <filesystem>

#include "base/log.h"
#include "daemon/mirror/service.h"

namespace holdfast::mirror_process {
namespace {

constexpr std::uint64_t mib = 1ULL << 20;
constexpr std::uint64_t part_of_file_system = 10;  // a tenth
constexpr std::size_t max_points = 1000;           // of one answer

std::uint64_t tenth_of(const std::string& path) {
  std::error_code error;
  const auto space = std::filesystem::space(path, error);
  return error ? 0 : space.capacity / part_of_file_system;
}

nlohmann::json to_json(Position p) { return {{"epoch", p.epoch.value}, {"seq", p.sequence.value}}; }

}  // namespace

// History: a tenth of the state's file system, unless it is said otherwise. Deleted files stay on their own: a tenth of the smallest.
mirror::UndoSettings Service::undo_settings(const MirrorConfig& config) const {
  mirror::UndoSettings settings;
  settings.max_bytes = config.undo_mib ? *config.undo_mib * mib : tenth_of(paths_.state_dir);
  settings.max_grave_bytes = settings.max_bytes;
  for (const auto& set : config.sets)
    if (const std::uint64_t tenth = tenth_of(set.path); tenth != 0)
      settings.max_grave_bytes = std::min(settings.max_grave_bytes, tenth);
  settings.max_age_ns = config.undo_age_s * 1'000'000'000;
  return settings;
}

Status Service::open_history(const MirrorConfig& config) {
  if (config.undo_mib && *config.undo_mib == 0) {
    undo_ = std::make_unique<mirror::NoUndo>();
    return {};
  }
  HF_ASSIGN(undo_segments_, platform::FolderSegmentStore::open(paths_.state_dir + "/undo", log::default_segment_bytes));
  HF_ASSIGN(auto journal, mirror::UndoJournal::open(*undo_segments_, times_, undo_settings(config)));
  journal_ = journal.get();
  undo_ = std::move(journal);
  return {};
}

nlohmann::json Service::status_of_undo(const mirror::NodeLogStatus& s) const {
  Json undo = {{"state", "off"}};
  if (journal_) {
    const auto stats = journal_->stats();
    undo["state"] = s.receive.waits_for_space ? "waiting_for_space" : stats.damage.empty() ? "on" : "damaged";
    undo["bytes"] = stats.bytes;
    undo["batches"] = stats.batches;
    undo["late_captures"] = stats.late_groups;
    undo["pinned"] = journal_->pinned();
    undo["oldest_time_ns"] = stats.oldest_time_ns;
    undo["newest_time_ns"] = stats.newest_time_ns;
    if (!stats.damage.empty()) undo["damage"] = stats.damage;
  }
  if (s.receive.rewinding) undo["state"] = "rewinding";
  if (s.receive.point)
    undo["consistent_point"] = {{"position", to_json(s.receive.point->applied)},
                                {"time_ns", s.receive.point_time_ns},
                                {"age_s", static_cast<double>(times_.realtime_ns() - s.receive.point_time_ns) / 1e9}};
  return undo;
}

// Points from `from_ns` on, the newest max_points of them, and gaps.
Result<nlohmann::json> Service::timeline(const Json& request) {
  if (!log_ || !journal_) return fail(ErrorCode::refused, "this node keeps no undo history");
  const auto from = request.value("from_ns", std::int64_t{0});
  const auto to = request.value("to_ns", std::numeric_limits<std::int64_t>::max());
  Json points = Json::array(), gaps = Json::array();
  const auto batches = journal_->batches();
  for (auto it = batches.rbegin(); it != batches.rend() && points.size() < max_points; ++it) {
    if (it->head.why == mirror::BatchWhy::resume || it->head.sets.empty() || it->head.first_time_ns < from ||
        it->head.first_time_ns > to)
      continue;
    points.push_back({{"batch", it->number},
                      {"position", to_json(it->head.before)},
                      {"time_ns", it->head.first_time_ns},
                      {"consistent", it->head.consistent},
                      {"rewind", it->head.why == mirror::BatchWhy::rewind}});
  }
  for (const auto& gap : journal_->gaps())
    gaps.push_back({{"before_batch", gap.number}, {"set", gap.set}, {"why", gap.why}});
  return Json{{"points", std::move(points)}, {"gaps", std::move(gaps)}};
}

// A time of the active's clock -> the batch to go back to.
Result<nlohmann::json> Service::resolve(const Json& request) {
  if (!log_ || !journal_) return fail(ErrorCode::refused, "this node keeps no undo history");
  HF_ASSIGN(const auto batch, journal_->point_at(request.at("time_ns").get<std::int64_t>()));
  if (!batch) return Json{{"now", true}};
  return Json{{"batch", batch->number},
              {"position", to_json(batch->head.before)},
              {"time_ns", batch->head.first_time_ns},
              {"consistent", batch->head.consistent}};
}

Result<nlohmann::json> Service::rewind(const Json& request) {
  const std::lock_guard transition(transition_mutex_);
  if (!log_) return fail(ErrorCode::unavailable, "not configured yet");
  HF_ASSIGN(const Position there,
            log_->rewind(request.at("batch").get<std::uint64_t>(), request.value("irreversible", false)));
  push_({{"event", "rewound"}, {"position", to_json(there)}});
  return Json{{"position", to_json(there)}};
}

}  // namespace holdfast::mirror_process
