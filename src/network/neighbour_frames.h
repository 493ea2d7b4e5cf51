// SPDX-License-Identifier: Apache-2.0
// The Ethernet frames of address ownership, ARP (RFC 826, 5227) and neighbour discovery (RFC 4861), and a socket that sends and hears them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/bytes.h"
#include "base/result.h"
#include "network/ip_address.h"
#include "platform/unique_fd.h"

namespace holdfast::network {

// "I have it": a gratuitous ARP request or reply (switches and hosts differ in which they believe), an unsolicited advertisement.
Bytes gratuitous_arp(const MacAddress& mac, const IpAddress& v4, bool reply);
Bytes unsolicited_advertisement(const MacAddress& mac, const IpAddress& v6);
// "Has anyone?", without saying that we would: a probe with sender 0.0.0.0, a solicitation from ::.
Bytes ownership_probe(const MacAddress& mac, const IpAddress& address);

// The hardware address of whoever says in `frame` that `address` is theirs.
std::optional<MacAddress> claims(ByteView frame, const IpAddress& address);

std::string to_string(const MacAddress& mac);

struct LinkInfo {
  int index = 0;
  MacAddress mac{};
  bool ethernet = false;
};

// An AF_PACKET socket in the network namespace of the thread that opened it.
class LinkSocket {
 public:
  static Result<LinkSocket> open();
  Result<LinkInfo> interface(const std::string& name) const;
  // From now on frames of ARP (v6 false) or IPv6 that arrive on the interface can be received; our own are left out.
  Status listen(int index, bool v6);
  Status send(int index, ByteView frame) const;
  // The next frame, or an empty one after timeout_ms.
  Result<Bytes> receive(int timeout_ms) const;

 private:
  platform::UniqueFd fd_;
};

}  // namespace holdfast::network
