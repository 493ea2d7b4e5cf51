// SPDX-License-Identifier: Apache-2.0
#include "network/addresses.h"

#include <net/if.h>
#include <net/if_arp.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <poll.h>
#include <sys/socket.h>

#include <linux/if_addr.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "base/log.h"
#include "network/neighbour_frames.h"
#include "platform/dhcp.h"
#include "platform/unique_fd.h"

namespace holdfast::network {
namespace {

constexpr std::uint32_t for_ever = 0xffffffff;

struct NlFree {
  void operator()(nl_cache* c) const { nl_cache_free(c); }
  void operator()(nl_addr* a) const { nl_addr_put(a); }
  void operator()(rtnl_addr* a) const { rtnl_addr_put(a); }
};
using Cache = std::unique_ptr<nl_cache, NlFree>;
using NlAddr = std::unique_ptr<nl_addr, NlFree>;
using RtAddr = std::unique_ptr<rtnl_addr, NlFree>;

tl::unexpected<Error> fail_nl(int error, const std::string& what) {
  return fail(ErrorCode::io, "{}: {}", what, nl_geterror(error));
}

// Full length: the address is reachable, and no subnet, route or source address follows from it.
RtAddr make_address(const IpAddress& ip, int index) {
  const NlAddr local(nl_addr_build(ip.v6 ? AF_INET6 : AF_INET, ip.bytes.data(), ip.size()));
  nl_addr_set_prefixlen(local.get(), static_cast<int>(ip.size()) * 8);
  RtAddr a(rtnl_addr_alloc());
  rtnl_addr_set_ifindex(a.get(), index);
  rtnl_addr_set_local(a.get(), local.get());
  rtnl_addr_set_prefixlen(a.get(), static_cast<int>(ip.size()) * 8);
  return a;
}

std::string network_of(const IpPrefix& p) {
  IpPrefix n = p;
  for (int bit = p.length; bit < static_cast<int>(p.ip.size()) * 8; ++bit)
    n.ip.bytes[static_cast<std::size_t>(bit) / 8] &= static_cast<std::uint8_t>(~(0x80 >> bit % 8));
  return n.to_string();
}

Result<platform::UniqueFd> ipv6_address_events() {
  platform::UniqueFd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = RTMGRP_IPV6_IFADDR;
  if (!fd || bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return fail_errno(errno, "cannot listen to changes of addresses");
  return fd;
}

bool is_new_address(const nlmsghdr& header, const IpAddress& ip) {
  if (header.nlmsg_type != RTM_NEWADDR) return false;
  nlattr* local = nlmsg_find_attr(const_cast<nlmsghdr*>(&header), sizeof(ifaddrmsg), IFA_ADDRESS);
  return local != nullptr && nla_len(local) == static_cast<int>(ip.size()) &&
         std::memcmp(nla_data(local), ip.bytes.data(), ip.size()) == 0;
}

// The kernel joins the address's solicited-node group in a work queue, after the request to add it was answered, and
// tells of the address after that. Until then it does not hear who asks for it, and whoever asked asks again only a
// second later. False: nothing was heard in time.
bool wait_until_announced(int events, const IpAddress& ip) {
  using clock = std::chrono::steady_clock;
  const auto deadline = clock::now() + std::chrono::seconds(1);
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - clock::now()).count();
    pollfd p{events, POLLIN, 0};
    if (left <= 0 || poll(&p, 1, static_cast<int>(left)) == 0) return false;
    alignas(nlmsghdr) char buffer[8192];
    const ssize_t n = recv(events, buffer, sizeof buffer, MSG_DONTWAIT);
    int rest = n > 0 ? static_cast<int>(n) : 0;
    for (auto* h = reinterpret_cast<nlmsghdr*>(buffer); nlmsg_ok(h, rest); h = nlmsg_next(h, &rest))
      if (is_new_address(*h, ip)) return true;
  }
}

}  // namespace

struct Addresses::Socket {
  nl_sock* s = nl_socket_alloc();
  ~Socket() { nl_socket_free(s); }
};

Result<Addresses> Addresses::open() {
  Addresses a;
  a.socket_ = std::make_unique<Socket>();
  if (a.socket_->s == nullptr) return fail(ErrorCode::internal, "out of memory for a netlink socket");
  if (const int r = nl_connect(a.socket_->s, NETLINK_ROUTE); r < 0)
    return fail_nl(r, "cannot talk to the kernel's network configuration");
  return a;
}

