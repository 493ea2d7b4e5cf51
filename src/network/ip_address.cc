// SPDX-License-Identifier: Apache-2.0
#include "network/ip_address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>

namespace holdfast::network {
namespace {

bool equal_bits(const IpAddress& a, const IpAddress& b, int bits) {
  for (std::size_t i = 0; bits > 0; ++i, bits -= 8) {
    const int mask = bits >= 8 ? 0xff : 0xff << (8 - bits) & 0xff;
    if ((a.bytes[i] & mask) != (b.bytes[i] & mask)) return false;
  }
  return true;
}

// Are all bits after the first `bits` equal to `value`?
bool host_bits_are(const IpAddress& a, int bits, int value) {
  for (int i = bits; i < static_cast<int>(a.size()) * 8; ++i)
    if ((a.bytes[static_cast<std::size_t>(i) / 8] >> (7 - i % 8) & 1) != value) return false;
  return true;
}

Status check_usable(const IpPrefix& p, std::string_view text) {
  const IpAddress& a = p.ip;
  if (host_bits_are(a, 0, 0)) return fail(ErrorCode::invalid, "{} is not an address that clients can use", text);
  const bool loopback = a.v6 ? a == IpAddress::parse("::1").value() : a.bytes[0] == 127;
  if (loopback) return fail(ErrorCode::invalid, "{} is a loopback address: clients can't reach it", text);
  const bool multicast = a.v6 ? a.bytes[0] == 0xff : a.bytes[0] >= 224;
  if (multicast) return fail(ErrorCode::invalid, "{} is a multicast or reserved address", text);
  const bool link_local =
      a.v6 ? a.bytes[0] == 0xfe && (a.bytes[1] & 0xc0) == 0x80 : a.bytes[0] == 169 && a.bytes[1] == 254;
  if (link_local) return fail(ErrorCode::invalid, "{} is link-local: clients behind a router can't reach it", text);
  if (!a.v6 && p.length < 31) {
    if (host_bits_are(a, p.length, 0))
      return fail(ErrorCode::invalid, "{} is the name of the network itself: give a host address in it", text);
    if (host_bits_are(a, p.length, 1))
      return fail(ErrorCode::invalid, "{} is the network's broadcast address: give a host address in it", text);
  }
  return {};
}

}  // namespace

std::string IpAddress::to_string() const {
  char text[INET6_ADDRSTRLEN] = {};
  inet_ntop(v6 ? AF_INET6 : AF_INET, bytes.data(), text, sizeof text);
  return text;
}

Result<IpAddress> IpAddress::parse(std::string_view text) {
  const std::string copy(text);
  IpAddress a;
  a.v6 = copy.find(':') != std::string::npos;
  if (inet_pton(a.v6 ? AF_INET6 : AF_INET, copy.c_str(), a.bytes.data()) != 1)
    return fail(ErrorCode::invalid, "\"{}\" is not an IP address: write 192.0.2.10 or 2001:db8::10", text);
  return a;
}

bool IpPrefix::contains(const IpAddress& other) const { return other.v6 == ip.v6 && equal_bits(ip, other, length); }

std::string IpPrefix::to_string() const { return fmt::format("{}/{}", ip.to_string(), length); }

Result<IpPrefix> IpPrefix::parse(std::string_view text) {
  const std::size_t slash = text.find('/');
  if (slash == std::string_view::npos)
    return fail(ErrorCode::invalid,
                "{} has no prefix length: write it like 192.0.2.10/24 (the length of the clients' subnet)", text);
  IpPrefix p;
  const auto ip = IpAddress::parse(text.substr(0, slash));
  if (!ip) return fail(ErrorCode::invalid, "{}: {}", text, ip.error().message);
  p.ip = *ip;
  const std::string_view length = text.substr(slash + 1);
  const auto [end, ec] = std::from_chars(length.data(), length.data() + length.size(), p.length);
  if (ec != std::errc{} || end != length.data() + length.size() || p.length == 0 || p.length > p.ip.size() * 8)
    return fail(ErrorCode::invalid, "{}: \"{}\" is not a prefix length: 1 to {}", text, length, p.ip.size() * 8);
  HF_TRY(check_usable(p, text));
  return p;
}

}  // namespace holdfast::network
