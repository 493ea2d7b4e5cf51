// SPDX-License-Identifier: Apache-2.0
#include "base/bytes.h"
#include "control/pki.h"
#include "platform/durable_file.h"

namespace holdfast::control {
namespace {

constexpr std::size_t largest_pem = 64 * 1024;

Result<std::string> read_pem(const std::string& path) {
  HF_ASSIGN(const Bytes content, platform::read_file(path, largest_pem));
  return std::string(as_text(content));
}

Status write_pem(const std::string& path, const std::string& text) {
  return platform::write_file_durably(path, as_bytes(text), 0600);
}

// A renewal stores the next pair here first; finished by adopt_staged() whenever a crash came between.
std::string staged(const std::string& path) { return path + ".next"; }

// The pair is two files, so its replacement can't be one rename: both are staged and durable first, then moved. After a
// crash a staged pair that is whole is simply moved again.
Status adopt_staged(const TlsFolder& folder) {
  const auto key = read_pem(staged(folder.key()));
  const auto certificate = read_pem(staged(folder.certificate()));
  if (!certificate) return platform::remove_file_durably(staged(folder.key()));
  if (key) {
    HF_TRY(check_key_matches(*certificate, *key));
    HF_TRY(write_pem(folder.key(), *key));
  }
  HF_TRY(write_pem(folder.certificate(), *certificate));
  HF_TRY(platform::remove_file_durably(staged(folder.certificate())));
  return platform::remove_file_durably(staged(folder.key()));
}

Status replace_pair(const TlsFolder& folder, const Credentials& own) {
  HF_TRY(write_pem(staged(folder.key()), own.key_pem));
  HF_TRY(write_pem(staged(folder.certificate()), own.certificate_pem));
  return adopt_staged(folder);
}

}  // namespace

Status store_tls(const TlsFolder& folder, const TlsMaterial& material) {
  HF_TRY(check_key_matches(material.own.certificate_pem, material.own.key_pem));
  HF_TRY(platform::make_private_dir(folder.dir));
  HF_TRY(write_pem(folder.ca_certificate(), material.ca_certificate_pem));
  if (!material.ca_key_pem.empty()) HF_TRY(write_pem(folder.ca_key(), material.ca_key_pem));
  return replace_pair(folder, material.own);
}

Result<TlsMaterial> load_tls(const TlsFolder& folder, std::int64_t now_s) {
  HF_TRY(adopt_staged(folder));
  TlsMaterial material;
  HF_ASSIGN(material.ca_certificate_pem, read_pem(folder.ca_certificate()));
  HF_ASSIGN(material.own.certificate_pem, read_pem(folder.certificate()));
  HF_ASSIGN(material.own.key_pem, read_pem(folder.key()));
  if (auto key = read_pem(folder.ca_key()))
    material.ca_key_pem = std::move(*key);
  else if (key.error().code != ErrorCode::not_found)
    return tl::unexpected(key.error());
  HF_TRY(check_key_matches(material.own.certificate_pem, material.own.key_pem));
  HF_TRY(verify_certificate(material.ca_certificate_pem, material.own.certificate_pem, now_s));
  return material;
}

Result<bool> renew_if_due(const TlsFolder& folder, std::int64_t now_s) {
  HF_TRY(adopt_staged(folder));
  HF_ASSIGN(const std::string present, read_pem(folder.certificate()));
  HF_ASSIGN(const CertificateInfo info, inspect_certificate(present));
  if (!renewal_due(info, now_s)) return false;
  Credentials ca;
  HF_ASSIGN(ca.certificate_pem, read_pem(folder.ca_certificate()));
  HF_ASSIGN(ca.key_pem, read_pem(folder.ca_key()));
  HF_ASSIGN(const Credentials next, make_node_credentials(ca, info.subject, now_s));
  HF_TRY(replace_pair(folder, next));
  return true;
}

}  // namespace holdfast::control
