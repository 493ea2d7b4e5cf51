// SPDX-License-Identifier: Apache-2.0
#include "network/public_gate.h"

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <functional>

#include <gtest/gtest.h>

#include "network/addresses.h"
#include "network/neighbour_frames.h"
#include "network/test_network.h"

namespace holdfast::network {
namespace {

using clock = std::chrono::steady_clock;
using testing::TwoHosts;
constexpr std::int64_t ms = 1'000'000;
const IpPrefix public4 = IpPrefix::parse("192.0.2.10/24").value();
const IpPrefix public6 = IpPrefix::parse("2001:db8::10/64").value();

GateLease lease(std::int64_t left_ms) { return {platform::read_clocks(), left_ms * ms}; }

class PublicGateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    HF_NEEDS_ROOT();
    hosts.emplace();
    gate = PublicGate::create().value();
    ASSERT_TRUE(gate->install({public4.ip, public6.ip}));
    addresses.emplace(Addresses::open().value());
    ASSERT_TRUE(addresses->add(public4));
    ASSERT_TRUE(addresses->add(public6));
  }
  // Neighbours already know where it is, so that ping tests the IP rules and not ARP.
  void introduce() {
    const std::string mac = to_string(LinkSocket::open()->interface("n0")->mac);
    hosts->in_client([&] {
      for (const IpPrefix* p : {&public4, &public6})
        TwoHosts::ip({"neigh", "replace", p->ip.to_string(), "lladdr", mac, "dev", "c0", "nud", "permanent"});
    });
  }
  bool client_reaches(const IpAddress& a) {
    return hosts->in_client([&] { return testing::ping(a); });
  }
  bool client_is_answered(const IpPrefix& p) {  // ARP, NDP
    return hosts->in_client([&] {
      auto a = Addresses::open().value();
      const Status s = a.probe_conflict(p, "c0", {.count = 1, .spacing_ms = 120});
      return !s && s.error().code == ErrorCode::busy;
    });
  }
  bool changed_by_others(int timeout_ms) {
    pollfd p{gate->change_fd(), POLLIN, 0};
    return poll(&p, 1, timeout_ms) == 1 && gate->foreign_change();
  }

  std::optional<TwoHosts> hosts;
  std::unique_ptr<PublicGate> gate;
  std::optional<Addresses> addresses;
};

TEST_F(PublicGateTest, ClosedFromTheStartAndSilent) {
  introduce();
  for (const IpPrefix* p : {&public4, &public6}) {
    EXPECT_FALSE(client_reaches(p->ip)) << p->to_string();
    EXPECT_FALSE(client_is_answered(*p)) << p->to_string();
  }
  EXPECT_TRUE(client_reaches(IpAddress::v4(192, 0, 2, 1))) << "other addresses are not touched";
  EXPECT_TRUE(client_reaches(IpAddress::parse("2001:db8::1").value()));
}

