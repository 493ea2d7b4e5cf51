// SPDX-License-Identifier: Apache-2.0
#include "base/bytes.h"

#include <array>
#include <bit>

#if defined(__x86_64__)
#include <nmmintrin.h>
#endif

namespace holdfast {

static_assert(std::endian::native == std::endian::little, "the formats are written in native little-endian order");

namespace {

constexpr std::array<std::uint32_t, 256> make_table() {
  std::array<std::uint32_t, 256> table{};
  for (std::uint32_t i = 0; i < 256; ++i) {
    std::uint32_t c = i;
    for (int k = 0; k < 8; ++k) c = (c & 1) ? (c >> 1) ^ 0x82F63B78U : c >> 1;
    table[i] = c;
  }
  return table;
}
constexpr auto table = make_table();

std::uint32_t crc_portable(std::uint32_t c, const std::uint8_t* p, std::size_t n) {
  while (n-- > 0) c = table[(c ^ *p++) & 0xff] ^ (c >> 8);
  return c;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) std::uint32_t crc_hardware(std::uint32_t c, const std::uint8_t* p, std::size_t n) {
  std::uint64_t wide = c;
  while (n >= 8) {
    std::uint64_t word;
    std::memcpy(&word, p, 8);
    wide = _mm_crc32_u64(wide, word);
    p += 8;
    n -= 8;
  }
  c = static_cast<std::uint32_t>(wide);
  while (n-- > 0) c = _mm_crc32_u8(c, *p++);
  return c;
}
#endif

}  // namespace

std::uint32_t crc32c(ByteView data, std::uint32_t seed) {
  const std::uint32_t c = ~seed;
#if defined(__x86_64__)
  static const bool has_sse42 = __builtin_cpu_supports("sse4.2");
  if (has_sse42) return ~crc_hardware(c, data.data(), data.size());
#endif
  return ~crc_portable(c, data.data(), data.size());
}

void ByteWriter::varint(std::uint64_t v) {
  while (v >= 0x80) {
    out_.push_back(static_cast<std::uint8_t>(v | 0x80));
    v >>= 7;
  }
  out_.push_back(static_cast<std::uint8_t>(v));
}

std::uint64_t ByteReader::varint() {
  std::uint64_t v = 0;
  for (unsigned shift = 0; shift < 64; shift += 7) {
    if (in_.empty()) break;
    const std::uint8_t b = in_.front();
    in_ = in_.subspan(1);
    if (shift == 63 && b > 1) break;  // would not fit 64 bits
    v |= static_cast<std::uint64_t>(b & 0x7f) << shift;
    if ((b & 0x80) == 0) return v;
  }
  fail();
  return 0;
}

ByteView ByteReader::raw(std::size_t n) {
  if (n > in_.size()) {
    fail();
    return {};
  }
  const ByteView b = in_.first(n);
  in_ = in_.subspan(n);
  return b;
}

ByteView ByteReader::raw_checked(std::uint64_t n) {
  if (n > in_.size()) {
    fail();
    return {};
  }
  return raw(static_cast<std::size_t>(n));
}

}  // namespace holdfast
