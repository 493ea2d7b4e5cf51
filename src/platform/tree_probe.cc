// SPDX-License-Identifier: Apache-2.0
#include "platform/tree_probe.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/posix_acl_xattr.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <vector>

#include "log/xattrs.h"
#include "platform/file_index.h"
#include "platform/object_xattrs.h"
#include "platform/unique_fd.h"

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

namespace holdfast::platform {
namespace {

using ports::Limit;
using ports::TreeLimits;

constexpr std::uint64_t longest_target = 4095;  // of any link: PATH_MAX
constexpr std::size_t longest_value = 65536;
constexpr const char* trial = "trusted.holdfast.trial";
// In ext4's one block for attributes: its head, the end mark, and our own id. In an inode of more than 128 bytes there is room for that and a
// little more; what fits there depends on the order in which attributes came, so it is not counted.
constexpr std::uint64_t ext4_block_head = 32 + 4;
constexpr std::uint64_t own_room = ports::xattr_room(std::string_view(id_attribute).size(), 16);

constexpr const char* limits_attribute = "trusted.holdfast.limits";  // of the hidden folder
constexpr std::uint8_t limits_version = 1;
constexpr std::uint64_t nearly_full_bytes = std::uint64_t{64} << 20;

// `sure`: false from the first thing on that did not fit, perhaps because nothing does now.
bool fits(int fd, std::size_t bytes, bool& sure) {
  const std::vector<char> value(bytes, 'x');
  const bool done = ::fsetxattr(fd, trial, value.data(), value.size(), 0) == 0;
  if (done) {
    ::fremovexattr(fd, trial);
    return true;
  }
  struct statfs now {};
  const int error = errno;
  const bool full = error == EDQUOT || ::fstatfs(fd, &now) != 0 ||
                    now.f_bavail * static_cast<std::uint64_t>(now.f_bsize) < nearly_full_bytes || now.f_ffree == 0;
  if (full) sure = false;
  return false;
}

// The greatest value that is fine, if `least` is and all below a fine one are.
std::uint64_t greatest(std::uint64_t least, std::uint64_t most, const std::function<bool(std::uint64_t)>& fine) {
  if (fine(most)) return most;
  while (most - least > 1) {
    const std::uint64_t middle = least + (most - least) / 2;
    (fine(middle) ? least : most) = middle;
  }
  return least;
}

void set_by_kind(const struct statfs& fs, TreeLimits& out) {
  const auto block = static_cast<std::uint64_t>(fs.f_bsize);
  switch (static_cast<unsigned long>(fs.f_type)) {
    case EXT4_SUPER_MAGIC:
      out.set(Limit::link_target_bytes, std::min(longest_target, block - 1));
      out.set(Limit::links, 65000);
      break;
    case XFS_SUPER_MAGIC:
      out.set(Limit::link_target_bytes, 1023);
      out.set(Limit::links, 0x7fffffff);
      out.set(Limit::device_major, 511);
      out.set(Limit::device_minor, 262143);
      break;
    case BTRFS_SUPER_MAGIC:
      out.set(Limit::link_target_bytes, longest_target);
      out.set(Limit::links, 65535);
      break;
    default:
      break;
  }
}

void try_xattrs(int fd, const struct statfs& fs, TreeLimits& out, bool& sure) {
  const auto block = static_cast<std::uint64_t>(fs.f_bsize);
  switch (static_cast<unsigned long>(fs.f_type)) {
    case EXT4_SUPER_MAGIC: {
      // With the feature ea_inode values are kept in inodes of their own.
      const bool apart = fits(fd, std::min<std::size_t>(block, longest_value), sure);
      out.set(apart ? Limit::xattr_names_bytes : Limit::xattrs_bytes, block - ext4_block_head - own_room);
      break;
    }
    case BTRFS_SUPER_MAGIC: {
      const std::size_t name = std::strlen(trial);
      constexpr std::uint64_t least = 2048;  // of its smallest nodes
      const std::uint64_t value = greatest(least, longest_value, [&](std::uint64_t n) { return fits(fd, n, sure); });
      if (value < longest_value) out.set(Limit::xattr_bytes, value + name);
      break;
    }
    default:
      break;
  }
}

void try_size(int fd, TreeLimits& out) {
  constexpr std::uint64_t least = std::uint64_t{1} << 30, most = std::uint64_t{0x7fffffffffffffff};
  const std::uint64_t size = greatest(
      least, most, [&](std::uint64_t n) { return ::ftruncate(fd, static_cast<off_t>(n)) == 0 || errno == ENOSPC; });
  if (size < most) out.set(Limit::file_bytes, size);
}

// A time that is out of range is put to the end of it.
void try_times(int fd, TreeLimits& out) {
  constexpr std::int64_t far = std::int64_t{1} << 60;
  const auto told = [&](std::int64_t seconds, std::int64_t& back) {
    const timespec times[2] = {{0, UTIME_OMIT}, {seconds, 0}};
    struct stat st {};
    if (::futimens(fd, times) != 0 || ::fstat(fd, &st) != 0) return false;
    back = st.st_mtim.tv_sec;
    return true;
  };
  std::int64_t at = 0;
  if (told(far, at) && at < far) out.set(Limit::seconds_after, static_cast<std::uint64_t>(at));
  if (told(-far, at) && at > -far) out.set(Limit::seconds_before, static_cast<std::uint64_t>(-at));
}

// One that says what the mode says: nothing is stored.
bool has_access_lists(int fd) {
  struct {
    posix_acl_xattr_header head{POSIX_ACL_XATTR_VERSION};
    posix_acl_xattr_entry entries[3] = {
        {0x01, 6, 0xffffffff}, {0x04, 0, 0xffffffff}, {0x20, 0, 0xffffffff}};  // owner, group, others
  } list;
  return ::fsetxattr(fd, "system.posix_acl_access", &list, sizeof list, 0) == 0 || errno != EOPNOTSUPP;
}

}  // namespace

Result<Probed> probe_limits(int folder) {
  Probed told;
  TreeLimits& out = told.limits;
  struct statfs fs {};
  if (::fstatfs(folder, &fs) != 0) return fail_errno(errno, "cannot ask for the kind of a file system");
  set_by_kind(fs, out);
  const UniqueFd fd(::openat(folder, ".", O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600));
  if (!fd && errno != ENOSPC && errno != EDQUOT && errno != EOPNOTSUPP)
    return fail_errno(errno, "cannot make a file to try what its file system can hold");
  if (!fd) told.sure = false;
  try_xattrs(fd.get(), fs, out, told.sure);
  if (!fd) return told;
  try_size(fd.get(), out);
  try_times(fd.get(), out);
  if (!has_access_lists(fd.get())) out.set(Limit::access_list_bytes, 0);
  return told;
}

//   value: version u8, kind of the file system u64, its id u64, then of each limit: which u8, most u64
Result<TreeLimits> limits_of_tree(int hidden_folder, int folder) {
  HF_ASSIGN(const Probed now, probe_limits(folder));
  struct statfs fs {};
  if (::fstatfs(folder, &fs) != 0) return fail_errno(errno, "cannot ask for the kind of a file system");
  std::uint64_t fs_id = 0;
  std::memcpy(&fs_id, &fs.f_fsid, std::min(sizeof fs_id, sizeof fs.f_fsid));
  Bytes stored(256);
  const ssize_t n = ::fgetxattr(hidden_folder, limits_attribute, stored.data(), stored.size());
  stored.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
  if (now.sure) {
    Bytes value;
    ByteWriter w(value);
    w.u8(limits_version);
    w.u64(static_cast<std::uint64_t>(fs.f_type));
    w.u64(fs_id);
    for (std::size_t f = 0; f < ports::limit_count; ++f) {
      const Limit what = TreeLimits::at(f);
      if (now.limits.most(what) == ports::no_limit) continue;
      w.u8(static_cast<std::uint8_t>(what));
      w.u64(now.limits.most(what));
    }
    // Without space for it, or for want of anything else: it is asked anew each time, and only then matters that it was not kept.
    if (value != stored) (void)::fsetxattr(hidden_folder, limits_attribute, value.data(), value.size(), 0);
    return now.limits;
  }
  ByteReader r(stored);
  const bool known = r.u8() == limits_version && r.u64() == static_cast<std::uint64_t>(fs.f_type) && r.u64() == fs_id;
  TreeLimits before;
  while (known && r.ok() && r.left() != 0) {
    const std::uint8_t what = r.u8();
    const std::uint64_t most = r.u64();
    if (what >= 1 && what <= ports::limit_count) before.set(static_cast<Limit>(what), most);
  }
  return known && r.ok() ? before : now.limits;
}

std::string describe(Limit what, std::uint64_t most) {
  switch (what) {
    case Limit::link_target_bytes:
      return fmt::format("a symbolic link of more than {} bytes", most);
    case Limit::xattr_bytes:
      return fmt::format("an extended attribute of more than {} bytes", most);
    case Limit::xattrs_bytes:
    case Limit::xattr_names_bytes:
      return fmt::format("more than {} bytes of extended attributes on one object", most);
    case Limit::file_bytes:
      return fmt::format("a file of more than {} bytes", most);
    case Limit::links:
      return fmt::format("more than {} names of one file", most);
    case Limit::device_major:
      return fmt::format("a device with a major number above {}", most);
    case Limit::device_minor:
      return fmt::format("a device with a minor number above {}", most);
    case Limit::seconds_after:
      return fmt::format("a time more than {} seconds after 1970", most);
    case Limit::seconds_before:
      return fmt::format("a time more than {} seconds before 1970", most);
    case Limit::access_list_bytes:
      return "access lists";
  }
  return "that";
}

std::optional<Limit> exceeded_by_xattr(const TreeLimits& limits, int fd, std::string_view name, std::size_t bytes) {
  if (name.size() + bytes > limits.most(Limit::xattr_bytes)) return Limit::xattr_bytes;
  std::uint64_t room = ports::xattr_room(name.size(), bytes), names = ports::xattr_room(name.size(), 0);
  const auto list = read_all_xattrs(fd);
  const auto all = list ? log::decode_xattrs(*list) : tl::unexpected(list.error());
  if (!all) return std::nullopt;
  for (const auto& x : *all) {
    if (x.name == name) continue;
    room += ports::xattr_room(x.name.size(), x.value.size());
    names += ports::xattr_room(x.name.size(), 0);
  }
  if (room > limits.most(Limit::xattrs_bytes)) return Limit::xattrs_bytes;
  if (names > limits.most(Limit::xattr_names_bytes)) return Limit::xattr_names_bytes;
  return std::nullopt;
}

tl::unexpected<Error> not_held(const TreeLimits& limits, Limit what, std::string_view object) {
  std::string find;
  if (what == Limit::link_target_bytes)
    find = fmt::format("find FOLDER -type l -size +{}c", limits.most(what));
  else if (what == Limit::device_major || what == Limit::device_minor)
    find = "find FOLDER -type b -o -type c";
  else if (what == Limit::file_bytes)
    find = fmt::format("find FOLDER -size +{}c", limits.most(what));
  else if (what == Limit::links)
    find = fmt::format("find FOLDER -links +{}", limits.most(what));
  else
    find = "getfattr -R -d -m - FOLDER";
  return tl::unexpected(Error{
      ErrorCode::refused,
      fmt::format("the file system of this node's folder can't hold {}: {}", describe(what, limits.most(what)), object),
      fmt::format("take such away on the active ({} shows them), or give this node a file system of the active's kind; "
                  "then unprotect the folder and protect it again",
                  find),
      0});
}

}  // namespace holdfast::platform
