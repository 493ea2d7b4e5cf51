// SPDX-License-Identifier: Apache-2.0
// Takes Holdfast's own attributes (trusted.holdfast.*) off a folder that is not protected any more.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "base/result.h"

namespace holdfast::platform {

struct Unmarked {
  std::uint64_t objects = 0;  // looked at
  std::uint64_t kept = 0;     // could not be changed
  std::string why_kept;       // of the first
  bool to_the_end = true;     // it was not stopped
};

// Of all objects below `path`, and its own; neither what is mounted below it nor the mirror's own folder. `stop` is asked every few hundred objects. May
// be done over again; others may use the folder meanwhile. Any thread.
Result<Unmarked> remove_marks(const std::string& path, const std::function<bool()>& stop);

}  // namespace holdfast::platform
