// SPDX-License-Identifier: Apache-2.0
// The cluster's own certificates (EC P-256, OpenSSL 3). One CA a cluster, its key on each data node so that each can admit
// and renew. A certificate says CN = node id, O = cluster id, OU = node|witness, and `holdfast:cluster/<id>/node/<id>` as SAN
// URI. Names are not in it: a node may be renamed. notBefore lies a day back, so a clock that is wrong by hours locks nobody out.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.h"

namespace holdfast::control {

constexpr std::int64_t day_s = 86'400;
constexpr std::int64_t ca_validity_s = 3650 * day_s;
constexpr std::int64_t node_validity_s = 730 * day_s;
constexpr std::int64_t renew_before_s = 180 * day_s;  // renewed automatically from then on
constexpr std::int64_t warn_before_s = 30 * day_s;    // an alert from then on

enum class CertificateKind { node, witness };
const char* to_string(CertificateKind kind);
Result<CertificateKind> certificate_kind_from_text(std::string_view text);

struct CertificateSubject {
  std::string cluster_id;  // 16 hex digits
  std::string node_id;     // 16 hex digits
  CertificateKind kind = CertificateKind::node;
};

struct CertificateInfo {
  CertificateSubject subject;  // ids empty in a CA certificate
  bool is_ca = false;
  std::int64_t not_before_s = 0;  // Unix time
  std::int64_t not_after_s = 0;
  std::string fingerprint;  // SHA-256 of the DER form, 64 hex digits
};

struct Credentials {
  std::string key_pem;
  std::string certificate_pem;
};
struct SigningRequest {
  std::string key_pem;
  std::string csr_pem;
};

Result<Credentials> make_ca(const std::string& cluster_id, std::int64_t now_s);
Result<SigningRequest> make_signing_request();
// The identity is taken from `subject`, not from the request: the request only proves possession of the key.
Result<std::string> sign_request(const Credentials& ca, const std::string& csr_pem, const CertificateSubject& subject,
                                 std::int64_t now_s);
Result<Credentials> make_node_credentials(const Credentials& ca, const CertificateSubject& subject, std::int64_t now_s);

Result<CertificateInfo> inspect_certificate(const std::string& pem);
Result<std::string> fingerprint_of(const std::string& certificate_pem);
// Signed by this CA, of this cluster, with this key, in time: else one line that says which and what to do.
Status verify_certificate(const std::string& ca_pem, const std::string& certificate_pem, std::int64_t now_s);
Status check_key_matches(const std::string& certificate_pem, const std::string& key_pem);
// "certificate of node 00ab... expired on 2028-11-25: ..." or, when not yet valid, a hint at the clock.
Status check_validity(const CertificateInfo& info, std::int64_t now_s);
bool renewal_due(const CertificateInfo& info, std::int64_t now_s);

std::string random_id_hex();  // 64 random bits as 16 hex digits, never all zero: cluster and node ids

// Where they live: DIR/{ca.crt,ca.key,node.crt,node.key}, DIR 0700, files 0600. ca.key only on data nodes.
struct TlsFolder {
  std::string dir;
  std::string ca_certificate() const { return dir + "/ca.crt"; }
  std::string ca_key() const { return dir + "/ca.key"; }
  std::string certificate() const { return dir + "/node.crt"; }
  std::string key() const { return dir + "/node.key"; }
};
struct TlsMaterial {
  std::string ca_certificate_pem;
  std::string ca_key_pem;  // may be empty
  Credentials own;
};
// Key before certificate, each durable: a crash leaves either the old pair or a pair that load refuses by name.
Status store_tls(const TlsFolder& folder, const TlsMaterial& material);
Result<TlsMaterial> load_tls(const TlsFolder& folder, std::int64_t now_s);
// A data node signs its own next certificate when due. true = files changed, TLS listeners should reload.
Result<bool> renew_if_due(const TlsFolder& folder, std::int64_t now_s);

}  // namespace holdfast::control
