// SPDX-License-Identifier: Apache-2.0
#include "platform/mounts.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/check.h"
#include "base/log.h"
#include "base/utf8.h"
#include "platform/flagged_files.h"
#include "platform/ways_around.h"

namespace holdfast::platform {
namespace {

// glibc 2.36 has wrappers, but its <sys/mount.h> and <linux/mount.h> can't be included together.
int sys_open_tree(int dir, const char* path, unsigned flags) {
  return static_cast<int>(syscall(SYS_open_tree, dir, path, flags));
}
int sys_move_mount(int from, const char* from_path, int to, const char* to_path, unsigned flags) {
  return static_cast<int>(syscall(SYS_move_mount, from, from_path, to, to_path, flags));
}
int sys_mount_setattr(int dir, const char* path, unsigned flags, mount_attr* attr) {
  return static_cast<int>(syscall(SYS_mount_setattr, dir, path, flags, attr, sizeof *attr));
}
int sys_umount(const char* path, int flags) { return static_cast<int>(syscall(SYS_umount2, path, flags)); }
constexpr int umount_nofollow = 8;
constexpr std::uint64_t propagation_private = 1U << 18;  // MS_PRIVATE

constexpr std::uint64_t cover_flags = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;

// "has" as a whole item of a comma-separated list.
bool has_option(std::string_view options, std::string_view has) {
  while (!options.empty()) {
    const std::size_t comma = options.find(',');
    if (options.substr(0, comma) == has) return true;
    options = comma == std::string_view::npos ? std::string_view{} : options.substr(comma + 1);
  }
  return false;
}

Result<Mount> parse_line(const std::string& line) {
  std::istringstream in(line);
  Mount m;
  std::string root, point, field;
  in >> m.id >> m.parent_id >> m.device >> root >> point >> m.options;
  while (in >> field && field != "-") m.propagation.push_back(field);
  if (field != "-" || !(in >> m.type >> m.source))
    return fail(ErrorCode::corrupt, "the mount table has a damaged line: {}", line);
  in >> m.super_options;
  m.super_options = unescape_mount_text(m.super_options);
  m.root = unescape_mount_text(root);
  m.point = unescape_mount_text(point);
  m.source = unescape_mount_text(m.source);
  return m;
}

const Mount* topmost_at(const std::vector<Mount>& mounts, std::string_view path) {
  const Mount* top = nullptr;
  for (const Mount& m : mounts)
    if (m.point == path) top = &m;
  return top;
}

Status set_mount_attributes(int detached, std::uint64_t set, std::string_view path) {
  mount_attr attr{};
  attr.attr_set = set;
  attr.propagation = propagation_private;
  if (sys_mount_setattr(detached, "", AT_EMPTY_PATH, &attr) != 0)
    return fail_errno(errno, "cannot set the attributes of the clone of {}", path);
  return {};
}

Result<std::string> checked_folder(const std::string& path) {
  if (path.empty() || path.front() != '/')
    return fail(ErrorCode::invalid, "{} is not an absolute path: give the full name of the folder", path);
  if (!is_readable(path))
    return fail(ErrorCode::refused, "{} has control characters or bytes that are not UTF-8 in its name: rename it",
                readable(path));
  struct stat st {};
  if (lstat(path.c_str(), &st) != 0) {
    if (errno == ENOENT)
      return fail(ErrorCode::not_found, "{} does not exist: create it or install the application first", path);
    return fail_errno(errno, "cannot look at {}", path);
  }
  std::error_code ec;
  const std::string real = std::filesystem::canonical(path, ec).string();
  if (ec) return fail_errno(ec.value(), "cannot resolve {}", path);
  std::string plain = path;
  while (plain.size() > 1 && plain.back() == '/') plain.pop_back();
  if (real != plain) return fail(ErrorCode::refused, "{} is really {}: protect that name", path, real);
  if (!S_ISDIR(st.st_mode)) return fail(ErrorCode::refused, "{} is not a folder: protect the folder it is in", path);
  return real;
}

}  // namespace

std::string unescape_mount_text(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size()) {
      int v = 0;
      const auto [end, ec] = std::from_chars(text.data() + i + 1, text.data() + i + 4, v, 8);
      if (ec == std::errc{} && end == text.data() + i + 4) {
        out.push_back(static_cast<char>(v));
        i += 3;
        continue;
      }
    }
    out.push_back(text[i]);
  }
  return out;
}

bool path_lies_in(std::string_view path, std::string_view folder) {
  if (folder == "/") return true;
  return path.starts_with(folder) && (path.size() == folder.size() || path[folder.size()] == '/');
}

bool mount_has_option(const Mount& mount, std::string_view option) { return has_option(mount.options, option); }

Result<std::vector<Mount>> parse_mountinfo(std::string_view text) {
  std::vector<Mount> mounts;
  std::istringstream in{std::string(text)};
  for (std::string line; std::getline(in, line);) {
    if (line.empty()) continue;
    HF_ASSIGN(Mount m, parse_line(line));
    mounts.push_back(std::move(m));
  }
  return mounts;
}

