// SPDX-License-Identifier: Apache-2.0
// For tests only: a file system of its own in a sparse file, mounted at a folder.
#pragma once

#include <sys/mount.h>

#include <filesystem>
#include <string>
#include <vector>

#include "platform/process.h"

namespace holdfast::platform::testing {

class MountedImage {
 public:
  // `make`: mkfs and its options. The loop device goes with the mount.
  MountedImage(const std::string& image, std::string at, std::vector<std::string> make) : at_(std::move(at)) {
    std::filesystem::create_directories(at_);
    make.push_back(image);
    mounted_ = run_checked({.argv = {"truncate", "-s", "400M", image}}) && run_checked({.argv = make}) &&
               run_checked({.argv = {"mount", "-o", "loop", image, at_}});
  }
  ~MountedImage() {
    if (mounted_) ::umount2(at_.c_str(), MNT_DETACH);
  }
  MountedImage(const MountedImage&) = delete;
  MountedImage& operator=(const MountedImage&) = delete;
  bool mounted() const { return mounted_; }

 private:
  std::string at_;
  bool mounted_ = false;
};

inline std::vector<std::string> make_ext4() { return {"mkfs.ext4", "-q", "-F", "-b", "4096"}; }
inline std::vector<std::string> make_xfs() { return {"mkfs.xfs", "-q", "-f"}; }

}  // namespace holdfast::platform::testing
