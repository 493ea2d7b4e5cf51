// SPDX-License-Identifier: Apache-2.0
#include "daemon/holdfastd/holders.h"

#include <filesystem>
#include <fstream>

#include "apps/application.h"

namespace holdfast::daemon {
namespace {

namespace fs = std::filesystem;

bool inside(const fs::path& link, const std::string& folder) {
  std::error_code gone;  // processes come and go while we look
  const fs::path target = fs::read_symlink(link, gone);
  return !gone && apps::path_within(target.string(), folder);
}

bool holds(const fs::path& process, const std::string& folder) {
  if (inside(process / "cwd", folder) || inside(process / "root", folder)) return true;
  for (const char* list : {"fd", "map_files"}) {
    std::error_code gone;
    for (auto it = fs::directory_iterator(process / list, gone); !gone && it != fs::directory_iterator();
         it.increment(gone))
      if (inside(it->path(), folder)) return true;
  }
  return false;
}

}  // namespace

std::vector<std::string> holders_of(const std::string& folder, std::size_t most) {
  std::vector<std::string> found;
  std::error_code gone;
  for (auto it = fs::directory_iterator("/proc", gone); !gone && it != fs::directory_iterator() && found.size() < most;
       it.increment(gone)) {
    const std::string pid = it->path().filename().string();
    if (pid.find_first_not_of("0123456789") != std::string::npos || !holds(it->path(), folder)) continue;
    // The mirror may still take its attributes off a folder that was unprotected: it stops that when the folder is protected again.
    std::error_code unknown;
    if (fs::read_symlink(it->path() / "exe", unknown).filename() == "holdfast-mirror") continue;
    std::string name;
    std::getline(std::ifstream(it->path() / "comm"), name);
    found.push_back(name + " (" + pid + ")");
  }
  return found;
}

}  // namespace holdfast::daemon