Result<std::vector<Mount>> read_mounts() {
  std::ifstream in("/proc/thread-self/mountinfo");  // the namespace of this thread, not of the process's first
  std::stringstream text;
  text << in.rdbuf();
  if (!in) return fail(ErrorCode::io, "cannot read the mount table /proc/thread-self/mountinfo");
  return parse_mountinfo(text.str());
}

bool is_our_fuse(const Mount& mount) { return mount.type == "fuse.holdfast"; }

bool is_our_cover(const Mount& mount) {
  // A bind of exactly the folder it is mounted on; nobody else has a reason to make one.
  return !mount.type.starts_with("fuse") && mount.root != "/" && has_option(mount.options, "ro") &&
         has_option(mount.options, "nosuid") && has_option(mount.options, "nodev") &&
         has_option(mount.options, "noexec");
}

const Mount* mount_containing(const std::vector<Mount>& mounts, std::string_view path, bool below_covers) {
  const Mount* best = nullptr;
  for (const Mount& m : mounts) {
    if (!path_lies_in(path, m.point)) continue;
    if (below_covers && m.point == path && (is_our_fuse(m) || is_our_cover(m))) continue;
    if (best == nullptr || m.point.size() >= best->point.size()) best = &m;  // equal: the later one is on top
  }
  return best;
}

std::string why_unsupported(std::string_view type) {
  if (type == "ext4" || type == "xfs" || type == "btrfs") return "";
  if (type.starts_with("fuse")) return "a FUSE file system is served by a process that Holdfast can't answer for";
  if (type.starts_with("nfs") || type == "cifs" || type == "smb3" || type == "ceph" || type == "9p")
    return "a network file system is not this machine's own disk";
  if (type == "tmpfs" || type == "ramfs") return "it is memory and gone after a power cut";
  if (type == "overlay") return "an overlay changes the identity of files when they are written";
  return "Holdfast has not been proven on it";
}

namespace {

Status check_apart(const std::string& path, const std::vector<std::string>& protected_paths) {
  for (const std::string& other : protected_paths) {
    if (other == path) return fail(ErrorCode::exists, "{} is already protected", path);
    if (path_lies_in(path, other))
      return fail(ErrorCode::refused, "{} lies in {}, which is already protected", path, other);
    if (path_lies_in(other, path))
      return fail(ErrorCode::refused, "{} holds {}, which is already protected: unprotect that first", path, other);
  }
  return {};
}

Status check_file_system(const std::vector<Mount>& mounts, const std::string& path) {
  const Mount* holder = mount_containing(mounts, path, false);
  CHECK(holder != nullptr, "no mount holds {}", path);
  if (const std::string why = why_unsupported(holder->type); !why.empty())
    return fail(ErrorCode::refused, "{} is on {}: {}: move it to ext4, xfs or btrfs", path, holder->type, why);
  if (has_option(holder->options, "ro") || has_option(holder->super_options, "ro"))
    return fail(ErrorCode::refused, "{} is on a read-only mount ({}): remount it read-write", path, holder->point);
  if (has_option(holder->options, "idmapped"))
    return fail(ErrorCode::refused, "{} is on a mount that maps users ({}): protect it where it is not mapped", path,
                holder->point);
  return {};
}

}  // namespace

Result<std::uint64_t> check_protectable(const std::string& path, const std::vector<std::string>& protected_paths) {
  HF_ASSIGN(const std::string real, checked_folder(path));
  if (real == "/") return fail(ErrorCode::refused, "/ can't be protected: name the folder with the application's data");
  HF_TRY(check_apart(real, protected_paths));
  HF_ASSIGN(const std::vector<Mount> mounts, read_mounts());
  for (const Mount& m : mounts) {
    if (m.point == real)
      return fail(ErrorCode::refused, "{} is a mount point ({} {}): protect a folder inside it", real, m.type,
                  m.source);
    if (path_lies_in(m.point, real))
      return fail(ErrorCode::refused, "{} holds a mount at {}: unmount it, or protect a folder without mounts", real,
                  m.point);
  }
  HF_TRY(check_file_system(mounts, real));
  const std::vector<MountNamespace> others = other_mount_namespaces();
  HF_TRY(check_other_mounts(real, mounts, others));
  HF_TRY(check_overlays(real, mounts));
  for (const MountNamespace& other : others) HF_TRY(check_overlays(real, other.mounts));
  HF_TRY(check_kernel_users(real));
  return check_unflagged(real);
}

Status check_protectable_once_made(const std::string& path, const std::vector<std::string>& protected_paths) {
  std::filesystem::path above = std::filesystem::path(path).parent_path();
  std::error_code ec;
  while (!std::filesystem::exists(above, ec) && above.has_relative_path()) above = above.parent_path();
  HF_TRY(checked_folder(above.string()));
  HF_TRY(check_apart(path, protected_paths));
  HF_ASSIGN(const std::vector<Mount> mounts, read_mounts());
  return check_file_system(mounts, path);
}

