// SPDX-License-Identifier: Apache-2.0
#include "capture/look_mount.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cerrno>
#include <condition_variable>
#include <fstream>
#include <sstream>

#include "base/log.h"
#include "capture/dev_transport.h"
#include "capture/look_server.h"
#include "capture/mount_point.h"

namespace holdfast::capture {
namespace {

constexpr unsigned threads = 4;  // each may wait until nothing is being applied
constexpr std::chrono::seconds first_answer{10};
constexpr const char* type_name = "fuse.holdfast-look";

class Mounted final : public LookMount {
 public:
  template <class TreePtr>
  Mounted(MountPoint mount, const std::vector<Root>& roots, TreePtr tree)
      : mount_(std::move(mount)),
        server_(roots, std::move(tree)),
        transport_(mount_.device(), server_, threads, threads) {
    server_.on_initialized = [this] { set(initialized_); };
    server_.on_ended = [this] { set(ended_); };
  }
  ~Mounted() override {
    if (!ended()) mount_.abort();
    transport_.join();
  }
  void on_trouble(Trouble tell) { server_.on_trouble = std::move(tell); }
  Status start() {
    HF_TRY(transport_.start());
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, first_answer, [this] { return initialized_ || ended_; }) || !initialized_)
      return fail(ErrorCode::io, "the kernel did not accept the FUSE session at {}", mount_.path());
    return {};
  }
  Status end() override {
    if (const int error = mount_.unmount(); error == EBUSY)
      return tl::unexpected(Error{ErrorCode::busy, fmt::format("{} is in use", mount_.path()),
                                  fmt::format("see by whom with: fuser -vm {}", mount_.path()), 0});
    else if (error != 0 && error != ENOENT && error != EINVAL)
      return fail_errno(error, "cannot unmount {}", mount_.path());
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, first_answer, [this] { return ended_; });  // else it is aborted
    return {};
  }
  bool ended() const override {
    const std::lock_guard lock(mutex_);
    return ended_;
  }

 private:
  void set(bool& what) {
    const std::lock_guard lock(mutex_);
    what = true;
    changed_.notify_all();
  }
  MountPoint mount_;
  LookServer server_;
  DevTransport transport_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool initialized_ = false, ended_ = false;
};

}  // namespace

Result<std::unique_ptr<LookMount>> LookMount::mount(const std::string& dir, const std::vector<Root>& roots,
                                                    std::shared_ptr<ports::PastTree> past) {
  HF_ASSIGN(MountPoint point, MountPoint::create(dir, S_IFDIR, {type_name, MS_RDONLY | MS_NOSUID | MS_NODEV, false}));
  auto mounted = std::make_unique<Mounted>(std::move(point), roots, std::move(past));
  HF_TRY(mounted->start());
  return mounted;
}

// An application runs as its own user, so others get in if they may; the kernel checks modes and access lists.
Result<std::unique_ptr<LookMount>> LookMount::mount(const std::string& dir, const std::vector<Root>& roots,
                                                    std::shared_ptr<ports::ScratchTree> scratch, Trouble on_trouble,
                                                    bool others) {
  HF_ASSIGN(MountPoint point, MountPoint::create(dir, S_IFDIR, {type_name, MS_NOSUID | MS_NODEV, others}));
  auto mounted = std::make_unique<Mounted>(std::move(point), roots, std::move(scratch));
  mounted->on_trouble(std::move(on_trouble));
  HF_TRY(mounted->start());
  return mounted;
}

void LookMount::clear_dead() {
  std::ifstream in("/proc/self/mountinfo");
  std::vector<std::string> dead;
  for (std::string line; std::getline(in, line);) {
    const std::size_t dash = line.find(" - ");
    if (dash == std::string::npos || line.compare(dash + 3, std::string(type_name).size(), type_name) != 0) continue;
    std::istringstream fields(line);
    std::string skipped, path;
    fields >> skipped >> skipped >> skipped >> skipped >> path;
    std::string plain;  // spaces and the like are written in octal
    for (std::size_t i = 0; i < path.size(); ++i)
      if (path[i] == '\\' && i + 3 < path.size()) {
        plain.push_back(static_cast<char>(std::stoi(path.substr(i + 1, 3), nullptr, 8)));
        i += 3;
      } else {
        plain.push_back(path[i]);
      }
    dead.push_back(std::move(plain));
  }
  for (const auto& path : dead) {
    if (const Descriptor fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
        fd.get() >= 0 || errno != ENOTCONN)
      continue;  // somebody serves it
    if (::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0)
      log_warning("cannot unmount {}: {}", path, errno_error(errno, "umount").message);
    else
      log_info("{}: a view of the past that ended with an earlier process", path);
  }
}

}  // namespace holdfast::capture
