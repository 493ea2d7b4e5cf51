// SPDX-License-Identifier: Apache-2.0
#include "network/public_gate.h"

#include <linux/if_ether.h>
#include <nftables/libnftables.h>

#include <algorithm>
#include <regex>
#include <string>

#include "base/log.h"
#include "network/nft_batch.h"

namespace holdfast::network {
namespace {

constexpr std::string_view table = "holdfast";
constexpr std::string_view lease_set = "lease";
constexpr std::string_view lease_chain = "lease_check";
constexpr std::int64_t ns_per_ms = 1'000'000;
constexpr std::int64_t longest_lease_ns = 3'600'000 * ns_per_ms;

struct GatedProtocol {
  NftFamily family;
  std::uint16_t ether_type;
};
constexpr GatedProtocol gated[] = {
    {NftFamily::inet, ETH_P_IP}, {NftFamily::inet, ETH_P_IPV6}, {NftFamily::arp, ETH_P_ARP}};
constexpr NftFamily families[] = {NftFamily::inet, NftFamily::arp};

// `add` leaves what is there as it is, so an open lease survives; chains are flushed and filled again in the same transaction.
constexpr std::string_view skeleton = R"(
add table inet holdfast
add set inet holdfast lease { type ether_type; flags timeout; }
add set inet holdfast public4 { type ipv4_addr; }
add set inet holdfast public6 { type ipv6_addr; }
add chain inet holdfast lease_check
add chain inet holdfast gate
add chain inet holdfast arriving { type filter hook prerouting priority -310; policy accept; }
add chain inet holdfast sending { type filter hook output priority -310; policy accept; }
add chain inet holdfast leaving { type filter hook postrouting priority 310; policy accept; }
flush chain inet holdfast gate
flush chain inet holdfast arriving
flush chain inet holdfast sending
flush chain inet holdfast leaving
flush set inet holdfast public4
flush set inet holdfast public6
add rule inet holdfast gate jump lease_check
add rule inet holdfast gate drop
add rule inet holdfast arriving ip daddr @public4 goto gate
add rule inet holdfast arriving ip6 daddr @public6 goto gate
add rule inet holdfast sending ip saddr @public4 goto gate
add rule inet holdfast sending ip6 saddr @public6 goto gate
add rule inet holdfast leaving ip saddr @public4 goto gate
add rule inet holdfast leaving ip6 saddr @public6 goto gate
add table arp holdfast
add set arp holdfast lease { type ether_type; flags timeout; }
add set arp holdfast public4 { type ipv4_addr; }
add chain arp holdfast lease_check
add chain arp holdfast gate
add chain arp holdfast arriving { type filter hook input priority 0; policy accept; }
add chain arp holdfast sending { type filter hook output priority 0; policy accept; }
flush chain arp holdfast gate
flush chain arp holdfast arriving
flush chain arp holdfast sending
flush set arp holdfast public4
add rule arp holdfast gate jump lease_check
add rule arp holdfast gate drop
add rule arp holdfast arriving arp saddr ip @public4 accept
add rule arp holdfast arriving arp daddr ip @public4 goto gate
add rule arp holdfast sending arp saddr ip @public4 goto gate
)";
// Priorities: before connection tracking and NAT on the way in, after them on the way out, so that the addresses are the clients' view.
// In arp, what comes *from* a public address is the active's announcement: it is heard, but never answered (sending).

std::string address_commands(const std::vector<IpAddress>& addresses) {
  std::string text;
  for (const IpAddress& a : addresses) {
    if (!a.v6) {
      for (const char* family : {"inet", "arp"})
        text += fmt::format("add element {} holdfast public4 {{ {} }}\n", family, a.to_string());
      continue;
    }
    text += fmt::format("add element inet holdfast public6 {{ {} }}\n", a.to_string());
    std::string hex = "0x";
    for (const std::uint8_t b : a.bytes) hex += fmt::format("{:02x}", b);
    // Neighbour discovery names the address inside: bytes 8 to 23 of the message. Asked for: silence. Our own statements and the kernel's
    // duplicate address detection (its answer would be the active's "it is mine"): not sent.
    text +=
        fmt::format("add rule inet holdfast arriving icmpv6 type nd-neighbor-solicit @th,64,128 {} goto gate\n", hex);
    text += fmt::format("add rule inet holdfast sending icmpv6 type nd-neighbor-advert @th,64,128 {} goto gate\n", hex);
    text += fmt::format(
        "add rule inet holdfast sending ip6 saddr :: icmpv6 type nd-neighbor-solicit @th,64,128 {} goto gate\n", hex);
  }
  return text;
}

// The listing without what a renewal changes: the deadline rule, and lease elements that have a timeout. Anything else in those two places
// is somebody's, and makes a difference.
std::string without_lease(const std::string& listing) {
  static const std::regex deadline(R"(\n[^\n]*meta protocol @lease meta time < [^\n]* accept(?=\n))");
  static const std::regex element(R"(\b(ip|ip6|arp) timeout [0-9hdms]+( expires [0-9hdms]+)?)");
  static const std::regex empty(R"(\n\s*elements = \{[\s,]*\})");
  return std::regex_replace(std::regex_replace(std::regex_replace(listing, deadline, ""), element, ""), empty, "");
}

}  // namespace

