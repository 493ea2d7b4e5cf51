// SPDX-License-Identifier: Apache-2.0
// Tells the neighbours where a public address lives now: gratuitous ARP (request and reply form) and unsolicited neighbour advertisements
// with the override flag, repeated a few times by a background thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "network/ip_address.h"

namespace holdfast::network {

struct AnnouncePlan {
  // Delays after announce(); the later ones are for switches and hosts that were busy or rebooting.
  std::vector<int> at_ms = {0, 50, 200, 500, 1'000, 2'000, 5'000, 10'000};
};

class Announcer {
 public:
  // `allowed` is asked right before every packet and must be cheap (the lease is valid): packets of an AF_PACKET socket pass no gate, and a
  // process that was stopped and goes on must not claim an address that moved on. Called from the announcer's thread.
  static Result<std::unique_ptr<Announcer>> create(std::function<bool()> allowed);
  ~Announcer();

  // Returns at once; the first round is sent by the thread immediately. A later call for the same address starts its plan afresh.
  Status announce(const std::string& interface, const std::vector<IpAddress>& addresses, AnnouncePlan plan = {});
  // Forgets all that is pending. After it returns nothing more is sent.
  void cancel();

 private:
  struct Impl;
  explicit Announcer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace holdfast::network
