// SPDX-License-Identifier: Apache-2.0
#include <cerrno>
#include <cstdio>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "platform/tls_stream.h"

namespace holdfast::platform {

void install_alpn_chooser(void* context);  // tls_stream.cc

namespace {

std::string openssl_reason() {
  const unsigned long code = ERR_peek_last_error();
  ERR_clear_error();
  const char* reason = code ? ERR_reason_error_string(code) : nullptr;
  return reason ? reason : "unknown TLS error";
}

std::string hex(const unsigned char* bytes, std::size_t n) {
  std::string out;
  for (std::size_t i = 0; i < n; ++i) out += fmt::format("{:02x}", bytes[i]);
  return out;
}

Result<std::string> pin_from_hex(std::string_view text) {
  std::string pin;
  if (text.size() != 64)
    return fail(ErrorCode::invalid, "a certificate fingerprint has 64 hex digits, not {}", text.size());
  for (std::size_t i = 0; i < text.size(); i += 2) {
    unsigned value = 0;
    for (std::size_t k = i; k < i + 2; ++k) {
      const char c = text[k];
      if (c >= '0' && c <= '9')
        value = value * 16 + static_cast<unsigned>(c - '0');
      else if (c >= 'a' && c <= 'f')
        value = value * 16 + static_cast<unsigned>(c - 'a' + 10);
      else
        return fail(ErrorCode::invalid, "not a certificate fingerprint: {}", text);
    }
    pin.push_back(static_cast<char>(value));
  }
  return pin;
}

// Finds the pinned authority in what the server sent, and verifies the server's certificate against that one alone.
int verify_against_pin(X509_STORE_CTX* store_context, void* argument) {
  const std::string& pin = *static_cast<const std::string*>(argument);
  X509* leaf = X509_STORE_CTX_get0_cert(store_context);
  STACK_OF(X509)* chain = X509_STORE_CTX_get0_untrusted(store_context);
  X509* authority = nullptr;
  for (int i = 0; chain && i < sk_X509_num(chain); ++i) {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned length = 0;
    X509* candidate = sk_X509_value(chain, i);
    if (X509_digest(candidate, EVP_sha256(), digest, &length) == 1 &&
        pin == std::string_view(reinterpret_cast<char*>(digest), length))
      authority = candidate;
  }
  if (!authority) {
    X509_STORE_CTX_set_error(store_context, X509_V_ERR_CERT_UNTRUSTED);
    return 0;
  }
  X509_STORE* store = X509_STORE_new();
  X509_STORE_CTX* inner = X509_STORE_CTX_new();
  X509_STORE_add_cert(store, authority);
  int ok = X509_STORE_CTX_init(inner, store, leaf, nullptr) == 1 && X509_verify_cert(inner) == 1;
  if (!ok) X509_STORE_CTX_set_error(store_context, X509_STORE_CTX_get_error(inner));
  X509_STORE_CTX_free(inner);
  X509_STORE_free(store);
  return ok;
}

}  // namespace

struct TlsContextBuilder {
  static Result<std::shared_ptr<TlsContext>> begin(TlsRole role) {
    std::shared_ptr<TlsContext> made(new TlsContext(role));
    SSL_CTX* ctx = SSL_CTX_new(role == TlsRole::server ? TLS_server_method() : TLS_client_method());
    if (!ctx) return fail(ErrorCode::internal, "cannot make a TLS context: {}", openssl_reason());
    made->context_ = ctx;
    if (role == TlsRole::server) install_alpn_chooser(ctx);
    SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
    SSL_CTX_set_num_tickets(ctx, 0);  // no resumption: each connection proves the identity anew
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_mode(ctx,
                     SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    return made;
  }

  static Status identity(TlsContext& made, const std::string& dir) {
    auto* ctx = static_cast<SSL_CTX*>(made.context_);
    const std::string ca = dir + "/ca.crt", crt = dir + "/node.crt", key = dir + "/node.key";
    if (SSL_CTX_load_verify_file(ctx, ca.c_str()) != 1)
      return fail(ErrorCode::denied, "cannot use the cluster's certificate authority {}: {}", ca, openssl_reason());
    if (SSL_CTX_use_certificate_chain_file(ctx, crt.c_str()) != 1)
      return fail(ErrorCode::denied, "cannot use this node's certificate {}: {}", crt, openssl_reason());
    if (SSL_CTX_use_PrivateKey_file(ctx, key.c_str(), SSL_FILETYPE_PEM) != 1 || SSL_CTX_check_private_key(ctx) != 1)
      return fail(ErrorCode::denied, "cannot use this node's key {}: {}", key, openssl_reason());
    if (FILE* file =
            std::fopen(ca.c_str(), "re")) {  // sent along, so that a joiner with only a fingerprint can find it
      if (X509* authority = PEM_read_X509(file, nullptr, nullptr, nullptr)) SSL_CTX_add0_chain_cert(ctx, authority);
      std::fclose(file);
    }
    return {};
  }

  static void pin(TlsContext& made, std::string digest) {
    made.pin_ = std::move(digest);
    auto* ctx = static_cast<SSL_CTX*>(made.context_);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, nullptr);
    SSL_CTX_set_cert_verify_callback(ctx, verify_against_pin, &made.pin_);
  }
};

TlsContext::~TlsContext() { SSL_CTX_free(static_cast<SSL_CTX*>(context_)); }

Result<std::shared_ptr<TlsContext>> TlsContext::load(const std::string& tls_dir, TlsRole role, TlsPeerPolicy policy) {
  HF_ASSIGN(std::shared_ptr<TlsContext> made, TlsContextBuilder::begin(role));
  HF_TRY(TlsContextBuilder::identity(*made, tls_dir));
  int mode = SSL_VERIFY_PEER;
  if (role == TlsRole::server && policy == TlsPeerPolicy::required) mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
  SSL_CTX_set_verify(static_cast<SSL_CTX*>(made->context_), mode, nullptr);
  return made;
}

Result<std::shared_ptr<TlsContext>> TlsContext::pinned_client(std::string_view ca_sha256_hex) {
  HF_ASSIGN(std::string digest, pin_from_hex(ca_sha256_hex));
  HF_ASSIGN(std::shared_ptr<TlsContext> made, TlsContextBuilder::begin(TlsRole::client));
  TlsContextBuilder::pin(*made, std::move(digest));
  return made;
}

Result<std::string> TlsContext::certificate_sha256(const std::string& pem_path) {
  FILE* file = std::fopen(pem_path.c_str(), "re");
  if (!file) return fail_errno(errno, "cannot open {}", pem_path);
  X509* certificate = PEM_read_X509(file, nullptr, nullptr, nullptr);
  std::fclose(file);
  if (!certificate) return fail(ErrorCode::invalid, "{} holds no certificate: {}", pem_path, openssl_reason());
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  X509_digest(certificate, EVP_sha256(), digest, &length);
  X509_free(certificate);
  return hex(digest, length);
}

}  // namespace holdfast::platform
