// SPDX-License-Identifier: Apache-2.0
// The few calls on descriptors that callers outside of this folder need, with errors as values.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"
#include "platform/unique_fd.h"

namespace holdfast::platform {

Result<UniqueFd> duplicate(int fd);                              // close-on-exec
Result<UniqueFd> open_file(const std::string& path, int flags);  // O_CLOEXEC is added
Result<UniqueFd> nameless_file(std::string_view text);           // in memory
Result<std::string> read_whole(int fd, std::size_t most_bytes);  // from its start
// "major:minor" of the file system that holds it, as in mountinfo.
Result<std::string> device_of(int fd);

}  // namespace holdfast::platform
