// SPDX-License-Identifier: Apache-2.0
// Names on Linux are any bytes; JSON, logs and terminals want UTF-8 without control characters. Well-formed as in RFC 3629.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace holdfast {

// Bytes of the well-formed character that begins at `at`, of which there is one byte at least; 0: none does.
inline std::size_t utf8_length(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const unsigned char c = byte(0);
  const std::size_t length = c < 0x80                ? 1
                             : c >= 0xc2 && c < 0xe0 ? 2
                             : c >= 0xe0 && c < 0xf0 ? 3
                             : c >= 0xf0 && c < 0xf5 ? 4
                                                     : 0;
  if (length == 0 || at + length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xc0) != 0x80) return 0;
  // Surrogates and overlong forms.
  if (length == 3 && ((c == 0xed && byte(1) > 0x9f) || (c == 0xe0 && byte(1) < 0xa0))) return 0;
  if (length == 4 && ((c == 0xf0 && byte(1) < 0x90) || (c == 0xf4 && byte(1) > 0x8f))) return 0;
  return length;
}

// The same with control characters counting as none.
inline std::size_t readable_length(std::string_view text, std::size_t at) {
  const auto c = static_cast<unsigned char>(text[at]);
  return c < 0x20 || c == 0x7f ? 0 : utf8_length(text, at);
}

inline bool is_readable(std::string_view text) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = readable_length(text, at);
    if (length == 0) return false;
    at += length;
  }
  return true;
}

// One line for people: what can't be read, and the backslash, as \xNN.
inline std::string readable(std::string_view text) {
  constexpr char digits[] = "0123456789abcdef";
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const auto c = static_cast<unsigned char>(text[at]);
    if (const std::size_t length = c == '\\' ? 0 : readable_length(text, at); length != 0) {
      out += text.substr(at, length);
      at += length;
      continue;
    }
    out += "\\x";
    out += digits[c >> 4];
    out += digits[c & 15];
    ++at;
  }
  return out;
}

}  // namespace holdfast
