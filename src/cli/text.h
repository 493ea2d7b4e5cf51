// SPDX-License-Identifier: Apache-2.0
// Text for people: styled lines of a known width, and numbers in the units people think in. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::cli {

enum class Style { plain, bold, dim, good, warn, bad, busy };

struct Look {
  int width = 80;
  bool colour = false;
  bool unicode = false;  // else ASCII only
};

// Code points, which is the width for everything we print; bytes that are not UTF-8 count one each.
std::size_t visible_width(std::string_view text);
std::string pad(std::string text, std::size_t width);
// Control characters (of names, of other nodes' text) must not reach the terminal.
std::string printable(std::string_view text);

std::string human_bytes(std::uint64_t bytes);  // "12.0 KiB"
std::string human_age(double seconds);         // "4 s", "3 min", "2 h 5 min", "3 d 4 h"
std::string human_seconds(double seconds);     // "0.0 s", "12.3 s"
std::string progress_bar(double percent, int cells, bool unicode);

// One line that never grows beyond the look's width: what doesn't fit is cut with a mark.
class Line {
 public:
  explicit Line(const Look& look, int indent = 0) : look_(look) {
    add(std::string(static_cast<std::size_t>(indent), ' '));
  }
  Line& add(std::string_view text, Style style = Style::plain);
  Line& to_column(std::size_t column);  // at least one space
  std::size_t width() const { return width_; }
  std::size_t left() const { return static_cast<std::size_t>(look_.width) - width_; }
  std::string text() const;

 private:
  const Look& look_;
  std::string out_;
  std::size_t width_ = 0;
  bool full_ = false;
};

class Page {
 public:
  explicit Page(const Look& look) : look_(look) {}
  const Look& look() const { return look_; }
  void add(const Line& line) { lines_.push_back(line.text()); }
  void blank() {
    if (!lines_.empty() && !lines_.back().empty()) lines_.emplace_back();
  }
  // Wraps at spaces; following lines are indented the same.
  void wrapped(std::string_view text, int indent, Style style = Style::plain);
  const std::vector<std::string>& lines() const { return lines_; }
  std::string text() const;

 private:
  const Look look_;
  std::vector<std::string> lines_;
};

}  // namespace holdfast::cli
