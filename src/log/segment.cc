// SPDX-License-Identifier: Apache-2.0
#include "log/segment.h"

namespace holdfast::log {
namespace {

constexpr char segment_magic[8] = {'H', 'F', 'S', 'E', 'G', '0', '0', '1'};
constexpr std::uint32_t group_magic = 0x72674648;  // "HFgr"
constexpr std::size_t header_used_bytes = 8 + 4 + 4 + 8 + 8 + 16 + 8;

}  // namespace

Bytes encode(const SegmentHeader& header) {
  Bytes out;
  out.reserve(128);
  ByteWriter w(out);
  w.raw({reinterpret_cast<const std::uint8_t*>(segment_magic), sizeof segment_magic});
  w.u32(segment_version);
  w.u32(segment_header_bytes);
  w.u64(header.number);
  w.u64(header.first_sequence.value);
  w.u64(header.before.epoch.value);
  w.u64(header.before.sequence.value);
  w.u64(header.size);
  w.u32(crc32c(out));
  out.resize(segment_header_bytes);
  return out;
}

Result<SegmentHeader> decode_segment_header(ByteView bytes) {
  ByteReader r(bytes);
  const ByteView magic = r.raw(sizeof segment_magic);
  if (!r.ok() || std::memcmp(magic.data(), segment_magic, sizeof segment_magic) != 0)
    return fail(ErrorCode::corrupt, "not a log segment");
  const std::uint32_t version = r.u32();
  if (version != segment_version)
    return fail(ErrorCode::refused, "log segment of version {}; this program reads {}", version, segment_version);
  const std::uint32_t header_bytes = r.u32();
  SegmentHeader h;
  h.number = r.u64();
  h.first_sequence = Sequence(r.u64());
  h.before.epoch = Epoch(r.u64());
  h.before.sequence = Sequence(r.u64());
  h.size = r.u64();
  const std::uint32_t crc = r.u32();
  if (!r.ok() || header_bytes != segment_header_bytes || crc32c(bytes.first(header_used_bytes)) != crc)
    return fail(ErrorCode::corrupt, "the header of a log segment is damaged");
  return h;
}

void encode(const GroupHead& head, std::uint8_t* out) {
  std::uint64_t words[5] = {head.length | static_cast<std::uint64_t>(head.count) << 32, head.first.value,
                            head.last.value, head.synced.value, 0};
  std::memcpy(out + 8, words, sizeof words);
  const std::uint32_t crc = crc32c({out + 8, sizeof words});
  std::memcpy(out, &group_magic, 4);
  std::memcpy(out + 4, &crc, 4);
}

bool decode_group_head(ByteView bytes, GroupHead& head) {
  ByteReader r(bytes);
  const std::uint32_t magic = r.u32(), crc = r.u32();
  if (!r.ok() || magic != group_magic || bytes.size() < group_head_bytes ||
      crc32c(bytes.subspan(8, group_head_bytes - 8)) != crc)
    return false;
  head.length = r.u32();
  head.count = r.u32();
  head.first = Sequence(r.u64());
  head.last = Sequence(r.u64());
  head.synced = Sequence(r.u64());
  return head.length <= max_group_bytes && head.length % 8 == 0 && head.count > 0 &&
         head.last.value - head.first.value + 1 == head.count;
}

}  // namespace holdfast::log
