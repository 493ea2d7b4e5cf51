// SPDX-License-Identifier: Apache-2.0
// Comparing the peers with this node, as the daemon sees it.
#include "base/utf8.h"
#include "daemon/mirror/service.h"

namespace holdfast::mirror_process {
namespace {

constexpr std::uint64_t max_rate_mib_s = 1 << 20;

nlohmann::json to_json(const mirror::VerifyStatus& s) {
  nlohmann::json examples = nlohmann::json::array();
  for (const auto& e : s.examples)
    examples.push_back({{"path", readable(e.path)}, {"what", e.what}, {"state", e.state}});
  return {{"node_id", to_hex(s.peer)},
          {"state", mirror::to_string(s.state)},
          {"kind", mirror::to_string(s.kind)},
          {"set", s.set},
          {"objects", s.counts.objects},
          {"bytes", s.counts.bytes},
          {"progress", s.progress},
          {"differences", s.counts.differences},
          {"repaired", s.counts.repaired},
          {"undecided", s.counts.undecided},
          {"open", s.open},
          {"examples", std::move(examples)},
          {"last_full_ns", s.last_full_ns},
          {"last_scrub_ns", s.last_scrub_ns},
          {"last_result", mirror::to_string(s.last_result)}};
}

}  // namespace

Result<nlohmann::json> Service::verify(const Json& request) {
  mirror::VerifyRequest wanted;
  const std::string mode = request.value("mode", "full");
  if (mode != "full" && mode != "sample") return fail(ErrorCode::invalid, "unknown mode {}: full or sample", mode);
  wanted.kind = mode == "full" ? mirror::VerifyKind::full : mirror::VerifyKind::sample;
  wanted.set = request.value("set", SetNumber{0});
  wanted.repair = request.value("repair", true);
  wanted.trust_active = request.value("trust_active", false);
  const auto rate = request.value("rate_mib_s", std::uint64_t{0});
  if (rate > max_rate_mib_s) return fail(ErrorCode::invalid, "rate_mib_s {} is not within 0..{}", rate, max_rate_mib_s);
  wanted.rate = rate << 20;
  if (!log_) return fail(ErrorCode::unavailable, "not configured yet");
  HF_TRY(log_->verify(wanted));
  return Json{{"run", ++verify_runs_}};
}

Result<nlohmann::json> Service::verify_stop(const Json&) {
  if (!log_) return fail(ErrorCode::unavailable, "not configured yet");
  log_->verify_stop();
  return Json::object();
}

nlohmann::json Service::status_of_verify() const {
  Json peers = Json::array();
  for (const auto& s : log_->verify_status()) peers.push_back(to_json(s));
  return {{"scrub", log_->scrub().on}, {"peers", std::move(peers)}};
}

void Service::on_verified(const mirror::VerifyStatus& s) {
  Json event = to_json(s);
  event["event"] = "verify";
  push_(event);
}

}  // namespace holdfast::mirror_process
