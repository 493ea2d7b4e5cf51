// SPDX-License-Identifier: Apache-2.0
#include "network/announce.h"

#include <atomic>

#include <gtest/gtest.h>

#include "network/neighbour_frames.h"
#include "network/test_network.h"

namespace holdfast::network {
namespace {

using testing::TwoHosts;
const IpAddress public4 = IpAddress::v4(192, 0, 2, 10);
const IpAddress public6 = IpAddress::parse("2001:db8::10").value();

// Frames seen by the client that claim `address`, until `count` came or the time is up.
int claims_heard(LinkSocket& ear, const IpAddress& address, const MacAddress& mac, int count, int timeout_ms) {
  int heard = 0;
  while (heard < count) {
    const Bytes frame = ear.receive(timeout_ms).value();
    if (frame.empty()) break;
    if (claims(frame, address) == mac) ++heard;
  }
  return heard;
}

LinkSocket ear_of_client(TwoHosts& hosts, bool v6) {
  return hosts.in_client([&] {
    LinkSocket ear = LinkSocket::open().value();
    EXPECT_TRUE(ear.listen(ear.interface("c0")->index, v6));
    return ear;
  });
}

TEST(Announce, NeighboursHearBothFamiliesSeveralTimes) {
  HF_NEEDS_ROOT();
  TwoHosts hosts;
  LinkSocket ear4 = ear_of_client(hosts, false), ear6 = ear_of_client(hosts, true);
  const MacAddress mac = LinkSocket::open()->interface("n0")->mac;
  auto announcer = Announcer::create([] { return true; }).value();
  ASSERT_TRUE(announcer->announce("n0", {public4, public6}, {.at_ms = {0, 30, 60}}));
  EXPECT_EQ(claims_heard(ear4, public4, mac, 6, 500), 6) << "request and reply form, three rounds";
  EXPECT_EQ(claims_heard(ear6, public6, mac, 3, 500), 3);
  EXPECT_EQ(claims_heard(ear4, public4, mac, 1, 150), 0) << "and then no more";
}

TEST(Announce, MovesTheNeighboursEntry) {
  HF_NEEDS_ROOT();
  TwoHosts hosts;
  const std::string mac = to_string(LinkSocket::open()->interface("n0")->mac);
  hosts.in_client([&] {
    for (const char* a : {"192.0.2.10", "2001:db8::10"})
      TwoHosts::ip({"neigh", "add", a, "lladdr", "02:00:00:00:00:99", "dev", "c0", "nud", "stale"});
  });
  auto announcer = Announcer::create([] { return true; }).value();
  ASSERT_TRUE(announcer->announce("n0", {public4, public6}, {.at_ms = {0, 1'200}}));
  std::string table;
  for (int i = 0; i < 200; ++i) {
    table = hosts.in_client([] { return platform::run_checked({.argv = {"ip", "neigh"}}).value_or(""); });
    if (table.find("99") == std::string::npos) break;
  }
  EXPECT_NE(table.find("192.0.2.10 dev c0 lladdr " + mac), std::string::npos) << table;
  EXPECT_NE(table.find("2001:db8::10 dev c0 lladdr " + mac), std::string::npos) << table;
}

TEST(Announce, SaysNothingWithoutTheLease) {
  HF_NEEDS_ROOT();
  TwoHosts hosts;
  LinkSocket ear = ear_of_client(hosts, false);
  const MacAddress mac = LinkSocket::open()->interface("n0")->mac;
  std::atomic<bool> lease = true;
  auto announcer = Announcer::create([&] { return lease.load(); }).value();
  ASSERT_TRUE(announcer->announce("n0", {public4}, {.at_ms = {0, 100, 150}}));
  EXPECT_EQ(claims_heard(ear, public4, mac, 2, 500), 2);
  lease = false;
  EXPECT_EQ(claims_heard(ear, public4, mac, 1, 250), 0) << "pending rounds of a lapsed lease are dropped";
  lease = true;
  ASSERT_TRUE(announcer->announce("n0", {public4}, {.at_ms = {50}}));
  announcer->cancel();
  EXPECT_EQ(claims_heard(ear, public4, mac, 1, 150), 0);
  EXPECT_FALSE(announcer->announce("nope", {public4}));
}

}  // namespace
}  // namespace holdfast::network
