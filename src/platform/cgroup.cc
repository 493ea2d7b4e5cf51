// SPDX-License-Identifier: Apache-2.0
#include "platform/cgroup.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <string_view>

#include <linux/magic.h>

#include "platform/unique_fd.h"

namespace holdfast::platform {
namespace {

using clock = std::chrono::steady_clock;

bool is_v2(const char* path) {
  struct statfs fs {};
  return statfs(path, &fs) == 0 && fs.f_type == CGROUP2_SUPER_MAGIC;
}

// "populated 0" counts groups inside, too.
bool populated(int events_fd) {
  char text[256] = {};
  const ssize_t n = pread(events_fd, text, sizeof text - 1, 0);
  if (n < 0) return errno != ENODEV;  // the group was removed while we looked
  return std::string_view(text).find("populated 1") != std::string_view::npos;
}

}  // namespace

Cgroup::Cgroup(const std::string& path) {
  for (const char* root : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"}) {
    if (access((root + path).c_str(), F_OK) != 0) continue;
    folder_ = root + path;
    v2_ = is_v2(root);
    return;
  }
}

bool Cgroup::kill_all() const {
  if (folder_.empty()) return true;
  if (!v2_) return false;
  const UniqueFd fd(open((folder_ + "/cgroup.kill").c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd) return access(folder_.c_str(), F_OK) != 0;
  return write(fd.get(), "1", 1) == 1 || errno == ENODEV;
}

std::vector<int> Cgroup::processes() const {
  std::vector<int> pids;
  if (folder_.empty()) return pids;
  const auto read_group = [&pids](const std::string& folder) {
    std::ifstream in(folder + "/cgroup.procs");
    for (int pid = 0; in >> pid;) pids.push_back(pid);
  };
  read_group(folder_);
  std::error_code ec;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder_, ec))
    if (entry.is_directory(ec)) read_group(entry.path().string());
  return pids;
}

Status Cgroup::wait_empty(int timeout_ms, const std::string& what) const {
  const auto deadline = clock::now() + std::chrono::milliseconds(timeout_ms);
  const UniqueFd events(folder_.empty() ? -1 : open((folder_ + "/cgroup.events").c_str(), O_RDONLY | O_CLOEXEC));
  for (;;) {
    if (folder_.empty() || access(folder_.c_str(), F_OK) != 0) return {};
    if (events ? !populated(events.get()) : processes().empty()) return {};
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - clock::now()).count();
    if (left <= 0)
      return fail(ErrorCode::timeout, "{} processes of {} are still there after SIGKILL (blocked in the kernel)",
                  processes().size(), what);
    // v2 reports a change of cgroup.events as POLLPRI; v1 has no such event, so its list is read again every 10 ms.
    pollfd p{events.get(), POLLPRI, 0};
    poll(&p, 1, events ? static_cast<int>(left) : static_cast<int>(std::min<std::int64_t>(left, 10)));
  }
}

}  // namespace holdfast::platform
