// SPDX-License-Identifier: Apache-2.0
#include "control/pki.h"

#include <algorithm>
#include <cctype>
#include <ctime>
#include <memory>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "base/check.h"

namespace holdfast::control {
namespace {

template <auto Free>
struct Freer {
  template <class T>
  void operator()(T* p) const {
    Free(p);
  }
};
using Key = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY_free>>;
using Certificate = std::unique_ptr<X509, Freer<X509_free>>;
using Request = std::unique_ptr<X509_REQ, Freer<X509_REQ_free>>;
using Bio = std::unique_ptr<BIO, Freer<BIO_free_all>>;
using Extension = std::unique_ptr<X509_EXTENSION, Freer<X509_EXTENSION_free>>;
using Store = std::unique_ptr<X509_STORE, Freer<X509_STORE_free>>;
using StoreContext = std::unique_ptr<X509_STORE_CTX, Freer<X509_STORE_CTX_free>>;

tl::unexpected<Error> fail_openssl(ErrorCode code, const std::string& what) {
  char reason[256] = "unknown";
  if (const unsigned long e = ERR_get_error(); e != 0) ERR_error_string_n(e, reason, sizeof reason);
  ERR_clear_error();
  return fail(code, "{} ({})", what, reason);
}

Bio memory(const std::string& text) { return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const long length = BIO_get_mem_data(bio, &data);
  return std::string(data, static_cast<std::size_t>(length));
}

template <class Write>
Result<std::string> to_pem(const char* what, Write write) {
  const Bio bio(BIO_new(BIO_s_mem()));
  if (!bio || write(bio.get()) != 1) return fail_openssl(ErrorCode::internal, fmt::format("cannot write a {}", what));
  return text_of(bio.get());
}

Result<std::string> key_pem(EVP_PKEY* key) {
  return to_pem("key", [&](BIO* b) { return PEM_write_bio_PrivateKey(b, key, nullptr, nullptr, 0, nullptr, nullptr); });
}
Result<std::string> certificate_pem(X509* certificate) {
  return to_pem("certificate", [&](BIO* b) { return PEM_write_bio_X509(b, certificate); });
}

// No passphrase prompt on a terminal when somebody put an encrypted key there: an error instead.
int no_passphrase(char*, int, int, void*) { return -1; }

Result<Key> parse_key(const std::string& pem) {
  const Bio bio = memory(pem);
  Key key(PEM_read_bio_PrivateKey(bio.get(), nullptr, no_passphrase, nullptr));
  if (!key) return fail_openssl(ErrorCode::corrupt, "not a private key in PEM form");
  return key;
}
Result<Certificate> parse_certificate(const std::string& pem) {
  const Bio bio = memory(pem);
  Certificate certificate(PEM_read_bio_X509(bio.get(), nullptr, no_passphrase, nullptr));
  if (!certificate) return fail_openssl(ErrorCode::corrupt, "not a certificate in PEM form");
  return certificate;
}

Result<Key> make_key() {
  Key key(EVP_EC_gen("P-256"));
  if (!key) return fail_openssl(ErrorCode::internal, "cannot make a key");
  return key;
}

bool add_name(X509_NAME* name, const char* field, const std::string& value) {
  return X509_NAME_add_entry_by_txt(name, field, MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(value.c_str()),
                                    -1, -1, 0) == 1;
}

bool add_extension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  const Extension extension(X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str()));
  return extension && X509_add_ext(certificate, extension.get(), -1) == 1;
}

bool set_random_serial(X509* certificate) {
  unsigned char bytes[16];
  if (RAND_bytes(bytes, sizeof bytes) != 1) return false;
  bytes[0] &= 0x7f;  // positive
  const std::unique_ptr<BIGNUM, Freer<BN_free>> number(BN_bin2bn(bytes, sizeof bytes, nullptr));
  return number && BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate)) != nullptr;
}

// Version 3, serial, times and key: what every certificate of ours has.
bool fill_common(X509* certificate, EVP_PKEY* key, std::int64_t now_s, std::int64_t validity_s) {
  return X509_set_version(certificate, X509_VERSION_3) == 1 && set_random_serial(certificate) &&
         ASN1_TIME_set(X509_getm_notBefore(certificate), now_s - day_s) != nullptr &&
         ASN1_TIME_set(X509_getm_notAfter(certificate), now_s + validity_s) != nullptr &&
         X509_set_pubkey(certificate, key) == 1;
}

