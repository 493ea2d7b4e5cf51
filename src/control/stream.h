// SPDX-License-Identifier: Apache-2.0
// A connected byte stream with deadlines, so that HTTP runs the same over a Unix socket, TLS and a test's memory.
// One thread at a time. Closing is the destructor's job.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/bytes.h"
#include "base/result.h"

namespace holdfast::control {

class TimedStream {
 public:
  virtual ~TimedStream() = default;
  // At least one byte, or 0 at the end of the stream. ErrorCode::timeout after timeout_ms.
  virtual Result<std::size_t> read_some(std::span<std::uint8_t> into, int timeout_ms) = 0;
  virtual Status write_all(ByteView bytes, int timeout_ms) = 0;
};

}  // namespace holdfast::control
