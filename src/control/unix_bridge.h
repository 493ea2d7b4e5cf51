// SPDX-License-Identifier: Apache-2.0
// HTTP over a Unix socket.
#pragma once

#include "control/stream.h"
#include "platform/unix_stream.h"

namespace holdfast::control {

// Borrows the stream.
class UnixTimedStream final : public TimedStream {
 public:
  explicit UnixTimedStream(platform::UnixStream& stream) : stream_(stream) {}
  Result<std::size_t> read_some(std::span<std::uint8_t> into, int timeout_ms) override {
    return stream_.read_some(into, timeout_ms);
  }
  Status write_all(ByteView bytes, int timeout_ms) override { return stream_.write_all(bytes, timeout_ms); }

 private:
  platform::UnixStream& stream_;
};

}  // namespace holdfast::control
