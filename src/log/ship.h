// SPDX-License-Identifier: Apache-2.0
// The payload of ship_dir: entries {id 16 bytes, type bits of mode as varint, name with varint length}, one after the other.
#pragma once

#include <optional>
#include <string_view>

#include "base/bytes.h"
#include "base/types.h"

namespace holdfast::log {

constexpr std::size_t max_ship_entries = 400;  // of one chunk
constexpr std::size_t max_ship_entry_bytes = 16 + 3 + 2 + 255;

struct ShipEntry {
  FileId id;
  std::uint32_t mode = 0;  // type bits
  std::string_view name;
};

void append_ship_entry(Bytes& payload, const ShipEntry& entry);

class ShipEntryReader {
 public:
  explicit ShipEntryReader(ByteView payload) : in_(payload) {}
  // nullopt: the end. ErrorCode::corrupt: not a listing.
  Result<std::optional<ShipEntry>> next();

 private:
  ByteReader in_;
};

}  // namespace holdfast::log
