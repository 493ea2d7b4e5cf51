// SPDX-License-Identifier: Apache-2.0
// Reads for who reads everything once (a comparison): what was in the page cache stays there, what was not does not come in for good.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace holdfast::platform {

// Short only at the end of the file. Negative: -errno.
std::int64_t read_aside(int fd, std::uint64_t offset, std::span<std::uint8_t> into);

}  // namespace holdfast::platform
