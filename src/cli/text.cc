// SPDX-License-Identifier: Apache-2.0
#include "cli/text.h"

#include <algorithm>
#include <cmath>

#include <fmt/core.h>

namespace holdfast::cli {
namespace {

const char* begin_of(Style style) {
  switch (style) {
    case Style::plain:
      return "";
    case Style::bold:
      return "\x1b[1m";
    case Style::dim:
      return "\x1b[2m";
    case Style::good:
      return "\x1b[32m";
    case Style::warn:
      return "\x1b[33m";
    case Style::bad:
      return "\x1b[1;31m";
    case Style::busy:
      return "\x1b[36m";
  }
  return "";
}

bool begins_code_point(char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }

// The longest prefix of at most `width` code points.
std::string_view cut(std::string_view text, std::size_t width) {
  std::size_t seen = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (!begins_code_point(text[i])) continue;
    if (seen == width) return text.substr(0, i);
    ++seen;
  }
  return text;
}

}  // namespace

std::size_t visible_width(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), begins_code_point));
}

std::string pad(std::string text, std::size_t width) {
  const std::size_t now = visible_width(text);
  if (now < width) text.append(width - now, ' ');
  return text;
}

std::string printable(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  // C1 controls arrive as two bytes in UTF-8 (c2 80..9f).
  for (std::size_t i = 0; i + 1 < out.size(); ++i)
    if (static_cast<unsigned char>(out[i]) == 0xc2 && static_cast<unsigned char>(out[i + 1]) < 0xa0)
      out[i] = out[i + 1] = ' ';
  return out;
}

std::string human_bytes(std::uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  const char* units[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  for (; value >= 1023.95 && unit < 4; ++unit) value /= 1024;
  return fmt::format("{:.1f} {}", value, units[unit]);
}

std::string human_age(double seconds) {
  const auto s = static_cast<std::int64_t>(std::max(0.0, seconds));
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{} min", s / 60);
  if (s < 86'400) return fmt::format("{} h {} min", s / 3600, s % 3600 / 60);
  return fmt::format("{} d {} h", s / 86'400, s % 86'400 / 3600);
}

// Rounded up: a recovery point is an upper bound of the truth and must not look better than it is.
std::string human_seconds(double seconds) {
  if (seconds >= 3600) return human_age(std::ceil(seconds / 60) * 60 + (seconds >= 86'400 ? 3599 : 0));
  if (seconds >= 120) {
    const auto s = static_cast<std::int64_t>(std::ceil(seconds));
    return fmt::format("{} min {} s", s / 60, s % 60);
  }
  return fmt::format("{:.1f} s", std::max(0.0, std::ceil(seconds * 10 - 1e-9)) / 10 + 0.0);
}

std::string progress_bar(double percent, int cells, bool unicode) {
  const int full = static_cast<int>(std::clamp(percent, 0.0, 100.0) / 100 * cells);
  std::string bar;
  for (int i = 0; i < cells; ++i) bar += unicode ? (i < full ? "█" : "░") : (i < full ? "#" : "-");
  return unicode ? bar : "[" + bar + "]";
}

Line& Line::add(std::string_view raw, Style style) {
  const std::string clean = printable(raw);
  if (full_ || clean.empty()) return *this;
  std::string_view piece = clean;
  const std::size_t room = left();
  std::string shortened;
  if (visible_width(piece) > room) {
    full_ = true;
    const std::string mark = look_.unicode ? "…" : "~";
    if (room == 0) return *this;
    shortened = std::string(cut(piece, room - 1)) + mark;
    piece = shortened;
  }
  width_ += visible_width(piece);
  if (look_.colour && style != Style::plain)
    out_ += fmt::format("{}{}\x1b[0m", begin_of(style), piece);
  else
    out_ += piece;
  return *this;
}

Line& Line::to_column(std::size_t column) {
  const std::size_t spaces = column > width_ ? column - width_ : 1;
  return add(std::string(std::min(spaces, left()), ' '));
}

std::string Line::text() const {
  std::string out = out_;
  while (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

void Page::wrapped(std::string_view raw, int indent, Style style) {
  std::string rest = printable(raw);
  const auto room = static_cast<std::size_t>(std::max(20, look_.width - indent));
  while (!rest.empty()) {
    std::string piece(cut(rest, room));
    if (piece.size() < rest.size()) {
      const std::size_t space = piece.rfind(' ');
      if (rest[piece.size()] != ' ' && space != std::string::npos && space > 0) piece.resize(space);
    }
    rest.erase(0, piece.size());
    rest.erase(0, rest.find_first_not_of(' '));
    Line line(look_, indent);
    add(line.add(piece, style));
  }
}

std::string Page::text() const {
  std::string out;
  std::size_t last = lines_.size();
  while (last > 0 && lines_[last - 1].empty()) --last;
  for (std::size_t i = 0; i < last; ++i) out += lines_[i] + "\n";
  return out;
}

}  // namespace holdfast::cli