Addresses::Addresses(Addresses&&) noexcept = default;
Addresses& Addresses::operator=(Addresses&&) noexcept = default;
Addresses::~Addresses() = default;

Result<std::vector<Interface>> Addresses::interfaces() {
  nl_cache* raw = nullptr;
  if (const int r = rtnl_link_alloc_cache(socket_->s, AF_UNSPEC, &raw); r < 0)
    return fail_nl(r, "cannot list the network interfaces");
  const Cache cache(raw);
  std::vector<Interface> result;
  for (nl_object* o = nl_cache_get_first(cache.get()); o != nullptr; o = nl_cache_get_next(o)) {
    auto* link = reinterpret_cast<rtnl_link*>(o);
    Interface i;
    i.name = rtnl_link_get_name(link);
    i.index = rtnl_link_get_ifindex(link);
    const unsigned flags = rtnl_link_get_flags(link);
    i.up = (flags & IFF_UP) != 0;
    i.loopback = (flags & IFF_LOOPBACK) != 0;
    i.arp = (flags & (IFF_NOARP | IFF_LOOPBACK)) == 0 && rtnl_link_get_arptype(link) == ARPHRD_ETHER;
    if (nl_addr* mac = rtnl_link_get_addr(link); mac != nullptr && nl_addr_get_len(mac) == i.mac.size())
      std::memcpy(i.mac.data(), nl_addr_get_binary_addr(mac), i.mac.size());
    result.push_back(std::move(i));
  }
  return result;
}

Result<std::vector<InterfaceAddress>> Addresses::list() {
  HF_ASSIGN(const std::vector<Interface> links, interfaces());
  nl_cache* raw = nullptr;
  if (const int r = rtnl_addr_alloc_cache(socket_->s, &raw); r < 0) return fail_nl(r, "cannot list the addresses");
  const Cache cache(raw);
  std::vector<InterfaceAddress> result;
  for (nl_object* o = nl_cache_get_first(cache.get()); o != nullptr; o = nl_cache_get_next(o)) {
    auto* entry = reinterpret_cast<rtnl_addr*>(o);
    nl_addr* local = rtnl_addr_get_local(entry);
    const int family = local == nullptr ? AF_UNSPEC : nl_addr_get_family(local);
    if (family != AF_INET && family != AF_INET6) continue;
    InterfaceAddress a;
    a.index = rtnl_addr_get_ifindex(entry);
    const auto link = std::find_if(links.begin(), links.end(), [&](const Interface& i) { return i.index == a.index; });
    if (link == links.end()) continue;  // went away in between
    a.interface = link->name;
    a.prefix.ip.v6 = family == AF_INET6;
    std::memcpy(a.prefix.ip.bytes.data(), nl_addr_get_binary_addr(local), a.prefix.ip.size());
    a.prefix.length = static_cast<std::uint8_t>(rtnl_addr_get_prefixlen(entry));
    a.permanent = (rtnl_addr_get_flags(entry) & IFA_F_PERMANENT) != 0;
    a.ours = a.permanent && a.prefix.length == a.prefix.ip.size() * 8;
    result.push_back(std::move(a));
  }
  return result;
}

Result<Interface> Addresses::interface_for(const IpPrefix& address, const std::string& wanted) {
  HF_ASSIGN(const std::vector<Interface> links, interfaces());
  std::string name = wanted;
  if (name.empty()) {
    HF_ASSIGN(const std::vector<InterfaceAddress> all, list());
    int best = -1;
    for (const InterfaceAddress& a : all) {
      if (a.ours || !a.prefix.contains(address.ip) || a.prefix.length <= best) continue;
      best = a.prefix.length;
      name = a.interface;
    }
    if (name.empty())
      return fail(ErrorCode::not_found,
                  "no interface of this node has an address in {}: give it one, or name the interface for {}",
                  network_of(address), address.ip.to_string());
  }
  const auto link = std::find_if(links.begin(), links.end(), [&](const Interface& i) { return i.name == name; });
  if (link == links.end()) return fail(ErrorCode::not_found, "this node has no interface {}: see `ip link`", name);
  return *link;
}

