// SPDX-License-Identifier: Apache-2.0
#include "platform/object_xattrs.h"

#include <sys/stat.h>
#include <sys/xattr.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>
#include <vector>

#include <fmt/core.h>

#include "log/xattrs.h"

namespace holdfast::platform {
namespace {

constexpr std::size_t most_bytes = 65536;  // the kernel's limit, of a list of names as of a value
constexpr std::string_view own_attributes = "trusted.holdfast.";

std::string proc_path(int fd) { return fmt::format("/proc/self/fd/{}", fd); }

// Most lists and values are short: the room of the longest is only made when it is needed.
template <class Ask>
ssize_t with_room(std::vector<char>& room, Ask ask) {
  room.resize(512);
  ssize_t n = ask();
  if (n >= 0 || errno != ERANGE) return n;
  room.resize(most_bytes);
  n = ask();
  return n;
}

ssize_t list_xattrs(int fd, std::vector<char>& names) {
  return with_room(names, [&] {
    const ssize_t n = ::flistxattr(fd, names.data(), names.size());
    return n < 0 && errno == EBADF ? ::listxattr(proc_path(fd).c_str(), names.data(), names.size()) : n;
  });
}

}  // namespace

ssize_t get_xattr(int fd, const char* name, void* value, std::size_t size) {
  const ssize_t n = ::fgetxattr(fd, name, value, size);
  return n < 0 && errno == EBADF ? ::getxattr(proc_path(fd).c_str(), name, value, size) : n;
}

int set_xattr(int fd, const char* name, const void* value, std::size_t size) {
  const int rc = ::fsetxattr(fd, name, value, size, 0);
  return rc != 0 && errno == EBADF ? ::setxattr(proc_path(fd).c_str(), name, value, size, 0) : rc;
}

int remove_xattr(int fd, const char* name) {
  const int rc = ::fremovexattr(fd, name);
  return rc != 0 && errno == EBADF ? ::removexattr(proc_path(fd).c_str(), name) : rc;
}

int change_mode(int fd, mode_t mode) {
  const int rc = ::fchmod(fd, mode);
  return rc != 0 && errno == EBADF ? ::chmod(proc_path(fd).c_str(), mode) : rc;
}

Status for_each_xattr_name(int fd, const std::function<Status(const std::string& name)>& see) {
  std::vector<char> names;
  const ssize_t n = list_xattrs(fd, names);
  if (n < 0 && errno != ENOTSUP) return fail_errno(errno, "cannot list extended attributes");
  for (std::string_view rest(names.data(), n > 0 ? static_cast<std::size_t>(n) : 0); !rest.empty();) {
    const std::string name(rest.substr(0, rest.find('\0')));
    rest.remove_prefix(name.size() + 1);
    HF_TRY(see(name));
  }
  return {};
}

bool is_replicated_xattr(std::string_view name) {
  return !name.starts_with(own_attributes) && name != "trusted.SGI_ACL_FILE" && name != "trusted.SGI_ACL_DEFAULT";
}

Result<Bytes> read_all_xattrs(int fd) {
  std::vector<std::pair<std::string, Bytes>> values;
  std::vector<char> room;
  HF_TRY(for_each_xattr_name(fd, [&](const std::string& name) -> Status {
    if (!is_replicated_xattr(name)) return {};
    const ssize_t size = with_room(room, [&] { return get_xattr(fd, name.c_str(), room.data(), room.size()); });
    if (size < 0 && errno == ENODATA) return {};  // removed since it was listed
    if (size < 0) return fail_errno(errno, "cannot read the extended attribute {}", name);
    values.emplace_back(name, Bytes(room.begin(), room.begin() + size));
    return {};
  }));
  std::sort(values.begin(), values.end());
  std::vector<log::Xattr> list;
  for (const auto& [name, value] : values) list.push_back({name, value});
  Bytes out;
  log::encode_xattrs(list, out);
  return out;
}

}  // namespace holdfast::platform
