// SPDX-License-Identifier: Apache-2.0
// The network fence of R4: a packet filter that lets this node speak as a public address only while the lease holds, without any process
// having to do anything when it ends. The kernel itself hides a node whose daemons hang.
//
// Tables `inet holdfast` and `arp holdfast`. Packets to a public address that arrive here, packets from one that leave
// here, ARP and NDP for one, jump to `gate`: they pass iff set `lease` holds their protocol (elements with a timeout: BOOTTIME-like, stands still in a paused
// machine) AND `meta time` is before an absolute deadline (REALTIME: goes on). Everything else is never touched. Packets *to* an address
// that lives on another node pass, so a passive can ping and use the active's public address.
//
// What holds: open() is the only plain add. renew() replaces element and deadline in one transaction that the kernel refuses when the
// element has expired. The deadline is computed from the reading with which the lease was measured, so a pause between measuring and
// renewing can't lengthen it.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.h"
#include "network/ip_address.h"
#include "platform/clock_reading.h"

namespace holdfast::network {

// What is left of the lease as measured at `at`. 1 ms .. 1 h.
struct GateLease {
  platform::ClockReading at;
  std::int64_t left_ns = 0;
};

class PublicGate {
 public:
  // Needs CAP_NET_ADMIN. Acts on the network namespace of the calling thread.
  static Result<std::unique_ptr<PublicGate>> create();
  ~PublicGate();

  // Makes the tables gate exactly `addresses`. What is open stays open across this (a restarted daemon is not noticed); a fresh table is
  // closed. To be called before any of the addresses is configured.
  Status install(const std::vector<IpAddress>& addresses);
  // Promotion, or the same epoch's lease won again after a lapse; never otherwise.
  Status open(const GateLease& lease);
  // `stale`: it had expired (or was closed, or the tables are gone) and stays closed: resign, or win the epoch again and open().
  Status renew(const GateLease& lease);
  // At once, for all addresses. Idempotent.
  Status close();
  // Deletes the tables: traffic is no longer gated. Only after the addresses are gone.
  Status remove();

  // Are our chains, rules and sets as install() left them? `corrupt` when not: close by install() and close(), or remove the addresses.
  Status verify();
  // Readable when somebody changed any nftables rule. Then call foreign_change().
  int change_fd() const;
  // Reads what happened; true when another process touched our tables (or events were lost): call verify() and act.
  bool foreign_change();

 private:
  struct Impl;
  explicit PublicGate(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast::network
