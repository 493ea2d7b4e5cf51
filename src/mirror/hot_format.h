// SPDX-License-Identifier: Apache-2.0
// The file of the hot set (docs/formats/hot.md): fixed slots that are only ever overwritten, so that a note costs one small write and one sync of
// data, and no commit of the file system's journal. What a crash tears is an empty slot or an older header, never a wrong note.
//
//   0        4096      8192                      8192 + 32 * slots           8192 + 64 * slots
//   +--------+---------+-------------------------+---------------------------+
//   | header | header  | slots, even generations | slots, odd generations    |
//   +--------+---------+-------------------------+---------------------------+
#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/types.h"

namespace holdfast::mirror {

enum class HotKind : std::uint8_t {
  file = 1,    // attributes and contents of one object
  folder = 2,  // attributes and listing of one folder
  block = 3,   // all objects whose id is this one but for bytes 6 and 7: those made in this generation
  set = 4,     // all of a set
};
struct HotNote {
  HotKind kind = HotKind::file;
  SetNumber set = 0;  // 0: of a block
  FileId id;          // none: of a set
  bool operator==(const HotNote&) const = default;
};
struct HotNoteHash {
  std::size_t operator()(const HotNote& note) const noexcept {
    return FileIdHash{}(note.id) ^
           (std::size_t{note.set} << 8 | static_cast<std::size_t>(note.kind)) * 0x9E3779B97F4A7C15ULL;
  }
};

struct HotHeader {
  std::uint64_t serial = 0;    // the higher of the two counts
  Epoch epoch;                 // that the notes are about; 0: of none
  std::uint32_t released = 0;  // notes of this generation and of older ones are over
  std::uint32_t drawn = 0;     // at random when the epoch began; 0: by a program that did not mark its trees
  Position covered;            // everything up to here is on the disk below and at the peers, but for what is noted
};

// What each tree carries that the notes speak of: it is at least as far as notes up to `released` being dropped asks for (tree_marks.h).
struct HotMark {
  Epoch epoch;
  std::uint32_t drawn = 0;  // not 0
  std::uint32_t released = 0;
};

constexpr std::uint32_t hot_version = 1;
constexpr std::size_t hot_header_spacing = 4096, hot_header_bytes = 60, hot_slot_bytes = 32;
constexpr std::size_t hot_file_bytes(std::uint32_t slots) {
  return 2 * hot_header_spacing + 2 * std::size_t{slots} * hot_slot_bytes;
}
constexpr std::uint64_t hot_slot_offset(std::uint32_t slots, std::uint32_t generation, std::uint32_t slot) {
  return 2 * hot_header_spacing + ((generation & 1) * std::uint64_t{slots} + slot) * hot_slot_bytes;
}

Bytes encode_hot_header(const HotHeader& header, std::uint32_t slots);
// ErrorCode::corrupt: torn or never written. ErrorCode::refused: of a later version, or of another size.
Result<HotHeader> decode_hot_header(ByteView bytes, std::uint32_t slots);
void encode_hot_slot(std::uint32_t generation, const HotNote& note, std::uint8_t* slot);
// The generation of the note; 0: empty, torn, or nothing this program knows how to read.
std::uint32_t decode_hot_slot(const std::uint8_t* slot, HotNote& note);

}  // namespace holdfast::mirror
