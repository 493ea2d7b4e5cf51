// SPDX-License-Identifier: Apache-2.0
// All that is not as it is below. docs/GUARANTEES.md tells the administrator the same rows.
#include "capture/differential_cases.h"

namespace holdfast::capture {
namespace {

// One row may have many lines.
struct Lines {
  std::string row, one;
  Difference::Policy policy;
  std::string disk;
  std::vector<std::pair<std::string, std::string>> lines;  // below, mount
};

constexpr auto both = Difference::Policy::both, back = Difference::Policy::write_back;
const std::string refused = "Operation not supported", border = "Invalid cross-device link";

std::vector<Lines> of_names() {
  const std::string row = "`rename`, `link`, `copy_file_range` between the folder and what lies beside it";
  return {
      {row,
       "borders",
       both,
       "",
       {{"rename out = 0", "rename out: " + border},
        {"rename in = 0", "rename in: " + border},
        {"link out = 0", "link out: " + border},
        {"folder out = 0", "folder out: " + border},
        {"folder in = 0", "folder in: " + border}}},
      {row,
       "copied_ranges",
       both,
       "",
       {{"out of the folder = 100", "out of the folder: " + border},
        {"into the folder = 100", "into the folder: " + border},
        {"from 100 to 100", "from 0 to 0"}}},
      {"`open(O_RDONLY \\| O_TRUNC)` of a program that runs",
       "truncated_without_writing",
       both,
       "",
       {{"it is whole: true", "it is whole: false"}}},
  };
}

std::vector<Lines> of_space() {
  return {
      {"`fallocate` that collapses or inserts a range",
       "shifting",
       both,
       "",
       {{"collapse = 0", "collapse: " + refused}, {"insert = 0", "insert: " + refused}}},
      {"sharing blocks: `FICLONE`, `FICLONERANGE`, `FIDEDUPERANGE`, `fallocate` that unshares",
       "shifting",
       both,
       "xfs",
       {{"unshare = 0", "unshare: " + refused}}},
      {"sharing blocks: `FICLONE`, `FICLONERANGE`, `FIDEDUPERANGE`, `fallocate` that unshares",
       "clones",
       both,
       "xfs",
       {{"clone = 0", "clone: " + refused},
        {"fstat clone: mode 100644 links 1 owner 0:0 size 65536 rdev 0",
         "fstat clone: mode 100644 links 1 owner 0:0 size 10 rdev 0"},
        {"clone a range = 0", "clone a range: " + refused},
        {"clone unaligned: Invalid argument", "clone unaligned: " + refused},
        {"share what is equal = 0", "share what is equal: " + refused}}},
      {"a file larger than the file system's format holds",
       "too_large",
       both,
       "ext4",
       {{"seek far beyond: Invalid argument", "seek far beyond = 4611686018427387904"}}},
      {"errors of buffered writes: ENOSPC, EDQUOT, EFBIG",
       "too_large",
       back,
       "ext4",
       {{"written beyond: File too large", "written beyond = 1"},
        {"made durable = 0", "made durable: File too large"}}},
      {"errors of buffered writes: ENOSPC, EDQUOT, EFBIG",
       "full_disk",
       back,
       "",
       {{"write: No space left on device", "write = 4194304"},
        {"written durably = 0", "written durably: No space left on device"}}},
      {"`O_DIRECT` with a length or offset that is not aligned",
       "direct_and_flagged",
       both,
       "",
       {{"unaligned write: Invalid argument", "unaligned write = 100"},
        {"unaligned offset: Invalid argument", "unaligned offset = 4096"}}},
      {"`RWF_NOWAIT`", "direct_and_flagged", both, "", {{"RWF_NOWAIT = 512", "RWF_NOWAIT: " + refused}}},
  };
}

std::vector<Lines> of_attributes() {
  const std::string chown = "`chown(-1, -1)` of a file with set-id bits",
                    owner = "links 1 owner 1000:1000 size 4 rdev 0";
  const std::string unmoved = " btime false; folder mtime false ctime false btime false";
  return {
      {chown,
       "chown_of_nothing",
       both,
       "",
       {{"user 1000: stat owner: mode 100755 " + owner, "user 1000: stat owner: mode 106755 " + owner},
        {"user 1005: chown to nobody new: Operation not permitted", "user 1005: chown to nobody new = 0"},
        {"user 0: stat root: mode 100755 " + owner, "user 0: stat root: mode 106755 " + owner}}},
      {"time of change by `truncate(2)` to the size that the file has (ext4)",
       "what_moves_times",
       back,
       "ext4",
       {{"truncate by name to the same: file mtime true ctime true" + unmoved,
         "truncate by name to the same: file mtime false ctime false" + unmoved}}},
      {"time of access",
       "access_times",
       both,
       "",
       {{"reading f counts: true", "reading f counts: false"}, {"reading d counts: true", "reading d counts: false"}}},
      {"times outside of what the file system holds (ext4: 1901 to 2446)",
       "who_sets_times",
       back,
       "",
       {{"own: -2147483648.0 -2147483648.0", "own: -2147483648.0 -5000000000.0"}}},
      {"times outside of what the file system holds (ext4: 1901 to 2446)",
       "who_sets_times",
       back,
       "ext4",
       {{"own: 15032385535.0 15032385535.0", "own: 15032385535.0 20000000000.0"}}},
      {"times outside of what the file system holds (ext4: 1901 to 2446)",
       "who_sets_times",
       back,
       "xfs",
       {{"own: 16299260424.0 16299260424.0", "own: 16299260424.0 20000000000.0"}}},
  };
}

std::vector<Lines> of_facts() {
  const std::string flags = "changing file flags and project ids: `FS_IOC_SETFLAGS`, `FS_IOC_FSSETXATTR`";
  const std::string special = "file flags of a FIFO, socket or device";
  return {
      {"what `statx` tells beyond the basic facts and the time of birth",
       "facts",
       both,
       "",
       {{"alignment of O_DIRECT told: true", "alignment of O_DIRECT told: false"},
        {"knows flags: true", "knows flags: false"}}},
      {"type and id of the file system in `statfs`",
       "facts",
       both,
       "",
       {{"type of FUSE: false, has an id: true", "type of FUSE: true, has an id: false"}}},
      {flags,
       "controls",
       both,
       "",
       {{"make immutable = 0", "make immutable: " + refused},
        {"make append-only = 0", "make append-only: " + refused},
        {"not to be dumped = 0", "not to be dumped: " + refused}}},
      {special,
       "controls",
       both,
       "xfs",
       {{"flags = 0", "flags: Inappropriate ioctl for device"},
        {"the same flags = 0", "the same flags: Inappropriate ioctl for device"},
        {"extended flags = 0", "extended flags: Inappropriate ioctl for device"},
        {"the same extended flags = 0", "the same extended flags: Inappropriate ioctl for device"}}},
      {"`FIEMAP`", "controls", both, "", {{"FIEMAP = 0", "FIEMAP: " + refused}}},
      {"`fanotify` of a whole file system by handles",
       "fanotify_marks",
       both,
       "",
       {{"mark the file system for handles = 0", "mark the file system for handles: No such device"}}},
  };
}

}  // namespace

const std::vector<Difference>& differences() {
  static const std::vector<Difference> all = [] {
    std::vector<Difference> out;
    for (const auto& part : {of_names(), of_space(), of_attributes(), of_facts()})
      for (const Lines& l : part)
        for (const auto& [below, mount] : l.lines) out.push_back({l.row, l.one, below, mount, l.policy, l.disk});
    return out;
  }();
  return all;
}

}  // namespace holdfast::capture
