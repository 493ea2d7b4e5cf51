// SPDX-License-Identifier: Apache-2.0
#include "control/when.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <ctime>
#include <optional>

namespace holdfast::control {
namespace {

constexpr std::int64_t ns_per_s = 1'000'000'000;
constexpr std::int64_t day_s = 86'400;
constexpr std::int64_t longest_ago_s = 100LL * 366 * day_s;
constexpr std::size_t longest_text = 100;

bool digit(char c) { return c >= '0' && c <= '9'; }
bool letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

// Reads from the front of a text; each call takes what it understood, or nothing.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : left_(text) {}
  bool done() const { return left_.empty(); }
  char next() const { return left_.empty() ? '\0' : left_.front(); }
  void skip_spaces() {
    while (next() == ' ') left_.remove_prefix(1);
  }
  bool take(char c) {
    if (next() != c || left_.empty()) return false;
    left_.remove_prefix(1);
    return true;
  }
  // Exactly so many digits.
  std::optional<int> number(std::size_t digits) {
    if (left_.size() < digits ||
        !std::all_of(left_.begin(), left_.begin() + static_cast<std::ptrdiff_t>(digits), digit))
      return std::nullopt;
    int value = 0;
    for (std::size_t i = 0; i < digits; ++i) value = value * 10 + (left_[i] - '0');
    left_.remove_prefix(digits);
    return value;
  }
  std::optional<std::int64_t> any_number() {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(left_.data(), left_.data() + left_.size(), value);
    if (error != std::errc() || !digit(next())) return std::nullopt;
    left_.remove_prefix(static_cast<std::size_t>(end - left_.data()));
    return value;
  }
  // ".5" = 500 ms; at most nine digits count.
  std::optional<std::int64_t> fraction_ns() {
    if (!take('.')) return 0;
    if (!digit(next())) return std::nullopt;
    std::int64_t value = 0;
    int digits = 0;
    for (; digit(next()); left_.remove_prefix(1))
      if (digits < 9) value = value * 10 + (next() - '0'), ++digits;
    for (; digits < 9; ++digits) value *= 10;
    return value;
  }
  std::string word() {
    std::string out;
    for (; letter(next()); left_.remove_prefix(1)) out += static_cast<char>(std::tolower(next()));
    return out;
  }

