// SPDX-License-Identifier: Apache-2.0
// A reliable, ordered, authenticated stream of bytes between two nodes. The real one is platform/tls_stream.h.
// Threads: one thread may read while others write; a write_all is not interleaved with another. shutdown() from any thread wakes both.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/bytes.h"
#include "base/result.h"

namespace holdfast::ports {

class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // At least one byte, or 0 when the peer has ended the stream in order. ErrorCode::timeout past the deadline.
  virtual Result<std::size_t> read_some(std::span<std::uint8_t> into) = 0;
  // True: read_some would probably not wait. A hint for batching, never for correctness.
  virtual bool readable_now() = 0;
  // All bytes of all pieces, in order, or an error (then the stream is of no further use).
  virtual Status write_pieces(std::span<const ByteView> pieces) = 0;
  // Ends both directions now; blocked calls return an error. The object stays valid.
  virtual void shutdown() = 0;

  Status write_all(ByteView bytes) { return write_pieces(std::span<const ByteView>(&bytes, 1)); }
  // Exactly into.size() bytes; an early end of the stream is ErrorCode::unavailable.
  Status read_exact(std::span<std::uint8_t> into) {
    while (!into.empty()) {
      auto got = read_some(into);
      if (!got) return tl::unexpected(std::move(got).error());
      if (*got == 0) return fail(ErrorCode::unavailable, "the peer closed the connection");
      into = into.subspan(*got);
    }
    return {};
  }
};

}  // namespace holdfast::ports
