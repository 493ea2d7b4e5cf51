// SPDX-License-Identifier: Apache-2.0
// For tests only: everything that can be seen of a folder, as lines that can be compared.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <string>

#include "base/bytes.h"
#include "platform/file_index.h"
#include "platform/unique_fd.h"
#include "ports/tree.h"

namespace holdfast::platform::testing {

// Everything that must be equal on two nodes, one line an object; file ids included.
class TreeDigest {
 public:
  static std::map<std::string, std::string> of(const std::string& path, bool with_ids = true) {
    TreeDigest digest(with_ids);
    digest.walk(path, ".");
    return digest.lines_;
  }

 private:
  explicit TreeDigest(bool with_ids) : with_ids_(with_ids) {}
  void walk(const std::string& root, const std::string& relative) {
    const std::string path = root + "/" + relative;
    struct stat st {};
    CHECK(::lstat(path.c_str(), &st) == 0, "lstat {}", path);
    std::string line = fmt::format("mode={:o} uid={} gid={} mtime={}.{:09}", st.st_mode, st.st_uid, st.st_gid,
                                   st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    if (!S_ISDIR(st.st_mode)) line += fmt::format(" links={} rdev={}", st.st_nlink, st.st_rdev);
    if (S_ISREG(st.st_mode)) line += fmt::format(" size={} content={:08x}", st.st_size, content_crc(path));
    if (S_ISLNK(st.st_mode)) line += " target=" + std::filesystem::read_symlink(path).string();
    line += xattrs(path);
    lines_[relative] = line;
    if (!S_ISDIR(st.st_mode)) return;
    for (const auto& entry : std::filesystem::directory_iterator(path))
      if (entry.path().filename() != ".holdfast") walk(root, relative + "/" + entry.path().filename().string());
  }
  static std::uint32_t content_crc(const std::string& path) {
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    Bytes block(1U << 20);
    std::uint32_t crc = 0;
    for (ssize_t n = 0; (n = ::read(fd.get(), block.data(), block.size())) > 0;)
      crc = crc32c(ByteView(block).first(static_cast<std::size_t>(n)), crc);
    return crc;
  }
  std::string xattrs(const std::string& path) const {
    char names[4096];
    const ssize_t n = ::llistxattr(path.c_str(), names, sizeof names);
    std::map<std::string, std::string> sorted;
    for (ssize_t at = 0; at < n;) {
      const std::string name = names + at;
      at += static_cast<ssize_t>(name.size()) + 1;
      char value[4096];
      if (name == "trusted.holdfast.buried") continue;  // a mark of its last burial, if there was one
      const ssize_t size = ::lgetxattr(path.c_str(), name.c_str(), value, sizeof value);
      if (name != id_attribute || with_ids_)
        sorted[name] = fmt::format("{:08x}", crc32c({reinterpret_cast<std::uint8_t*>(value),
                                                     static_cast<std::size_t>(std::max<ssize_t>(size, 0))}));
    }
    std::string out;
    for (const auto& [name, value] : sorted) out += " " + name + "=" + value;
    return out;
  }
  bool with_ids_;
  std::map<std::string, std::string> lines_;
};

inline std::string difference(const std::map<std::string, std::string>& a,
                              const std::map<std::string, std::string>& b) {
  std::string out;
  int shown = 0;
  for (const auto& [path, line] : a) {
    const auto it = b.find(path);
    if (it != b.end() && it->second == line) continue;
    if (++shown <= 8)
      out += fmt::format("\n  {}\n    here:  {}\n    there: {}", path, line, it == b.end() ? "absent" : it->second);
  }
  for (const auto& [path, line] : b)
    if (!a.contains(path) && ++shown <= 8) out += fmt::format("\n  {}\n    here:  absent\n    there: {}", path, line);
  return shown ? fmt::format("{} objects differ{}", shown, out) : "";
}

}  // namespace holdfast::platform::testing
