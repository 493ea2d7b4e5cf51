// SPDX-License-Identifier: Apache-2.0
#include "capture/holders.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include <fmt/format.h>

namespace holdfast::capture {
namespace {

namespace fs = std::filesystem;

std::string first_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

std::string link_text(const std::string& path) {
  std::error_code ignored;
  return fs::read_symlink(path, ignored).string();
}

// Device of what a /proc link leads to, from cached attributes only: the file system may be hung.
bool leads_to(const std::string& link, const std::string& device) {
  struct statx stx;
  if (statx(AT_FDCWD, link.c_str(), AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, &stx) != 0) return false;
  return fmt::format("{}:{}", stx.stx_dev_major, stx.stx_dev_minor) == device;
}

// What is looked for: all of a device, or what lies at or below a path on it.
struct Wanted {
  std::string device, below;
  bool matches(const std::string& path) const {
    return below.empty() || path == below || (path.starts_with(below) && path[below.size()] == '/');
  }
};

std::string mapped_path(const std::string& proc, const Wanted& wanted) {
  unsigned major = 0, minor = 0;
  std::sscanf(wanted.device.c_str(), "%u:%u", &major, &minor);
  const std::string number = fmt::format("{:02x}:{:02x}", major, minor);
  std::ifstream maps(proc + "/maps");
  std::string line;
  while (std::getline(maps, line)) {
    std::istringstream words(line);
    std::string range, rights, offset, dev, inode, path;
    words >> range >> rights >> offset >> dev >> inode;
    if (dev != number) continue;
    std::getline(words >> std::ws, path);
    if (wanted.matches(path)) return path;
  }
  return {};
}

std::string held_link(const std::string& link, const Wanted& wanted) {
  std::string text = link_text(link);
  return !text.empty() && wanted.matches(text) && leads_to(link, wanted.device) ? text : std::string();
}

std::string held_by(const std::string& proc, const Wanted& wanted) {
  for (const char* link : {"/cwd", "/root", "/exe"})
    if (std::string held = held_link(proc + link, wanted); !held.empty()) return held;
  std::error_code error;
  for (fs::directory_iterator it(proc + "/fd", error), end; !error && it != end; it.increment(error))
    if (std::string held = held_link(it->path().string(), wanted); !held.empty()) return held;
  return mapped_path(proc, wanted);
}

std::vector<pid_t> processes() {
  std::vector<pid_t> pids;
  std::error_code error;
  for (fs::directory_iterator it("/proc", error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (!name.empty() && std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; }))
      pids.push_back(static_cast<pid_t>(std::stol(name)));
  }
  return pids;
}

// One line of mountinfo, as far as it matters who keeps a file system alive.
struct Mounted {
  std::string id, parent, device;
  std::set<std::string> groups;  // peer groups it receives from: the numbers of shared: and master:
  std::string shared;            // the group it sends to
};

std::vector<Mounted> mounts_of(const std::string& proc) {
  std::vector<Mounted> out;
  std::ifstream in(proc + "/mountinfo");
  std::string line;
  while (std::getline(in, line)) {
    std::istringstream words(line);
    Mounted m;
    std::string root, point, options, word;
    if (!(words >> m.id >> m.parent >> m.device >> root >> point >> options)) continue;
    while (words >> word && word != "-") {
      const auto colon = word.find(':');
      if (word.starts_with("shared:")) m.shared = word.substr(colon + 1);
      if (word.starts_with("shared:") || word.starts_with("master:")) m.groups.insert(word.substr(colon + 1));
    }
    out.push_back(std::move(m));
  }
  return out;
}

const Mounted* by_id(const std::vector<Mounted>& mounts, const std::string& id) {
  for (const Mounted& m : mounts)
    if (m.id == id) return &m;
  return nullptr;
}

// Peer groups to which an unmount of `device` here is passed on: those of the mounts it stands on.
std::set<std::string> reached_groups(const std::string& device) {
  std::set<std::string> groups;
  const auto ours = mounts_of("/proc/self");
  for (const Mounted& m : ours)
    if (const Mounted* parent = m.device == device ? by_id(ours, m.parent) : nullptr; parent && !parent->shared.empty())
      groups.insert(parent->shared);
  return groups;
}

// True: mounted there, and an unmount here would not reach it.
bool keeps_mounted(const std::string& proc, const std::string& device, const std::set<std::string>& reached) {
  const auto mounts = mounts_of(proc);
  for (const Mounted& m : mounts) {
    if (m.device != device) continue;
    const Mounted* parent = by_id(mounts, m.parent);
    const bool follows = parent && std::any_of(parent->groups.begin(), parent->groups.end(),
                                               [&](const auto& g) { return reached.contains(g); });
    if (!follows) return true;
  }
  return false;
}

}  // namespace

std::vector<Holder> find_foreign_mounts(const std::string& device) {
  std::vector<Holder> out;
  std::set<std::string> seen{link_text("/proc/self/ns/mnt")};
  const std::set<std::string> reached = reached_groups(device);
  for (const pid_t pid : processes()) {
    const std::string proc = fmt::format("/proc/{}", pid), space = link_text(proc + "/ns/mnt");
    if (space.empty() || !seen.insert(space).second) continue;
    if (keeps_mounted(proc, device, reached)) out.push_back({pid, first_line(proc + "/comm"), "mount namespace"});
  }
  return out;
}

namespace {

std::vector<Holder> holders_of(const Wanted& wanted) {
  std::vector<Holder> out;
  for (const pid_t pid : processes()) {
    const std::string proc = fmt::format("/proc/{}", pid);
    if (std::string held = held_by(proc, wanted); !held.empty())
      out.push_back({pid, first_line(proc + "/comm"), std::move(held)});
  }
  return out;
}

}  // namespace

std::vector<Holder> find_holders(const std::string& device) {
  std::vector<Holder> out = holders_of({device, {}});
  for (Holder& holder : find_foreign_mounts(device)) out.push_back(std::move(holder));
  return out;
}

std::vector<Holder> find_tree_holders(const std::string& device, const std::string& path) {
  return holders_of({device, path});
}

}  // namespace holdfast::capture
