// SPDX-License-Identifier: Apache-2.0
// Sequences of calls whose results must be the same on a mount and on the file system below it.
#pragma once

#include <array>
#include <functional>
#include <initializer_list>
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
  // Beside the folder, on the same disk.
  std::string beside(const std::string& name) const { return root_ + "-beside/" + name; }
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
  // Makes a file.
  void put(const std::string& name, const std::string& text, unsigned mode = 0644);
  // Runs `body` in a process of that user.
  void as_user(unsigned uid, unsigned gid, const std::vector<unsigned>& groups,
               const std::function<void(Trace&)>& body);
  // Runs it in another process that has the same rights.
  void child(const std::function<void(Trace&)>& body) { as_user(0, 0, {}, body); }
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
// Those that a view of the past (look_write_test.cc) has to pass as well.
std::vector<Case> basic_cases();
// Those in which the mount options of the folder count.
std::vector<Case> mount_option_cases();
// The parts they are made of.
std::vector<Case> name_cases();
std::vector<Case> error_cases();
std::vector<Case> listing_cases();
std::vector<Case> data_cases();
std::vector<Case> space_cases();
std::vector<Case> mapping_cases();
std::vector<Case> lock_cases();
std::vector<Case> attribute_cases();
std::vector<Case> rights_cases();
std::vector<Case> clock_cases();
std::vector<Case> handle_cases();
std::vector<Case> watch_cases();
std::vector<Case> run_cases();

std::string pattern(std::size_t bytes, unsigned seed);
// All that comes until the other ends of the pipe are closed; then the child's status is waited for. Closes `end`.
std::string text_of_child(int end, int child, int& status);
// An access list in the form of the kernel: version 2, then (tag, rights, id) each.
std::string access_list(std::initializer_list<std::array<unsigned, 3>> entries);

// One line that is another on the mount. The only ones that may be; each has to be met.
struct Difference {
  std::string row;  // of the table in docs/GUARANTEES.md: its first cell
  std::string one;  // the case
  std::string below, mount;
  enum class Policy { both, write_back } policy = Policy::both;
  std::string disk = {};  // empty: on any
};
const std::vector<Difference>& differences();

}  // namespace holdfast::capture
