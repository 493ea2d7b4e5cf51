// SPDX-License-Identifier: Apache-2.0
#include "capture/lower_xattrs.h"

#include <sys/xattr.h>

#include <cerrno>
#include <deque>

#include "capture/file_ids.h"
#include "capture/lower.h"
#include "log/xattrs.h"

namespace holdfast::capture {
namespace {

constexpr std::size_t most_bytes = 64 * 1024;  // XATTR_LIST_MAX and XATTR_SIZE_MAX

}  // namespace

int read_xattrs(int fd, Bytes& out) {
  const ProcPath path(fd);
  std::vector<char> names(most_bytes);
  const ssize_t n = listxattr(path.c_str(), names.data(), names.size());
  if (n < 0) return errno == EOPNOTSUPP ? 0 : errno;
  std::vector<log::Xattr> list;
  std::deque<Bytes> values;  // stay where they are
  Bytes value(most_bytes);
  for (const char* name = names.data(); name < names.data() + n; name += std::strlen(name) + 1) {
    if (std::string_view(name).starts_with(hidden_attributes)) continue;
    const ssize_t size = getxattr(path.c_str(), name, value.data(), value.size());
    if (size < 0 && errno == ENODATA) continue;
    if (size < 0) return errno;
    values.emplace_back(value.begin(), value.begin() + size);
    list.push_back({name, values.back()});
  }
  log::encode_xattrs(list, out);
  return 0;
}

}  // namespace holdfast::capture
