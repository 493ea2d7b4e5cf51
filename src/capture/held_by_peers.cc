// SPDX-License-Identifier: Apache-2.0
#include "capture/held_by_peers.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include <cerrno>

#include "capture/lower_xattrs.h"
#include "log/xattrs.h"

namespace holdfast::capture {

using ports::Limit;

int HeldByPeers::link_target(std::size_t bytes) const {
  return bytes > most(Limit::link_target_bytes) ? ENAMETOOLONG : 0;
}

int HeldByPeers::device(std::uint32_t mode, std::uint64_t rdev) const {
  if (!S_ISCHR(mode) && !S_ISBLK(mode)) return 0;
  return major(rdev) > most(Limit::device_major) || minor(rdev) > most(Limit::device_minor) ? EINVAL : 0;
}

int HeldByPeers::file_end(std::uint64_t bytes) const { return bytes > most(Limit::file_bytes) ? EFBIG : 0; }

int HeldByPeers::more_links(std::uint64_t there) const { return there >= most(Limit::links) ? EMLINK : 0; }

bool HeldByPeers::counts_xattrs() const {
  return most(Limit::xattrs_bytes) != ports::no_limit || most(Limit::xattr_names_bytes) != ports::no_limit;
}

int HeldByPeers::all_xattrs(std::uint64_t room, std::uint64_t names_room) const {
  return room > most(Limit::xattrs_bytes) || names_room > most(Limit::xattr_names_bytes) ? ENOSPC : 0;
}

int HeldByPeers::xattrs(ByteView list) const {
  if (!counts_xattrs()) return 0;
  const auto all = log::decode_xattrs(list);
  if (!all) return EIO;
  std::uint64_t room = 0, names = 0;
  for (const auto& x : *all) {
    room += ports::xattr_room(x.name.size(), x.value.size());
    names += ports::xattr_room(x.name.size(), 0);
  }
  return all_xattrs(room, names);
}

int HeldByPeers::set_xattr(int fd, std::string_view name, std::size_t bytes, int flags) const {
  if (ports::is_access_list(name) && bytes > most(Limit::access_list_bytes)) return EOPNOTSUPP;
  const bool one_too_big = name.size() + bytes > most(Limit::xattr_bytes);
  if (!one_too_big && !counts_xattrs()) return 0;
  Bytes list;
  if (const int error = read_xattrs(fd, list)) return error;
  const auto all = log::decode_xattrs(list);
  if (!all) return EIO;
  std::uint64_t room = ports::xattr_room(name.size(), bytes), names = ports::xattr_room(name.size(), 0);
  bool there = false;
  for (const auto& x : *all) {
    if (x.name == name) {
      there = true;
      continue;
    }
    room += ports::xattr_room(x.name.size(), x.value.size());
    names += ports::xattr_room(x.name.size(), 0);
  }
  // What is wrong with the call itself comes first, and the file system below says it.
  if (there ? (flags & XATTR_CREATE) != 0 : (flags & XATTR_REPLACE) != 0) return 0;
  return one_too_big ? ENOSPC : all_xattrs(room, names);
}

timespec HeldByPeers::time(timespec t) const {
  if (t.tv_nsec == UTIME_OMIT || t.tv_nsec == UTIME_NOW) return t;
  if (t.tv_sec >= 0 && static_cast<std::uint64_t>(t.tv_sec) >= most(Limit::seconds_after))
    return {static_cast<time_t>(most(Limit::seconds_after)), 0};
  if (t.tv_sec < 0 && ~static_cast<std::uint64_t>(t.tv_sec) + 1 >= most(Limit::seconds_before))
    return {-static_cast<time_t>(most(Limit::seconds_before)), 0};
  return t;
}

}  // namespace holdfast::capture
