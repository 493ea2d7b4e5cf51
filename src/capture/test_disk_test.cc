// SPDX-License-Identifier: Apache-2.0
#include "capture/test_disk.h"

#include <fcntl.h>
#include <linux/loop.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "capture/lower.h"
#include "capture/test_mount.h"

namespace holdfast::capture {
namespace {

constexpr off_t image_bytes = 512 << 20;

// A block device over `image` that ends with its last user.
Result<std::string> loop_over(int image, Descriptor& device) {
  const Descriptor control(open("/dev/loop-control", O_RDWR | O_CLOEXEC));
  if (control.get() < 0) return fail_errno(errno, "cannot open /dev/loop-control");
  for (;;) {
    const int number = ioctl(control.get(), LOOP_CTL_GET_FREE);
    if (number < 0) return fail_errno(errno, "no loop device is free");
    const std::string path = fmt::format("/dev/loop{}", number);
    if (mknod(path.c_str(), S_IFBLK | 0600, static_cast<dev_t>(7 << 8 | (number & 0xff))) != 0 && errno != EEXIST)
      return fail_errno(errno, "cannot make {}", path);
    device = Descriptor(open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (device.get() < 0) return fail_errno(errno, "cannot open {}", path);
    loop_config config{};
    config.fd = static_cast<__u32>(image);
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR;
    if (ioctl(device.get(), LOOP_CONFIGURE, &config) == 0) return path;
    if (errno != EBUSY) return fail_errno(errno, "cannot set {} up", path);  // busy: somebody else was faster
  }
}

// Memory over a folder of a fixed name: what is mounted in it is nobody else's, and goes with our mount namespace.
Result<std::string> place() {
  const std::string path = testing::TempDir() + "holdfast-test-disks";
  if (mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) return fail_errno(errno, "cannot make {}", path);
  if (mount("holdfast-test-disks", path.c_str(), "tmpfs", 0, "mode=0755") != 0)
    return fail_errno(errno, "cannot mount at {}", path);
  return path;
}

Result<std::string> make(DiskKind kind, const char* command, unsigned long flags = 0) {
  static const Result<std::string> where = place();
  HF_ASSIGN(const std::string base, where);
  const Descriptor image(memfd_create(to_string(kind), MFD_CLOEXEC));
  if (image.get() < 0 || ftruncate(image.get(), image_bytes) != 0) return fail_errno(errno, "cannot make an image");
  Descriptor device;
  HF_ASSIGN(const std::string name, loop_over(image.get(), device));
  if (std::system(fmt::format(fmt::runtime(command), name).c_str()) != 0)
    return fail(ErrorCode::unavailable, "mkfs of {} failed: install the packages of tools/packages.build",
                to_string(kind));
  const char* type = kind == DiskKind::xfs ? "xfs" : "ext4";
  std::string path = base + "/" + to_string(kind);
  if (mkdir(path.c_str(), 0755) != 0 || mount(name.c_str(), path.c_str(), type, flags, nullptr) != 0)
    return fail_errno(errno, "cannot mount the {}", to_string(kind));
  if (chmod(path.c_str(), 0755) != 0) return fail_errno(errno, "cannot open the {} to all", to_string(kind));
  return path;
}

std::string settle(const Result<std::string>& made) {
  if (made) return *made;
  ADD_FAILURE() << made.error().to_string();
  return {};
}

}  // namespace

const char* to_string(DiskKind kind) {
  return kind == DiskKind::ext4 ? "ext4" : kind == DiskKind::xfs ? "xfs" : "strict";
}

const std::string& test_disk(DiskKind kind) {
  constexpr const char *mkfs_ext4 = "mkfs.ext4 -q -F -m 0 -b 4096 {}", *mkfs_xfs = "mkfs.xfs -q -f {}";
  constexpr unsigned long forbids = MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_SYNCHRONOUS;
  if (kind == DiskKind::xfs) {
    static const std::string xfs = settle(make(kind, mkfs_xfs));
    return xfs;
  }
  if (kind == DiskKind::strict) {
    static const std::string strict = settle(make(kind, mkfs_ext4, forbids));
    return strict;
  }
  static const std::string ext4 = settle(make(kind, mkfs_ext4));
  return ext4;
}

}  // namespace holdfast::capture
