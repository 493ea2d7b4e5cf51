// SPDX-License-Identifier: Apache-2.0
#include "network/prober.h"

#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <thread>
#include <vector>

#include "platform/unique_fd.h"

namespace holdfast::network {
namespace {

using clock = std::chrono::steady_clock;

// Carried in each ping and compared with the answer: a raw socket hears the answers to everyone's pings.
struct Payload {
  std::uint64_t instance;
  std::uint64_t target;
  std::uint64_t round;
};

constexpr std::size_t icmp_header = 8;
constexpr std::size_t packet_size = icmp_header + sizeof(Payload);

std::uint16_t checksum(const std::uint8_t* data, std::size_t size) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i + 1 < size; i += 2) sum += static_cast<std::uint32_t>(data[i] << 8 | data[i + 1]);
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

// Raw where we may (root), else the kernel's ping sockets.
Result<platform::UniqueFd> ping_socket(bool v6) {
  const int family = v6 ? AF_INET6 : AF_INET,
            protocol = v6 ? static_cast<int>(IPPROTO_ICMPV6) : static_cast<int>(IPPROTO_ICMP);
  for (const int type : {SOCK_RAW, SOCK_DGRAM}) {
    platform::UniqueFd fd(socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol));
    if (!fd) continue;
    if (type == SOCK_RAW && v6) {
      icmp6_filter filter;
      ICMP6_FILTER_SETBLOCKALL(&filter);
      ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &filter);
      setsockopt(fd.get(), IPPROTO_ICMPV6, ICMP6_FILTER, &filter, sizeof filter);
    } else if (type == SOCK_RAW) {
      const std::uint32_t blocked = ~(1U << ICMP_ECHOREPLY);
      setsockopt(fd.get(), SOL_RAW, 1 /* ICMP_FILTER of linux/icmp.h, which can't be included with netinet/ip_icmp.h */,
                 &blocked, sizeof blocked);
    }
    return fd;
  }
  if (v6 && errno == EAFNOSUPPORT) return platform::UniqueFd();  // IPv6 is off on this machine
  return fail_errno(errno, "cannot ping (CAP_NET_RAW is needed)");
}

}  // namespace

struct Prober::Impl {
  struct Target {
    IpAddress ip;
    std::chrono::milliseconds interval{};
    std::chrono::milliseconds timeout{};
    Callback callback;
    clock::time_point next_round;
    bool waiting = false;
    std::uint64_t round = 0;
    clock::time_point sent;
    std::uint32_t silent_rounds = 0;
    clock::time_point due() const { return waiting ? sent + timeout : next_round; }
  };

  platform::UniqueFd v4, v6, wake;
  std::uint64_t instance = std::random_device{}() | 1ULL << 40;
  std::mutex mutex;
  std::condition_variable callback_done;
  std::map<TargetId, Target> targets;
  TargetId next_id = 1;
  TargetId in_callback = 0;
  bool stopping = false;
  std::thread thread;

  ~Impl() {
    if (!thread.joinable()) return;
    {
      const std::lock_guard lock(mutex);
      stopping = true;
    }
    poke();
    thread.join();
  }

  void poke() const {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = write(wake.get(), &one, sizeof one);
  }

  // Ends the round and tells the owner. The lock is released for the callback: it may call add() and remove().
  void finish(std::unique_lock<std::mutex>& lock, TargetId id, ProbeResult result) {
    Target& t = targets.at(id);
    t.waiting = false;
    // Keep the pace, but never catch up in a burst after a pause.
    t.next_round = std::max(t.sent + t.interval, clock::now());
    t.silent_rounds = result.answered ? 0 : t.silent_rounds + 1;
    result.target = t.ip;
    result.silent_rounds = t.silent_rounds;
    const Callback callback = t.callback;
    in_callback = id;
    lock.unlock();
    callback(result);
    lock.lock();
    in_callback = 0;
    callback_done.notify_all();
  }

  // "" or why it could not be sent.
  std::string send_ping(TargetId id, const Target& t) {
    std::uint8_t packet[packet_size] = {};
    packet[0] = t.ip.v6 ? static_cast<std::uint8_t>(ICMP6_ECHO_REQUEST) : static_cast<std::uint8_t>(ICMP_ECHO);
    packet[4] = static_cast<std::uint8_t>(instance >> 8);
    packet[5] = static_cast<std::uint8_t>(instance);
    packet[6] = static_cast<std::uint8_t>(t.round >> 8);
    packet[7] = static_cast<std::uint8_t>(t.round);
    const Payload payload{instance, id, t.round};
    std::memcpy(packet + icmp_header, &payload, sizeof payload);
    if (!t.ip.v6) {  // the kernel fills in ICMPv6's, which covers the addresses
      const std::uint16_t sum = checksum(packet, sizeof packet);
      packet[2] = static_cast<std::uint8_t>(sum >> 8);
      packet[3] = static_cast<std::uint8_t>(sum);
    }
    sockaddr_storage to{};
    socklen_t size = 0;
    if (t.ip.v6) {
      auto* a = reinterpret_cast<sockaddr_in6*>(&to);
      a->sin6_family = AF_INET6;
      std::memcpy(&a->sin6_addr, t.ip.bytes.data(), 16);
      size = sizeof *a;
    } else {
      auto* a = reinterpret_cast<sockaddr_in*>(&to);
      a->sin_family = AF_INET;
      std::memcpy(&a->sin_addr, t.ip.bytes.data(), 4);
      size = sizeof *a;
    }
    const int fd = t.ip.v6 ? v6.get() : v4.get();
    if (sendto(fd, packet, sizeof packet, 0, reinterpret_cast<sockaddr*>(&to), size) < 0)
      return errno_error(errno, "cannot send").message;
    return "";
  }

