// SPDX-License-Identifier: Apache-2.0
#include "control/tokens.h"

#include <filesystem>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "control/testing/temporary_folder.h"
#include "platform/durable_file.h"

namespace holdfast::control {
namespace {

const std::string cluster = "00000000000000c1";
const std::string fingerprint(64, 'a');

class Tokens : public ::testing::Test {
 protected:
  TemporaryFolder tmp;
  TokenTime now{1'795'000'000'000, 5'000'000, "boot-1"};
  std::string file = tmp / "tokens.json";
  TokenStore store{file, [this] { return now; }};

  std::string issue(CertificateKind kind = CertificateKind::node) {
    return store.issue(cluster, fingerprint, kind, 900)->text;
  }
  std::string refused(const std::string& token, const std::string& of = cluster,
                      CertificateKind kind = CertificateKind::node) {
    const Status checked = store.check(token, of, kind);
    const Status status = store.consume(token, of, kind, "n2");
    EXPECT_EQ(checked.has_value(), status.has_value()) << "check and consume judge alike";
    if (status) return "accepted";
    EXPECT_EQ(status.error().code, ErrorCode::denied);
    EXPECT_FALSE(status.error().hint.empty());
    return status.error().message;
  }
};

TEST_F(Tokens, CarriesWhatTheJoinerNeeds) {
  const auto token = join_token_from_text(issue(CertificateKind::witness));
  ASSERT_TRUE(token);
  EXPECT_EQ(token->cluster_id, cluster);
  EXPECT_EQ(token->ca_fingerprint, fingerprint);
  EXPECT_EQ(token->kind, CertificateKind::witness);
  EXPECT_EQ(to_text(*token), to_text(join_token_from_text("  " + to_text(*token) + "\n").value()));
}

TEST_F(Tokens, EveryDamagedCharacterIsNoticedWithoutAsking) {
  const std::string token = issue();
  for (std::size_t i = 0; i < token.size(); ++i) {
    std::string damaged = token;
    damaged[i] = damaged[i] == 'x' ? 'y' : 'x';
    EXPECT_FALSE(join_token_from_text(damaged)) << i;
    EXPECT_FALSE(join_token_from_text(token.substr(0, i))) << i;
  }
  EXPECT_EQ(refused("hunter2"), "this is not a join token");
  EXPECT_EQ(refused(token.substr(0, 40)), "the token is incomplete or damaged");
  EXPECT_EQ(refused(token + token), "the token is incomplete or damaged");
  EXPECT_EQ(refused(token), "accepted");
}

TEST_F(Tokens, SingleUse) {
  const std::string token = issue();
  EXPECT_EQ(refused(token), "accepted");
  EXPECT_EQ(refused(token), "the token was used already by n2");
  TokenStore after_restart(file, [this] { return now; });
  EXPECT_FALSE(after_restart.consume(token, cluster, CertificateKind::node, "n3"));
}

TEST_F(Tokens, WrongOnesAreToldApart) {
  JoinToken guessed = join_token_from_text(issue()).value();
  guessed.secret[0] ^= 1;
  EXPECT_EQ(refused(to_text(guessed)), "the token is not known here");
  EXPECT_EQ(refused(issue(), "00000000000000c2"), "the token belongs to another cluster");
  const std::string witness_token = issue(CertificateKind::witness);
  EXPECT_EQ(refused(witness_token), "the token admits a witness, not a node");
  EXPECT_EQ(refused(witness_token, cluster, CertificateKind::witness), "accepted")
      << "the failed attempt did not use it up";
}

TEST_F(Tokens, ExpiresByTheClockThatNobodySets) {
  const std::string early = issue(), late = issue();
  now.wall_ms += 3'600'000;  // the wall clock jumps an hour: nothing has passed
  EXPECT_EQ(refused(early), "accepted");
  now.wall_ms -= 7'200'000;  // and back: doesn't revive it either
  now.boot_ms += 900'000;
  EXPECT_EQ(refused(late), "the token has expired");
}

TEST_F(Tokens, AfterARebootTheWallClockDecides) {
  const std::string a = issue(), b = issue();
  now.boot_id = "boot-2";
  now.boot_ms = 1000;
  EXPECT_EQ(refused(a), "accepted");
  now.wall_ms += 900'000;
  EXPECT_EQ(refused(b), "the token has expired");
}

TEST_F(Tokens, KeepsNoSecretAndIsPrivate) {
  const JoinToken token = join_token_from_text(issue()).value();
  const Bytes content = platform::read_file(file).value();
  EXPECT_EQ(as_text(content).find(as_text(ByteView(token.secret))), std::string_view::npos);
  std::string hex;
  for (const auto b : token.secret) hex += fmt::format("{:02x}", b);
  EXPECT_EQ(as_text(content).find(hex), std::string_view::npos);
  EXPECT_EQ(std::filesystem::status(file).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

TEST_F(Tokens, DamagedStoreIsSaidNotGuessed) {
  const std::string token = issue();
  ASSERT_TRUE(platform::write_file_durably(file, as_bytes("[{\"hash\":1}]")));
  const Status status = store.consume(token, cluster, CertificateKind::node, "n2");
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, ErrorCode::corrupt);
}

TEST_F(Tokens, LifetimeIsBounded) {
  EXPECT_EQ(store.issue(cluster, fingerprint, CertificateKind::node, 59).error().code, ErrorCode::invalid);
  EXPECT_EQ(store.issue(cluster, fingerprint, CertificateKind::node, 86'401).error().code, ErrorCode::invalid);
}

TEST(TokensSystemTime, IsThere) {
  const TokenTime now = TokenStore::system_time();
  EXPECT_GT(now.wall_ms, 1'700'000'000'000);
  EXPECT_GT(now.boot_ms, 0);
  EXPECT_FALSE(now.boot_id.empty());
}

}  // namespace
}  // namespace holdfast::control