Result<UniqueFd> clone_tree(const std::string& path) {
  HF_ASSIGN(const std::vector<Mount> mounts, read_mounts());
  const Mount* holder = mount_containing(mounts, path, true);
  if (holder == nullptr) return fail(ErrorCode::not_found, "no mount holds {}", path);
  if (holder->point == path) return fail(ErrorCode::refused, "{} is a mount point ({})", path, holder->type);
  // Not recursive: whatever is mounted over the path is not in the clone.
  UniqueFd clone(sys_open_tree(AT_FDCWD, holder->point.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
  if (!clone) return fail_errno(errno, "cannot clone the mount {}", holder->point);
  // Out of the peer group of the original: covers mounted there later must not spread into the clone.
  HF_TRY(set_mount_attributes(clone.get(), 0, holder->point));
  open_how how{};
  how.flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
  how.resolve =
      RESOLVE_NO_XDEV | RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS;  // EXDEV if a mount had spread into it before that
  const std::string rest = path.substr(holder->point == "/" ? 1 : holder->point.size() + 1);
  UniqueFd tree(static_cast<int>(syscall(SYS_openat2, clone.get(), rest.c_str(), &how, sizeof how)));
  if (!tree) return fail_errno(errno, "cannot open {} below its mounts", path);
  // Something stacked on the mount's own point would make this another file system. (btrfs gives each subvolume a device of its own.)
  struct stat st {};
  if (fstat(tree.get(), &st) != 0) return fail_errno(errno, "cannot look at {}", path);
  if (holder->type != "btrfs" && fmt::format("{}:{}", major(st.st_dev), minor(st.st_dev)) != holder->device)
    return fail(ErrorCode::refused, "{} is hidden by another mount on {}: unmount that", path, holder->point);
  return tree;
}

Status remove_dead_captures(const std::string& path) {
  constexpr int detach_no_follow = 2 | 8;  // MNT_DETACH | UMOUNT_NOFOLLOW
  HF_ASSIGN(auto mounts, read_mounts());
  for (auto mount = mounts.rbegin(); mount != mounts.rend(); ++mount) {
    if (mount->point != path || !is_our_fuse(*mount)) continue;
    log_warning("{}: taking away the capture that an earlier mirror left behind", path);
    if (::syscall(SYS_umount2, path.c_str(), detach_no_follow) < 0)
      return fail_errno(errno, "cannot unmount the dead capture at {}", path);
  }
  return {};
}

Result<bool> is_covered(const std::string& path) {
  HF_ASSIGN(const std::vector<Mount> mounts, read_mounts());
  for (const Mount& m : mounts)
    if (m.point == path && is_our_cover(m)) return true;
  return false;
}

Status cover(const std::string& path) {
  HF_ASSIGN(const bool covered, is_covered(path));
  if (covered) return {};
  HF_ASSIGN(const std::vector<Mount> mounts, read_mounts());
  if (const Mount* top = topmost_at(mounts, path); top != nullptr)
    return fail(ErrorCode::refused, "cannot cover {}: {} is mounted there: unmount it", path, top->type);
  HF_ASSIGN(const UniqueFd tree, clone_tree(path));
  // open_tree of a folder inside a detached clone needs kernel 6.15; by name works everywhere, and nothing is mounted at `path` now.
  UniqueFd bind(sys_open_tree(AT_FDCWD, path.c_str(), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW));
  if (!bind) return fail_errno(errno, "cannot clone {}", path);
  struct stat real {
  }, cloned{};
  if (fstat(tree.get(), &real) != 0 || fstat(bind.get(), &cloned) != 0)
    return fail_errno(errno, "cannot look at {}", path);
  if (real.st_dev != cloned.st_dev || real.st_ino != cloned.st_ino)
    return fail(ErrorCode::busy, "{} was mounted over just now: try again", path);
  // A private copy: as a peer of the original mount, FUSE mounted on the cover would spread to the real tree below it.
  HF_TRY(set_mount_attributes(bind.get(), cover_flags, path));
  if (sys_move_mount(bind.get(), "", AT_FDCWD, path.c_str(), MOVE_MOUNT_F_EMPTY_PATH) != 0)
    return fail_errno(errno, "cannot cover {}", path);
  return {};
}

Status uncover(const std::string& path) {
  HF_ASSIGN(const bool covered, is_covered(path));
  if (!covered) return {};
  HF_ASSIGN(const std::vector<Mount> mounts, read_mounts());
  const Mount* top = topmost_at(mounts, path);
  if (top == nullptr || !is_our_cover(*top))
    return fail(ErrorCode::busy, "{} is in use: {} is mounted on its cover", path,
                top == nullptr ? "something" : top->type);
  if (sys_umount(path.c_str(), umount_nofollow) != 0) {
    if (errno == EBUSY) return fail(ErrorCode::busy, "{} is in use: a process has it open (fuser -vm {})", path, path);
    return fail_errno(errno, "cannot uncover {}", path);
  }
  return {};
}

}  // namespace holdfast::platform
