// SPDX-License-Identifier: Apache-2.0
// Byte codecs shared by every format: little-endian fixed integers, LEB128 varints, length-prefixed strings, CRC32C.
// Readers never trust a length: every read is checked against what is left, and a short buffer is an error value, not a crash.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast {

using Bytes = std::vector<std::uint8_t>;
using ByteView = std::span<const std::uint8_t>;

inline ByteView as_bytes(std::string_view s) { return {reinterpret_cast<const std::uint8_t*>(s.data()), s.size()}; }
inline std::string_view as_text(ByteView b) { return {reinterpret_cast<const char*>(b.data()), b.size()}; }

// CRC-32C (Castagnoli polynomial, as in RFC 3720 appendix B.4); `seed` continues an earlier checksum.
std::uint32_t crc32c(ByteView data, std::uint32_t seed = 0);

constexpr std::size_t max_varint_bytes = 10;

class ByteWriter {
 public:
  explicit ByteWriter(Bytes& out) : out_(out) {}
  void u8(std::uint8_t v) { out_.push_back(v); }
  void u16(std::uint16_t v) { fixed(v); }
  void u32(std::uint32_t v) { fixed(v); }
  void u64(std::uint64_t v) { fixed(v); }
  void varint(std::uint64_t v);
  void zigzag(std::int64_t v) { varint((static_cast<std::uint64_t>(v) << 1) ^ static_cast<std::uint64_t>(v >> 63)); }
  void raw(ByteView b) { out_.insert(out_.end(), b.begin(), b.end()); }
  void bytes(ByteView b) {
    varint(b.size());
    raw(b);
  }
  void text(std::string_view s) { bytes(as_bytes(s)); }

 private:
  template <class T>
  void fixed(T v) {
    std::uint8_t b[sizeof v];
    std::memcpy(b, &v, sizeof v);  // x86-64 and arm64 Linux are little-endian; a static_assert in bytes.cc says so
    out_.insert(out_.end(), b, b + sizeof v);
  }
  Bytes& out_;
};

// After any failed read ok() is false and every later read returns zero/empty: check once at the end.
class ByteReader {
 public:
  explicit ByteReader(ByteView in) : in_(in) {}
  bool ok() const { return ok_; }
  std::size_t left() const { return in_.size(); }
  std::uint8_t u8() { return fixed<std::uint8_t>(); }
  std::uint16_t u16() { return fixed<std::uint16_t>(); }
  std::uint32_t u32() { return fixed<std::uint32_t>(); }
  std::uint64_t u64() { return fixed<std::uint64_t>(); }
  std::uint64_t varint();
  std::int64_t zigzag() {
    const std::uint64_t v = varint();
    return static_cast<std::int64_t>(v >> 1) ^ -static_cast<std::int64_t>(v & 1);
  }
  ByteView raw(std::size_t n);
  ByteView bytes() { return raw_checked(varint()); }
  std::string_view text() { return as_text(bytes()); }
  void fail() {
    ok_ = false;
    in_ = {};
  }

 private:
  ByteView raw_checked(std::uint64_t n);
  template <class T>
  T fixed() {
    T v{};
    const ByteView b = raw(sizeof v);
    if (b.size() == sizeof v) std::memcpy(&v, b.data(), sizeof v);
    return v;
  }
  ByteView in_;
  bool ok_ = true;
};

}  // namespace holdfast