TEST_F(PublicGateTest, OpensAndClosesForBothFamilies) {
  ASSERT_TRUE(gate->open(lease(5'000)));
  for (const IpPrefix* p : {&public4, &public6}) {
    EXPECT_TRUE(client_is_answered(*p)) << p->to_string();
    EXPECT_TRUE(client_reaches(p->ip)) << p->to_string();
  }
  ASSERT_TRUE(gate->close());
  ASSERT_TRUE(gate->close()) << "idempotent";
  for (const IpPrefix* p : {&public4, &public6}) {
    EXPECT_FALSE(client_is_answered(*p)) << p->to_string();
    EXPECT_FALSE(client_reaches(p->ip)) << p->to_string();
  }
  EXPECT_FALSE(gate->renew(lease(5'000))) << "closed: nothing to renew";
  EXPECT_FALSE(client_reaches(public4.ip));
}

TEST_F(PublicGateTest, NothingIsSentFromTheAddressWhenClosed) {
  introduce();
  // A UDP service of the client, and a socket of ours that speaks as the public address.
  const auto socket_on = [](const char* ip) {
    platform::UniqueFd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in a{};
    a.sin_family = AF_INET;
    a.sin_port = htons(7'777);
    inet_pton(AF_INET, ip, &a.sin_addr);
    EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
    return fd;
  };
  const platform::UniqueFd service = hosts->in_client([&] { return socket_on("192.0.2.100"); });
  const platform::UniqueFd ours = socket_on("192.0.2.10");
  const auto arrives = [&](int timeout_ms) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(7'777);
    inet_pton(AF_INET, "192.0.2.100", &to.sin_addr);
    [[maybe_unused]] const ssize_t n = sendto(ours.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&to), sizeof to);
    pollfd p{service.get(), POLLIN, 0};
    char byte = 0;
    return poll(&p, 1, timeout_ms) == 1 && recv(service.get(), &byte, 1, 0) == 1;
  };
  LinkSocket ear = hosts->in_client([] {
    LinkSocket s = LinkSocket::open().value();
    EXPECT_TRUE(s.listen(s.interface("c0")->index, false));
    return s;
  });
  EXPECT_FALSE(arrives(150));
  for (Bytes f = ear.receive(50).value(); !f.empty(); f = ear.receive(50).value())
    EXPECT_FALSE(claims(f, public4.ip)) << "not even ARP says it";
  ASSERT_TRUE(gate->open(lease(5'000)));
  EXPECT_TRUE(arrives(2'000));
}

// The tables fence both directions, so that each alone would do; these two look at one direction at a time.
TEST_F(PublicGateTest, NothingThatIsSentToItArrivesWhenClosed) {
  // First without introduction: the questions for it must not even teach this node who asks.
  const auto neighbours = [] {
    return platform::run_checked({.argv = {"ip", "neigh", "show", "dev", "n0"}}).value_or("?");
  };
  EXPECT_FALSE(client_reaches(public4.ip));
  EXPECT_FALSE(client_reaches(public6.ip));
  EXPECT_EQ(neighbours().find("192.0.2.100"), std::string::npos) << neighbours();
  EXPECT_EQ(neighbours().find("2001:db8::100"), std::string::npos) << neighbours();
  introduce();
  const auto datagram_arrives = [&](const IpPrefix& p) {
    sockaddr_storage address{};
    socklen_t size = sizeof(sockaddr_in);
    if (p.ip.v6) {
      auto* a = reinterpret_cast<sockaddr_in6*>(&address);
      a->sin6_family = AF_INET6;
      a->sin6_port = htons(7'778);
      std::copy(p.ip.bytes.begin(), p.ip.bytes.end(), a->sin6_addr.s6_addr);
      size = sizeof(sockaddr_in6);
    } else {
      auto* a = reinterpret_cast<sockaddr_in*>(&address);
      a->sin_family = AF_INET;
      a->sin_port = htons(7'778);
      std::copy_n(p.ip.bytes.begin(), 4, reinterpret_cast<std::uint8_t*>(&a->sin_addr));
    }
    const platform::UniqueFd service(socket(address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(bind(service.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
    hosts->in_client([&] {
      const platform::UniqueFd fd(socket(address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
      EXPECT_EQ(sendto(fd.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&address), size), 1);
    });
    pollfd fds{service.get(), POLLIN, 0};
    return poll(&fds, 1, 150) == 1;
  };
  for (const IpPrefix* p : {&public4, &public6}) EXPECT_FALSE(datagram_arrives(*p)) << p->to_string();
  ASSERT_TRUE(gate->open(lease(5'000)));
  for (const IpPrefix* p : {&public4, &public6}) EXPECT_TRUE(datagram_arrives(*p)) << p->to_string();
}

TEST_F(PublicGateTest, TheKernelsOwnArpIsSilentWhenClosed) {
  std::ofstream("/proc/sys/net/ipv4/conf/n0/arp_notify") << "1";
  LinkSocket ear = hosts->in_client([] {
    LinkSocket s = LinkSocket::open().value();
    EXPECT_TRUE(s.listen(s.interface("c0")->index, false));
    return s;
  });
  const auto announced = [&] {  // the kernel announces an address that appears on an interface that comes up
    TwoHosts::ip({"link", "set", "n0", "down"});
    TwoHosts::ip({"link", "set", "n0", "up"});
    for (Bytes f = ear.receive(200).value(); !f.empty(); f = ear.receive(200).value())
      if (claims(f, public4.ip)) return true;
    return false;
  };
  EXPECT_FALSE(announced());
  ASSERT_TRUE(gate->open(lease(10'000)));
  EXPECT_TRUE(announced());
}

TEST_F(PublicGateTest, TheKernelClosesItWithoutAnyProcess) {
  introduce();
  // A child opens it and is killed: nobody is left who could close it.
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const bool opened = gate->open(lease(700)).has_value();
    [[maybe_unused]] const ssize_t n = write(ready[1], opened ? "y" : "n", 1);
    raise(SIGKILL);
  }
  char answer = 0;
  ASSERT_EQ(read(ready[0], &answer, 1), 1);
  const auto opened = clock::now();
  EXPECT_EQ(answer, 'y');
  waitpid(child, nullptr, 0);
  close(ready[0]);
  close(ready[1]);
  EXPECT_TRUE(client_reaches(public4.ip));
  while (clock::now() < opened + std::chrono::milliseconds(2'000) && client_reaches(public4.ip)) {
  }
  const auto lasted = std::chrono::duration_cast<std::chrono::milliseconds>(clock::now() - opened).count();
  EXPECT_LT(lasted, 1'100) << "700 ms and the time of a failed ping";
  EXPECT_FALSE(client_reaches(public6.ip));
  EXPECT_FALSE(client_is_answered(public4));
}

TEST_F(PublicGateTest, RenewKeepsItOpenAndIsCheap) {
  introduce();
  ASSERT_TRUE(gate->open(lease(400)));
  const auto start = clock::now();
  std::chrono::nanoseconds spent{};
  int renewals = 0;
  while (clock::now() < start + std::chrono::milliseconds(1'200)) {
    const auto before = clock::now();
    ASSERT_TRUE(gate->renew(lease(400)));
    spent += clock::now() - before;
    ++renewals;
    EXPECT_TRUE(client_reaches(public4.ip)) << "after three times the first timeout";
    poll(nullptr, 0, 50);  // the pace of the renewals
  }
  const double each_ms = std::chrono::duration<double, std::milli>(spent).count() / renewals;
  RecordProperty("renew_us", static_cast<int>(each_ms * 1000));
  EXPECT_LT(each_ms, 5.0);
  EXPECT_FALSE(gate->foreign_change()) << "our own renewals are not somebody's";
  EXPECT_TRUE(gate->verify());
}

TEST_F(PublicGateTest, RenewAfterExpiryIsRefusedAndStaysClosed) {
  introduce();
  ASSERT_TRUE(gate->open(lease(100)));
  // Another object does not know the deadline: only the kernel's element can tell it.
  auto restarted = PublicGate::create().value();
  while (client_reaches(public4.ip)) {
  }
  for (PublicGate* g : {restarted.get(), gate.get()}) {
    const Status s = g->renew(lease(5'000));
    ASSERT_FALSE(s);
    EXPECT_EQ(s.error().code, ErrorCode::stale);
    EXPECT_FALSE(client_reaches(public4.ip));
  }
  ASSERT_TRUE(gate->open(lease(5'000))) << "the same epoch's lease won again";
  EXPECT_TRUE(client_reaches(public4.ip));
}

TEST_F(PublicGateTest, EachOfTheTwoClocksClosesItAlone) {
  introduce();
  ASSERT_TRUE(gate->open(lease(60'000)));
  ASSERT_TRUE(client_reaches(public4.ip));
  // As after a pause in which only REALTIME went on.
  TwoHosts::run({"nft",
                 "flush chain inet holdfast lease_check; add rule inet holdfast lease_check meta protocol @lease meta "
                 "time < \"2001-01-01 00:00:00\" accept"});
  EXPECT_FALSE(client_reaches(public4.ip)) << "element alive, deadline passed";
  ASSERT_TRUE(gate->open(lease(500)));
  TwoHosts::run(
      {"nft", "flush set inet holdfast lease; add element inet holdfast lease { ip timeout 60s, ip6 timeout 60s }"});
  EXPECT_TRUE(client_reaches(public4.ip));
  const auto start = clock::now();
  while (clock::now() < start + std::chrono::seconds(3) && client_reaches(public4.ip)) {
  }
  EXPECT_LT(clock::now() - start, std::chrono::milliseconds(1'100))
      << "the deadline we wrote ends it, whatever the element says";
  ASSERT_TRUE(gate->open(lease(60'000)));
  TwoHosts::run({"nft", "flush set inet holdfast lease"});
  EXPECT_FALSE(client_reaches(public4.ip)) << "deadline ahead, element gone";
}

TEST_F(PublicGateTest, TimeBetweenMeasuringAndOpeningCounts) {
  introduce();
  GateLease old = lease(60'000);
  old.at.real_ns -= 61'000 * ms;  // a pause between the two, seen by one clock only
  EXPECT_EQ(gate->open(old).error().code, ErrorCode::stale);
  ASSERT_TRUE(gate->open(lease(60'000)));
  EXPECT_EQ(gate->renew(old).error().code, ErrorCode::stale);
  EXPECT_FALSE(client_reaches(public4.ip)) << "and closed at once";
}

TEST_F(PublicGateTest, ARestartedDaemonIsNotNoticed) {
  introduce();
  ASSERT_TRUE(gate->open(lease(2'000)));
  gate.reset();
  gate = PublicGate::create().value();
  ASSERT_TRUE(gate->install({public4.ip, public6.ip}));
  EXPECT_TRUE(client_reaches(public4.ip));
  ASSERT_TRUE(gate->renew(lease(2'000)));
  EXPECT_TRUE(client_reaches(public6.ip));
  ASSERT_TRUE(gate->install({public6.ip})) << "one less, live";
  EXPECT_TRUE(client_reaches(public6.ip));
  ASSERT_TRUE(gate->close());
  EXPECT_TRUE(client_reaches(public4.ip)) << "not gated any more";
  EXPECT_FALSE(client_reaches(public6.ip));
}

TEST_F(PublicGateTest, SomeonesFlushIsNoticedAndAnswered) {
  introduce();
  ASSERT_TRUE(gate->verify());
  TwoHosts::run({"nft", "add table inet theirs"});
  EXPECT_FALSE(changed_by_others(1'000)) << "other tables are not our business";
  TwoHosts::run({"nft", "flush ruleset"});
  EXPECT_TRUE(client_reaches(public4.ip)) << "this is what must be answered";
  ASSERT_TRUE(changed_by_others(1'000));
  const Status s = gate->verify();
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().code, ErrorCode::corrupt);
  EXPECT_FALSE(gate->renew(lease(5'000))) << "a lost gate is not renewed into being open";
  ASSERT_TRUE(gate->install({public4.ip, public6.ip}));
  EXPECT_FALSE(client_reaches(public4.ip));
  EXPECT_TRUE(gate->verify());
  EXPECT_FALSE(changed_by_others(0));
}

TEST_F(PublicGateTest, HolesMadeBySomebodyAreFound) {
  for (const char* hole :
       {"insert rule inet holdfast gate accept", "add rule inet holdfast lease_check accept",
        "insert rule arp holdfast sending accept", "delete element inet holdfast public4 { 192.0.2.10 }",
        "add element inet holdfast lease { vlan }"}) {
    ASSERT_TRUE(gate->install({public4.ip, public6.ip}));
    ASSERT_TRUE(gate->open(lease(5'000)));
    ASSERT_TRUE(gate->verify()) << hole;
    TwoHosts::run({"nft", hole});
    EXPECT_TRUE(changed_by_others(1'000)) << hole;
    EXPECT_FALSE(gate->verify()) << hole;
    ASSERT_TRUE(gate->remove());
  }
}

TEST_F(PublicGateTest, APassiveReachesTheActivesAddress) {
  // The client plays the active; this node has the gate closed and the address not configured.
  ASSERT_TRUE(addresses->remove(public4));
  ASSERT_TRUE(addresses->remove(public6));
  hosts->in_client([] {
    TwoHosts::ip({"address", "add", "192.0.2.10/32", "dev", "c0"});
    TwoHosts::ip({"address", "add", "2001:db8::10/128", "dev", "c0", "nodad"});
  });
  for (const char* a : {"192.0.2.10", "2001:db8::10"}) EXPECT_TRUE(testing::ping(a)) << a;
}

}  // namespace
}  // namespace holdfast::network
