// SPDX-License-Identifier: Apache-2.0
// Is an object that was found by its id a dead one? Deleted objects wait in the graveyard until nobody needs them, and then to be taken away, on an
// active too. Names don't lead there; the handles of exported files would.
// Threads: any.
#pragma once

#include <atomic>
#include <mutex>
#include <unordered_map>

#include "base/types.h"
#include "platform/unique_fd.h"

namespace holdfast::platform {

class Graveyard {
 public:
  // `root_fd`: a set's root, below the mirror. `names_gone`: rises before a dead name is taken away whose object has others
  // (GravePurge::names_gone()); null: nobody takes any. Both outlive it.
  explicit Graveyard(int root_fd, const std::atomic<std::uint64_t>* names_gone = nullptr)
      : root_fd_(root_fd), names_gone_(names_gone) {}

  // It lies there, or below a folder that does, or has no name at all. `fd` may be O_PATH.
  Result<bool> holds(int fd);
  // Something may have been buried since it was asked last. While a set is captured nothing is.
  void look_again();

 private:
  Result<bool> has_grave(const FileId& id, std::uint64_t ino) const;
  Result<bool> folder_is_below(int fd, std::uint64_t ino) const;
  Status note_below(int folder, bool graves);

  std::uint64_t names_gone() const { return names_gone_ == nullptr ? 0 : names_gone_->load(); }

  const int root_fd_;
  const std::atomic<std::uint64_t>* const names_gone_;
  std::mutex mutex_;  // below
  bool noted_ = false;
  std::uint64_t noted_at_ = 0;  // names_gone() before that
  // Names in dead folders of what is none itself: nothing but a walk leads from a file to its folder.
  std::unordered_map<FileId, std::uint64_t> below_;
};

}  // namespace holdfast::platform
