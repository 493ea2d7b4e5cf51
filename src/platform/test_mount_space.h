// SPDX-License-Identifier: Apache-2.0
// For tests: an ext4 of their own in a mount namespace of their own.
#pragma once

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "platform/mounts.h"
#include "platform/process.h"

namespace holdfast::platform {

namespace fs = std::filesystem;

// An ext4 of its own at `disk`, in a mount namespace of its own thread, shared as systemd makes it.
class MountSpace : public ::testing::Test {
 protected:
  void run(const std::function<void()>& body) {
    if (geteuid() != 0) GTEST_SKIP() << "needs root: mounts";
    std::thread([&] {
      ASSERT_EQ(unshare(CLONE_NEWNS), 0);
      ASSERT_EQ(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
      const fs::path base = fs::temp_directory_path() / ("hf_mounts_" + std::to_string(getpid()));
      // Also after a failed assertion: the loop device goes with its mount.
      struct Cleanup {
        fs::path base;
        ~Cleanup() {
          umount2((base / "disk").c_str(), MNT_DETACH);
          fs::remove_all(base);
        }
      } cleanup{base};
      fs::create_directories(base / "disk");
      const std::string image = base / "image";
      ASSERT_TRUE(run_checked({.argv = {"truncate", "-s", "16M", image}}));
      ASSERT_TRUE(run_checked({.argv = {"mkfs.ext4", "-q", "-F", image}}));
      const auto mounted = run_checked({.argv = {"mount", "-o", "loop", image, base / "disk"}});
      ASSERT_TRUE(mounted) << mounted.error().message;
      ASSERT_EQ(mount(nullptr, (base / "disk").c_str(), nullptr, MS_SHARED, nullptr), 0);
      disk = base / "disk";
      path = disk / "srv/data";
      fs::create_directories(path / "sub");
      std::ofstream(path / "file") << "real";
      body();
    }).join();
  }
  static int try_create(const fs::path& name) {
    const UniqueFd fd(open(name.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    return fd ? 0 : errno;
  }
  // A FUSE mount as the mirror makes it, that nobody serves.
  UniqueFd mount_fuse() {
    UniqueFd fd(open("/dev/fuse", O_RDWR | O_CLOEXEC));
    const std::string options = "fd=" + std::to_string(fd.get()) + ",rootmode=40000,user_id=0,group_id=0";
    EXPECT_EQ(mount("holdfast", path.c_str(), "fuse.holdfast", MS_NOSUID | MS_NODEV, options.c_str()), 0) << errno;
    return fd;
  }
  int mounts_at(const fs::path& p) {
    int count = 0;
    const std::vector<Mount> mounts = read_mounts().value();
    for (const Mount& m : mounts) count += m.point == p.string() ? 1 : 0;
    return count;
  }
  fs::path disk, path;
};

}  // namespace holdfast::platform
