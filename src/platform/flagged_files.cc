// SPDX-License-Identifier: Apache-2.0
#include "platform/flagged_files.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <vector>

#include "platform/folder_stream.h"

namespace holdfast::platform {
namespace {

// Every step is taken from the folder before it: a path may be longer than a call takes.
struct Level {
  FolderStream folder;
  std::string path;
};

Result<Level> open_level(int above, const char* name, std::string path) {
  UniqueFd fd(::openat(above, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "cannot open {}", path);
  FolderStream folder = read_folder(std::move(fd));
  if (!folder) return fail_errno(errno, "cannot read {}", path);
  return Level{std::move(folder), std::move(path)};
}

Status judge(const struct statx& x, const std::string& path) {
  const bool immutable = (x.stx_attributes & STATX_ATTR_IMMUTABLE) != 0;
  if (!immutable && (x.stx_attributes & STATX_ATTR_APPEND) == 0) return {};
  return tl::unexpected(Error{
      ErrorCode::refused,
      fmt::format("{} is {}, a flag that can't be replicated", path, immutable ? "immutable" : "append-only"),
      fmt::format("take it away (chattr {} FILE; lsattr -R shows all), then protect again", immutable ? "-i" : "-a"),
      0});
}

}  // namespace

Status check_unflagged(const std::string& path) {
  constexpr unsigned wanted = STATX_TYPE | STATX_INO;
  struct statx root {};
  if (::statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW, wanted, &root) != 0)
    return fail_errno(errno, "cannot look at {}", path);
  HF_TRY(judge(root, path));
  std::vector<Level> levels;
  HF_ASSIGN(Level first, open_level(AT_FDCWD, path.c_str(), path));
  levels.push_back(std::move(first));
  while (!levels.empty()) {
    Level& at = levels.back();
    const dirent* entry = ::readdir(at.folder.get());
    if (!entry) {
      levels.pop_back();
      continue;
    }
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    struct statx x {};
    if (::statx(::dirfd(at.folder.get()), name.c_str(), AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, wanted, &x) != 0) {
      if (errno == ENOENT) continue;
      return fail_errno(errno, "cannot look at {}/{}", at.path, name);
    }
    const std::string here = at.path + "/" + name;
    HF_TRY(judge(x, here));
    if (!S_ISDIR(x.stx_mode) || x.stx_dev_major != root.stx_dev_major || x.stx_dev_minor != root.stx_dev_minor)
      continue;
    auto below = open_level(::dirfd(at.folder.get()), name.c_str(), here);
    if (!below && below.error().code == ErrorCode::not_found) continue;
    if (!below) return tl::unexpected(std::move(below).error());
    levels.push_back(std::move(*below));
  }
  return {};
}

}  // namespace holdfast::platform
