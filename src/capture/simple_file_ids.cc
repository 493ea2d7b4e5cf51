// SPDX-License-Identifier: Apache-2.0
#include "capture/simple_file_ids.h"

#include <endian.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <cerrno>

#include "base/check.h"
#include "capture/lower.h"

namespace holdfast::capture {

Result<FileId> AttributeFileIds::identify(int fd, SetNumber set) {
  FileId id;
  const ssize_t n = getxattr(ProcPath(fd).c_str(), id_attribute.data(), id.bytes.data(), id.bytes.size());
  if (n == static_cast<ssize_t>(id.bytes.size())) return id;
  if (n < 0 && errno != ENODATA && errno != ERANGE) return fail_errno(errno, "cannot read the id of a file");
  HF_ASSIGN(id, fresh());
  HF_TRY(bind(fd, set, id));
  return id;
}

Result<FileId> AttributeFileIds::fresh() {
  FileId id;
  CHECK(getrandom(id.bytes.data(), id.bytes.size(), 0) == static_cast<ssize_t>(id.bytes.size()), "getrandom failed");
  return id;
}

Status AttributeFileIds::bind(int fd, SetNumber, const FileId& id) {
  if (setxattr(ProcPath(fd).c_str(), id_attribute.data(), id.bytes.data(), id.bytes.size(), 0) != 0)
    return fail_errno(errno, "cannot give a file its id");
  return {};
}

Result<FileId> InodeNumberIds::identify(int fd, SetNumber) {
  struct stat st;
  if (fstat(fd, &st) != 0) return fail_errno(errno, "cannot look at a file");
  FileId id;
  // Big-endian, as node ids are read: the kernel finds its inodes by the low bits.
  const std::uint64_t ino = htobe64(st.st_ino);
  std::memcpy(id.bytes.data(), &ino, sizeof ino);
  const std::uint32_t time = static_cast<std::uint32_t>(st.st_ctim.tv_nsec);
  std::memcpy(id.bytes.data() + 8, &time, sizeof time);
  return id;
}

}  // namespace holdfast::capture
