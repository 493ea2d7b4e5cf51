// SPDX-License-Identifier: Apache-2.0
// One prober for all pings: ICMP and ICMPv6 echo to many targets at their own pace, from one thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "base/result.h"
#include "network/ip_address.h"

namespace holdfast::network {

struct ProbeResult {
  IpAddress target;
  bool answered = false;
  double rtt_ms = 0;                // when answered
  std::uint32_t silent_rounds = 0;  // consecutive rounds without an answer, this one included
  std::string error;                // "network is unreachable": why it could not even be sent
};

class Prober {
 public:
  using TargetId = std::uint64_t;
  using Callback = std::function<void(const ProbeResult&)>;

  // Needs CAP_NET_RAW, or a group inside net.ipv4.ping_group_range. Sockets live in the network namespace of the calling thread.
  static Result<std::unique_ptr<Prober>> create();
  ~Prober();  // no callback runs after it

  // First ping at once, then every interval_ms (>= 10); each round ends with one callback, on the prober's thread: it must only hand over.
  TargetId add(const IpAddress& target, int interval_ms, int timeout_ms, Callback callback);
  // No callback for it after the return (unless called from a callback of its own).
  void remove(TargetId id);

 private:
  struct Impl;
  explicit Prober(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast::network
