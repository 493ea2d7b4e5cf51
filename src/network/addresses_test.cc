// SPDX-License-Identifier: Apache-2.0
#include "network/addresses.h"

#include <arpa/inet.h>
#include <sys/socket.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>

#include <gtest/gtest.h>

#include "network/test_network.h"

namespace holdfast::network {
namespace {

using testing::TwoHosts;
IpPrefix prefix(const char* text) { return IpPrefix::parse(text).value(); }

// The address that the kernel would put into packets to `to`.
std::string source_towards(const char* to) {
  const IpAddress ip = IpAddress::parse(to).value();
  const platform::UniqueFd fd(socket(ip.v6 ? AF_INET6 : AF_INET, SOCK_DGRAM, 0));
  sockaddr_in6 a{};
  socklen_t size = sizeof a;
  if (ip.v6) {
    a.sin6_family = AF_INET6;
    a.sin6_port = htons(9);
    memcpy(&a.sin6_addr, ip.bytes.data(), 16);
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
  } else {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(9);
    memcpy(&v4.sin_addr, ip.bytes.data(), 4);
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<sockaddr*>(&v4), sizeof v4), 0);
  }
  EXPECT_EQ(getsockname(fd.get(), reinterpret_cast<sockaddr*>(&a), &size), 0);
  IpAddress mine;
  mine.v6 = ip.v6;
  if (ip.v6)
    memcpy(mine.bytes.data(), &a.sin6_addr, 16);
  else
    memcpy(mine.bytes.data(), reinterpret_cast<char*>(&a) + 4, 4);
  return mine.to_string();
}

TEST(Addresses, AddedReachableNotASourceRemoved) {
  HF_NEEDS_ROOT();
  TwoHosts hosts;
  auto addresses = Addresses::open().value();
  for (const char* text : {"192.0.2.10/24", "2001:db8::10/64"}) {
    const IpPrefix p = prefix(text);
    ASSERT_TRUE(addresses.check(p, "", "/nonexistent"));
    ASSERT_TRUE(addresses.probe_conflict(p, "", {.count = 1, .spacing_ms = 30})) << text;
    ASSERT_TRUE(addresses.add(p)) << text;
    ASSERT_TRUE(addresses.add(p)) << "idempotent";
    EXPECT_TRUE(addresses.present(p.ip).value());
    EXPECT_TRUE(hosts.in_client([&] { return testing::ping(p.ip, 1'000); })) << text;
  }
  EXPECT_EQ(source_towards("192.0.2.100"), "192.0.2.1");
  EXPECT_EQ(source_towards("2001:db8::100"), "2001:db8::1");
  for (const char* text : {"192.0.2.10/24", "2001:db8::10/64"}) {
    ASSERT_TRUE(addresses.remove(prefix(text)));
    ASSERT_TRUE(addresses.remove(prefix(text))) << "idempotent";
    EXPECT_FALSE(addresses.present(prefix(text).ip).value());
  }
  const std::vector<InterfaceAddress> left = addresses.list().value();
  const auto link_local = [](const InterfaceAddress& a) { return a.prefix.ip.v6 && a.prefix.ip.bytes[0] == 0xfe; };
  EXPECT_EQ(std::count_if(left.begin(), left.end(), std::not_fn(link_local)), 4)
      << "lo's two and ours: nothing else was touched";
}

TEST(Addresses, AnswersAsSoonAsItWasAdded) {
  HF_NEEDS_ROOT();
  TwoHosts hosts;
  auto addresses = Addresses::open().value();
  for (int round = 0; round < 12; ++round) {
    for (const char* text : {"192.0.2.10/24", "2001:db8::10/64"}) {
      const IpPrefix p = prefix(text);
      ASSERT_TRUE(addresses.add(p));
      // Who asked too early asks again after a second: so half of one tells the difference.
      EXPECT_TRUE(hosts.in_client([&] { return testing::ping(p.ip, 500); })) << text << ", round " << round;
      ASSERT_TRUE(addresses.remove(p));
      hosts.in_client([] { TwoHosts::ip({"neigh", "flush", "dev", "c0"}); });
    }
  }
}

TEST(Addresses, KeepsTheOtherAddressesOfTheSubnetWhenTheFirstGoes) {
  HF_NEEDS_ROOT();
  TwoHosts hosts;
  auto addresses = Addresses::open().value();
  ASSERT_TRUE(addresses.add(prefix("192.0.2.10/24")));
  TwoHosts::ip({"address", "del", "192.0.2.1/24", "dev", "n0"});  // a /24 secondary would go with it
  EXPECT_TRUE(addresses.present(IpAddress::v4(192, 0, 2, 10)).value());
}

TEST(Addresses, RefusesWithTheReason) {
  HF_NEEDS_ROOT();
  TwoHosts hosts;
  auto addresses = Addresses::open().value();
  Status s = addresses.check(prefix("198.51.100.10/24"));
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().code, ErrorCode::not_found);
  EXPECT_NE(s.error().message.find("no interface of this node has an address in 198.51.100.0/24"), std::string::npos)
      << s.error().message;
  EXPECT_FALSE(addresses.check(prefix("198.51.100.10/24"), "nope"));
  EXPECT_TRUE(addresses.check(prefix("198.51.100.10/24"), "n0")) << "named by the administrator";

  TwoHosts::ip({"address", "add", "192.0.2.20/24", "dev", "n0", "valid_lft", "600", "preferred_lft", "300"});
  s = addresses.check(prefix("192.0.2.20/24"));
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().code, ErrorCode::refused);
  EXPECT_NE(s.error().message.find("DHCP"), std::string::npos);

  const std::filesystem::path root =
      std::filesystem::temp_directory_path() / ("hf_addresses_" + std::to_string(getpid()));
  std::filesystem::create_directories(root / "var/lib/dhcp");
  std::ofstream(root / "var/lib/dhcp/dhclient.n0.leases")
      << "lease {\n  interface \"n0\";\n  fixed-address 192.0.2.30;\n}\n";
  s = addresses.check(prefix("192.0.2.30/24"), "", root.string());
  ASSERT_FALSE(s);
  EXPECT_NE(s.error().message.find("dhclient"), std::string::npos);
  EXPECT_TRUE(addresses.check(prefix("192.0.2.3/24"), "", root.string()))
      << "another address, though its text begins alike";
  std::filesystem::remove_all(root);
}

TEST(Addresses, FindsAnotherHostThatUsesIt) {
  HF_NEEDS_ROOT();
  TwoHosts hosts;
  auto addresses = Addresses::open().value();
  for (const char* text : {"192.0.2.100/24", "2001:db8::100/64"}) {
    const Status s = addresses.probe_conflict(prefix(text), "", {.count = 2, .spacing_ms = 200});
    ASSERT_FALSE(s) << text;
    EXPECT_EQ(s.error().code, ErrorCode::busy);
    EXPECT_NE(s.error().message.find("in use by another host"), std::string::npos) << s.error().message;
  }
}

}  // namespace
}  // namespace holdfast::network
