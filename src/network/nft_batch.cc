// SPDX-License-Identifier: Apache-2.0
#include "network/nft_batch.h"

#include <arpa/inet.h>
#include <endian.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/check.h"

namespace holdfast::network {
namespace {

constexpr int answer_timeout_ms =
    1'000;  // the kernel answers in the same system call; only a broken kernel takes longer

constexpr std::uint16_t nft_message(int type) { return static_cast<std::uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | type); }

ByteView view(const void* data, std::size_t size) { return {static_cast<const std::uint8_t*>(data), size}; }

Result<platform::UniqueFd> netlink_socket(std::uint32_t groups, int flags) {
  platform::UniqueFd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | flags, NETLINK_NETFILTER));
  if (!fd) return fail_errno(errno, "cannot talk to nftables");
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = groups;
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return fail_errno(errno, "cannot listen to nftables");
  return fd;
}

// Calls visit(header) for each whole message of a received buffer.
template <class Visit>
void each_message(const char* buffer, ssize_t size, Visit visit) {
  std::size_t at = 0;
  while (at + sizeof(nlmsghdr) <= static_cast<std::size_t>(size)) {
    const auto* header = reinterpret_cast<const nlmsghdr*>(buffer + at);
    if (header->nlmsg_len < sizeof(nlmsghdr) || at + header->nlmsg_len > static_cast<std::size_t>(size)) return;
    visit(*header);
    at += NLMSG_ALIGN(header->nlmsg_len);
  }
}

// In every message of nftables but NEWGEN attribute 1 is the name of the table, and comes first.
std::string_view table_of(const nlmsghdr& header) {
  constexpr std::size_t at = NLMSG_HDRLEN + NLMSG_ALIGN(sizeof(nfgenmsg));
  if (header.nlmsg_type >> 8 != NFNL_SUBSYS_NFTABLES || header.nlmsg_len < at + NLA_HDRLEN) return {};
  const char* start = reinterpret_cast<const char*>(&header) + at;
  const auto* attribute = reinterpret_cast<const nlattr*>(start);
  if ((attribute->nla_type & NLA_TYPE_MASK) != 1 || attribute->nla_len <= NLA_HDRLEN ||
      at + attribute->nla_len > header.nlmsg_len)
    return {};
  const std::string_view name(start + NLA_HDRLEN, attribute->nla_len - NLA_HDRLEN);
  return name.substr(0, name.find('\0'));
}

const char* body_of(const nlmsghdr& header) { return reinterpret_cast<const char*>(&header) + NLMSG_HDRLEN; }

}  // namespace

NftBatch::NftBatch() {
  bytes_.reserve(2048);
  boundary(NFNL_MSG_BATCH_BEGIN);
  first_ = next_;
}

void NftBatch::boundary(std::uint16_t type) {
  nlmsghdr header{};
  header.nlmsg_len = NLMSG_LENGTH(sizeof(nfgenmsg));
  header.nlmsg_type = type;
  header.nlmsg_flags = NLM_F_REQUEST;
  header.nlmsg_seq = next_++;
  nfgenmsg body{};
  body.nfgen_family = AF_UNSPEC;
  body.res_id = htons(NFNL_SUBSYS_NFTABLES);
  const ByteView h = view(&header, sizeof header), b = view(&body, sizeof body);
  bytes_.insert(bytes_.end(), h.begin(), h.end());
  bytes_.insert(bytes_.end(), b.begin(), b.end());
}

void NftBatch::begin(std::uint16_t type, std::uint16_t flags, NftFamily family) {
  message_at_ = bytes_.size();
  nlmsghdr header{};
  header.nlmsg_type = nft_message(type);
  header.nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | NLM_F_ACK | flags);
  header.nlmsg_seq = next_++;
  nfgenmsg body{};
  body.nfgen_family = static_cast<std::uint8_t>(family);
  const ByteView h = view(&header, sizeof header), b = view(&body, sizeof body);
  bytes_.insert(bytes_.end(), h.begin(), h.end());
  bytes_.insert(bytes_.end(), b.begin(), b.end());
}

void NftBatch::end() {
  const auto length = static_cast<std::uint32_t>(bytes_.size() - message_at_);
  std::memcpy(bytes_.data() + message_at_, &length, sizeof length);
}

void NftBatch::put(std::uint16_t type, ByteView value) {
  nlattr header{};
  header.nla_len = static_cast<std::uint16_t>(NLA_HDRLEN + value.size());
  header.nla_type = type;
  const ByteView h = view(&header, sizeof header);
  bytes_.insert(bytes_.end(), h.begin(), h.end());
  bytes_.insert(bytes_.end(), value.begin(), value.end());
  bytes_.resize((bytes_.size() + 3) & ~std::size_t{3});
}

