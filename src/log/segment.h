// SPDX-License-Identifier: Apache-2.0
// A segment: one file of a passive's receive log. Self-contained, versioned, of fixed size, recycled.
//
//   0                                       4096                                                              size
//   +----------------------------------------+--------------------+--------------------+-- - - --+-------------+
//   | header: magic "HFSEG001", version u32, | group              | group              |         | zeros, or   |
//   | header bytes u32, number u64,          |  head 48 bytes     |  head              |         | bytes of an |
//   | first_sequence u64, before {epoch u64, |  records           |  records           |         | earlier life|
//   | sequence u64}, size u64, crc32c u32    |                    |                    |         |             |
//   +----------------------------------------+--------------------+--------------------+-- - - --+-------------+
//
// A group is what one write appended: {magic "HFgr" u32, crc32c u32 of the 40 bytes after it, length u32 of the records, count u32,
// first_sequence u64, last_sequence u64, synced u64 = every sequence up to here was durable when the group was written, reserved u64}.
// `synced` is how a torn tail is told from damage: bytes that don't read as the next group are cut, unless a later group (or a checkpoint)
// proves that they once were durable. Then the log is damaged, and nothing is guessed. Bytes of an earlier life never pass: their
// sequences are lower than the segment's first.
#pragma once

#include <cstdint>

#include "base/bytes.h"
#include "base/types.h"

namespace holdfast::log {

constexpr std::uint32_t segment_version = 1;
constexpr std::size_t segment_header_bytes = 4096;
constexpr std::size_t group_head_bytes = 48;
constexpr std::uint64_t default_segment_bytes = 16ULL << 20;
constexpr std::size_t max_group_bytes = 4U << 20;  // records of one group

struct SegmentHeader {
  std::uint64_t number = 0;
  Sequence first_sequence;
  Position before;  // what this segment continues; {0,0} at the very start
  std::uint64_t size = 0;
};
Bytes encode(const SegmentHeader& header);  // segment_header_bytes long
Result<SegmentHeader> decode_segment_header(
    ByteView bytes);  // ErrorCode::corrupt; ::refused for a version we don't read

struct GroupHead {
  std::uint32_t length = 0, count = 0;
  Sequence first, last, synced;
};
void encode(const GroupHead& head, std::uint8_t* out);    // group_head_bytes
bool decode_group_head(ByteView bytes, GroupHead& head);  // false: not a sound group head

}  // namespace holdfast::log
