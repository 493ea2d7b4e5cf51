// SPDX-License-Identifier: Apache-2.0
// Comparing the peers with this node, as the daemon sees it.
#include "daemon/mirror/service.h"

namespace holdfast::mirror_process {
namespace {

constexpr std::uint64_t max_rate_mib_s = 1 << 20;

// Names are any bytes; JSON wants UTF-8, and people want one line.
std::string readable(const std::string& path) {
  constexpr char digits[] = "0123456789abcdef";
  std::string out;
  for (std::size_t at = 0; at < path.size();) {
    const auto c = static_cast<unsigned char>(path[at]);
    const std::size_t length = c < 0x80                ? 1
                               : c >= 0xc2 && c < 0xe0 ? 2
                               : c >= 0xe0 && c < 0xf0 ? 3
                               : c >= 0xf0 && c < 0xf5 ? 4
                                                       : 0;
    bool good = length != 0 && c >= 0x20 && c != 0x7f && c != '\\' && at + length <= path.size();
    for (std::size_t i = 1; good && i < length; ++i) good = (static_cast<unsigned char>(path[at + i]) & 0xc0) == 0x80;
    // Surrogates and overlong forms: rare enough to be shown as bytes.
    if (good && length == 3) good = c != 0xed && !(c == 0xe0 && static_cast<unsigned char>(path[at + 1]) < 0xa0);
    if (good && length == 4)
      good = !(c == 0xf0 && static_cast<unsigned char>(path[at + 1]) < 0x90) &&
             !(c == 0xf4 && static_cast<unsigned char>(path[at + 1]) > 0x8f);
    if (good) {
      out += path.substr(at, length);
      at += length;
      continue;
    }
    out += "\\x";
    out += digits[c >> 4];
    out += digits[c & 15];
    ++at;
  }
  return out;
}

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
