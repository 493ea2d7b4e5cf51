// SPDX-License-Identifier: Apache-2.0
#include "platform/held_files.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <optional>
#include <vector>

#include "log/xattrs.h"
#include "platform/folder_stream.h"
#include "platform/mounts.h"
#include "platform/object_xattrs.h"
#include "platform/tree_probe.h"
#include "ports/tree.h"

namespace holdfast::platform {
namespace {

using ports::Limit;
using ports::TreeLimits;

// Every step is taken from the folder before it: a path may be longer than a call takes.
struct Level {
  FolderStream folder;
  std::string path;
};

std::optional<Limit> beyond(const struct statx& x, const TreeLimits& limits) {
  const auto over = [&](Limit what, std::uint64_t is) { return is > limits.most(what); };
  if (S_ISLNK(x.stx_mode) && over(Limit::link_target_bytes, x.stx_size)) return Limit::link_target_bytes;
  if (S_ISREG(x.stx_mode) && over(Limit::file_bytes, x.stx_size)) return Limit::file_bytes;
  if (!S_ISDIR(x.stx_mode) && over(Limit::links, x.stx_nlink)) return Limit::links;
  if (!S_ISCHR(x.stx_mode) && !S_ISBLK(x.stx_mode)) return std::nullopt;
  if (over(Limit::device_major, x.stx_rdev_major)) return Limit::device_major;
  if (over(Limit::device_minor, x.stx_rdev_minor)) return Limit::device_minor;
  return std::nullopt;
}

class Walk {
 public:
  Walk(const TreeLimits& limits, const std::string& node) : limits_(limits), node_(node) {
    for (const Limit what :
         {Limit::xattr_bytes, Limit::xattrs_bytes, Limit::xattr_names_bytes, Limit::access_list_bytes})
      looks_at_xattrs_ = looks_at_xattrs_ || limits.most(what) != ports::no_limit;
  }

  Status below(int folder, const std::string& path) {
    struct statx root {};
    if (::statx(folder, "", AT_EMPTY_PATH, wanted, &root) != 0) return fail_errno(errno, "cannot look at {}", path);
    HF_TRY(judge(root, folder, path));
    levels_.push_back({read_folder(folder), path});
    if (!levels_.back().folder) return fail_errno(errno, "cannot read {}", path);
    while (!levels_.empty()) HF_TRY(step());
    return {};
  }

 private:
  static constexpr unsigned wanted = STATX_TYPE | STATX_MODE | STATX_SIZE | STATX_NLINK;

  Status step() {
    const Level& at = levels_.back();
    errno = 0;
    const dirent* entry = ::readdir(at.folder.get());
    if (!entry) {
      if (errno != 0) return fail_errno(errno, "cannot read the folder {}", at.path);
      levels_.pop_back();
      return {};
    }
    const std::string name = entry->d_name;
    if (name == "." || name == ".." || (levels_.size() == 1 && name == ports::hidden_name)) return {};
    const UniqueFd fd = open_in_folder(::dirfd(at.folder.get()), name.c_str(), O_PATH);
    if (!fd) return {};  // gone, or another file system
    const std::string here = at.path + "/" + name;
    struct statx x {};
    if (::statx(fd.get(), "", AT_EMPTY_PATH, wanted, &x) != 0) return fail_errno(errno, "cannot look at {}", here);
    HF_TRY(judge(x, fd.get(), here));
    if (!S_ISDIR(x.stx_mode)) return {};
    FolderStream folder = read_folder(fd.get());
    if (!folder) return fail_errno(errno, "cannot read {}", here);
    levels_.push_back({std::move(folder), here});
    return {};
  }

  Status judge(const struct statx& x, int fd, const std::string& path) const {
    if (const auto what = beyond(x, limits_)) return refuse(*what, path);
    if (!looks_at_xattrs_) return {};
    HF_ASSIGN(const Bytes list, read_all_xattrs(fd));
    HF_ASSIGN(const auto all, log::decode_xattrs(list));
    std::uint64_t room = 0, names = 0;
    for (const auto& xattr : all) {
      if (ports::is_access_list(xattr.name) && xattr.value.size() > limits_.most(Limit::access_list_bytes))
        return refuse(Limit::access_list_bytes, path);
      if (xattr.name.size() + xattr.value.size() > limits_.most(Limit::xattr_bytes))
        return refuse(Limit::xattr_bytes, path);
      room += ports::xattr_room(xattr.name.size(), xattr.value.size());
      names += ports::xattr_room(xattr.name.size(), 0);
    }
    if (room > limits_.most(Limit::xattrs_bytes)) return refuse(Limit::xattrs_bytes, path);
    if (names > limits_.most(Limit::xattr_names_bytes)) return refuse(Limit::xattr_names_bytes, path);
    return {};
  }

  Status refuse(Limit what, const std::string& path) const {
    return tl::unexpected(
        Error{ErrorCode::refused,
              fmt::format("{} can't be held by the file system that {} has for its copy: {} is more than it takes",
                          path, node_, describe(what, limits_.most(what))),
              fmt::format("make it smaller or take it away, or give {} a file system of this node's kind", node_), 0});
  }

  const TreeLimits& limits_;
  const std::string& node_;
  bool looks_at_xattrs_ = false;
  std::vector<Level> levels_;
};

}  // namespace

Status check_held(int folder, const std::string& path, const TreeLimits& limits, const std::string& node) {
  if (!limits.any()) return {};
  return Walk(limits, node).below(folder, path);
}

Status check_held_by(const std::string& path, const TreeLimits& told, const std::string& node) {
  if (!told.any()) return {};
  HF_ASSIGN(const UniqueFd tree, clone_tree(path));
  HF_ASSIGN(const Probed own, probe_limits(tree.get()));
  // What this node's own can hold is no reason to look at nothing, if it is not known.
  return check_held(tree.get(), path, own.sure ? told.narrower_than(own.limits) : told, node);
}

}  // namespace holdfast::platform
