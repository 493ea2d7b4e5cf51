// SPDX-License-Identifier: Apache-2.0
#include "platform/unmark.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <string_view>
#include <vector>

#include "platform/folder_stream.h"
#include "platform/object_xattrs.h"
#include "ports/tree.h"

namespace holdfast::platform {
namespace {

constexpr std::string_view own_attributes = "trusted.holdfast.";
constexpr std::uint64_t ask_every = 256;

class Walk {
 public:
  explicit Walk(const std::function<bool()>& stop) : stop_(stop) {}

  Result<Unmarked> below(const std::string& path) {
    UniqueFd root(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC));
    if (!root) return fail_errno(errno, "cannot open {}", path);
    unmark(root.get());
    levels_.push_back(read_folder(std::move(root)));
    if (!levels_.back()) return fail_errno(errno, "cannot read {}", path);
    while (!levels_.empty()) {
      if (done_.objects % ask_every == 0 && stop_()) {
        done_.to_the_end = false;
        return done_;
      }
      step();
    }
    return done_;
  }

 private:
  void step() {
    DIR* const at = levels_.back().get();
    const dirent* entry = ::readdir(at);
    if (!entry) return levels_.pop_back();
    const std::string_view name = entry->d_name;
    if (name == "." || name == ".." || (levels_.size() == 1 && name == ports::hidden_name)) return;
    const UniqueFd fd = open_in_folder(::dirfd(at), entry->d_name, O_PATH);
    if (!fd) return;  // gone, or another file system
    unmark(fd.get());
    struct stat st {};
    if (::fstatat(fd.get(), "", &st, AT_EMPTY_PATH) != 0 || !S_ISDIR(st.st_mode)) return;
    if (FolderStream folder =
            read_folder(open_in_folder(::dirfd(at), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOATIME)))
      levels_.push_back(std::move(folder));
  }

  void unmark(int fd) {
    ++done_.objects;
    std::vector<std::string> names;
    Status did = for_each_xattr_name(fd, [&](const std::string& name) -> Status {
      if (name.starts_with(own_attributes)) names.push_back(name);
      return {};
    });
    for (const std::string& name : names)
      if (did && remove_xattr(fd, name.c_str()) != 0 && errno != ENODATA)
        did = fail_errno(errno, "cannot remove the attribute {}", name);
    if (did) return;
    if (done_.kept++ == 0) done_.why_kept = did.error().to_string();
  }

  const std::function<bool()>& stop_;
  std::vector<FolderStream> levels_;
  Unmarked done_;
};

}  // namespace

Result<Unmarked> remove_marks(const std::string& path, const std::function<bool()>& stop) {
  return Walk(stop).below(path);
}

}  // namespace holdfast::platform