  void handle_due(std::unique_lock<std::mutex>& lock) {
    const auto now = clock::now();
    std::vector<TargetId> due;
    for (const auto& [id, t] : targets)
      if (t.due() <= now) due.push_back(id);
    for (const TargetId id : due) {
      const auto it = targets.find(id);  // a callback may have removed it
      if (it == targets.end() || stopping) continue;
      Target& t = it->second;
      if (t.waiting) {
        finish(lock, id, {});
        continue;
      }
      t.round++;
      t.sent = clock::now();
      t.waiting = true;
      if (std::string error = send_ping(id, t); !error.empty()) finish(lock, id, {.error = std::move(error)});
    }
  }

  void handle_answers(std::unique_lock<std::mutex>& lock, int fd, bool is_v6) {
    std::uint8_t buffer[2048];
    for (;;) {
      const ssize_t n = recv(fd, buffer, sizeof buffer, 0);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return;
      const auto now = clock::now();
      std::size_t at = 0;
      if (!is_v6 && n > 0 && buffer[0] >> 4 == 4)
        at = static_cast<std::size_t>(buffer[0] & 15) * 4;  // a raw IPv4 socket delivers the IP header
      if (static_cast<std::size_t>(n) < at + packet_size) continue;
      if (buffer[at] !=
          (is_v6 ? static_cast<std::uint8_t>(ICMP6_ECHO_REPLY) : static_cast<std::uint8_t>(ICMP_ECHOREPLY)))
        continue;
      Payload p;
      std::memcpy(&p, buffer + at + icmp_header, sizeof p);
      const auto it = targets.find(p.target);
      if (p.instance != instance || it == targets.end() || stopping) continue;
      Target& t = it->second;
      if (!t.waiting || t.round != p.round) continue;  // too late: that round was reported as silent
      finish(lock, p.target,
             {.answered = true, .rtt_ms = std::chrono::duration<double, std::milli>(now - t.sent).count()});
    }
  }

  int wait_ms() const {
    std::optional<clock::time_point> first;
    for (const auto& [id, t] : targets) first = first ? std::min(*first, t.due()) : t.due();
    if (!first) return -1;
    return static_cast<int>(
        std::max<std::int64_t>(0, std::chrono::ceil<std::chrono::milliseconds>(*first - clock::now()).count()));
  }

  void run() {
    std::unique_lock lock(mutex);
    while (!stopping) {
      const int timeout = wait_ms();
      lock.unlock();
      pollfd p[3] = {{wake.get(), POLLIN, 0}, {v4.get(), POLLIN, 0}, {v6.get(), POLLIN, 0}};
      poll(p, 3, timeout);
      std::uint64_t woken = 0;
      [[maybe_unused]] const ssize_t n = read(wake.get(), &woken, sizeof woken);
      lock.lock();
      // Answers first: one that came while this thread was not scheduled is not a silent round.
      handle_answers(lock, v4.get(), false);
      if (v6) handle_answers(lock, v6.get(), true);
      if (!stopping) handle_due(lock);
    }
  }
};

Prober::Prober(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Prober::~Prober() = default;

Result<std::unique_ptr<Prober>> Prober::create() {
  auto impl = std::make_unique<Impl>();
  HF_ASSIGN(impl->v4, ping_socket(false));
  HF_ASSIGN(impl->v6, ping_socket(true));
  impl->wake.reset(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!impl->wake) return fail_errno(errno, "cannot create an event");
  impl->thread = std::thread([i = impl.get()] { i->run(); });
  return std::unique_ptr<Prober>(new Prober(std::move(impl)));
}

Prober::TargetId Prober::add(const IpAddress& target, int interval_ms, int timeout_ms, Callback callback) {
  const std::lock_guard lock(impl_->mutex);
  const TargetId id = impl_->next_id++;
  Impl::Target t;
  t.ip = target;
  t.interval = std::chrono::milliseconds(std::max(10, interval_ms));
  t.timeout = std::chrono::milliseconds(std::max(1, timeout_ms));
  t.callback = std::move(callback);
  t.next_round = clock::now();
  impl_->targets.emplace(id, std::move(t));
  impl_->poke();
  return id;
}

void Prober::remove(TargetId id) {
  std::unique_lock lock(impl_->mutex);
  impl_->targets.erase(id);
  if (std::this_thread::get_id() == impl_->thread.get_id()) return;
  impl_->callback_done.wait(lock, [&] { return impl_->in_callback != id; });
}

}  // namespace holdfast::network
