// SPDX-License-Identifier: Apache-2.0
#include "control/tokens.h"

#include <algorithm>
#include <chrono>
#include <ctime>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <nlohmann/json.hpp>

#include "base/bytes.h"
#include "base/check.h"
#include "platform/durable_file.h"

namespace holdfast::control {
namespace {

constexpr std::string_view prefix = "hf1-";
constexpr std::uint8_t token_version = 1;
constexpr std::size_t token_bytes = 1 + 1 + 8 + 32 + 16 + 4;
constexpr std::int64_t remembered_ms =
    24 * 3600 * 1000;  // so that "used" and "expired" can be told from "unknown" for a day
constexpr std::size_t most_tokens = 1000;

constexpr std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

std::string base64url(ByteView in) {
  std::string out;
  std::uint32_t bits = 0;
  int held = 0;
  for (const std::uint8_t byte : in) {
    bits = (bits << 8) | byte;
    for (held += 8; held >= 6;) out += alphabet[(bits >> (held -= 6)) & 63];
  }
  if (held > 0) out += alphabet[(bits << (6 - held)) & 63];
  return out;
}

bool from_base64url(std::string_view in, Bytes& out) {
  std::uint32_t bits = 0;
  int held = 0;
  for (const char c : in) {
    const std::size_t value = alphabet.find(c);
    if (value == std::string_view::npos) return false;
    bits = (bits << 6) | static_cast<std::uint32_t>(value);
    if ((held += 6) >= 8) out.push_back(static_cast<std::uint8_t>(bits >> (held -= 8)));
  }
  return (bits & ((1u << held) - 1)) == 0;  // left-over bits must be zero: one text a token
}

std::string hex(ByteView bytes) {
  std::string out;
  for (const std::uint8_t byte : bytes) out += fmt::format("{:02x}", byte);
  return out;
}

bool from_hex(std::string_view text, std::size_t length, Bytes& out) {
  if (text.size() != 2 * length) return false;
  const auto digit = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; };
  for (std::size_t i = 0; i < length; ++i) {
    const int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    out.push_back(static_cast<std::uint8_t>(high * 16 + low));
  }
  return true;
}

// The secret has 128 random bits, so one plain hash is enough: there is nothing to guess.
std::string hash_of(const JoinToken& token) {
  std::uint8_t digest[32];
  unsigned length = 0;
  CHECK(
      EVP_Digest(token.secret.data(), token.secret.size(), digest, &length, EVP_sha256(), nullptr) == 1 && length == 32,
      "no SHA-256 from OpenSSL");
  return hex(digest);
}

tl::unexpected<Error> denied(std::string message, std::string hint) {
  return tl::unexpected(Error{ErrorCode::denied, std::move(message), std::move(hint), 0});
}

std::string new_token_hint(CertificateKind kind) {
  return kind == CertificateKind::witness ? "make a new one on a member with: holdfast token --witness"
                                          : "make a new one on a member with: holdfast token";
}

}  // namespace

std::string to_text(const JoinToken& token) {
  Bytes bytes{token_version, static_cast<std::uint8_t>(token.kind)};
  CHECK(from_hex(token.cluster_id, 8, bytes) && from_hex(token.ca_fingerprint, 32, bytes),
        "token of a cluster without ids");
  ByteWriter writer(bytes);
  writer.raw(token.secret);
  writer.u32(crc32c(bytes));
  return std::string(prefix) + base64url(bytes);
}

Result<JoinToken> join_token_from_text(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.remove_suffix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
  if (!text.starts_with(prefix))
    return denied("this is not a join token", "a token starts with hf1-; make one with: holdfast token");
  Bytes bytes;
  text.remove_prefix(prefix.size());
  if (text.size() > 2 * token_bytes || !from_base64url(text, bytes) || bytes.size() != token_bytes)
    return denied("the token is incomplete or damaged", "copy the whole line that `holdfast token` printed");
  ByteReader check(ByteView(bytes).subspan(token_bytes - 4));
  if (check.u32() != crc32c(ByteView(bytes).first(token_bytes - 4)))
    return denied("the token is incomplete or damaged", "copy the whole line that `holdfast token` printed");
  ByteReader reader{ByteView(bytes)};
  if (reader.u8() != token_version)
    return denied("the token is of a newer version", "install the same Holdfast version here");
  const std::uint8_t kind = reader.u8();
  if (kind > static_cast<std::uint8_t>(CertificateKind::witness))
    return denied("the token is of an unknown kind", "install the same Holdfast version here");
  JoinToken token;
  token.kind = static_cast<CertificateKind>(kind);
  token.cluster_id = hex(reader.raw(8));
  token.ca_fingerprint = hex(reader.raw(32));
  const ByteView secret = reader.raw(16);
  std::copy(secret.begin(), secret.end(), token.secret.begin());
  return token;
}

struct TokenStore::Entry {
  std::string hash;
  std::string kind;
  std::int64_t expires_wall_ms = 0;
  std::int64_t expires_boot_ms = 0;
  std::string boot_id;
  bool used = false;
  std::string used_by;
};

TokenStore::TokenStore(std::string file, Clock clock) : file_(std::move(file)), clock_(std::move(clock)) {}

TokenTime TokenStore::system_time() {
  TokenTime now;
  now.wall_ms =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch())
          .count();
  timespec boot{};
  clock_gettime(CLOCK_BOOTTIME, &boot);
  now.boot_ms = static_cast<std::int64_t>(boot.tv_sec) * 1000 + boot.tv_nsec / 1'000'000;
  // Without a boot id the wall clock decides.
  if (auto id = platform::read_file("/proc/sys/kernel/random/boot_id", 128)) now.boot_id = std::string(as_text(*id));
  return now;
}

