// SPDX-License-Identifier: Apache-2.0
#include "platform/flagged_files.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <unordered_set>
#include <vector>

#include "platform/folder_stream.h"

namespace holdfast::platform {
namespace {

constexpr unsigned wanted = STATX_TYPE | STATX_INO | STATX_NLINK | STATX_BLOCKS;
constexpr std::uint64_t block_bytes = 512;   // of statx, whatever the file system's
constexpr std::size_t names_at_once = 4096;  // looked at in the order of the disk
constexpr std::size_t most_waiting = 8;      // folders that wait for a thread; each holds a descriptor

// Every step is taken from the folder before it: a path may be longer than a call takes.
struct Level {
  FolderStream folder;
  std::string path;
  std::vector<std::pair<ino_t, std::string>> names;  // read, and not looked at yet; the last comes first
};

Result<Level> open_level(int above, const char* name, std::string path) {
  UniqueFd fd(::openat(above, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return fail_errno(errno, "cannot open {}", path);
  FolderStream folder = read_folder(std::move(fd));
  if (!folder) return fail_errno(errno, "cannot read {}", path);
  return Level{std::move(folder), std::move(path), {}};
}

Status judge(const struct statx& x, const Level& level, const std::string* name) {
  if (x.stx_attributes & STATX_ATTR_ENCRYPTED)
    return tl::unexpected(Error{ErrorCode::refused,
                                fmt::format("{}{}{} is encrypted by its file system, which its copies would not be",
                                            level.path, name ? "/" : "", name ? *name : ""),
                                "encrypt the disks of all nodes instead, or protect a folder without it", 0});
  const bool immutable = (x.stx_attributes & STATX_ATTR_IMMUTABLE) != 0;
  if (!immutable && (x.stx_attributes & STATX_ATTR_APPEND) == 0) return {};
  return tl::unexpected(Error{
      ErrorCode::refused,
      fmt::format("{}{}{} is {}, a flag that can't be replicated", level.path, name ? "/" : "", name ? *name : "",
                  immutable ? "immutable" : "append-only"),
      fmt::format("take it away (chattr {} FILE; lsattr -R shows all), then protect again", immutable ? "-i" : "-a"),
      0});
}

// False: nothing is left of the folder.
Result<bool> read_names(Level& level) {
  while (level.names.size() < names_at_once) {
    errno = 0;
    const dirent* entry = ::readdir(level.folder.get());
    if (!entry && errno != 0) return fail_errno(errno, "cannot read {}", level.path);
    if (!entry) break;
    const std::string_view name = entry->d_name;
    if (name != "." && name != "..") level.names.emplace_back(entry->d_ino, name);
  }
  std::sort(level.names.rbegin(), level.names.rend());
  return !level.names.empty();
}

// What the threads share: a few folders that none of them has begun.
class Walk {
 public:
  explicit Walk(const struct statx& root) : root_(root) {}

  Result<std::uint64_t> run(Level first) {
    waiting_.push_back(std::move(first));
    std::vector<std::thread> others;
    const unsigned threads = std::clamp(std::thread::hardware_concurrency(), 1U, 4U);
    running_ = threads;
    try {
      while (others.size() + 1 < threads) others.emplace_back([this] { work(); });
    } catch (const std::system_error&) {  // no more threads: it takes longer
      const std::lock_guard lock(mutex_);
      running_ -= threads - 1 - static_cast<unsigned>(others.size());
    }
    work();
    for (auto& thread : others) thread.join();
    if (!found_) return tl::unexpected(std::move(found_).error());
    return root_.stx_blocks * block_bytes + bytes_;
  }

 private:
  void work() {
    while (auto level = take()) {
      std::vector<Level> levels;
      levels.push_back(std::move(*level));
      while (!levels.empty()) {
        if (ended_.load(std::memory_order_relaxed)) return;
        const auto more = step(levels);
        if (!more) return end(tl::unexpected(more.error()));
        if (!*more) levels.pop_back();
      }
    }
  }

  // Looks at one name of the last level, and opens it if it is a folder. False: there is none any more.
  Result<bool> step(std::vector<Level>& levels) {
    Level& at = levels.back();
    if (at.names.empty()) {
      HF_ASSIGN(const bool any, read_names(at));
      if (!any) return false;
    }
    const std::string name = std::move(at.names.back().second);
    at.names.pop_back();
    const int folder = ::dirfd(at.folder.get());
    struct statx x {};
    if (::statx(folder, name.c_str(), AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT, wanted, &x) != 0) {
      if (errno == ENOENT) return true;
      return fail_errno(errno, "cannot look at {}/{}", at.path, name);
    }
    HF_TRY(judge(x, at, &name));
    if (x.stx_dev_major != root_.stx_dev_major || x.stx_dev_minor != root_.stx_dev_minor) return true;
    if (S_ISDIR(x.stx_mode) || x.stx_nlink == 1 || is_first(x)) bytes_ += x.stx_blocks * block_bytes;
    if (!S_ISDIR(x.stx_mode)) return true;
    auto below = open_level(folder, name.c_str(), at.path + "/" + name);
    if (!below && below.error().code == ErrorCode::not_found) return true;
    if (!below) return tl::unexpected(std::move(below).error());
    if (!give(*below)) levels.push_back(std::move(*below));
    return true;
  }

  bool is_first(const struct statx& of_many_names) {
    const std::lock_guard lock(mutex_);
    return counted_.insert(of_many_names.stx_ino).second;
  }

  bool give(Level& level) {
    const std::lock_guard lock(mutex_);
    if (waiting_.size() == most_waiting) return false;
    waiting_.push_back(std::move(level));
    wake_.notify_one();
    return true;
  }

  // Waits for a folder as long as some thread may still find one. Nothing: all are done, or something was found.
  std::optional<Level> take() {
    std::unique_lock lock(mutex_);
    --running_;
    wake_.wait(lock, [&] { return ended_ || !waiting_.empty() || running_ == 0; });
    if (ended_ || waiting_.empty()) {
      wake_.notify_all();
      return {};
    }
    ++running_;
    Level level = std::move(waiting_.back());
    waiting_.pop_back();
    return level;
  }

  void end(Status why) {
    const std::lock_guard lock(mutex_);
    if (found_) found_ = std::move(why);
    ended_ = true;
    wake_.notify_all();
  }

  const struct statx root_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Level> waiting_;
  unsigned running_ = 0;                       // threads that have a folder, or have not asked for one yet
  std::unordered_set<std::uint64_t> counted_;  // files of more than one name
  std::atomic<std::uint64_t> bytes_{0};
  std::atomic<bool> ended_{false};
  Status found_;
};

}  // namespace

Result<std::uint64_t> check_unflagged(const std::string& path) {
  struct statx root {};
  if (::statx(AT_FDCWD, path.c_str(), AT_SYMLINK_NOFOLLOW, wanted, &root) != 0)
    return fail_errno(errno, "cannot look at {}", path);
  HF_ASSIGN(Level first, open_level(AT_FDCWD, path.c_str(), path));
  HF_TRY(judge(root, first, nullptr));
  return Walk(root).run(std::move(first));
}

}  // namespace holdfast::platform
