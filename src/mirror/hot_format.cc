// SPDX-License-Identifier: Apache-2.0
#include "mirror/hot_format.h"

#include <cstring>

#include "base/check.h"

namespace holdfast::mirror {
namespace {

constexpr char magic[8] = {'H', 'F', 'H', 'O', 'T', 'S', 'E', 'T'};

}  // namespace

Bytes encode_hot_header(const HotHeader& header, std::uint32_t slots) {
  Bytes out;
  out.reserve(hot_header_bytes);
  ByteWriter w(out);
  w.raw({reinterpret_cast<const std::uint8_t*>(magic), sizeof magic});
  w.u32(hot_version);
  w.u32(slots);
  w.u64(header.serial);
  w.u64(header.epoch.value);
  w.u32(header.released);
  w.u32(header.drawn);
  w.u64(header.covered.epoch.value);
  w.u64(header.covered.sequence.value);
  w.u32(crc32c(out));
  CHECK(out.size() == hot_header_bytes, "a header of the hot set has {} bytes", out.size());
  return out;
}

Result<HotHeader> decode_hot_header(ByteView bytes, std::uint32_t slots) {
  ByteReader r(bytes);
  const ByteView head = r.raw(sizeof magic);
  if (!r.ok() || bytes.size() != hot_header_bytes || std::memcmp(head.data(), magic, sizeof magic) != 0)
    return fail(ErrorCode::corrupt, "not a header of the hot set");
  const std::uint32_t version = r.u32(), has_slots = r.u32();
  HotHeader header;
  header.serial = r.u64();
  header.epoch = Epoch(r.u64());
  header.released = r.u32();
  header.drawn = r.u32();
  header.covered.epoch = Epoch(r.u64());
  header.covered.sequence = Sequence(r.u64());
  if (r.u32() != crc32c(bytes.first(hot_header_bytes - 4)))
    return fail(ErrorCode::corrupt, "a torn header of the hot set");
  if (version != hot_version || has_slots != slots)
    return fail(ErrorCode::refused, "hot set of version {} with {} slots; this program reads version {} with {}",
                version, has_slots, hot_version, slots);
  return header;
}

void encode_hot_slot(std::uint32_t generation, const HotNote& note, std::uint8_t* slot) {
  Bytes out;
  out.reserve(hot_slot_bytes);
  ByteWriter w(out);
  w.u32(generation);
  w.u16(note.set);
  w.u8(static_cast<std::uint8_t>(note.kind));
  w.u8(0);
  w.u32(0);
  w.raw(note.id.bytes);
  w.u32(crc32c(out));
  CHECK(out.size() == hot_slot_bytes, "a slot of the hot set has {} bytes", out.size());
  std::memcpy(slot, out.data(), out.size());
}

std::uint32_t decode_hot_slot(const std::uint8_t* slot, HotNote& note) {
  const ByteView bytes(slot, hot_slot_bytes);
  ByteReader r(bytes);
  const std::uint32_t generation = r.u32();
  if (generation == 0) return 0;
  note.set = r.u16();
  const std::uint8_t kind = r.u8();
  r.u8();
  r.u32();
  const ByteView id = r.raw(note.id.bytes.size());
  std::memcpy(note.id.bytes.data(), id.data(), id.size());
  if (r.u32() != crc32c(bytes.first(hot_slot_bytes - 4))) return 0;
  if (kind < static_cast<std::uint8_t>(HotKind::file) || kind > static_cast<std::uint8_t>(HotKind::set)) return 0;
  note.kind = static_cast<HotKind>(kind);
  return generation;
}

}  // namespace holdfast::mirror
