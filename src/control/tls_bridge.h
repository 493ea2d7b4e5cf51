// SPDX-License-Identifier: Apache-2.0
// HTTP over the platform's TLS stream.
#pragma once

#include "control/stream.h"
#include "platform/tls_stream.h"

namespace holdfast::control {

// Borrows the stream. One thread at a time.
class TlsTimedStream final : public TimedStream {
 public:
  explicit TlsTimedStream(platform::TlsStream& stream) : stream_(stream) {}
  Result<std::size_t> read_some(std::span<std::uint8_t> into, int timeout_ms) override {
    stream_.set_deadline(timeout_ms);
    return stream_.read_some(into);
  }
  Status write_all(ByteView bytes, int timeout_ms) override {
    stream_.set_deadline(timeout_ms);
    return stream_.write_pieces(std::span<const ByteView>(&bytes, 1));
  }

 private:
  platform::TlsStream& stream_;
};

}  // namespace holdfast::control
