// SPDX-License-Identifier: Apache-2.0
#include "network/neighbour_frames.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <linux/if_ether.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

namespace holdfast::network {
namespace {

constexpr MacAddress broadcast = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
constexpr MacAddress nobody = {};
constexpr std::size_t ethernet_size = 14;
constexpr std::size_t ipv6_size = 40;
constexpr std::uint8_t neighbour_solicitation = 135;
constexpr std::uint8_t neighbour_advertisement = 136;
constexpr std::uint8_t override_flag = 0x20;
constexpr std::uint8_t target_link_option = 2;

void put(Bytes& out, ByteView part) { out.insert(out.end(), part.begin(), part.end()); }
void put16(Bytes& out, unsigned v) {
  out.push_back(static_cast<std::uint8_t>(v >> 8));
  out.push_back(static_cast<std::uint8_t>(v));
}

Bytes ethernet(const MacAddress& to, const MacAddress& from, std::uint16_t type) {
  Bytes f;
  put(f, to);
  put(f, from);
  put16(f, type);
  return f;
}

Bytes arp(const MacAddress& mac, unsigned operation, const IpAddress& sender, const MacAddress& target_mac,
          const IpAddress& target) {
  Bytes f = ethernet(broadcast, mac, ETH_P_ARP);
  put16(f, ARPHRD_ETHER);
  put16(f, ETH_P_IP);
  f.push_back(6);
  f.push_back(4);
  put16(f, operation);
  put(f, mac);
  put(f, ByteView(sender.bytes).first(4));
  put(f, target_mac);
  put(f, ByteView(target.bytes).first(4));
  f.resize(std::max<std::size_t>(f.size(), ETH_ZLEN));  // some drivers do not pad
  return f;
}

std::uint16_t ones_complement_sum(ByteView data, std::uint32_t sum = 0) {
  for (std::size_t i = 0; i < data.size(); i += 2)
    sum += static_cast<std::uint32_t>(data[i] << 8 | (i + 1 < data.size() ? data[i + 1] : 0));
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(sum);
}

Bytes icmpv6(const MacAddress& mac, const IpAddress& from, const IpAddress& to, const Bytes& message) {
  // Multicast maps to 33:33 and the last four bytes of the address (RFC 2464).
  MacAddress to_mac = {0x33, 0x33};
  std::copy(to.bytes.end() - 4, to.bytes.end(), to_mac.begin() + 2);
  Bytes f = ethernet(to_mac, mac, ETH_P_IPV6);
  const Bytes start = {0x60, 0, 0, 0};
  put(f, start);
  put16(f, static_cast<unsigned>(message.size()));
  f.push_back(IPPROTO_ICMPV6);
  f.push_back(255);  // RFC 4861: anything else came through a router and is ignored
  put(f, from.bytes);
  put(f, to.bytes);
  Bytes pseudo;
  put(pseudo, from.bytes);
  put(pseudo, to.bytes);
  const Bytes tail = {0,
                      0,
                      static_cast<std::uint8_t>(message.size() >> 8),
                      static_cast<std::uint8_t>(message.size()),
                      0,
                      0,
                      0,
                      IPPROTO_ICMPV6};
  put(pseudo, tail);
  put(pseudo, message);
  const auto checksum = static_cast<std::uint16_t>(~ones_complement_sum(pseudo));
  Bytes filled = message;
  filled[2] = static_cast<std::uint8_t>(checksum >> 8);
  filled[3] = static_cast<std::uint8_t>(checksum);
  put(f, filled);
  return f;
}

IpAddress all_nodes() { return {true, {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}}; }
IpAddress solicited_node(const IpAddress& a) {
  return {true, {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a.bytes[13], a.bytes[14], a.bytes[15]}};
}

std::optional<MacAddress> arp_claim(ByteView f, const IpAddress& address) {
  if (f.size() < ethernet_size + 28) return std::nullopt;
  if (!std::equal(address.bytes.begin(), address.bytes.begin() + 4, f.begin() + ethernet_size + 14))
    return std::nullopt;  // sender address
  MacAddress mac;
  std::copy_n(f.begin() + ethernet_size + 8, mac.size(), mac.begin());
  return mac;
}

std::optional<MacAddress> advertisement_claim(ByteView f, const IpAddress& address) {
  if (f.size() < ethernet_size + ipv6_size + 24 || f[ethernet_size + 6] != IPPROTO_ICMPV6) return std::nullopt;
  const ByteView message = f.subspan(ethernet_size + ipv6_size);
  if (message[0] != neighbour_advertisement ||
      !std::equal(address.bytes.begin(), address.bytes.end(), message.begin() + 8))
    return std::nullopt;
  MacAddress mac;
  std::copy_n(f.begin() + 6, mac.size(), mac.begin());
  return mac;
}

}  // namespace

Bytes gratuitous_arp(const MacAddress& mac, const IpAddress& v4, bool reply) {
  return arp(mac, reply ? ARPOP_REPLY : ARPOP_REQUEST, v4, reply ? broadcast : nobody, v4);
}

Bytes unsolicited_advertisement(const MacAddress& mac, const IpAddress& v6) {
  Bytes m = {neighbour_advertisement, 0, 0, 0, override_flag, 0, 0, 0};
  put(m, v6.bytes);
  m.push_back(target_link_option);
  m.push_back(1);  // in units of 8 bytes
  put(m, mac);
  return icmpv6(mac, v6, all_nodes(), m);
}

Bytes ownership_probe(const MacAddress& mac, const IpAddress& address) {
  if (!address.v6) return arp(mac, ARPOP_REQUEST, IpAddress{}, nobody, address);
  Bytes m = {neighbour_solicitation, 0, 0, 0, 0, 0, 0, 0};
  put(m, address.bytes);
  return icmpv6(mac, IpAddress{true, {}}, solicited_node(address), m);
}

std::optional<MacAddress> claims(ByteView frame, const IpAddress& address) {
  if (frame.size() < ethernet_size) return std::nullopt;
  const unsigned type = static_cast<unsigned>(frame[12] << 8 | frame[13]);
  if (type == ETH_P_ARP && !address.v6) return arp_claim(frame, address);
  if (type == ETH_P_IPV6 && address.v6) return advertisement_claim(frame, address);
  return std::nullopt;
}

std::string to_string(const MacAddress& m) {
  return fmt::format("{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", m[0], m[1], m[2], m[3], m[4], m[5]);
}

Result<LinkSocket> LinkSocket::open() {
  LinkSocket s;
  s.fd_.reset(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));  // protocol 0: hears nothing until listen()
  if (!s.fd_) return fail_errno(errno, "cannot send to the local network (CAP_NET_RAW is needed)");
  return s;
}