bool TokenStore::expired(const Entry& entry, const TokenTime& now) const {
  if (!now.boot_id.empty() && entry.boot_id == now.boot_id) return now.boot_ms >= entry.expires_boot_ms;
  return now.wall_ms >= entry.expires_wall_ms;
}

Result<std::vector<TokenStore::Entry>> TokenStore::load() const {
  auto content = platform::read_file(file_, 1u << 20);
  if (!content && content.error().code == ErrorCode::not_found) return std::vector<Entry>{};
  if (!content) return tl::unexpected(content.error());
  const auto json = nlohmann::json::parse(as_text(*content), nullptr, false);
  const tl::unexpected<Error> damaged(
      Error{ErrorCode::corrupt, file_ + " is damaged", "remove it (open tokens are lost) and make a new token", 0});
  if (!json.is_array()) return damaged;
  std::vector<Entry> entries;
  for (const auto& item : json) {
    const auto text = [&](const char* name) {
      return item.contains(name) && item[name].is_string() ? item[name].get<std::string>() : "";
    };
    const auto number = [&](const char* name) {
      return item.contains(name) && item[name].is_number_integer() ? item[name].get<std::int64_t>() : 0;
    };
    if (!item.is_object() || text("hash").size() != 64 || !item.contains("used") || !item["used"].is_boolean())
      return damaged;
    entries.push_back({text("hash"), text("kind"), number("expires_wall_ms"), number("expires_boot_ms"),
                       text("boot_id"), item["used"].get<bool>(), text("used_by")});
  }
  return entries;
}

Status TokenStore::save(const std::vector<Entry>& entries) const {
  nlohmann::json json = nlohmann::json::array();
  for (const Entry& e : entries)
    json.push_back({{"hash", e.hash},
                    {"kind", e.kind},
                    {"expires_wall_ms", e.expires_wall_ms},
                    {"expires_boot_ms", e.expires_boot_ms},
                    {"boot_id", e.boot_id},
                    {"used", e.used},
                    {"used_by", e.used_by}});
  return platform::write_file_durably(
      file_, as_bytes(json.dump(1, ' ', true, nlohmann::json::error_handler_t::replace)), 0600);
}

Result<TokenStore::Issued> TokenStore::issue(const std::string& cluster_id, const std::string& ca_fingerprint,
                                             CertificateKind kind, std::int64_t ttl_s) {
  if (ttl_s < 60 || ttl_s > 86'400)
    return fail(ErrorCode::invalid, "a token lives 1 minute to 24 hours, not {} s", ttl_s);
  const std::lock_guard lock(mutex_);
  HF_ASSIGN(std::vector<Entry> entries, load());
  const TokenTime now = clock_();
  std::erase_if(entries,
                [&](const Entry& e) { return expired(e, now) && now.wall_ms > e.expires_wall_ms + remembered_ms; });
  if (entries.size() >= most_tokens)
    return tl::unexpected(Error{ErrorCode::refused, "too many tokens were made", "wait until some have expired", 0});
  JoinToken token{kind, cluster_id, ca_fingerprint, {}};
  CHECK(RAND_bytes(token.secret.data(), static_cast<int>(token.secret.size())) == 1, "no randomness from OpenSSL");
  const Entry entry{
      hash_of(token), to_string(kind), now.wall_ms + ttl_s * 1000, now.boot_ms + ttl_s * 1000, now.boot_id, false, ""};
  entries.push_back(entry);
  HF_TRY(save(entries));
  return Issued{to_text(token), entry.expires_wall_ms};
}

Result<TokenStore::Entry*> TokenStore::usable(std::vector<Entry>& entries, std::string_view text,
                                              const std::string& cluster_id, CertificateKind kind) const {
  HF_ASSIGN(const JoinToken token, join_token_from_text(text));
  if (token.cluster_id != cluster_id)
    return denied("the token belongs to another cluster",
                  "use a token of the cluster you join, or the address of a node of the token's cluster");
  const std::string hash = hash_of(token);
  const auto found = std::find_if(entries.begin(), entries.end(), [&](const Entry& e) {
    return e.hash.size() == hash.size() && CRYPTO_memcmp(e.hash.data(), hash.data(), hash.size()) == 0;
  });
  if (found == entries.end())
    return denied("the token is not known here", "a token is valid on the node that made it; " + new_token_hint(kind));
  if (found->used) return denied("the token was used already by " + found->used_by, new_token_hint(kind));
  if (expired(*found, clock_())) return denied("the token has expired", new_token_hint(kind));
  if (found->kind != to_string(kind))
    return denied(fmt::format("the token admits a {}, not a {}", found->kind, to_string(kind)), new_token_hint(kind));
  return &*found;
}

Status TokenStore::check(std::string_view text, const std::string& cluster_id, CertificateKind kind) {
  const std::lock_guard lock(mutex_);
  HF_ASSIGN(std::vector<Entry> entries, load());
  HF_TRY(usable(entries, text, cluster_id, kind));
  return {};
}

Status TokenStore::consume(std::string_view text, const std::string& cluster_id, CertificateKind kind,
                           const std::string& used_by) {
  const std::lock_guard lock(mutex_);
  HF_ASSIGN(std::vector<Entry> entries, load());
  HF_ASSIGN(Entry* const found, usable(entries, text, cluster_id, kind));
  found->used = true;
  found->used_by = used_by;
  return save(entries);
}

}  // namespace holdfast::control
