// SPDX-License-Identifier: Apache-2.0
// IP addresses and prefixes as values.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace holdfast::network {

struct IpAddress {
  bool v6 = false;
  std::array<std::uint8_t, 16> bytes{};  // network order; v4 uses the first 4
  constexpr auto operator<=>(const IpAddress&) const = default;
  std::size_t size() const { return v6 ? 16 : 4; }
  std::string to_string() const;
  static Result<IpAddress> parse(std::string_view text);
  static IpAddress v4(std::uint8_t a, std::uint8_t b, std::uint8_t c, std::uint8_t d) { return {false, {a, b, c, d}}; }
};

struct IpPrefix {
  IpAddress ip;
  std::uint8_t length = 0;
  constexpr auto operator<=>(const IpPrefix&) const = default;
  bool contains(const IpAddress& other) const;
  std::string to_string() const;
  // "192.0.2.10/24"; the host bits are kept. A missing length, host bits of the network's own or broadcast address, multicast, loopback
  // and link-local are refused.
  static Result<IpPrefix> parse(std::string_view text);
};

using MacAddress = std::array<std::uint8_t, 6>;

}  // namespace holdfast::network
