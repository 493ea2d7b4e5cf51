// SPDX-License-Identifier: Apache-2.0
// What stat says of an object, in the words of the trees (ports/tree.h).
#pragma once

#include <sys/stat.h>

#include "ports/tree.h"

namespace holdfast::platform {

inline std::int64_t nanoseconds(const timespec& t) { return std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec; }

inline ports::NodeAttributes attributes_of(const struct stat& st) {
  ports::NodeAttributes a;
  a.mode = st.st_mode;
  a.uid = st.st_uid;
  a.gid = st.st_gid;
  a.rdev = st.st_rdev;
  a.size = static_cast<std::uint64_t>(st.st_size);
  a.links = st.st_nlink;
  a.atime_ns = nanoseconds(st.st_atim);
  a.mtime_ns = nanoseconds(st.st_mtim);
  a.allocated_bytes = static_cast<std::uint64_t>(st.st_blocks) * 512;
  return a;
}

}  // namespace holdfast::platform
