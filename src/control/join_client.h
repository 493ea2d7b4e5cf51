// SPDX-License-Identifier: Apache-2.0
// The joining side, shared by holdfastd and holdfast-witness: makes a key, shows the token to a member over TLS whose CA
// must have the token's fingerprint, and comes back with a certificate. The key never leaves this machine.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "control/pki.h"
#include "control/requests.h"

namespace holdfast::control {

struct JoinOptions {
  std::string address;  // "10.0.0.1", "10.0.0.1:9727", "[fd00::1]:9727", "name"
  std::string token;
  std::string node;     // our name
  std::string node_id;  // a witness's own; empty for a node, which gets one
  std::string site;
  std::vector<std::string> channel;  // empty: the local address of the connection
  std::vector<std::string> public_addresses;
  CertificateKind kind = CertificateKind::node;
  std::string version;
  std::string incarnation;
  int timeout_ms = 15'000;
  // A node: answers what the cluster asks of one who is to hold its data, or says why this machine can't be asked. Judged by
  // the cluster before anybody is admitted. It may take long, on both sides: `judge_timeout_ms` instead.
  std::function<Result<std::string>(const std::string& asks)> answer;
  int judge_timeout_ms = 60'000;
};

struct Joined {
  AdmitReply reply;
  TlsMaterial material;        // ready for store_tls()
  std::string local_address;   // that reached the member
  std::string member_address;  // normalized "host:port"
};

// Nothing on disk is touched: the caller stores the material and the bootstrap, then starts.
Result<Joined> join_cluster(const JoinOptions& options);

// The next certificate for one who has no CA key (a witness), from a member, with the present one as proof. The folder is
// replaced when the answer holds together; otherwise it stays as it is.
Status renew_through_member(const TlsFolder& folder, const std::string& address, int timeout_ms);

struct HostPort {
  std::string host;
  std::uint16_t port = 0;
};
Result<HostPort> parse_host_port(std::string_view text, std::uint16_t default_port);

}  // namespace holdfast::control
