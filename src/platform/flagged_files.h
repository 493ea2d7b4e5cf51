// SPDX-License-Identifier: Apache-2.0
// Files that their flags make unchangeable. No record carries flags, so a folder that holds such files can't be protected: their copies would lack
// the flag here, and could not be changed there. Any thread.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace holdfast::platform {

// `refused`, naming one file that is immutable or append-only (chattr +i, +a) and the way out. Reads every folder below `path`, of one file
// system, by a few threads; what vanishes meanwhile is passed over. Else: how many bytes it takes up there, each file once.
Result<std::uint64_t> check_unflagged(const std::string& path);

}  // namespace holdfast::platform
