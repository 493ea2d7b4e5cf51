// SPDX-License-Identifier: Apache-2.0
// Public addresses on this node's interfaces, through rtnetlink. They are added as /32 (/128, deprecated at once): reachable, but never
// the source of our own outgoing traffic (channel, DNS), whatever is added or removed beside them. One thread an object.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "network/ip_address.h"

namespace holdfast::network {

struct InterfaceAddress {
  std::string interface;
  int index = 0;
  IpPrefix prefix;
  bool permanent = true;  // false: it has a finite life (DHCP, router advertisement)
  bool ours = false;      // added by add()
};

struct Interface {
  std::string name;
  int index = 0;
  MacAddress mac{};
  bool up = false;
  bool loopback = false;
  bool arp = true;  // false on tunnels and the like: nothing to probe or announce
};

struct ConflictProbe {
  int count = 3;
  int spacing_ms = 120;  // an answer is awaited for count * spacing_ms; RFC 5227 waits seconds, a failover can't
};

class Addresses {
 public:
  static Result<Addresses> open();
  Addresses(Addresses&&) noexcept;
  Addresses& operator=(Addresses&&) noexcept;
  ~Addresses();

  Result<std::vector<Interface>> interfaces();
  Result<std::vector<InterfaceAddress>> list();

  // The interface with an address in the subnet of `address`, or `wanted` if given and it exists. `not_found` says what to do.
  Result<Interface> interface_for(const IpPrefix& address, const std::string& wanted = {});
  // May this be a public address here? Refuses what DHCP or a router leased to us, and what no interface can carry. Changes nothing.
  // `lease_root` is for tests.
  Status check(const IpPrefix& address, const std::string& wanted = {}, const std::string& lease_root = {});
  // `busy` with the other's hardware address when another host answers for it (ARP probe; NDP). Blocks; works while the gate is closed.
  Status probe_conflict(const IpPrefix& address, const std::string& wanted = {}, ConflictProbe probe = {});

  // Idempotent. add() does not probe and does not announce; when it returns the address is answered for.
  Status add(const IpPrefix& address, const std::string& wanted = {});
  Status remove(const IpPrefix& address);  // from whatever interface carries it
  Result<bool> present(const IpAddress& address);

 private:
  Addresses() = default;
  struct Socket;
  std::unique_ptr<Socket> socket_;
};

}  // namespace holdfast::network
