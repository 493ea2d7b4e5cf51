// SPDX-License-Identifier: Apache-2.0
#include "base/types.h"

#include <algorithm>

#include <fmt/format.h>

namespace holdfast {
namespace {

constexpr std::array<std::uint8_t, 14> root_marker = {'h', 'o', 'l', 'd', 'f', 'a', 's',
                                                      't', '-', 'r', 'o', 'o', 't', 0};

int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

}  // namespace

FileId FileId::root(SetNumber set) {
  FileId id;
  std::copy(root_marker.begin(), root_marker.end(), id.bytes.begin());
  id.bytes[14] = static_cast<std::uint8_t>(set >> 8);
  id.bytes[15] = static_cast<std::uint8_t>(set & 0xff);
  return id;
}

bool FileId::is_root() const { return std::equal(root_marker.begin(), root_marker.end(), bytes.begin()); }

std::string FileId::to_hex() const {
  std::string out;
  for (auto b : bytes) out += fmt::format("{:02x}", b);
  return out;
}

Result<FileId> FileId::from_hex(std::string_view text) {
  FileId id;
  if (text.size() != 32) return fail(ErrorCode::invalid, "a file id has 32 hex digits, not {}", text.size());
  for (std::size_t i = 0; i < 16; ++i) {
    const int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return fail(ErrorCode::invalid, "not a file id: {}", text);
    id.bytes[i] = static_cast<std::uint8_t>(high * 16 + low);
  }
  return id;
}

std::string to_hex(NodeId id) { return fmt::format("{:016x}", id.value); }

Result<NodeId> node_id_from_hex(std::string_view text) {
  std::uint64_t v = 0;
  if (text.size() != 16) return fail(ErrorCode::invalid, "a node id has 16 hex digits, not {}", text.size());
  for (char c : text) {
    const int d = digit(c);
    if (d < 0) return fail(ErrorCode::invalid, "not a node id: {}", text);
    v = v * 16 + static_cast<std::uint64_t>(d);
  }
  return NodeId(v);
}

}  // namespace holdfast
