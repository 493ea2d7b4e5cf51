// SPDX-License-Identifier: Apache-2.0
// The public addresses of this node and the gate before them (R4): appears on the active, is hidden everywhere else.
// The gate is renewed from a thread of its own, newest lease only. close_now() is for the loop: it takes a few milliseconds
// and returns when the kernel lets nothing through any more.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/types.h"
#include "network/addresses.h"
#include "network/announce.h"
#include "network/public_gate.h"

namespace holdfast::daemon {

class NetworkIdentity {
 public:
  struct Events {
    std::function<bool(Epoch)> lease_valid;         // cheap, any thread
    std::function<void(std::string text)> trouble;  // one line for the event log; from the gate's thread
  };
  // Without the rights or kernel parts for a gate there is no network identity: an error.
  static Result<std::unique_ptr<NetworkIdentity>> create(Events events);
  ~NetworkIdentity();

  // The addresses that may appear here. Those that went are taken off the interfaces; an open gate stays open. Any thread.
  Status configure(const std::vector<network::IpPrefix>& addresses);
  // Opens the gate for as long as `lease` says and adds and announces the addresses. Idempotent. Blocks for milliseconds.
  Status appear(Epoch epoch, const network::GateLease& lease);
  // Closes the gate, takes the addresses off. Idempotent.
  Status hide();
  // A daemon that restarted within its lease takes over what is there.
  void adopt(Epoch epoch);

  void renew(Epoch epoch, const network::GateLease& lease);  // never blocks
  void close_now();

  bool open() const;
  std::vector<std::string> addresses_here();  // those that are configured on an interface now

 private:
  explicit NetworkIdentity(Events events) : events_(std::move(events)) {}
  void run();
  void renew_gate(Epoch epoch, const network::GateLease& lease);
  void look_for_foreign_changes();
  Status add_all();

  const Events events_;
  int wake_fd_ = -1;
  mutable std::mutex gate_mutex_;  // held for one kernel transaction at a time
  std::unique_ptr<network::PublicGate> gate_;
  Epoch open_epoch_;  // 0 = closed by us
  std::optional<network::GateLease> last_lease_;
  std::string last_trouble_;

  std::mutex address_mutex_;
  std::optional<network::Addresses> links_;
  std::vector<network::IpPrefix> addresses_;
  std::unique_ptr<network::Announcer> announcer_;

  std::mutex renew_mutex_;
  std::optional<std::pair<Epoch, network::GateLease>> renew_next_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace holdfast::daemon