struct PublicGate::Impl {
  nft_ctx* nft = nullptr;
  NftSocket socket;
  NftMonitor monitor;
  std::string installed;              // the listing without_lease, as install() left it
  std::int64_t deadline_real_ns = 0;  // 0 = closed, or unknown after a restart

  ~Impl() {
    if (nft != nullptr) nft_ctx_free(nft);
  }

  Status run_text(const std::string& commands) {
    if (nft_run_cmd_from_buffer(nft, commands.c_str()) == 0) return {};
    std::string error = nft_ctx_get_error_buffer(nft);
    error = error.substr(0, error.find('\n'));
    return fail(ErrorCode::io, "nftables refused the public addresses' gate: {}", error);
  }

  Result<std::string> list() {
    std::string text;
    for (const char* family : {"inet", "arp"}) {
      const std::string command = fmt::format("list table {} holdfast", family);
      if (nft_run_cmd_from_buffer(nft, command.c_str()) != 0)
        return fail(ErrorCode::corrupt, "the table {} holdfast is gone", family);
      text += nft_ctx_get_output_buffer(nft);
    }
    return without_lease(text);
  }

  // What remains now of a lease that was measured a moment ago, and the deadline on the wall clock as it was then.
  Result<std::int64_t> timeout_ms(const GateLease& lease) const {
    if (lease.left_ns > longest_lease_ns)
      return fail(ErrorCode::invalid, "a lease of {} ms is too long", lease.left_ns / ns_per_ms);
    const platform::ClockReading now = platform::read_clocks();
    const std::int64_t left =
        (lease.left_ns - platform::holder_elapsed_ns(lease.at, now, platform::tsc_hz())) / ns_per_ms;
    if (left < 1) return fail(ErrorCode::stale, "the lease is over");
    return left;
  }

  void put(NftBatch& batch, const GateLease& lease, std::int64_t timeout) const {
    for (const GatedProtocol& g : gated) batch.add_protocol(g.family, table, lease_set, g.ether_type, timeout);
    for (const NftFamily f : families) {
      batch.flush_chain(f, table, lease_chain);
      batch.add_deadline_rule(f, table, lease_chain, lease_set, lease.at.real_ns + lease.left_ns);
    }
  }
};

PublicGate::PublicGate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PublicGate::~PublicGate() = default;

