// SPDX-License-Identifier: Apache-2.0
// One nftables transaction as netlink messages: all or nothing in the kernel. Renewals are made by hand because libnftables takes whole
// seconds only for `meta time`, and reads the machine's whole ruleset before each command.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "platform/unique_fd.h"

namespace holdfast::network {

enum class NftFamily : std::uint8_t { inet = 1, arp = 3 };  // NFPROTO_INET, NFPROTO_ARP

class NftBatch {
 public:
  NftBatch();
  // Elements of a set keyed by ether_type. A timeout of 0 is not allowed: nothing here may live for ever.
  void add_protocol(NftFamily family, std::string_view table, std::string_view set, std::uint16_t protocol,
                    std::int64_t timeout_ms);
  void delete_protocol(NftFamily family, std::string_view table, std::string_view set,
                       std::uint16_t protocol);  // fails when it expired
  void flush_set(NftFamily family, std::string_view table, std::string_view set);
  void flush_chain(NftFamily family, std::string_view table, std::string_view chain);
  // "meta protocol @SET meta time < DEADLINE accept"; real_ns is CLOCK_REALTIME.
  void add_deadline_rule(NftFamily family, std::string_view table, std::string_view chain, std::string_view set,
                         std::int64_t real_ns);

  // The finished bytes, and the sequence numbers of the messages whose answers are to be awaited.
  const Bytes& finish();
  std::uint32_t first() const { return first_; }
  std::uint32_t last() const { return next_ - 1; }

 private:
  void begin(std::uint16_t type, std::uint16_t flags, NftFamily family);
  void end();
  void put(std::uint16_t type, ByteView value);
  void put_text(std::uint16_t type, std::string_view text);  // with its terminating zero
  void put_be32(std::uint16_t type, std::uint32_t value);
  void put_be64(std::uint16_t type, std::uint64_t value);
  std::size_t open(std::uint16_t type);
  void close(std::size_t at);
  void boundary(std::uint16_t type);
  template <class Fields>
  void expression(std::string_view name, Fields fields);
  template <class Fields>
  void element(std::uint16_t message, std::uint16_t flags, NftFamily family, std::string_view table,
               std::string_view set, Fields fields);

  Bytes bytes_;
  std::size_t message_at_ = 0;
  std::uint32_t first_ = 0;
  std::uint32_t next_ = 1;
};

// A netlink socket to nftables. One thread.
class NftSocket {
 public:
  static Result<NftSocket> open();
  // Runs the transaction. `not_found`: something to be deleted was not there (nothing was changed); `unavailable`: no answer.
  Status run(NftBatch& batch);
  std::uint32_t port() const { return port_; }

 private:
  platform::UniqueFd fd_;
  std::uint32_t port_ = 0;
};

// Who changed the ruleset? Reads NFNLGRP_NFTABLES.
class NftMonitor {
 public:
  static Result<NftMonitor> open();
  int fd() const { return fd_.get(); }
  // True when something of a table called `table` was changed by another socket than `own_port`, or when events were lost.
  bool foreign_change(std::string_view table, std::uint32_t own_port);

 private:
  platform::UniqueFd fd_;
};

}  // namespace holdfast::network
