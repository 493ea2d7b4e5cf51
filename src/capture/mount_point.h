// SPDX-License-Identifier: Apache-2.0
// The mount itself: the device, mount(2), its number in /sys/fs/fuse/connections, the limits of its write-back, and its end.
#pragma once

#include <string>

#include "base/result.h"
#include "capture/lower.h"

namespace holdfast::capture {

// The flags of mount(2) that keep what the mount of `fd` forbids (programs, set-id bits, devices, symbolic links) and promises (sync). 0 or errno.
int flags_of_mount(int fd, unsigned long& out);

class MountPoint {
 public:
  // Mounts at `path`. Requests wait in `device()` until someone serves them.
  struct How {
    const char* type = "fuse.holdfast";
    unsigned long flags = 0;  // of mount(2)
    bool allow_other = true;  // false: only who mounts it gets in
  };
  static Result<MountPoint> create(const std::string& path, mode_t root_mode, const How& how);
  // The mount of another mirror, by its device: still the one on top at `path`? Asks nothing of who serves it.
  static Result<MountPoint> take_over(const std::string& path, const std::string& number, Descriptor device);
  int device() const { return device_.get(); }
  const std::string& path() const { return path_; }
  const std::string& number() const { return number_; }  // "0:47"
  std::string abort_path() const { return abort_path_; }

  // Limits of dirty pages and read-ahead. Needs the mount only, not its server. Best effort: containers may not show /sys/class/bdi.
  void tune(std::uint64_t max_dirty_bytes, unsigned read_ahead_kib) const;
  // How many requests that nobody waits for the kernel sends at once. False: it can't be set here.
  bool set_background(unsigned most) const;
  // errno of umount2(path, 0) when it is still ours that is on top, 0 = done.
  int unmount();
  // Ends the connection now; then leaves the path.
  void abort();
  // Drops our descriptor: with it the last reference of a dead connection.
  void close_device() { device_ = Descriptor(); }

 private:
  void find_connection();
  Descriptor device_, abort_fd_;
  std::string path_, number_, abort_path_;
};

}  // namespace holdfast::capture
