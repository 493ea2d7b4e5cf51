// SPDX-License-Identifier: Apache-2.0
#include "daemon/holdfastd/shadow_schedule.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <set>
#include <string_view>

#include "control/model.h"

namespace holdfast::daemon {
namespace {

constexpr std::int64_t hour_ms = 3'600'000;
constexpr std::uint32_t most_of_a_kind = 1000;

}  // namespace

Result<Thinning> parse_thinning(const std::string& text) {
  Thinning t;
  std::string_view left = text;
  const auto wrong = [&] {
    return fail(ErrorCode::invalid, "'{}' is not COUNTh,COUNTd,COUNTw, for example 24h,7d,4w", text);
  };
  while (!left.empty()) {
    std::uint32_t count = 0;
    const auto [end, error] = std::from_chars(left.data(), left.data() + left.size(), count);
    const auto used = static_cast<std::size_t>(end - left.data());
    if (error != std::errc() || used == left.size() || count > most_of_a_kind) return wrong();
    const char unit = left[used];
    if (unit != 'h' && unit != 'd' && unit != 'w') return wrong();
    (unit == 'h' ? t.hours : unit == 'd' ? t.days : t.weeks) = count;
    left.remove_prefix(used + 1);
    if (left.empty()) break;
    if (left.front() != ',' || left.size() == 1) return wrong();
    left.remove_prefix(1);
  }
  if (t.hours + t.days + t.weeks == 0) return wrong();
  return t;
}

std::string scheduled_name(std::int64_t now_ms, std::uint32_t every_s) {
  const std::int64_t every_ms = std::int64_t{every_s} * 1000;
  std::string name = "scheduled-";
  for (const char c : control::iso_time(now_ms - now_ms % every_ms).substr(0, 19))
    if (c != '-' && c != ':') name += c;
  return name;
}

std::vector<std::string> shadows_to_drop(const std::vector<control::ShadowStatus>& shadows, const Thinning& thinning) {
  std::vector<const control::ShadowStatus*> scheduled;
  for (const auto& s : shadows)
    if (s.origin == "schedule" && !s.keep) scheduled.push_back(&s);
  std::sort(scheduled.begin(), scheduled.end(), [](const auto* a, const auto* b) { return a->time_ms > b->time_ms; });
  std::set<std::string> left;
  struct Kind {
    std::int64_t length_ms;
    std::uint32_t count;
  };
  for (const Kind& kind : std::array<Kind, 3>{
           {{hour_ms, thinning.hours}, {24 * hour_ms, thinning.days}, {168 * hour_ms, thinning.weeks}}}) {
    std::set<std::int64_t> stretches;
    for (const auto* s : scheduled) {
      if (stretches.size() == kind.count) break;
      if (stretches.insert(s->time_ms / kind.length_ms).second) left.insert(s->name);
    }
  }
  std::vector<std::string> drop;
  for (const auto* s : scheduled)
    if (!left.contains(s->name)) drop.push_back(s->name);
  return drop;
}

}  // namespace holdfast::daemon
