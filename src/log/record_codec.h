// SPDX-License-Identifier: Apache-2.0
// One record as bytes, the same in the ring, on the channel and in segments:
//
//      0        4        8                16               24               32   33    34     36     38     40       44       48
//      +--------+--------+----------------+----------------+----------------+----+-----+------+------+------+--------+--------+--
//      | length | crc32c | epoch          | sequence       | time_ns        |kind|flags| set  |fields| 0    |payload | 0      |
//      | u32    | u32    | u64            | u64            | i64            | u8 | u8  | u16  | u16  | u16  | u32    | u32    |
//      +--------+--------+----------------+----------------+----------------+----+-----+------+------+------+--------+--------+--
//   48 [addressed_to u64, if flags bit 0] [fields: `fields` bytes, record_fields.h's order] [payload: `payload` bytes] [zeros to 8]
//
// length is the whole record and a multiple of 8. The checksum covers the body first (48..length) and then the header (8..48), so that it
// can be made outside of the log's lock but for the 40 bytes that get their values there.
#pragma once

#include <array>
#include <cstddef>

#include "log/record.h"

namespace holdfast::log {

constexpr std::size_t record_header_bytes = 48;
constexpr std::size_t max_payload_bytes = std::size_t{1}
                                          << 20;  // one FUSE write, one shipped chunk, one chunk of a listing
constexpr std::size_t max_name_bytes = 255;
constexpr std::size_t max_target_bytes = 4095;                    // symlink target in name2
constexpr std::size_t max_fixed_fields_bytes = 4 * 16 + 16 * 10;  // ids and varints without names
constexpr std::size_t max_head_bytes =
    record_header_bytes + 8 + max_fixed_fields_bytes + max_name_bytes + 3 + max_target_bytes + 3;
constexpr std::size_t max_record_bytes = (max_head_bytes + max_payload_bytes + 7) / 8 * 8;
// What a reservation adds to payload and names.
constexpr std::size_t record_overhead_bytes = record_header_bytes + 8 + max_fixed_fields_bytes + 6 + 8;

constexpr std::uint8_t header_flag_addressed = 1;

// Encodes without allocating: the head here, the payload stays where it is.
class EncodedRecord {
 public:
  // CHECKs that names and payload keep their limits: who makes records is us.
  explicit EncodedRecord(const Record& record);
  std::size_t total_bytes() const { return total_bytes_; }
  // Sets what the log's lock decides, and the checksum over it.
  void finish(Epoch epoch, Sequence sequence, std::int64_t time_ns);
  // Copies the finished record to `out` (total_bytes() long).
  void copy_to(std::uint8_t* out) const;

 private:
  std::array<std::uint8_t, max_head_bytes> head_;
  std::size_t head_bytes_ = 0;
  ByteView payload_;
  std::size_t total_bytes_ = 0;
  std::uint32_t body_crc_ = 0;
};

// For tests and rare paths.
Bytes encode(const Record& record);

// What stands at the start of `bytes`.
enum class Found {
  record,   // whole, checksum right
  nothing,  // no bytes, or a zero length: nothing was written here
  cut,      // fewer bytes than the record says
  damaged,  // anything else
};
struct RecordHead {
  std::size_t length = 0;
  Epoch epoch;
  Sequence sequence;
  std::int64_t time_ns = 0;
  Kind kind = Kind::noop;
  NodeId addressed_to;
  SetNumber set = 0;
};
// Never trusts a length. `head` is set only for Found::record.
Found inspect(ByteView bytes, RecordHead& head);
// Header only, of a record already known to be whole (own ring, bytes that inspect() accepted).
RecordHead head_of(const std::uint8_t* record);
// Does it bring ids into the world? They are durable before it leaves this node (R25).
bool makes_ids(Kind kind);

// The fields of a whole record (inspect() said so); views point into `bytes`. ErrorCode::corrupt when they don't add up.
Result<Record> decode(ByteView bytes);

}  // namespace holdfast::log