void NftBatch::put_text(std::uint16_t type, std::string_view text) {
  Bytes value(text.begin(), text.end());
  value.push_back(0);
  put(type, value);
}

void NftBatch::put_be32(std::uint16_t type, std::uint32_t value) {
  const std::uint32_t be = htonl(value);
  put(type, view(&be, sizeof be));
}

void NftBatch::put_be64(std::uint16_t type, std::uint64_t value) {
  const std::uint64_t be = htobe64(value);
  put(type, view(&be, sizeof be));
}

std::size_t NftBatch::open(std::uint16_t type) {
  const std::size_t at = bytes_.size();
  put(static_cast<std::uint16_t>(type | NLA_F_NESTED), {});
  return at;
}

void NftBatch::close(std::size_t at) {
  const auto length = static_cast<std::uint16_t>(bytes_.size() - at);
  std::memcpy(bytes_.data() + at, &length, sizeof length);
}

template <class Fields>
void NftBatch::element(std::uint16_t message, std::uint16_t flags, NftFamily family, std::string_view table,
                       std::string_view set, Fields fields) {
  begin(message, flags, family);
  put_text(NFTA_SET_ELEM_LIST_TABLE, table);
  put_text(NFTA_SET_ELEM_LIST_SET, set);
  const std::size_t list = open(NFTA_SET_ELEM_LIST_ELEMENTS);
  const std::size_t item = open(NFTA_LIST_ELEM);
  fields();
  close(item);
  close(list);
  end();
}

void NftBatch::add_protocol(NftFamily family, std::string_view table, std::string_view set, std::uint16_t protocol,
                            std::int64_t timeout_ms) {
  CHECK(timeout_ms > 0, "an element without a timeout would never close the gate");
  element(NFT_MSG_NEWSETELEM, NLM_F_CREATE, family, table, set, [&] {
    const std::size_t key = open(NFTA_SET_ELEM_KEY);
    const std::uint16_t be = htons(protocol);
    put(NFTA_DATA_VALUE, view(&be, sizeof be));
    close(key);
    put_be64(NFTA_SET_ELEM_TIMEOUT, static_cast<std::uint64_t>(timeout_ms));
  });
}

void NftBatch::delete_protocol(NftFamily family, std::string_view table, std::string_view set, std::uint16_t protocol) {
  element(NFT_MSG_DELSETELEM, 0, family, table, set, [&] {
    const std::size_t key = open(NFTA_SET_ELEM_KEY);
    const std::uint16_t be = htons(protocol);
    put(NFTA_DATA_VALUE, view(&be, sizeof be));
    close(key);
  });
}

void NftBatch::flush_set(NftFamily family, std::string_view table, std::string_view set) {
  begin(NFT_MSG_DELSETELEM, 0, family);
  put_text(NFTA_SET_ELEM_LIST_TABLE, table);
  put_text(NFTA_SET_ELEM_LIST_SET, set);
  end();
}

void NftBatch::flush_chain(NftFamily family, std::string_view table, std::string_view chain) {
  begin(NFT_MSG_DELRULE, 0, family);
  put_text(NFTA_RULE_TABLE, table);
  put_text(NFTA_RULE_CHAIN, chain);
  end();
}

template <class Fields>
void NftBatch::expression(std::string_view name, Fields fields) {
  const std::size_t item = open(NFTA_LIST_ELEM);
  put_text(NFTA_EXPR_NAME, name);
  const std::size_t data = open(NFTA_EXPR_DATA);
  fields();
  close(data);
  close(item);
}