Status Addresses::check(const IpPrefix& address, const std::string& wanted, const std::string& lease_root) {
  const std::string text = address.ip.to_string();
  HF_ASSIGN(const std::vector<InterfaceAddress> all, list());
  for (const InterfaceAddress& a : all)
    if (a.prefix.ip == address.ip && !a.permanent)
      return fail(ErrorCode::refused,
                  "{} has a limited life on {} (leased by DHCP or from a router): choose a static address outside the "
                  "leased range",
                  text, a.interface);
  if (const auto lease = platform::dhcp_lease_of(text, lease_root); lease)
    return fail(ErrorCode::refused,
                "{} is leased by DHCP to this node, by {}: choose a static address outside the leased range", text,
                *lease);
  HF_ASSIGN(const Interface link, interface_for(address, wanted));
  if (link.loopback)
    return fail(ErrorCode::refused, "{} can't be on the loopback interface: clients would not reach it", text);
  return {};
}

Status Addresses::probe_conflict(const IpPrefix& address, const std::string& wanted, ConflictProbe probe) {
  using clock = std::chrono::steady_clock;
  HF_ASSIGN(const Interface link, interface_for(address, wanted));
  if (!link.arp) return {};  // nobody to ask
  if (!link.up) return fail(ErrorCode::unavailable, "{} is down: ip link set {} up", link.name, link.name);
  HF_ASSIGN(LinkSocket socket, LinkSocket::open());
  HF_TRY(socket.listen(link.index, address.ip.v6));
  const Bytes question = ownership_probe(link.mac, address.ip);
  for (int round = 0; round < probe.count; ++round) {
    HF_TRY(socket.send(link.index, question));
    const auto until = clock::now() + std::chrono::milliseconds(probe.spacing_ms);
    for (auto left = until - clock::now(); left.count() > 0; left = until - clock::now()) {
      HF_ASSIGN(const Bytes frame,
                socket.receive(static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(left).count())));
      const auto owner = claims(frame, address.ip);
      if (owner && *owner != link.mac)
        return fail(ErrorCode::busy,
                    "{} is in use by another host ({} on {}): take it off there or choose another address",
                    address.ip.to_string(), to_string(*owner), link.name);
    }
  }
  return {};
}

Status Addresses::add(const IpPrefix& address, const std::string& wanted) {
  HF_ASSIGN(const bool there, present(address.ip));
  if (there) return {};
  HF_ASSIGN(const Interface link, interface_for(address, wanted));
  const RtAddr a = make_address(address.ip, link.index);
  // NODAD: probe_conflict() asked already, and detection would run into our own gate. NOPREFIXROUTE: no route follows from it.
  rtnl_addr_set_flags(a.get(), IFA_F_NODAD | IFA_F_NOPREFIXROUTE);
  if (address.ip.v6) {
    rtnl_addr_set_valid_lifetime(a.get(), for_ever);
    rtnl_addr_set_preferred_lifetime(a.get(), 0);  // deprecated: answers, but is never chosen as a source (RFC 6724)
  }
  HF_ASSIGN(const platform::UniqueFd events, address.ip.v6 ? ipv6_address_events() : Result<platform::UniqueFd>());
  const int r = rtnl_addr_add(socket_->s, a.get(), NLM_F_CREATE | NLM_F_EXCL);
  if (r < 0 && r != -NLE_EXIST)
    return fail_nl(r, fmt::format("cannot add {} to {}", address.ip.to_string(), link.name));
  if (r == 0 && address.ip.v6 && !wait_until_announced(events.get(), address.ip))
    log_warning("{} was added to {}, but the kernel does not say that it is in use", address.ip.to_string(), link.name);
  return {};
}

Status Addresses::remove(const IpPrefix& address) {
  HF_ASSIGN(const std::vector<InterfaceAddress> all, list());
  for (const InterfaceAddress& entry : all) {
    if (entry.prefix.ip != address.ip) continue;
    const RtAddr a = make_address(address.ip, entry.index);
    rtnl_addr_set_prefixlen(a.get(), entry.prefix.length);
    const int r = rtnl_addr_delete(socket_->s, a.get(), 0);
    if (r < 0 && r != -NLE_NOADDR && r != -NLE_NODEV)
      return fail_nl(r, fmt::format("cannot remove {} from {}", address.ip.to_string(), entry.interface));
  }
  return {};
}

Result<bool> Addresses::present(const IpAddress& address) {
  HF_ASSIGN(const std::vector<InterfaceAddress> all, list());
  return std::any_of(all.begin(), all.end(), [&](const InterfaceAddress& a) { return a.prefix.ip == address; });
}

}  // namespace holdfast::network
