// SPDX-License-Identifier: Apache-2.0
// Which trouble is worth a line: not the one that was told already. A peer that is refused each second for a week is one line in the
// journal, not 600,000. Any thread. Bounded, for strangers choose what they are and what is wrong with them.
#pragma once

#include <cstddef>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <string_view>

namespace holdfast {

class News {
 public:
  // True: `what` was not told of `who` since its last forget(); from now on it was.
  bool first(const std::string& who, const std::string& what);
  void forget(const std::string& who);  // all is well with it: the next trouble is news again

  static constexpr std::size_t most_who = 256, most_what = 8;  // when there are more, all are forgotten

 private:
  std::mutex mutex_;
  std::map<std::string, std::set<std::string>> told_;
};

// "10.0.0.2:60618" -> "10.0.0.2", "[fd00::2]:60618" -> "[fd00::2]": who it is that comes from another port each time.
std::string without_port(std::string_view address);

}  // namespace holdfast
