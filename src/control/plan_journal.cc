// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <filesystem>

#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "control/api_routes.h"
#include "control/plan.h"
#include "platform/durable_file.h"

namespace holdfast::control {
namespace {

constexpr int journal_version = 1;
constexpr std::size_t largest_journal = 1u << 20;
constexpr std::string_view extension = ".json";

bool is_plan_id(const std::string& id) {
  return !id.empty() && id.size() <= 100 &&
         std::all_of(id.begin(), id.end(), [](unsigned char c) { return std::isalnum(c) != 0 || c == '-'; });
}

class FolderJournal final : public PlanJournal {
 public:
  explicit FolderJournal(std::string dir) : dir_(std::move(dir)) {}

  Status write(const PlanRecord& record) override {
    if (!is_plan_id(record.status.id))
      return fail(ErrorCode::invalid, "plan id {} may hold letters, digits and '-' only", record.status.id);
    HF_TRY(platform::make_private_dir(dir_));
    const nlohmann::json json{
        {"version", journal_version}, {"status", to_json(record.status)}, {"values", record.values}};
    return platform::write_file_durably(path_of(record.status.id), as_bytes(dump(json)), 0600);
  }

  Result<PlanRecord> read(const std::string& id) const override {
    if (!is_plan_id(id)) return fail(ErrorCode::not_found, "there is no plan {}", id.substr(0, 100));
    auto content = platform::read_file(path_of(id), largest_journal);
    if (!content && content.error().code == ErrorCode::not_found)
      return fail(ErrorCode::not_found, "there is no plan {}", id);
    if (!content) return tl::unexpected(content.error());
    const auto json = nlohmann::json::parse(as_text(*content), nullptr, false);
    const bool shaped = json.is_object() && json.contains("version") && json["version"] == journal_version &&
                        json.contains("status") && json.contains("values") && json["values"].is_object();
    if (!shaped) return fail(ErrorCode::corrupt, "{} is not a plan journal of this version", path_of(id));
    PlanRecord record;
    HF_ASSIGN(record.status, plan_status_from_json(json["status"]));
    if (record.status.id != id) return fail(ErrorCode::corrupt, "{} holds the journal of another plan", path_of(id));
    for (const auto& [key, value] : json["values"].items()) {
      if (!value.is_string()) return fail(ErrorCode::corrupt, "{}: value {} is not text", path_of(id), key);
      record.values[key] = value.get<std::string>();
    }
    return record;
  }

  Result<std::vector<PlanRecord>> list() const override {
    std::vector<PlanRecord> records;
    std::error_code error;
    if (!std::filesystem::exists(dir_, error)) return records;
    for (const auto& entry : std::filesystem::directory_iterator(dir_, error)) {
      const std::string name = entry.path().filename().string();
      if (!name.ends_with(extension)) continue;  // what a write left aside
      HF_ASSIGN(PlanRecord record, read(name.substr(0, name.size() - extension.size())));
      records.push_back(std::move(record));
    }
    if (error) return fail(ErrorCode::io, "cannot list {}: {}", dir_, error.message());
    std::sort(records.begin(), records.end(), [](const PlanRecord& a, const PlanRecord& b) {
      return std::tie(a.status.started_ms, a.status.id) < std::tie(b.status.started_ms, b.status.id);
    });
    return records;
  }

  Status prune(std::size_t keep) override {
    HF_ASSIGN(const std::vector<PlanRecord> records, list());
    std::size_t excess = records.size() > keep ? records.size() - keep : 0;
    for (const PlanRecord& record : records) {
      if (excess == 0) break;
      if (!record.is_final()) continue;
      HF_TRY(platform::remove_file_durably(path_of(record.status.id)));
      --excess;
    }
    return {};
  }

 private:
  std::string path_of(const std::string& id) const { return dir_ + "/" + id + std::string(extension); }
  const std::string dir_;
};

}  // namespace

std::unique_ptr<PlanJournal> open_plan_journal(std::string dir) {
  return std::make_unique<FolderJournal>(std::move(dir));
}

}  // namespace holdfast::control
