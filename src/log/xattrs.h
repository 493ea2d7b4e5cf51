// SPDX-License-Identifier: Apache-2.0
// The list of extended attributes that creates and ship_node carry as payload: varint count, then for each: name (text), value (bytes).
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"

namespace holdfast::log {

// Views into memory of whoever made the list, or into the payload it was decoded from.
struct Xattr {
  std::string_view name;
  ByteView value;
};

// Appends to `out`. An empty list is encoded as nothing at all.
void encode_xattrs(std::span<const Xattr> list, Bytes& out);
// Error: corrupt. An empty payload is an empty list.
Result<std::vector<Xattr>> decode_xattrs(ByteView payload);

}  // namespace holdfast::log