 private:
  std::string_view left_;
};

struct Clock {
  int hour = 0, minute = 0, second = 0;
  std::int64_t fraction_ns = 0;
};

std::optional<Clock> read_clock(Scanner& in) {
  Clock c;
  const auto hour = in.number(2);
  if (!hour || !in.take(':')) return std::nullopt;
  const auto minute = in.number(2);
  if (!minute) return std::nullopt;
  c.hour = *hour, c.minute = *minute;
  if (in.take(':')) {
    const auto second = in.number(2);
    const auto fraction = second ? in.fraction_ns() : std::nullopt;
    if (!fraction) return std::nullopt;
    c.second = *second, c.fraction_ns = *fraction;
  }
  if (c.hour > 23 || c.minute > 59 || c.second > 60) return std::nullopt;
  return c;
}

// Seconds east of UTC; nothing when no zone stands there.
std::optional<std::optional<int>> read_zone(Scanner& in) {
  if (in.done()) return std::optional<int>();
  if (in.take('Z') || in.take('z')) return in.done() ? std::optional<std::optional<int>>(0) : std::nullopt;
  const int sign = in.next() == '-' ? -1 : 1;
  if (!in.take('+') && !in.take('-')) return std::nullopt;
  const auto hours = in.number(2);
  if (!hours) return std::nullopt;
  in.take(':');
  const auto minutes = in.number(2);
  if (!minutes || *hours > 14 || *minutes > 59 || !in.done()) return std::nullopt;
  return std::optional<int>(sign * (*hours * 3600 + *minutes * 60));
}

std::tm calendar(int year, int month, int day, const Clock& c) {
  std::tm parts{};
  parts.tm_year = year - 1900, parts.tm_mon = month - 1, parts.tm_mday = day;
  parts.tm_hour = c.hour, parts.tm_min = c.minute, parts.tm_sec = c.second;
  parts.tm_isdst = -1;
  return parts;
}

std::optional<std::int64_t> read_date(std::string_view text) {
  Scanner in(text);
  const auto year = in.number(4);
  if (!year || !in.take('-')) return std::nullopt;
  const auto month = in.number(2);
  if (!month || !in.take('-')) return std::nullopt;
  const auto day = in.number(2);
  constexpr std::array month_days = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  if (!day || *year < 1970 || *month < 1 || *month > 12 || *day < 1 ||
      *day > month_days.at(static_cast<std::size_t>(*month - 1)))
    return std::nullopt;
  std::optional<Clock> clock = Clock{};
  std::optional<int> zone;
  if (!in.done()) {
    if (!in.take('T') && !in.take(' ')) return std::nullopt;
    clock = read_clock(in);
    if (!clock) return std::nullopt;
    const auto read = read_zone(in);
    if (!read) return std::nullopt;
    zone = *read;
  }
  std::tm parts = calendar(*year, *month, *day, *clock);
  const std::time_t seconds = zone ? timegm(&parts) - *zone : mktime(&parts);
  return static_cast<std::int64_t>(seconds) * ns_per_s + clock->fraction_ns;
}

// The last time the clock showed that.
std::optional<std::int64_t> read_time_of_day(std::string_view text, std::int64_t now_ns) {
  Scanner in(text);
  const auto clock = read_clock(in);
  if (!clock || !in.done()) return std::nullopt;
  const std::time_t now = now_ns / ns_per_s;
  std::tm today{};
  if (localtime_r(&now, &today) == nullptr) return std::nullopt;
  for (int back = 0; back < 2; ++back) {
    std::tm parts = calendar(today.tm_year + 1900, today.tm_mon + 1, today.tm_mday - back, *clock);
    const std::int64_t at = static_cast<std::int64_t>(mktime(&parts)) * ns_per_s + clock->fraction_ns;
    if (at <= now_ns) return at;
  }
  return std::nullopt;
}

std::int64_t unit_ms(const std::string& word) {
  struct Unit {
    const char* name;
    std::int64_t ms;
  };
  constexpr std::array<Unit, 17> units = {{{"ms", 1},
                                           {"s", 1000},
                                           {"sec", 1000},
                                           {"second", 1000},
                                           {"seconds", 1000},
                                           {"m", 60'000},
                                           {"min", 60'000},
                                           {"minute", 60'000},
                                           {"minutes", 60'000},
                                           {"h", 3'600'000},
                                           {"hour", 3'600'000},
                                           {"hours", 3'600'000},
                                           {"d", 86'400'000},
                                           {"day", 86'400'000},
                                           {"days", 86'400'000},
                                           {"w", 604'800'000},
                                           {"weeks", 604'800'000}}};
  for (const Unit& u : units)
    if (word == u.name) return u.ms;
  return 0;
}

std::optional<std::int64_t> read_ago(std::string_view text) {
  Scanner in(text);
  std::int64_t ms = 0;
  while (!in.done() && digit(in.next())) {
    const auto count = in.any_number();
    in.skip_spaces();
    const std::int64_t unit = unit_ms(in.word());
    if (!count || unit == 0 || *count > longest_ago_s * 1000 / unit) return std::nullopt;
    ms += *count * unit;
    in.skip_spaces();
    if (ms > longest_ago_s * 1000) return std::nullopt;
  }
  const std::string end = in.word();
  if (!in.done() || (!end.empty() && end != "ago")) return std::nullopt;
  return ms * 1'000'000;
}

}  // namespace

Status check_shadow_name(std::string_view name) {
  const auto allowed = [](char c) { return letter(c) || digit(c) || c == '.' || c == '_' || c == '-'; };
  if (!name.empty() && name.size() <= 64 && letter(name.front()) && std::all_of(name.begin(), name.end(), allowed) &&
      name != "now")
    return {};
  return tl::unexpected(Error{ErrorCode::invalid,
                              fmt::format("\"{}\" can't be a shadow's name", std::string(name.substr(0, 64))),
                              "1 to 64 letters, digits, '.', '_' and '-', beginning with a letter", 0});
}

Result<When> parse_when(std::string_view text, std::int64_t now_ns) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  When when;
  if (!text.empty() && text.size() <= longest_text) {
    if (text == "now") {
      when.kind = When::Kind::ago;
      return when;
    }
    if (check_shadow_name(text)) {
      when.kind = When::Kind::shadow;
      when.shadow = std::string(text);
      return when;
    }
    if (const auto at = read_date(text)) {
      when.time_ns = *at;
      return when;
    }
    if (const auto at = read_time_of_day(text, now_ns)) {
      when.time_ns = *at;
      return when;
    }
    if (const auto ago = digit(text.front()) ? read_ago(text) : std::nullopt) {
      when.kind = When::Kind::ago;
      when.ago_ns = *ago;
      return when;
    }
  }
  return tl::unexpected(
      Error{ErrorCode::invalid,
            fmt::format("\"{}\" is neither a time nor a shadow", std::string(text.substr(0, longest_text))),
            "write 14:02:11, 2026-11-25 14:02:11, 2026-11-25T13:02:11Z, 10m, \"90s ago\" or a shadow's name", 0});
}

std::string to_text(const When& when) {
  if (when.kind == When::Kind::shadow) return when.shadow;
  if (when.kind == When::Kind::ago) return fmt::format("{}ms ago", when.ago_ns / 1'000'000);
  const std::time_t seconds = when.time_ns / ns_per_s;
  std::tm parts{};
  if (gmtime_r(&seconds, &parts) == nullptr) return {};
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec, when.time_ns % ns_per_s);
}

std::string local_time(std::int64_t ms, std::int64_t now_ms) {
  if (ms == 0) return {};
  const std::time_t seconds = ms / 1000;
  std::tm parts{};
  if (localtime_r(&seconds, &parts) == nullptr) return {};
  const std::string clock = fmt::format("{:02}:{:02}:{:02}", parts.tm_hour, parts.tm_min, parts.tm_sec);
  if (now_ms - ms >= 0 && now_ms - ms < (day_s - 3600) * 1000) return clock;
  return fmt::format("{:04}-{:02}-{:02} {}", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday, clock);
}

}  // namespace holdfast::control
