// SPDX-License-Identifier: Apache-2.0
// Strong types of the domain: an Epoch is not a Sequence, a NodeId is not a length.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>

#include "base/result.h"

namespace holdfast {

template <class Tag>
struct StrongU64 {
  std::uint64_t value = 0;
  constexpr StrongU64() = default;
  constexpr explicit StrongU64(std::uint64_t v) : value(v) {}
  constexpr auto operator<=>(const StrongU64&) const = default;
  constexpr StrongU64 next() const { return StrongU64(value + 1); }
};

using Sequence = StrongU64<
    struct
    SequenceTag>;  // position in the one total order of changes; never reused within an epoch, goes on rising across epochs
using Epoch = StrongU64<struct EpochTag>;    // rises with every change of the active; 0 = none yet
using NodeId = StrongU64<struct NodeIdTag>;  // random, given at init/join, never reused; 0 = nobody

// Where a log stands: epochs first, then sequences. The order in which candidates are compared (R1).
struct Position {
  Epoch epoch;
  Sequence sequence;
  constexpr auto operator<=>(const Position&) const = default;
};

// Number of a protected set within a cluster; addressed in every record. 0 = no set (marks).
using SetNumber = std::uint16_t;

// 128-bit identity of a file, the same on all nodes. All zero = none.
struct FileId {
  std::array<std::uint8_t, 16> bytes{};
  constexpr auto operator<=>(const FileId&) const = default;
  bool is_none() const { return *this == FileId{}; }
  // The root folder of a set has a fixed id, so that nodes agree on it before anything was shipped.
  static FileId root(SetNumber set);
  bool is_root() const;
  std::string to_hex() const;
  static Result<FileId> from_hex(std::string_view text);
};

struct FileIdHash {
  std::size_t operator()(const FileId& id) const noexcept {
    std::uint64_t a = 0, b = 0;
    std::memcpy(&a, id.bytes.data(), 8);
    std::memcpy(&b, id.bytes.data() + 8, 8);
    return static_cast<std::size_t>(a ^ (b * 0x9E3779B97F4A7C15ULL));
  }
};

std::string to_hex(NodeId id);  // 16 digits
Result<NodeId> node_id_from_hex(std::string_view text);

}  // namespace holdfast

template <class Tag>
struct std::hash<holdfast::StrongU64<Tag>> {
  std::size_t operator()(const holdfast::StrongU64<Tag>& v) const noexcept {
    return std::hash<std::uint64_t>{}(v.value);
  }
};
template <>
struct std::hash<holdfast::FileId> : holdfast::FileIdHash {};
