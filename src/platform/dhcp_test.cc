// SPDX-License-Identifier: Apache-2.0
#include "platform/dhcp.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

namespace holdfast::platform {
namespace {

TEST(Dhcp, FindsLeasesOfTheUsualClients) {
  namespace fs = std::filesystem;
  const fs::path root = fs::temp_directory_path() / ("hf_dhcp_" + std::to_string(getpid()));
  const auto file = [&](const char* name, const char* text) {
    fs::create_directories((root / name).parent_path());
    std::ofstream(root / name) << text;
  };
  file("var/lib/dhcp/dhclient.eth0.leases", "lease {\n  fixed-address 10.0.0.12;\n}\n");
  file("var/lib/dhcp/dhclient6.eth0.leases", "lease6 { ia-na { iaaddr 2001:db8::5 {\n");
  file("run/systemd/netif/leases/2", "# private\nADDRESS=10.0.0.13\nNETMASK=255.255.255.0\n");
  file("var/lib/NetworkManager/internal-x.lease", "ADDRESS=10.0.0.14\n");
  EXPECT_NE(dhcp_lease_of("10.0.0.12", root)->find("dhclient ("), std::string::npos);
  EXPECT_TRUE(dhcp_lease_of("2001:db8::5", root));
  EXPECT_NE(dhcp_lease_of("10.0.0.13", root)->find("systemd-networkd ("), std::string::npos);
  EXPECT_TRUE(dhcp_lease_of("10.0.0.14", root));
  EXPECT_FALSE(dhcp_lease_of("10.0.0.1", root));
  EXPECT_FALSE(dhcp_lease_of("255.255.255.0", root));
  fs::remove_all(root);
  EXPECT_FALSE(dhcp_lease_of("10.0.0.12", root));
}

}  // namespace
}  // namespace holdfast::platform
