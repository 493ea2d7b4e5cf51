// SPDX-License-Identifier: Apache-2.0
// Which pages of a scratch store are in use. Who takes some finds zeros there: who gives them back has discarded them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <optional>
#include <vector>

namespace holdfast::mirror {

constexpr std::uint64_t scratch_page = 4096;

struct PageRun {
  std::uint64_t first = 0, count = 0;
};

class ScratchSpace {
 public:
  explicit ScratchSpace(std::uint64_t most_pages) : most_(most_pages) {}
  std::uint64_t used() const { return used_; }
  std::uint64_t left() const { return most_ - std::min(most_, used_ + aside_); }
  // Bytes that are kept elsewhere and count all the same; false: there is no room.
  bool set_aside(std::uint64_t bytes) {
    const std::uint64_t pages = pages_of(aside_bytes_ + bytes);
    if (pages > aside_ && pages - aside_ > left()) return false;
    aside_bytes_ += bytes;
    aside_ = pages;
    return true;
  }
  void give_aside(std::uint64_t bytes) {
    aside_bytes_ -= std::min(bytes, aside_bytes_);
    aside_ = pages_of(aside_bytes_);
  }
  std::uint64_t used_bytes() const { return used_ * scratch_page + aside_bytes_; }

  // All of them or nothing.
  std::optional<std::vector<PageRun>> take(std::uint64_t count) {
    if (count > left()) return std::nullopt;
    std::vector<PageRun> taken;
    used_ += count;
    while (count > 0 && !free_.empty()) {
      const auto it = free_.begin();
      const PageRun run{it->first, std::min(count, it->second - it->first)};
      const std::uint64_t end = it->second;
      free_.erase(it);
      if (run.first + run.count < end) free_[run.first + run.count] = end;
      taken.push_back(run);
      count -= run.count;
    }
    if (count > 0) {
      taken.push_back({end_, count});
      end_ += count;
    }
    return taken;
  }
  void give(PageRun run) {
    used_ -= run.count;
    std::uint64_t begin = run.first, end = run.first + run.count;
    auto next = free_.lower_bound(begin);
    if (next != free_.begin() && std::prev(next)->second == begin) {
      begin = std::prev(next)->first;
      free_.erase(std::prev(next));
    }
    if (next != free_.end() && next->first == end) {
      end = next->second;
      free_.erase(next);
    }
    free_[begin] = end;
  }

 private:
  static std::uint64_t pages_of(std::uint64_t bytes) { return (bytes + scratch_page - 1) / scratch_page; }
  const std::uint64_t most_;
  std::uint64_t used_ = 0, aside_ = 0, aside_bytes_ = 0, end_ = 0;
  std::map<std::uint64_t, std::uint64_t> free_;  // begin -> end, neighbours joined
};

}  // namespace holdfast::mirror
