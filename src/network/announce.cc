// SPDX-License-Identifier: Apache-2.0
#include "network/announce.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "network/neighbour_frames.h"
#include "platform/unique_fd.h"

namespace holdfast::network {
namespace {
using clock = std::chrono::steady_clock;
}

struct Announcer::Impl {
  struct Round {
    clock::time_point when;
    std::string interface;
    IpAddress address;
  };

  std::function<bool()> allowed;
  LinkSocket socket;
  platform::UniqueFd timer;
  platform::UniqueFd stop;
  std::mutex mutex;  // held while a round is sent, so that cancel() means cancelled
  std::vector<Round> rounds;
  std::thread thread;

  ~Impl() {
    if (!thread.joinable()) return;
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = write(stop.get(), &one, sizeof one);
    thread.join();
  }

  // The timer fires at the earliest round; steady_clock is CLOCK_MONOTONIC.
  void arm() {
    itimerspec when{};
    if (!rounds.empty()) {
      const auto first = std::min_element(rounds.begin(), rounds.end(), [](const Round& a, const Round& b) {
                           return a.when < b.when;
                         })->when;
      const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(first.time_since_epoch()).count();
      when.it_value = {ns / 1'000'000'000, ns % 1'000'000'000};
    }
    timerfd_settime(timer.get(), TFD_TIMER_ABSTIME, &when, nullptr);
  }

  void send(const Round& round) {
    // Looked up each time: the interface may have been replaced, or have a new hardware address (a bond that failed over).
    const Result<LinkInfo> link = socket.interface(round.interface);
    if (!link || !link->ethernet) return;
    const auto send_frame = [&](const Bytes& frame) {
      if (!allowed()) return;
      if (const Status sent = socket.send(link->index, frame); !sent)
        log_debug("announcing {} on {}: {}", round.address.to_string(), round.interface, sent.error().message);
    };
    if (round.address.v6) {
      send_frame(unsolicited_advertisement(link->mac, round.address));
    } else {
      send_frame(gratuitous_arp(link->mac, round.address, false));
      send_frame(gratuitous_arp(link->mac, round.address, true));
    }
  }

  void run() {
    for (;;) {
      pollfd p[2] = {{timer.get(), POLLIN, 0}, {stop.get(), POLLIN, 0}};
      if (poll(p, 2, -1) < 0 && errno != EINTR) return;
      if (p[1].revents != 0) return;
      std::uint64_t expired = 0;
      if (read(timer.get(), &expired, sizeof expired) < 0) continue;
      const std::lock_guard lock(mutex);
      const auto now = clock::now();
      const auto due =
          std::stable_partition(rounds.begin(), rounds.end(), [now](const Round& r) { return r.when > now; });
      for (auto it = due; it != rounds.end(); ++it) send(*it);
      rounds.erase(due, rounds.end());
      arm();
    }
  }
};

Announcer::Announcer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Announcer::~Announcer() = default;

Result<std::unique_ptr<Announcer>> Announcer::create(std::function<bool()> allowed) {
  auto impl = std::make_unique<Impl>();
  impl->allowed = std::move(allowed);
  HF_ASSIGN(impl->socket, LinkSocket::open());
  impl->timer.reset(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  impl->stop.reset(eventfd(0, EFD_CLOEXEC));
  if (!impl->timer || !impl->stop) return fail_errno(errno, "cannot create a timer");
  impl->thread = std::thread([i = impl.get()] { i->run(); });
  return std::unique_ptr<Announcer>(new Announcer(std::move(impl)));
}

Status Announcer::announce(const std::string& interface, const std::vector<IpAddress>& addresses, AnnouncePlan plan) {
  HF_TRY(impl_->socket.interface(interface));
  const std::lock_guard lock(impl_->mutex);
  const auto now = clock::now();
  for (const IpAddress& address : addresses) {
    std::erase_if(impl_->rounds, [&](const Impl::Round& r) { return r.address == address; });
    for (const int at_ms : plan.at_ms)
      impl_->rounds.push_back({now + std::chrono::milliseconds(at_ms), interface, address});
  }
  impl_->arm();
  return {};
}

void Announcer::cancel() {
  const std::lock_guard lock(impl_->mutex);
  impl_->rounds.clear();
  impl_->arm();
}

}  // namespace holdfast::network
