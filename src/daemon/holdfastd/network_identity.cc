// SPDX-License-Identifier: Apache-2.0
#include "daemon/holdfastd/network_identity.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

#include "base/check.h"
#include "base/log.h"

namespace holdfast::daemon {

Result<std::unique_ptr<NetworkIdentity>> NetworkIdentity::create(Events events) {
  std::unique_ptr<NetworkIdentity> self(new NetworkIdentity(std::move(events)));
  HF_ASSIGN(self->gate_, network::PublicGate::create());
  HF_ASSIGN(auto links, network::Addresses::open());
  self->links_.emplace(std::move(links));
  NetworkIdentity* raw = self.get();
  HF_ASSIGN(self->announcer_, network::Announcer::create([raw] {
              Epoch epoch;
              {
                const std::lock_guard lock(raw->gate_mutex_);
                epoch = raw->open_epoch_;
              }
              return epoch.value != 0 && raw->events_.lease_valid(epoch);
            }));
  self->wake_fd_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  CHECK(self->wake_fd_ >= 0, "eventfd");
  self->thread_ = std::thread([raw] { raw->run(); });
  return self;
}

NetworkIdentity::~NetworkIdentity() {
  if (thread_.joinable()) {
    {
      const std::lock_guard lock(renew_mutex_);
      stopping_ = true;
    }
    const std::uint64_t one = 1;
    (void)!write(wake_fd_, &one, sizeof one);
    thread_.join();
  }
  announcer_.reset();
  if (wake_fd_ >= 0) close(wake_fd_);
}

Status NetworkIdentity::configure(const std::vector<network::IpPrefix>& addresses) {
  const std::lock_guard lock(address_mutex_);
  std::vector<network::IpAddress> ips;
  for (const auto& a : addresses) ips.push_back(a.ip);
  for (const auto& old : addresses_)
    if (std::find(addresses.begin(), addresses.end(), old) == addresses.end()) HF_TRY(links_->remove(old));
  {
    const std::lock_guard gate_lock(gate_mutex_);
    HF_TRY(gate_->install(ips));
  }
  addresses_ = addresses;
  bool shown = false;
  {
    const std::lock_guard gate_lock(gate_mutex_);
    shown = open_epoch_.value != 0;
  }
  return shown ? add_all() : Status{};
}

Status NetworkIdentity::add_all() {
  for (const auto& address : addresses_) {
    HF_TRY(links_->add(address));
    HF_ASSIGN(const network::Interface interface, links_->interface_for(address));
    HF_TRY(announcer_->announce(interface.name, {address.ip}));
  }
  return {};
}

Status NetworkIdentity::appear(Epoch epoch, const network::GateLease& lease) {
  const std::lock_guard lock(address_mutex_);
  if (addresses_.empty()) return {};
  {
    const std::lock_guard gate_lock(gate_mutex_);
    if (open_epoch_ != epoch) HF_TRY(gate_->open(lease));
    open_epoch_ = epoch;
    last_lease_ = lease;
  }
  return add_all();
}

void NetworkIdentity::adopt(Epoch epoch) {
  const std::lock_guard gate_lock(gate_mutex_);
  open_epoch_ = epoch;
}

Status NetworkIdentity::hide() {
  close_now();
  const std::lock_guard lock(address_mutex_);
  announcer_->cancel();
  for (const auto& address : addresses_) HF_TRY(links_->remove(address));
  return {};
}

void NetworkIdentity::close_now() {
  const std::lock_guard lock(gate_mutex_);
  open_epoch_ = Epoch{};
  last_lease_.reset();
  const Status closed = gate_->close();
  if (!closed)
    log_error("the gate before the public addresses could not be closed, it closes by itself with the lease: {}",
              closed.error().to_string());
}

void NetworkIdentity::renew(Epoch epoch, const network::GateLease& lease) {
  {
    const std::lock_guard lock(renew_mutex_);
    renew_next_ = {epoch, lease};
  }
  const std::uint64_t one = 1;
  (void)!write(wake_fd_, &one, sizeof one);
}

void NetworkIdentity::run() {
  int change_fd = -1;
  {
    const std::lock_guard lock(gate_mutex_);
    change_fd = gate_->change_fd();
  }
  for (;;) {
    pollfd fds[2] = {{wake_fd_, POLLIN, 0}, {change_fd, POLLIN, 0}};
    poll(fds, 2, -1);
    if (fds[0].revents != 0) {
      std::uint64_t count = 0;
      (void)!read(wake_fd_, &count, sizeof count);
    }
    std::optional<std::pair<Epoch, network::GateLease>> next;
    {
      const std::lock_guard lock(renew_mutex_);
      if (stopping_) return;
      next.swap(renew_next_);
    }
    if (next) renew_gate(next->first, next->second);
    if (fds[1].revents != 0) look_for_foreign_changes();
  }
}

// An expired element means that the lease had lapsed. This one was promised by a majority afresh, so the gate may open again.
void NetworkIdentity::renew_gate(Epoch epoch, const network::GateLease& lease) {
  std::string trouble;
  {
    const std::lock_guard lock(gate_mutex_);
    if (open_epoch_ != epoch) return;  // not shown, or closed meanwhile
    Status renewed = gate_->renew(lease);
    if (!renewed && renewed.error().code == ErrorCode::stale) {
      renewed = gate_->open(lease);
      if (renewed) trouble = "the gate before the public addresses had closed; it is open again with the renewed lease";
    }
    if (!renewed) trouble = "the gate before the public addresses can't be renewed: " + renewed.error().to_string();
    if (renewed) last_lease_ = lease;
    if (trouble == last_trouble_)
      trouble.clear();
    else
      last_trouble_ = trouble;
  }
  if (!trouble.empty()) events_.trouble(trouble);
}

void NetworkIdentity::look_for_foreign_changes() {
  std::string trouble;
  {
    const std::lock_guard address_lock(address_mutex_);
    const std::lock_guard lock(gate_mutex_);
    if (!gate_->foreign_change() || gate_->verify()) return;
    std::vector<network::IpAddress> ips;
    for (const auto& a : addresses_) ips.push_back(a.ip);
    const Status again = gate_->install(ips);
    if (!again) {
      for (const auto& a : addresses_) (void)links_->remove(a);
      trouble =
          "somebody changed the packet filter of the public addresses and it can't be restored; the addresses were "
          "removed: " +
          again.error().message;
      open_epoch_ = Epoch{};
    } else if (open_epoch_.value != 0 && last_lease_ && events_.lease_valid(open_epoch_)) {
      const Status opened = gate_->open(*last_lease_);
      trouble = opened ? "somebody changed the packet filter of the public addresses; it was restored"
                       : "somebody changed the packet filter of the public addresses; it was restored, closed: " +
                             opened.error().message;
    } else {
      trouble = "somebody changed the packet filter of the public addresses; it was restored, closed";
    }
  }
  if (!trouble.empty()) events_.trouble(trouble);
}

bool NetworkIdentity::open() const {
  const std::lock_guard lock(gate_mutex_);
  return open_epoch_.value != 0;
}

std::vector<std::string> NetworkIdentity::addresses_here() {
  const std::lock_guard lock(address_mutex_);
  std::vector<std::string> here;
  for (const auto& a : addresses_)
    if (const auto present = links_->present(a.ip); present && *present) here.push_back(a.to_string());
  return here;
}

}  // namespace holdfast::daemon
