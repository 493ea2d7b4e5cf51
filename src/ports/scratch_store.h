// SPDX-License-Identifier: Apache-2.0
// Room for what is written into a view of the past: one sparse file that nobody can find, gone with the process. Never durable. Any thread.
#pragma once

#include <cstdint>
#include <span>

#include "base/bytes.h"
#include "base/result.h"

namespace holdfast::ports {

class ScratchStore {
 public:
  virtual ~ScratchStore() = default;
  // Zeros where nothing was written, or what was written was discarded.
  virtual Status read(std::uint64_t offset, std::span<std::uint8_t> into) = 0;
  // ErrorCode::no_space: its disk has to keep what is left for others.
  virtual Status write(std::uint64_t offset, ByteView bytes) = 0;
  virtual Status discard(std::uint64_t offset, std::uint64_t length) = 0;  // its room is free again
};

}  // namespace holdfast::ports