Result<std::unique_ptr<PublicGate>> PublicGate::create() {
  auto impl = std::make_unique<Impl>();
  HF_ASSIGN(impl->socket, NftSocket::open());
  HF_ASSIGN(impl->monitor, NftMonitor::open());
  impl->nft = nft_ctx_new(NFT_CTX_DEFAULT);
  if (impl->nft == nullptr)
    return fail(ErrorCode::unavailable, "libnftables can't be used: is nf_tables in this kernel?");
  nft_ctx_buffer_output(impl->nft);
  nft_ctx_buffer_error(impl->nft);
  return std::unique_ptr<PublicGate>(new PublicGate(std::move(impl)));
}

Status PublicGate::install(const std::vector<IpAddress>& addresses) {
  const std::string commands = std::string(skeleton) + address_commands(addresses);
  if (Status done = impl_->run_text(commands); !done) {
    // Tables of another version, or touched by somebody: a fresh, closed gate. Deleting and adding is one transaction, there is no gap.
    log_warning("{}; making the gate afresh, closed", done.error().message);
    HF_TRY(impl_->run_text(
        "add table inet holdfast\ndelete table inet holdfast\nadd table arp holdfast\ndelete table arp holdfast\n" +
        commands));
    impl_->deadline_real_ns = 0;
  }
  impl_->monitor.foreign_change(
      table, impl_->socket.port());  // those were ours; what comes after is compared with the listing below
  HF_ASSIGN(impl_->installed, impl_->list());
  return {};
}

Status PublicGate::open(const GateLease& lease) {
  HF_ASSIGN(const std::int64_t timeout, impl_->timeout_ms(lease));
  NftBatch batch;
  for (const NftFamily f : families) batch.flush_set(f, table, lease_set);
  impl_->put(batch, lease, timeout);
  if (Status done = impl_->socket.run(batch); !done) {
    if (done.error().code != ErrorCode::not_found) return done;
    return fail(ErrorCode::corrupt, "the gate of the public addresses is gone: it has to be installed again");
  }
  impl_->deadline_real_ns = lease.at.real_ns + lease.left_ns;
  return {};
}

Status PublicGate::renew(const GateLease& lease) {
  const bool passed = impl_->deadline_real_ns != 0 && platform::read_clocks().real_ns >= impl_->deadline_real_ns;
  Result<std::int64_t> timeout = impl_->timeout_ms(lease);
  if (passed || !timeout) {
    HF_TRY(close());
    return fail(ErrorCode::stale, "the lease of the public addresses ran out: they are silent until it is won again");
  }
  NftBatch batch;
  for (const GatedProtocol& g : gated) batch.delete_protocol(g.family, table, lease_set, g.ether_type);
  impl_->put(batch, lease, *timeout);
  if (Status done = impl_->socket.run(batch); !done) {
    if (done.error().code != ErrorCode::not_found) return done;
    impl_->deadline_real_ns = 0;
    return fail(ErrorCode::stale,
                "the gate of the public addresses had closed: it stays closed until the lease is won again");
  }
  impl_->deadline_real_ns = lease.at.real_ns + lease.left_ns;
  return {};
}

Status PublicGate::close() {
  impl_->deadline_real_ns = 0;
  NftBatch batch;
  for (const NftFamily f : families) {
    batch.flush_set(f, table, lease_set);
    batch.flush_chain(f, table, lease_chain);
  }
  return impl_->socket.run(batch);
}

Status PublicGate::remove() {
  impl_->deadline_real_ns = 0;
  impl_->installed.clear();
  return impl_->run_text(
      "add table inet holdfast\ndelete table inet holdfast\nadd table arp holdfast\ndelete table arp holdfast\n");
}

Status PublicGate::verify() {
  HF_ASSIGN(const std::string now, impl_->list());
  if (now == impl_->installed) return {};
  return fail(ErrorCode::corrupt, "somebody changed the tables \"holdfast\" of the packet filter");
}

int PublicGate::change_fd() const { return impl_->monitor.fd(); }

bool PublicGate::foreign_change() { return impl_->monitor.foreign_change(table, impl_->socket.port()); }

}  // namespace holdfast::network
