// SPDX-License-Identifier: Apache-2.0
// For tests only: a certificate authority and node certificates in a folder, as TlsContext::load wants them.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "base/check.h"

namespace holdfast::platform::testing {

class TestAuthority {
 public:
  TestAuthority() : key_(EVP_EC_gen("P-256")), certificate_(make(key_, "test authority", nullptr, nullptr, 0, 3600)) {}
  ~TestAuthority() {
    X509_free(certificate_);
    EVP_PKEY_free(key_);
  }
  TestAuthority(const TestAuthority&) = delete;

  // Writes ca.crt, node.crt and node.key. `from_s`, `until_s`: validity, relative to now.
  void issue(const std::string& dir, const std::string& common_name, long from_s = -60, long until_s = 3600) const {
    std::filesystem::create_directories(dir);
    EVP_PKEY* key = EVP_EC_gen("P-256");
    X509* certificate = make(key, common_name, key_, certificate_, from_s, until_s);
    write(dir + "/ca.crt", [&](FILE* f) { PEM_write_X509(f, certificate_); });
    write(dir + "/node.crt", [&](FILE* f) { PEM_write_X509(f, certificate); });
    write(dir + "/node.key", [&](FILE* f) { PEM_write_PrivateKey(f, key, nullptr, nullptr, 0, nullptr, nullptr); });
    X509_free(certificate);
    EVP_PKEY_free(key);
  }

 private:
  template <class F>
  static void write(const std::string& path, F&& body) {
    FILE* f = std::fopen(path.c_str(), "we");
    CHECK(f != nullptr, "cannot write {}", path);
    body(f);
    std::fclose(f);
  }

  static X509* make(EVP_PKEY* key, const std::string& common_name, EVP_PKEY* issuer_key, X509* issuer, long from_s,
                    long until_s) {
    X509* c = X509_new();
    X509_set_version(c, 2);
    static long serial = 1;
    ASN1_INTEGER_set(X509_get_serialNumber(c), serial++);
    X509_gmtime_adj(X509_getm_notBefore(c), from_s);
    X509_gmtime_adj(X509_getm_notAfter(c), until_s);
    X509_set_pubkey(c, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(c), "CN", MBSTRING_UTF8,
                               reinterpret_cast<const unsigned char*>(common_name.c_str()), -1, -1, 0);
    X509_set_issuer_name(c, X509_get_subject_name(issuer ? issuer : c));
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, issuer ? issuer : c, c, nullptr, nullptr, 0);
    add(c, context, NID_basic_constraints, issuer ? "critical,CA:FALSE" : "critical,CA:TRUE");
    if (issuer) add(c, context, NID_subject_alt_name, ("URI:holdfast:cluster/1/node/" + common_name).c_str());
    X509_sign(c, issuer_key ? issuer_key : key, EVP_sha256());
    return c;
  }
  static void add(X509* c, X509V3_CTX& context, int nid, const char* value) {
    X509_EXTENSION* e = X509V3_EXT_conf_nid(nullptr, &context, nid, value);
    CHECK(e != nullptr, "extension {}", value);
    X509_add_ext(c, e, -1);
    X509_EXTENSION_free(e);
  }

  EVP_PKEY* key_;
  X509* certificate_;
};

// A folder that goes with the object.
class TemporaryFolder {
 public:
  TemporaryFolder() {
    const char* base = std::getenv("TMPDIR");
    std::string pattern = std::string(base ? base : "/var/tmp") + "/holdfast-test-XXXXXX";
    CHECK(::mkdtemp(pattern.data()) != nullptr, "cannot make {}", pattern);
    path_ = pattern;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace holdfast::platform::testing
