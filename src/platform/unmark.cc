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
constexpr std::uint64_t ask_every = 256, commit_every = 8192;

class Walk {
 public:
  Walk(const StillProtected& others, const std::function<bool()>& stop) : others_(others), stop_(stop) {}

  Result<Unmarked> below(const std::string& path) {
    UniqueFd root(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC));
    if (!root) return fail_errno(errno, "cannot open {}", path);
    HF_ASSIGN(const bool inside, is_inside(root.get()));
    if (inside) return done_;
    struct stat st {};
    if (::fstat(root.get(), &st) != 0) return fail_errno(errno, "cannot look at {}", path);
    unmark(root.get(), st);
    levels_.push_back(read_folder(std::move(root)));
    if (!levels_.back()) return fail_errno(errno, "cannot read {}", path);
    while (!levels_.empty() && done_.to_the_end) {
      if (done_.objects % ask_every == 0 && stop_())
        done_.to_the_end = false;
      else
        step();
    }
    if (others_.index) HF_TRY(others_.index->commit());
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
    struct stat st {};
    if (::fstatat(fd.get(), "", &st, AT_EMPTY_PATH) != 0 || others_.folders.contains({st.st_dev, st.st_ino})) return;
    unmark(fd.get(), st);
    if (!S_ISDIR(st.st_mode)) return;
    if (FolderStream folder =
            read_folder(open_in_folder(::dirfd(at), entry->d_name, O_RDONLY | O_DIRECTORY | O_NOATIME)))
      levels_.push_back(std::move(folder));
  }

  // The folder is a protected one by another path, or in one.
  Result<bool> is_inside(int folder) const {
    UniqueFd at(::openat(folder, ".", O_PATH | O_DIRECTORY | O_CLOEXEC));
    for (struct stat below{};;) {
      struct stat st {};
      if (!at || ::fstat(at.get(), &st) != 0) return fail_errno(errno, "cannot look at the folders above");
      if (others_.folders.contains({st.st_dev, st.st_ino})) return true;
      if (st.st_dev == below.st_dev && st.st_ino == below.st_ino) return false;
      below = st;
      at = UniqueFd(::openat(at.get(), "..", O_PATH | O_DIRECTORY | O_CLOEXEC));
    }
  }

  // One id serves all names of a file. Whether the others are in a protected folder nobody knows; that is possible in its file system only.
  bool may_be_shared(int fd, const struct stat& st) const {
    if (S_ISDIR(st.st_mode) || st.st_nlink < 2 || !others_.index) return false;
    const auto first = others_.folders.lower_bound({st.st_dev, 0});
    if (first == others_.folders.end() || first->first != st.st_dev) return false;
    const auto id = others_.index->id_of(fd);
    return !id || !id->is_none();
  }

  void unmark(int fd, const struct stat& st) {
    ++done_.objects;
    if (may_be_shared(fd, st)) {
      ++done_.shared;
      return;
    }
    // Found by nobody any more. A root's id may be another folder's by now (ports/tree.h).
    const auto id = others_.index ? others_.index->id_of(fd) : Result<FileId>(FileId{});
    std::vector<std::string> names;
    Status did = for_each_xattr_name(fd, [&](const std::string& name) -> Status {
      if (name.starts_with(own_attributes)) names.push_back(name);
      return {};
    });
    for (const std::string& name : names)
      if (did && remove_xattr(fd, name.c_str()) != 0 && errno != ENODATA)
        did = fail_errno(errno, "cannot remove the attribute {}", name);
    if (did && id && !id->is_none() && !id->is_root()) others_.index->forget(*id);
    if (did && others_.index && done_.objects % commit_every == 0) did = others_.index->commit();
    if (did) return;
    if (done_.kept++ == 0) done_.why_kept = did.error().to_string();
  }

  const StillProtected& others_;
  const std::function<bool()>& stop_;
  std::vector<FolderStream> levels_;
  Unmarked done_;
};

}  // namespace

Status StillProtected::add(int folder) {
  struct stat st {};
  if (::fstat(folder, &st) != 0) return fail_errno(errno, "cannot look at a protected folder");
  folders.emplace(st.st_dev, st.st_ino);
  return {};
}

Result<Unmarked> remove_marks(const std::string& path, const StillProtected& others,
                              const std::function<bool()>& stop) {
  return Walk(others, stop).below(path);
}

}  // namespace holdfast::platform
