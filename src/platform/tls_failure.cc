// SPDX-License-Identifier: Apache-2.0
#include "platform/tls_failure.h"

#include <ctime>

#include <fmt/core.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

namespace holdfast::platform {
namespace {

std::string name_entry(X509* certificate, int nid) {
  char text[128] = {};
  const int length = X509_NAME_get_text_by_NID(X509_get_subject_name(certificate), nid, text, sizeof text);
  return length > 0 ? text : "";
}

std::string date_of(const ASN1_TIME* time) {
  std::tm parts{};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return "?";
  return fmt::format("{:04}-{:02}-{:02}", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday);
}

// "node 00000000000000b2"
std::string name_of(X509* certificate) {
  if (X509_check_ca(certificate) > 0) return "the cluster's authority";
  const std::string unit = name_entry(certificate, NID_organizationalUnitName);
  return (unit.empty() ? "node" : unit) + " " + name_entry(certificate, NID_commonName);
}

// What is to be done for the one whose certificate it is. A node renews its own when holdfastd starts; a witness can't.
std::string remedy(X509* certificate, const char* where) {
  if (name_entry(certificate, NID_organizationalUnitName) == "witness") return "are the clocks right?";
  return fmt::format("restart holdfastd {}, which renews it; are the clocks right?", where);
}

// What was wrong with the peer's chain. OpenSSL keeps it when it refuses it, but not which of its certificates it was.
std::string judged(SSL* ssl, long verdict) {
  STACK_OF(X509)* chain = SSL_get0_verified_chain(ssl);
  for (int i = 0; i < sk_X509_num(chain); ++i) {
    X509* certificate = sk_X509_value(chain, i);
    const ASN1_TIME* end = X509_get0_notAfter(certificate);
    if (verdict == X509_V_ERR_CERT_HAS_EXPIRED && X509_cmp_current_time(end) < 0)
      return fmt::format("the certificate of {} expired on {}: {}", name_of(certificate), date_of(end),
                         remedy(certificate, "there"));
    const ASN1_TIME* begin = X509_get0_notBefore(certificate);
    if (verdict == X509_V_ERR_CERT_NOT_YET_VALID && X509_cmp_current_time(begin) > 0)
      return fmt::format("the certificate of {} is valid from {} only: set the clocks", name_of(certificate),
                         date_of(begin));
  }
  return fmt::format("its certificate is not accepted: {}", X509_verify_cert_error_string(verdict));
}

}  // namespace

std::string tls_failure(ssl_st* ssl, const std::string& otherwise) {
  unsigned long last = 0;
  while (const unsigned long code = ERR_get_error()) last = code;
  if (const long verdict = SSL_get_verify_result(ssl); verdict != X509_V_OK) return judged(ssl, verdict);
  X509* own = SSL_get_certificate(ssl);
  if (ERR_GET_LIB(last) == ERR_LIB_SSL && ERR_GET_REASON(last) == SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED &&
      own != nullptr)
    return fmt::format("the other side says that this machine's certificate has expired; it is valid until {}: {}",
                       date_of(X509_get0_notAfter(own)), remedy(own, "here"));
  const char* reason = last != 0 ? ERR_reason_error_string(last) : nullptr;
  return reason != nullptr ? reason : otherwise;
}

}  // namespace holdfast::platform
