// SPDX-License-Identifier: Apache-2.0
#include "network/ip_address.h"

#include <gtest/gtest.h>

namespace holdfast::network {
namespace {

TEST(IpPrefix, ReadsWhatPeopleWrite) {
  EXPECT_EQ(IpPrefix::parse("192.0.2.10/24")->to_string(), "192.0.2.10/24");
  EXPECT_EQ(IpPrefix::parse("2001:DB8:0::10/64")->to_string(), "2001:db8::10/64");
  EXPECT_TRUE(IpPrefix::parse("192.0.2.10/31"));
}

TEST(IpPrefix, SaysWhatIsWrong) {
  const std::pair<const char*, const char*> wrong[] = {
      {"192.0.2.10", "no prefix length"},
      {"192.0.2.10/33", "not a prefix length"},
      {"192.0.2.10/", "not a prefix length"},
      {"192.0.2.10/24x", "not a prefix"},
      {"192.0.2/24", "not an IP address"},
      {"", "no prefix length"},
      {"192.0.2.0/24", "network itself"},
      {"192.0.2.255/24", "broadcast"},
      {"127.0.0.1/8", "loopback"},
      {"224.0.0.1/24", "multicast"},
      {"169.254.1.1/16", "link-local"},
      {"fe80::1/64", "link-local"},
      {"::1/128", "loopback"},
      {"ff02::1/64", "multicast"},
      {"0.0.0.0/8", "not an address that clients"},
      {"2001:db8::10/129", "not a prefix"},
  };
  for (const auto& [text, why] : wrong) {
    const auto p = IpPrefix::parse(text);
    ASSERT_FALSE(p) << text;
    EXPECT_NE(p.error().message.find(why), std::string::npos) << text << ": " << p.error().message;
    EXPECT_EQ(p.error().message.find('\n'), std::string::npos);
  }
}

TEST(IpPrefix, Contains) {
  const IpPrefix p = IpPrefix::parse("10.1.128.1/17").value();
  EXPECT_TRUE(p.contains(IpAddress::v4(10, 1, 255, 9)));
  EXPECT_FALSE(p.contains(IpAddress::v4(10, 1, 127, 9)));
  EXPECT_FALSE(p.contains(IpAddress::parse("2001:db8::1").value()));
}

}  // namespace
}  // namespace holdfast::network
