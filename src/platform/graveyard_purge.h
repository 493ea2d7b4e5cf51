// SPDX-License-Identifier: Apache-2.0
// Takes dead objects away, folders with all that is in them, in steps. What would keep a living object (flags, an attribute of its folder) keeps none
// of these: they are nobody's any more.
// Threads: one user at a time, but names_gone() from any.
#pragma once

#include <atomic>
#include <functional>
#include <unordered_map>

#include "base/types.h"
#include "platform/unique_fd.h"

namespace holdfast::platform {

class GravePurge {
 public:
  // An object costs one, and one more for each of these that it holds: how long it takes depends on both. A big file gets shorter from step to step.
  static constexpr std::uint64_t cost_bytes = std::uint64_t{16} << 20;

  // `gone`: told of each object that has lost its last name. The descriptor may be O_PATH.
  GravePurge(SetNumber set, std::function<Status(int fd)> gone) : set_(set), gone_(std::move(gone)) {}

  // Removes a name with everything below it. Absent is fine. False: some is left, for it would have cost more than `most`, which is counted down.
  // ErrorCode::denied, busy, no_space, corrupt: this very object can't go at present, and the message says where it is; others may.
  Result<bool> remove(int folder, const char* name, std::size_t& most);
  // All that a folder holds, but not the folder.
  Status empty(int folder);
  // What to say of one that can't go: see remove().
  tl::unexpected<Error> cant(int error, int folder, const char* name) const;
  // How many names were removed that were not their object's last one: told before they are.
  const std::atomic<std::uint64_t>& names_gone() const { return names_gone_; }

 private:
  Result<bool> empty_some(int folder, std::uint64_t ino, std::size_t& most);
  Status unlink(int folder, const char* name, int fd, bool is_folder);

  const SetNumber set_;
  const std::function<Status(int)> gone_;
  // Where to go on in folders that were emptied in part, by inode number: what was removed is not to be read over again.
  std::unordered_map<std::uint64_t, long> go_on_;
  std::atomic<std::uint64_t> names_gone_{0};
};

}  // namespace holdfast::platform
