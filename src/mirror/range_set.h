// SPDX-License-Identifier: Apache-2.0
// Disjoint half-open ranges of a file, neighbours joined.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>

namespace holdfast::mirror {

class RangeSet {
 public:
  void add(std::uint64_t begin, std::uint64_t end) {
    if (begin >= end) return;
    auto it = ranges_.upper_bound(begin);
    if (it != ranges_.begin() && std::prev(it)->second >= begin) --it;
    while (it != ranges_.end() && it->first <= end) {
      begin = std::min(begin, it->first);
      end = std::max(end, it->second);
      it = ranges_.erase(it);
    }
    ranges_[begin] = end;
  }
  // Calls `f(begin, end)`, in order, for each part of the range that is not in the set. `f` returns something that tests false to stop, and
  // that is returned; it must not change the set.
  template <class R, class F>
  R for_each_missing(std::uint64_t begin, std::uint64_t end, F&& f) const {
    auto it = ranges_.upper_bound(begin);
    if (it != ranges_.begin() && std::prev(it)->second > begin) --it;
    while (begin < end) {
      const std::uint64_t next = it == ranges_.end() ? end : std::min(end, it->first);
      if (begin < next) {
        R r = f(begin, next);
        if (!r) return r;
      }
      if (it == ranges_.end()) break;
      begin = std::max(begin, it->second);
      ++it;
    }
    return R{};
  }
  bool covers(std::uint64_t begin, std::uint64_t end) const {
    if (begin >= end) return true;
    auto it = ranges_.upper_bound(begin);
    return it != ranges_.begin() && std::prev(it)->second >= end;
  }
  std::uint64_t bytes() const {
    std::uint64_t sum = 0;
    for (const auto& [b, e] : ranges_) sum += e - b;
    return sum;
  }
  std::size_t size() const { return ranges_.size(); }
  bool empty() const { return ranges_.empty(); }
  auto begin() const { return ranges_.begin(); }
  auto end() const { return ranges_.end(); }

 private:
  std::map<std::uint64_t, std::uint64_t> ranges_;  // begin -> end
};

}  // namespace holdfast::mirror
