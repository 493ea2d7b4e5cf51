// SPDX-License-Identifier: Apache-2.0
// The hash of ship_hash: XXH3, 128 bits, canonical (big-endian) form.
#pragma once

#include <array>

#include "base/bytes.h"

namespace holdfast::log {
using ContentHash = std::array<std::uint8_t, 16>;
ContentHash content_hash(ByteView bytes);
}  // namespace holdfast::log
