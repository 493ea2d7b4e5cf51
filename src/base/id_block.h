// SPDX-License-Identifier: Apache-2.0
// A block of file ids: those that differ in bytes 6 and 7 only, given one after the other. They lie together in the index, and one note
// speaks of all of them.
#pragma once

#include <cstdint>

#include "base/types.h"

namespace holdfast {

constexpr std::uint32_t ids_in_block = 65536;

// `n`: below ids_in_block.
inline FileId id_in_block(FileId block, std::uint32_t n) {
  block.bytes[6] = static_cast<std::uint8_t>(n >> 8);
  block.bytes[7] = static_cast<std::uint8_t>(n);
  return block;
}
inline FileId block_of(const FileId& id) { return id_in_block(id, 0); }

}  // namespace holdfast
