// SPDX-License-Identifier: Apache-2.0
// Takes Holdfast's own attributes (trusted.holdfast.*) off a folder that is not protected any more, and what it holds out of the index.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <set>
#include <string>
#include <utility>

#include "base/result.h"
#include "platform/file_index.h"

namespace holdfast::platform {

struct Unmarked {
  std::uint64_t objects = 0;  // looked at
  std::uint64_t shared = 0;   // may be in a protected folder too, by another name: not changed
  std::uint64_t kept = 0;     // could not be changed
  std::string why_kept;       // of the first
  bool to_the_end = true;     // it was not stopped
};

// What is not to be touched, however it is reached.
struct StillProtected {
  Status add(int folder);
  std::set<std::pair<dev_t, ino_t>> folders;  // the real ones, not what is mounted over them
  FileIndex* index = nullptr;                 // null: nothing is known of any object
};

// Of all objects below `path`, and its own; neither what is mounted below it nor the mirror's own folder. `stop` is asked every few hundred objects. May
// be done over again; others may use the folder meanwhile. Any thread.
Result<Unmarked> remove_marks(const std::string& path, const StillProtected& others, const std::function<bool()>& stop);

}  // namespace holdfast::platform
