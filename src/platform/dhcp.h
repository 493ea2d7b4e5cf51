// SPDX-License-Identifier: Apache-2.0
// Finds out whether an address is leased by DHCP, from the lease files of the usual clients. Pure file reading; any thread.
#pragma once

#include <optional>
#include <string>

namespace holdfast::platform {

// The client and file that hold a lease for `address` ("dhclient (/var/lib/dhcp/dhclient.eth0.leases)"), or nullopt. `root` for tests.
std::optional<std::string> dhcp_lease_of(const std::string& address, const std::string& root = "");

}  // namespace holdfast::platform