Result<LinkInfo> LinkSocket::interface(const std::string& name) const {
  ifreq request{};
  if (name.size() >= sizeof request.ifr_name)
    return fail(ErrorCode::invalid, "{} is too long for the name of an interface", name);
  std::copy(name.begin(), name.end(), request.ifr_name);
  LinkInfo info;
  if (ioctl(fd_.get(), SIOCGIFINDEX, &request) != 0) return fail_errno(errno, "cannot find the interface {}", name);
  info.index = request.ifr_ifindex;
  if (ioctl(fd_.get(), SIOCGIFHWADDR, &request) != 0)
    return fail_errno(errno, "cannot find the hardware address of {}", name);
  info.ethernet = request.ifr_hwaddr.sa_family == ARPHRD_ETHER;
  std::memcpy(info.mac.data(), request.ifr_hwaddr.sa_data, info.mac.size());
  return info;
}

Status LinkSocket::listen(int index, bool v6) {
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(v6 ? ETH_P_IPV6 : ETH_P_ARP);
  address.sll_ifindex = index;
  if (bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return fail_errno(errno, "cannot listen to the local network");
  return {};
}

Status LinkSocket::send(int index, ByteView frame) const {
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_ifindex = index;
  to.sll_halen = 6;
  std::copy_n(frame.begin(), 6, to.sll_addr);
  if (sendto(fd_.get(), frame.data(), frame.size(), 0, reinterpret_cast<sockaddr*>(&to), sizeof to) < 0)
    return fail_errno(errno, "cannot send to the local network");
  return {};
}

Result<Bytes> LinkSocket::receive(int timeout_ms) const {
  using clock = std::chrono::steady_clock;
  const auto deadline = clock::now() + std::chrono::milliseconds(timeout_ms);
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - clock::now()).count();
    pollfd p{fd_.get(), POLLIN, 0};
    const int ready = left > 0 ? poll(&p, 1, static_cast<int>(left)) : 0;
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return Bytes{};
    Bytes frame(2048);
    sockaddr_ll from{};
    socklen_t size = sizeof from;
    const ssize_t n = recvfrom(fd_.get(), frame.data(), frame.size(), 0, reinterpret_cast<sockaddr*>(&from), &size);
    if (n < 0) return fail_errno(errno, "cannot read from the local network");
    if (from.sll_pkttype == PACKET_OUTGOING) continue;
    frame.resize(static_cast<std::size_t>(n));
    return frame;
  }
}

}  // namespace holdfast::network
