// SPDX-License-Identifier: Apache-2.0
// What the other nodes' file systems can't hold is refused here, with what such a file system would answer itself, before anything is changed: else
// it would stop them when they apply it. Every answer is 0 or an errno. Any thread.
#pragma once

#include <ctime>
#include <memory>
#include <string_view>

#include "base/bytes.h"
#include "mirror/live_limits.h"

namespace holdfast::capture {

class HeldByPeers {
 public:
  // Null: nothing is known of anybody.
  explicit HeldByPeers(std::shared_ptr<const mirror::LiveLimits> limits) : limits_(std::move(limits)) {}

  int link_target(std::size_t bytes) const;
  int device(std::uint32_t mode, std::uint64_t rdev) const;
  int file_end(std::uint64_t bytes) const;  // a size, or where a write ends
  int more_links(std::uint64_t there) const;
  // Of an object whose list of attributes (log/xattrs.h) is this.
  int xattrs(ByteView list) const;
  // The object of `fd` (may be O_PATH) gets one more, or another value of one; `flags` of setxattr.
  int set_xattr(int fd, std::string_view name, std::size_t bytes, int flags) const;
  // A file system puts a time that it can't hold to the end of its range.
  timespec time(timespec t) const;

 private:
  std::uint64_t most(ports::Limit what) const { return limits_ ? limits_->most(what) : ports::no_limit; }
  bool counts_xattrs() const;
  int all_xattrs(std::uint64_t room, std::uint64_t names_room) const;

  const std::shared_ptr<const mirror::LiveLimits> limits_;
};

}  // namespace holdfast::capture
