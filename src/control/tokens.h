// SPDX-License-Identifier: Apache-2.0
// Join tokens: short-lived, single-use, bound to one cluster and one kind. The text carries the CA's fingerprint, so that
// the joiner knows whom it talks to before it has any certificate; the issuer keeps only a hash of the secret.
//
//   "hf1-" base64url( version u8=1 | kind u8 | cluster id 8 | CA SHA-256 32 | secret 16 | CRC32C of the former, u32 )
//
// Consumption is durable before consume() returns: a token can't be used twice, not even across a crash.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "base/result.h"
#include "control/pki.h"

namespace holdfast::control {

struct JoinToken {
  CertificateKind kind = CertificateKind::node;
  std::string cluster_id;      // 16 hex digits
  std::string ca_fingerprint;  // 64 hex digits
  std::array<std::uint8_t, 16> secret{};
};

std::string to_text(const JoinToken& token);
// A damaged or cut token is told apart from a wrong one here, without asking anybody.
Result<JoinToken> join_token_from_text(std::string_view text);

// Expiry goes by the boot clock (counts through suspend, can't be set) while the machine has not rebooted, and by the wall
// clock after that: a clock jump of an hour neither kills nor revives a token.
struct TokenTime {
  std::int64_t wall_ms = 0;
  std::int64_t boot_ms = 0;
  std::string boot_id;
};

// Any thread.
class TokenStore {
 public:
  using Clock = std::function<TokenTime()>;
  static TokenTime system_time();

  TokenStore(std::string file, Clock clock = system_time);

  struct Issued {
    std::string text;
    std::int64_t expires_ms = 0;  // wall clock
  };
  Result<Issued> issue(const std::string& cluster_id, const std::string& ca_fingerprint, CertificateKind kind,
                       std::int64_t ttl_s);
  // Is it good now? Nothing is changed. Errors as of consume().
  Status check(std::string_view text, const std::string& cluster_id, CertificateKind kind);
  // Errors, each its own line: damaged, another cluster's, unknown here, used already, expired, wrong kind. All `denied`.
  Status consume(std::string_view text, const std::string& cluster_id, CertificateKind kind,
                 const std::string& used_by);

 private:
  struct Entry;
  Result<std::vector<Entry>> load() const;
  Status save(const std::vector<Entry>& entries) const;
  // The entry that `text` stands for. With mutex_ held.
  Result<Entry*> usable(std::vector<Entry>& entries, std::string_view text, const std::string& cluster_id,
                        CertificateKind kind) const;
  bool expired(const Entry& entry, const TokenTime& now) const;

  const std::string file_;
  const Clock clock_;
  std::mutex mutex_;
};

}  // namespace holdfast::control