std::string identity_uri(const CertificateSubject& subject) {
  return "holdfast:cluster/" + subject.cluster_id + "/node/" + subject.node_id;
}

bool is_id(std::string_view text) {
  return text.size() == 16 &&
         std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

Status check_subject(const CertificateSubject& subject) {
  if (!is_id(subject.cluster_id)) return fail(ErrorCode::invalid, "cluster id must be 16 hex digits");
  if (!is_id(subject.node_id)) return fail(ErrorCode::invalid, "node id must be 16 hex digits");
  return {};
}

std::int64_t seconds_of(const ASN1_TIME* time) {
  std::tm parts{};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return 0;
  return timegm(&parts);
}

std::string name_entry(X509* certificate, int nid) {
  X509_NAME* name = X509_get_subject_name(certificate);
  const int at = X509_NAME_get_index_by_NID(name, nid, -1);
  if (at < 0) return {};
  const ASN1_STRING* data = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at));
  return std::string(reinterpret_cast<const char*>(ASN1_STRING_get0_data(data)),
                     static_cast<std::size_t>(ASN1_STRING_length(data)));
}

// The first URI among the subject's alternative names; a certificate of ours has exactly one.
std::string uri_of(X509* certificate) {
  auto* names = static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  std::string uri;
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names, i);
    if (name->type != GEN_URI || !uri.empty()) continue;
    uri.assign(reinterpret_cast<const char*>(ASN1_STRING_get0_data(name->d.uniformResourceIdentifier)),
               static_cast<std::size_t>(ASN1_STRING_length(name->d.uniformResourceIdentifier)));
  }
  GENERAL_NAMES_free(names);
  return uri;
}

std::string hex_of(const unsigned char* bytes, std::size_t length) {
  std::string hex;
  for (std::size_t i = 0; i < length; ++i) hex += fmt::format("{:02x}", bytes[i]);
  return hex;
}

Result<std::string> fingerprint(X509* certificate) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  if (X509_digest(certificate, EVP_sha256(), digest, &length) != 1)
    return fail_openssl(ErrorCode::internal, "cannot fingerprint a certificate");
  return hex_of(digest, length);
}

std::string date_of(std::int64_t unix_s) {
  const std::time_t time = unix_s;
  std::tm parts{};
  gmtime_r(&time, &parts);
  return fmt::format("{:04}-{:02}-{:02}", parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday);
}

}  // namespace

const char* to_string(CertificateKind kind) { return kind == CertificateKind::node ? "node" : "witness"; }

Result<CertificateKind> certificate_kind_from_text(std::string_view text) {
  if (text == "node") return CertificateKind::node;
  if (text == "witness") return CertificateKind::witness;
  return fail(ErrorCode::invalid, "kind must be node or witness");
}

std::string random_id_hex() {
  unsigned char bytes[8] = {};
  do CHECK(RAND_bytes(bytes, sizeof bytes) == 1, "no randomness from OpenSSL");
  while (std::all_of(std::begin(bytes), std::end(bytes), [](unsigned char b) { return b == 0; }));
  return hex_of(bytes, sizeof bytes);
}