void NftBatch::add_deadline_rule(NftFamily family, std::string_view table, std::string_view chain, std::string_view set,
                                 std::int64_t real_ns) {
  begin(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, family);
  put_text(NFTA_RULE_TABLE, table);
  put_text(NFTA_RULE_CHAIN, chain);
  const std::size_t list = open(NFTA_RULE_EXPRESSIONS);
  expression("meta", [&] {
    put_be32(NFTA_META_KEY, NFT_META_PROTOCOL);
    put_be32(NFTA_META_DREG, NFT_REG_1);
  });
  expression("lookup", [&] {
    put_text(NFTA_LOOKUP_SET, set);
    put_be32(NFTA_LOOKUP_SREG, NFT_REG_1);
  });
  expression("meta", [&] {
    put_be32(NFTA_META_KEY, NFT_META_TIME_NS);
    put_be32(NFTA_META_DREG, NFT_REG_1);
  });
  // Comparisons are of bytes, so the number has to be big-endian.
  expression("byteorder", [&] {
    put_be32(NFTA_BYTEORDER_SREG, NFT_REG_1);
    put_be32(NFTA_BYTEORDER_DREG, NFT_REG_1);
    put_be32(NFTA_BYTEORDER_OP, NFT_BYTEORDER_HTON);
    put_be32(NFTA_BYTEORDER_LEN, 8);
    put_be32(NFTA_BYTEORDER_SIZE, 8);
  });
  expression("cmp", [&] {
    put_be32(NFTA_CMP_SREG, NFT_REG_1);
    put_be32(NFTA_CMP_OP, NFT_CMP_LT);
    const std::size_t data = open(NFTA_CMP_DATA);
    put_be64(NFTA_DATA_VALUE, static_cast<std::uint64_t>(real_ns));
    close(data);
  });
  expression("immediate", [&] {
    put_be32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
    const std::size_t data = open(NFTA_IMMEDIATE_DATA);
    const std::size_t verdict = open(NFTA_DATA_VERDICT);
    put_be32(NFTA_VERDICT_CODE, NF_ACCEPT);
    close(verdict);
    close(data);
  });
  close(list);
  end();
}

const Bytes& NftBatch::finish() {
  boundary(NFNL_MSG_BATCH_END);
  --next_;  // the end is not answered: last() is the last message before it
  return bytes_;
}

Result<NftSocket> NftSocket::open() {
  NftSocket s;
  HF_ASSIGN(s.fd_, netlink_socket(0, 0));
  sockaddr_nl address{};
  socklen_t size = sizeof address;
  if (getsockname(s.fd_.get(), reinterpret_cast<sockaddr*>(&address), &size) != 0)
    return fail_errno(errno, "cannot ask for a netlink port");
  s.port_ = address.nl_pid;
  return s;
}

Status NftSocket::run(NftBatch& batch) {
  char old[8192];  // answers to an earlier batch that was given up
  while (recv(fd_.get(), old, sizeof old, MSG_DONTWAIT) > 0) {
  }
  const Bytes& bytes = batch.finish();
  if (send(fd_.get(), bytes.data(), bytes.size(), 0) < 0) return fail_errno(errno, "cannot change the packet filter");
  std::uint32_t answered = 0;
  int error = 0;
  const std::uint32_t wanted = batch.last() - batch.first() + 1;
  while (answered < wanted) {
    pollfd p{fd_.get(), POLLIN, 0};
    if (poll(&p, 1, answer_timeout_ms) <= 0)
      return fail(ErrorCode::unavailable, "the kernel did not answer a change of the packet filter");
    alignas(nlmsghdr) char buffer[8192];
    const ssize_t n = recv(fd_.get(), buffer, sizeof buffer, 0);
    if (n < 0) return fail_errno(errno, "cannot read the answer about the packet filter");
    each_message(buffer, n, [&](const nlmsghdr& h) {
      if (h.nlmsg_type != NLMSG_ERROR || h.nlmsg_len < NLMSG_LENGTH(sizeof(nlmsgerr))) return;
      const auto* e = reinterpret_cast<const nlmsgerr*>(body_of(h));
      if (e->error != 0 && error == 0) error = -e->error;
      if (h.nlmsg_seq < batch.first()) answered = wanted;  // the batch as a whole was refused
      ++answered;
    });
  }
  if (error == ENOENT) return fail(ErrorCode::not_found, "a part of the packet filter is not there");
  if (error != 0) return fail_errno(error, "the kernel refused a change of the packet filter");
  return {};
}

Result<NftMonitor> NftMonitor::open() {
  NftMonitor m;
  HF_ASSIGN(m.fd_, netlink_socket(1U << (NFNLGRP_NFTABLES - 1), SOCK_NONBLOCK));
  return m;
}

bool NftMonitor::foreign_change(std::string_view table, std::uint32_t own_port) {
  bool foreign = false;
  for (;;) {
    alignas(nlmsghdr) char buffer[65536];
    const ssize_t n = recv(fd_.get(), buffer, sizeof buffer, 0);
    if (n < 0 && errno == ENOBUFS) {
      foreign = true;  // what was lost may have been about us
      continue;
    }
    if (n <= 0) return foreign;
    each_message(buffer, n, [&](const nlmsghdr& h) {
      if (h.nlmsg_pid != own_port && h.nlmsg_type != nft_message(NFT_MSG_NEWGEN) && table_of(h) == table)
        foreign = true;
    });
  }
}

}  // namespace holdfast::network
