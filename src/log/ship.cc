// SPDX-License-Identifier: Apache-2.0
#include "log/ship.h"

#include <algorithm>

namespace holdfast::log {

void append_ship_entry(Bytes& payload, const ShipEntry& entry) {
  ByteWriter w(payload);
  w.raw(entry.id.bytes);
  w.varint(entry.mode);
  w.text(entry.name);
}

Result<std::optional<ShipEntry>> ShipEntryReader::next() {
  if (in_.left() == 0) return std::optional<ShipEntry>{};
  ShipEntry e;
  const ByteView id = in_.raw(e.id.bytes.size());
  if (in_.ok()) std::copy(id.begin(), id.end(), e.id.bytes.begin());
  const std::uint64_t mode = in_.varint();
  e.mode = static_cast<std::uint32_t>(mode);
  e.name = in_.text();
  const bool name_ok = !e.name.empty() && e.name.size() <= 255 && e.name != "." && e.name != ".." &&
                       e.name.find('/') == std::string_view::npos && e.name.find('\0') == std::string_view::npos;
  if (!in_.ok() || mode > 0xffffffffU || e.id.is_none() || !name_ok)
    return fail(ErrorCode::corrupt, "a shipped listing is malformed");
  return std::optional<ShipEntry>(e);
}

}  // namespace holdfast::log