Result<Credentials> make_ca(const std::string& cluster_id, std::int64_t now_s) {
  if (!is_id(cluster_id)) return fail(ErrorCode::invalid, "cluster id must be 16 hex digits");
  HF_ASSIGN(const Key key, make_key());
  const Certificate ca(X509_new());
  const bool made = ca && fill_common(ca.get(), key.get(), now_s, ca_validity_s) &&
                    add_name(X509_get_subject_name(ca.get()), "O", cluster_id) &&
                    add_name(X509_get_subject_name(ca.get()), "CN", "Holdfast cluster CA") &&
                    X509_set_issuer_name(ca.get(), X509_get_subject_name(ca.get())) == 1 &&
                    add_extension(ca.get(), ca.get(), NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
                    add_extension(ca.get(), ca.get(), NID_key_usage, "critical,keyCertSign,cRLSign") &&
                    add_extension(ca.get(), ca.get(), NID_subject_key_identifier, "hash") &&
                    X509_sign(ca.get(), key.get(), EVP_sha256()) > 0;
  if (!made) return fail_openssl(ErrorCode::internal, "cannot make the cluster's certificate authority");
  HF_ASSIGN(std::string key_text, key_pem(key.get()));
  HF_ASSIGN(std::string certificate_text, certificate_pem(ca.get()));
  return Credentials{std::move(key_text), std::move(certificate_text)};
}

Result<SigningRequest> make_signing_request() {
  HF_ASSIGN(const Key key, make_key());
  const Request request(X509_REQ_new());
  const bool made = request && X509_REQ_set_version(request.get(), X509_REQ_VERSION_1) == 1 &&
                    X509_REQ_set_pubkey(request.get(), key.get()) == 1 &&
                    X509_REQ_sign(request.get(), key.get(), EVP_sha256()) > 0;
  if (!made) return fail_openssl(ErrorCode::internal, "cannot make a certificate request");
  HF_ASSIGN(std::string key_text, key_pem(key.get()));
  HF_ASSIGN(std::string csr_text, to_pem("request", [&](BIO* b) { return PEM_write_bio_X509_REQ(b, request.get()); }));
  return SigningRequest{std::move(key_text), std::move(csr_text)};
}

Result<std::string> sign_request(const Credentials& ca, const std::string& csr_pem, const CertificateSubject& subject,
                                 std::int64_t now_s) {
  HF_TRY(check_subject(subject));
  HF_ASSIGN(const Certificate issuer, parse_certificate(ca.certificate_pem));
  HF_ASSIGN(const Key issuer_key, parse_key(ca.key_pem));
  const Bio bio = memory(csr_pem);
  const Request request(PEM_read_bio_X509_REQ(bio.get(), nullptr, no_passphrase, nullptr));
  if (!request) return fail_openssl(ErrorCode::invalid, "not a certificate request in PEM form");
  EVP_PKEY* key = X509_REQ_get0_pubkey(request.get());
  if (key == nullptr || X509_REQ_verify(request.get(), key) != 1)
    return fail_openssl(ErrorCode::denied, "the certificate request is not signed by its own key");
  if (EVP_PKEY_get_base_id(key) != EVP_PKEY_EC || EVP_PKEY_get_bits(key) != 256)
    return fail(ErrorCode::denied, "the certificate request's key is not EC P-256");

  const Certificate made(X509_new());
  X509_NAME* name = made ? X509_get_subject_name(made.get()) : nullptr;
  const bool ok = name != nullptr && fill_common(made.get(), key, now_s, node_validity_s) &&
                  add_name(name, "O", subject.cluster_id) && add_name(name, "OU", to_string(subject.kind)) &&
                  add_name(name, "CN", subject.node_id) &&
                  X509_set_issuer_name(made.get(), X509_get_subject_name(issuer.get())) == 1 &&
                  add_extension(made.get(), issuer.get(), NID_basic_constraints, "critical,CA:FALSE") &&
                  add_extension(made.get(), issuer.get(), NID_key_usage, "critical,digitalSignature") &&
                  add_extension(made.get(), issuer.get(), NID_ext_key_usage, "serverAuth,clientAuth") &&
                  add_extension(made.get(), issuer.get(), NID_subject_alt_name, "URI:" + identity_uri(subject)) &&
                  add_extension(made.get(), issuer.get(), NID_authority_key_identifier, "keyid") &&
                  X509_sign(made.get(), issuer_key.get(), EVP_sha256()) > 0;
  if (!ok) return fail_openssl(ErrorCode::internal, "cannot sign a certificate");
  return certificate_pem(made.get());
}

Result<Credentials> make_node_credentials(const Credentials& ca, const CertificateSubject& subject,
                                          std::int64_t now_s) {
  HF_ASSIGN(SigningRequest request, make_signing_request());
  HF_ASSIGN(std::string certificate, sign_request(ca, request.csr_pem, subject, now_s));
  return Credentials{std::move(request.key_pem), std::move(certificate)};
}

Result<CertificateInfo> inspect_certificate(const std::string& pem) {
  HF_ASSIGN(const Certificate certificate, parse_certificate(pem));
  CertificateInfo info;
  info.is_ca = X509_check_ca(certificate.get()) != 0;
  info.not_before_s = seconds_of(X509_get0_notBefore(certificate.get()));
  info.not_after_s = seconds_of(X509_get0_notAfter(certificate.get()));
  HF_ASSIGN(info.fingerprint, fingerprint(certificate.get()));
  info.subject.cluster_id = name_entry(certificate.get(), NID_organizationName);
  if (info.is_ca) return info;
  info.subject.node_id = name_entry(certificate.get(), NID_commonName);
  HF_ASSIGN(info.subject.kind, certificate_kind_from_text(name_entry(certificate.get(), NID_organizationalUnitName)));
  HF_TRY(check_subject(info.subject));
  if (uri_of(certificate.get()) != identity_uri(info.subject))
    return fail(ErrorCode::denied, "the certificate's names contradict each other");
  return info;
}

Result<std::string> fingerprint_of(const std::string& certificate_pem_text) {
  HF_ASSIGN(const Certificate certificate, parse_certificate(certificate_pem_text));
  return fingerprint(certificate.get());
}

Status check_validity(const CertificateInfo& info, std::int64_t now_s) {
  const std::string whose =
      info.is_ca ? "the cluster's CA certificate" : "the certificate of node " + info.subject.node_id;
  if (now_s > info.not_after_s)
    return tl::unexpected(Error{ErrorCode::denied, fmt::format("{} expired on {}", whose, date_of(info.not_after_s)),
                                "check the clock, else let the node join again with a new token", 0});
  if (now_s < info.not_before_s)
    return tl::unexpected(Error{
        ErrorCode::denied,
        fmt::format("{} is valid from {} but the clock says {}", whose, date_of(info.not_before_s), date_of(now_s)),
        "set the clock", 0});
  return {};
}

bool renewal_due(const CertificateInfo& info, std::int64_t now_s) { return now_s > info.not_after_s - renew_before_s; }

Status verify_certificate(const std::string& ca_pem, const std::string& pem, std::int64_t now_s) {
  HF_ASSIGN(const CertificateInfo info, inspect_certificate(pem));
  HF_ASSIGN(const CertificateInfo ca_info, inspect_certificate(ca_pem));
  HF_ASSIGN(const Certificate certificate, parse_certificate(pem));
  HF_ASSIGN(const Certificate ca, parse_certificate(ca_pem));
  if (info.subject.cluster_id != ca_info.subject.cluster_id)
    return fail(ErrorCode::denied, "the certificate belongs to cluster {}, not to {}", info.subject.cluster_id,
                ca_info.subject.cluster_id);
  // Time is judged by check_validity, whose message says what to do.
  const Store store(X509_STORE_new());
  const StoreContext context(X509_STORE_CTX_new());
  const bool ready = store && context && X509_STORE_add_cert(store.get(), ca.get()) == 1 &&
                     X509_STORE_set_flags(store.get(), X509_V_FLAG_NO_CHECK_TIME) == 1 &&
                     X509_STORE_CTX_init(context.get(), store.get(), certificate.get(), nullptr) == 1;
  if (!ready) return fail_openssl(ErrorCode::internal, "cannot verify a certificate");
  if (X509_verify_cert(context.get()) != 1)
    return fail(ErrorCode::denied, "the certificate is not signed by the cluster's CA ({})",
                X509_verify_cert_error_string(X509_STORE_CTX_get_error(context.get())));
  HF_TRY(check_validity(ca_info, now_s));
  return check_validity(info, now_s);
}

Status check_key_matches(const std::string& pem, const std::string& key_text) {
  HF_ASSIGN(const Certificate certificate, parse_certificate(pem));
  HF_ASSIGN(const Key key, parse_key(key_text));
  const int matches = X509_check_private_key(certificate.get(), key.get());
  ERR_clear_error();
  if (matches != 1) return fail(ErrorCode::corrupt, "certificate and key don't belong together");
  return {};
}

}  // namespace holdfast::control
