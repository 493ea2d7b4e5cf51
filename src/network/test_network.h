// SPDX-License-Identifier: Apache-2.0
// For tests: two network namespaces joined by a veth pair. Root only.
#pragma once

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <future>
#include <iterator>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "network/prober.h"
#include "platform/process.h"
#include "platform/unique_fd.h"

namespace holdfast::network::testing {

// The calling thread moves into a new namespace ("node", interface n0, 192.0.2.1/24 2001:db8::1/64) and gets a neighbour ("client",
// interface c0, 192.0.2.100 2001:db8::100). Everything is gone when the object and its sockets are.
class TwoHosts {
 public:
  template <class F>
  auto in_client(F f) {
    EXPECT_EQ(setns(client_.get(), CLONE_NEWNET), 0);
    struct Back {
      int fd;
      ~Back() { EXPECT_EQ(setns(fd, CLONE_NEWNET), 0); }
    } back{node_.get()};
    return f();
  }

  TwoHosts() {
    home_ = current();
    EXPECT_EQ(unshare(CLONE_NEWNET), 0);
    client_ = current();
    EXPECT_EQ(setns(home_.get(), CLONE_NEWNET), 0);
    EXPECT_EQ(unshare(CLONE_NEWNET), 0);
    node_ = current();
    const std::string client_path = "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(client_.get());
    ip({"link", "add", "n0", "type", "veth", "peer", "name", "c0", "netns", client_path});
    set_up("n0", "192.0.2.1/24", "2001:db8::1/64");
    in_client([&] { set_up("c0", "192.0.2.100/24", "2001:db8::100/64"); });
  }
  ~TwoHosts() { EXPECT_EQ(setns(home_.get(), CLONE_NEWNET), 0); }

  static void run(std::vector<std::string> argv) {
    const auto done = platform::run_checked({.argv = std::move(argv)});
    EXPECT_TRUE(done.has_value()) << done.error().message;
  }
  static void ip(std::vector<std::string> argv) {
    argv.insert(argv.begin(), "ip");
    run(std::move(argv));
  }

 private:
  static platform::UniqueFd current() {
    return platform::UniqueFd(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
  }
  // `ip address add` returns before the kernel has joined the address's solicited-node group: until then nobody finds it.
  static void wait_until_joined(const std::string& group) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    for (std::string groups; groups.find(group) == std::string::npos;) {
      if (std::chrono::steady_clock::now() >= until) FAIL() << "not joined: " << group;
      std::ifstream in("/proc/thread-self/net/igmp6");
      groups.assign(std::istreambuf_iterator<char>(in), {});
    }
  }
  static void set_up(const char* interface, const char* v4, const char* v6) {
    ip({"link", "set", "lo", "up"});
    ip({"link", "set", interface, "up"});
    ip({"address", "add", v4, "dev", interface});
    ip({"address", "add", v6, "dev", interface, "nodad"});
    wait_until_joined(std::string(interface) == "n0" ? "ff0200000000000000000001ff000001"
                                                     : "ff0200000000000000000001ff000100");
  }
  platform::UniqueFd home_, client_, node_;
};

// One ping from the network namespace of the calling thread; the answer must come within wait_ms.
inline bool ping(const IpAddress& to, int wait_ms = 250) {
  std::promise<bool> answered;
  auto prober = Prober::create().value();
  prober->add(to, 60'000, wait_ms, [&](const ProbeResult& r) { answered.set_value(r.answered); });
  return answered.get_future().get();
}
inline bool ping(const char* to, int wait_ms = 1'000) { return ping(IpAddress::parse(to).value(), wait_ms); }

#define HF_NEEDS_ROOT() \
  if (geteuid() != 0) GTEST_SKIP() << "needs root: network namespaces"

}  // namespace holdfast::network::testing
