// SPDX-License-Identifier: Apache-2.0
// Sequences of calls whose results must be the same on a mount and on the file system below it.
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include <fmt/format.h>

namespace holdfast::capture {

// What came back, line by line; nothing that legitimately differs (inode numbers, devices, present time).
class Trace {
 public:
  explicit Trace(std::string root) : root_(std::move(root)) {}
  std::string at(const std::string& name) const { return root_ + "/" + name; }
  template <class... A>
  void note(fmt::format_string<A...> f, A&&... a) {
    lines_.push_back(fmt::format(f, std::forward<A>(a)...));
  }
  // Notes a result that is not a descriptor, or the errno.
  long call(const std::string& what, long result);
  // Notes only whether it worked; the descriptor is the caller's.
  int opened(const std::string& what, int fd);
  void stat(const std::string& name);
  void stat_fd(const std::string& what, int fd);
  void content(const std::string& name);
  // Runs `body` in a process of that user.
  void as_user(unsigned uid, unsigned gid, const std::vector<unsigned>& groups,
               const std::function<void(Trace&)>& body);
  const std::vector<std::string>& lines() const { return lines_; }

 private:
  std::string root_;
  std::vector<std::string> lines_;
};

struct Case {
  std::string name;
  std::function<void(Trace&)> run;
  friend std::ostream& operator<<(std::ostream& out, const Case& one) { return out << one.name; }
};

std::vector<Case> differential_cases();
// The parts it is made of.
std::vector<Case> name_cases();
std::vector<Case> data_cases();
std::vector<Case> attribute_cases();

}  // namespace holdfast::capture
