// SPDX-License-Identifier: Apache-2.0
#include "capture/mount_point.h"

#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>

#include <cerrno>
#include <filesystem>

#include <fmt/format.h>

#include "base/log.h"

namespace holdfast::capture {
namespace {

constexpr const char* connections = "/sys/fs/fuse/connections";
constexpr long fusectl_magic = 0x65735543;

// The control file system is usually mounted by systemd; in containers it may be missing.
void ensure_connections() {
  struct statfs fs;
  if (statfs(connections, &fs) == 0 && fs.f_type == fusectl_magic) return;
  if (::mount("fusectl", connections, "fusectl", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0)
    log_warning("cannot mount {}: {}; fences fall back to forced unmounts", connections,
                errno_error(errno, "mount").message);
}

void write_setting(const std::string& file, const std::string& value) {
  const Descriptor fd(open(file.c_str(), O_WRONLY | O_CLOEXEC));
  if (fd.get() < 0 || write(fd.get(), value.data(), value.size()) < 0)
    log_warning("cannot set {} to {}: {}", file, value, errno_error(errno, "write").message);
}

// Device number of what is mounted on top of a path, from the kernel's own knowledge: asks no server.
std::string device_number(const std::string& path) {
  struct statx stx;
  if (statx(AT_FDCWD, path.c_str(), AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, 0, &stx) != 0) return {};
  return fmt::format("{}:{}", stx.stx_dev_major, stx.stx_dev_minor);
}

}  // namespace

int flags_of_mount(int fd, unsigned long& out) {
  constexpr unsigned long st_nosymfollow = 0x2000, ms_nosymfollow = 256;
  constexpr std::pair<unsigned long, unsigned long> same[] = {
      {ST_NOSUID, MS_NOSUID},           {ST_NODEV, MS_NODEV},     {ST_NOEXEC, MS_NOEXEC},
      {ST_SYNCHRONOUS, MS_SYNCHRONOUS}, {ST_NOATIME, MS_NOATIME}, {ST_NODIRATIME, MS_NODIRATIME},
      {st_nosymfollow, ms_nosymfollow}};
  struct statvfs fs;
  if (fstatvfs(fd, &fs) != 0) return errno;
  out = 0;
  for (const auto& [has, flag] : same)
    if (fs.f_flag & has) out |= flag;
  return 0;
}

Result<MountPoint> MountPoint::create(const std::string& path, mode_t root_mode, const How& how) {
  MountPoint m;
  m.path_ = path;
  m.device_ = Descriptor(open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (m.device_.get() < 0) return fail_errno(errno, "cannot open /dev/fuse");
  const std::string data = fmt::format("fd={},rootmode={:o},user_id=0,group_id=0,default_permissions{}",
                                       m.device_.get(), root_mode & S_IFMT, how.allow_other ? ",allow_other" : "");
  if (::mount("holdfast", path.c_str(), how.type, how.flags, data.c_str()) != 0)
    return fail_errno(errno, "cannot mount at {}", path);
  m.number_ = device_number(path);
  m.find_connection();
  return m;
}

Result<MountPoint> MountPoint::take_over(const std::string& path, const std::string& number, Descriptor device) {
  MountPoint m;
  m.path_ = path;
  m.device_ = std::move(device);
  m.number_ = number;
  if (const std::string now = device_number(path); now != number)
    return fail(ErrorCode::stale, "what is mounted at {} now is {}, not the capture {}", path, now, number);
  m.find_connection();
  return m;
}

void MountPoint::find_connection() {
  ensure_connections();
  const std::string file = fmt::format("{}/{}/abort", connections, number_.substr(number_.find(':') + 1));
  abort_fd_ = Descriptor(open(file.c_str(), O_WRONLY | O_CLOEXEC));
  if (abort_fd_.get() >= 0) abort_path_ = file;
}

bool MountPoint::set_background(unsigned most) const {
  const std::string file = fmt::format("{}/{}/max_background", connections, number_.substr(number_.find(':') + 1));
  const Descriptor fd(open(file.c_str(), O_WRONLY | O_CLOEXEC));
  const std::string text = std::to_string(most);
  return fd.get() >= 0 && write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
}

void MountPoint::tune(std::uint64_t max_dirty_bytes, unsigned read_ahead_kib) const {
  const std::string bdi = fmt::format("/sys/class/bdi/{}", number_);
  if (!std::filesystem::exists(bdi)) {
    log_warning("{} is not there: the kernel's default limits of write-back stay", bdi);
    return;
  }
  write_setting(bdi + "/max_ratio", "100");
  if (max_dirty_bytes) write_setting(bdi + "/max_bytes", std::to_string(max_dirty_bytes));
  write_setting(bdi + "/strict_limit", max_dirty_bytes ? "1" : "0");
  write_setting(bdi + "/read_ahead_kb", std::to_string(read_ahead_kib));
}

int MountPoint::unmount() {
  if (device_number(path_) != number_) return ENOENT;  // something else lies on top, or it is gone: not ours to unmount
  return umount2(path_.c_str(), UMOUNT_NOFOLLOW) == 0 ? 0 : errno;
}

void MountPoint::abort() {
  bool aborted = abort_fd_.get() >= 0 && write(abort_fd_.get(), "1", 1) == 1;
  if (device_number(path_) != number_) {
    if (!aborted) log_error("cannot abort the connection {} of {}", number_, path_);
    return;
  }
  if (!aborted && umount2(path_.c_str(), MNT_FORCE | UMOUNT_NOFOLLOW) == 0) return;
  if (umount2(path_.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0)
    log_error("cannot unmount {}: {}", path_, errno_error(errno, "umount").message);
}

}  // namespace holdfast::capture
