// SPDX-License-Identifier: Apache-2.0
// Mounts around protected paths (R24): what lies where, a private detached clone that reaches the real tree whatever is mounted over it,
// and the read-only cover that keeps accidents out of it. Needs CAP_SYS_ADMIN; kernel 5.12 or later. Any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "platform/unique_fd.h"

namespace holdfast::platform {

struct Mount {
  int id = 0;
  int parent_id = 0;
  std::string device;                    // "major:minor"
  std::string root;                      // path inside its file system that is mounted
  std::string point;                     // unescaped
  std::string options;                   // of the mount, "rw,nosuid"
  std::vector<std::string> propagation;  // "shared:1", "master:2", "propagate_from:3"
  std::string type;                      // "ext4", "fuse.holdfast"
  std::string source;
  std::string super_options;
};

// In the order of the kernel's table: of two mounts on one point the later is on top. Damaged text is `corrupt`.
Result<std::vector<Mount>> parse_mountinfo(std::string_view text);
Result<std::vector<Mount>> read_mounts();

// The mount that holds `path`, covers and FUSE of our own on the path itself left out. `path` absolute and normalized.
const Mount* mount_containing(const std::vector<Mount>& mounts, std::string_view path, bool below_covers);
bool is_our_cover(const Mount& mount);
bool is_our_fuse(const Mount& mount);
bool mount_has_option(const Mount& mount, std::string_view option);  // of the mount, not of its file system
bool path_lies_in(std::string_view path, std::string_view folder);   // or is it; both absolute and normalized
std::string unescape_mount_text(std::string_view text);              // "\\040" and the like

// "" when fine; ext4, xfs and btrfs are. Else why not, for a person.
std::string why_unsupported(std::string_view filesystem_type);

// May `path` become a protected folder? An absolute, existing folder without symbolic links in its name, not a mount point, holding no
// mounts, on a supported file system, neither inside nor around one of `protected_paths`, not to be changed on any way past what is mounted
// over it (ways_around.h), without immutable, append-only or encrypted files. Reads every folder below it. Then: how many bytes it takes up
// there. Errors say what to do next.
Result<std::uint64_t> check_protectable(const std::string& path, const std::vector<std::string>& protected_paths);

// May a folder that is yet to be made at `path` become one? Looks at the file system it would be on.
Status check_protectable_once_made(const std::string& path, const std::vector<std::string>& protected_paths);

// The folder at `path` in a detached clone of the file system mount that holds it: the real tree, also when a cover and FUSE lie over it.
// Lives as long as the descriptor (O_RDONLY|O_DIRECTORY); invisible to every process's mount table. Writable like the real mount.
Result<UniqueFd> clone_tree(const std::string& path);

// Mounts the real tree over itself, read-only, nosuid, nodev, noexec. Idempotent; with FUSE on top it changes nothing.
Status cover(const std::string& path);
// Takes the cover away; `busy` if something else (FUSE) is mounted on top or a process stands in it. Idempotent.
Status uncover(const std::string& path);
// A mirror that died leaves its mount behind, answering every call with ENOTCONN; takes all such away from `path`, lazily. Idempotent.
Status remove_dead_captures(const std::string& path);
Result<bool> is_covered(const std::string& path);

}  // namespace holdfast::platform
