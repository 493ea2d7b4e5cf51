// SPDX-License-Identifier: Apache-2.0
#include "capture/differential_cases.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

namespace holdfast::capture {

long Trace::call(const std::string& what, long result) {
  if (result < 0)
    note("{}: {}", what, std::strerror(errno));
  else
    note("{} = {}", what, result);
  return result;
}

int Trace::opened(const std::string& what, int fd) {
  note("{}: {}", what, fd < 0 ? std::strerror(errno) : "opened");
  return fd;
}

namespace {

std::string facts(const struct stat& st) {
  return fmt::format("mode {:o} links {} owner {}:{} size {} rdev {:x}", st.st_mode, st.st_nlink, st.st_uid, st.st_gid,
                     S_ISDIR(st.st_mode) ? 0 : st.st_size, st.st_rdev);
}

}  // namespace

void Trace::stat(const std::string& name) {
  struct stat st;
  if (lstat(at(name).c_str(), &st) != 0)
    note("stat {}: {}", name, std::strerror(errno));
  else
    note("stat {}: {}", name, facts(st));
}

void Trace::stat_fd(const std::string& what, int fd) {
  struct stat st;
  if (fstat(fd, &st) != 0)
    note("fstat {}: {}", what, std::strerror(errno));
  else
    note("fstat {}: {}", what, facts(st));
}

void Trace::content(const std::string& name) {
  std::ifstream in(at(name), std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  note("content {}: {} bytes, hash {:x}", name, text.str().size(), std::hash<std::string>{}(text.str()));
}

std::string text_of_child(int end, int child, int& status) {
  std::string text;
  char part[4096];
  for (ssize_t n; (n = read(end, part, sizeof part)) > 0;) text.append(part, static_cast<std::size_t>(n));
  close(end);
  waitpid(child, &status, 0);
  return text;
}

std::string access_list(std::initializer_list<std::array<unsigned, 3>> entries) {
  std::string out("\x02\0\0\0", 4);
  for (const auto& [tag, rights, id] : entries) {
    const unsigned short head[2] = {static_cast<unsigned short>(tag), static_cast<unsigned short>(rights)};
    out.append(reinterpret_cast<const char*>(head), 4);
    out.append(reinterpret_cast<const char*>(&id), 4);
  }
  return out;
}

void Trace::as_user(unsigned uid, unsigned gid, const std::vector<unsigned>& groups,
                    const std::function<void(Trace&)>& body) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return note("no pipe");
  const pid_t child = fork();
  if (child == 0) {
    const std::vector<gid_t> list(groups.begin(), groups.end());
    if (setgroups(list.size(), list.data()) || setresgid(gid, gid, gid) || setresuid(uid, uid, uid)) _exit(1);
    Trace inner(root_);
    body(inner);
    std::string text;
    for (const auto& line : inner.lines()) text += line + "\n";
    std::size_t sent = 0;
    while (sent < text.size()) {
      const ssize_t n = write(ends[1], text.data() + sent, text.size() - sent);
      if (n <= 0) _exit(1);
      sent += static_cast<std::size_t>(n);
    }
    _exit(0);
  }
  close(ends[1]);
  int status = 0;
  const std::string text = text_of_child(ends[0], child, status);
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) note("user {}: {}", uid, line);
  note("user {} ended with {}", uid, status);
}

void Trace::put(const std::string& name, const std::string& text, unsigned mode) {
  const int fd = opened("create " + name, open(at(name).c_str(), O_CREAT | O_WRONLY, mode));
  call("write " + name, write(fd, text.data(), text.size()));
  close(fd);
}

std::string pattern(std::size_t bytes, unsigned seed) {
  std::string text(bytes, 0);
  for (auto& c : text) c = static_cast<char>((seed = seed * 1103515245 + 12345) >> 16);
  return text;
}

std::vector<Case> differential_cases() {
  std::vector<Case> all;
  for (auto part :
       {name_cases(), error_cases(), listing_cases(), data_cases(), space_cases(), mapping_cases(), lock_cases(),
        attribute_cases(), rights_cases(), clock_cases(), handle_cases(), watch_cases(), run_cases()})
    for (auto& one : part) all.push_back(std::move(one));
  return all;
}

std::vector<Case> basic_cases() {
  std::vector<Case> all;
  for (auto part : {name_cases(), data_cases(), attribute_cases()})
    for (auto& one : part) all.push_back(std::move(one));
  return all;
}

std::vector<Case> mount_option_cases() {
  std::vector<Case> all = run_cases();
  std::erase_if(all, [](const Case& one) { return one.name == "truncated_without_writing"; });  // nothing runs there
  for (auto part : {name_cases(), handle_cases()})
    for (auto& one : part)
      if (one.name == "special_files" || one.name == "facts") all.push_back(std::move(one));
  return all;
}

}  // namespace holdfast::capture
