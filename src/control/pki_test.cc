// SPDX-License-Identifier: Apache-2.0
#include "control/pki.h"

#include <filesystem>

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "control/testing/temporary_folder.h"
#include "platform/durable_file.h"

namespace holdfast::control {
namespace {

constexpr std::int64_t now_s = 1'795'000'000;
const std::string cluster_a = "00000000000000c1";
const std::string cluster_b = "00000000000000c2";

CertificateSubject node_of(const std::string& cluster) { return {cluster, "00000000000000a1", CertificateKind::node}; }

class Pki : public ::testing::Test {
 protected:
  Credentials ca = make_ca(cluster_a, now_s).value();
  Credentials other_ca = make_ca(cluster_b, now_s).value();
  Credentials own = make_node_credentials(ca, node_of(cluster_a), now_s).value();
};

TEST_F(Pki, CertificateSaysWhoItIs) {
  const auto info = inspect_certificate(own.certificate_pem);
  ASSERT_TRUE(info) << info.error().to_string();
  EXPECT_EQ(info->subject.node_id, "00000000000000a1");
  EXPECT_EQ(info->subject.cluster_id, cluster_a);
  EXPECT_EQ(info->subject.kind, CertificateKind::node);
  EXPECT_FALSE(info->is_ca);
  EXPECT_EQ(info->not_before_s, now_s - day_s);
  EXPECT_EQ(info->not_after_s, now_s + node_validity_s);
  EXPECT_EQ(info->fingerprint.size(), 64u);
  EXPECT_TRUE(inspect_certificate(ca.certificate_pem)->is_ca);
}

TEST_F(Pki, VerifiesOnlyItsOwnClusterInTime) {
  EXPECT_TRUE(verify_certificate(ca.certificate_pem, own.certificate_pem, now_s));
  const auto other = verify_certificate(other_ca.certificate_pem, own.certificate_pem, now_s);
  ASSERT_FALSE(other);
  EXPECT_NE(other.error().message.find("belongs to cluster"), std::string::npos);
  // Same cluster id, another key: an impostor's CA.
  const Credentials impostor = make_ca(cluster_a, now_s).value();
  const auto forged = verify_certificate(
      ca.certificate_pem, make_node_credentials(impostor, node_of(cluster_a), now_s)->certificate_pem, now_s);
  ASSERT_FALSE(forged);
  EXPECT_EQ(forged.error().code, ErrorCode::denied);
}

TEST_F(Pki, ClockJumpOfAnHourIsNoReasonToRefuse) {
  EXPECT_TRUE(verify_certificate(ca.certificate_pem, own.certificate_pem, now_s - 3600));
  EXPECT_TRUE(verify_certificate(ca.certificate_pem, own.certificate_pem, now_s + 3600));
}

TEST_F(Pki, ExpiryIsOneLineThatSaysWhatToDo) {
  const auto late = verify_certificate(ca.certificate_pem, own.certificate_pem, now_s + node_validity_s + 1);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().to_string(),
            "the certificate of node 00000000000000a1 expired on 2028-11-17: check the clock, else let the node join "
            "again with a new token");
  const auto early = verify_certificate(ca.certificate_pem, own.certificate_pem, now_s - 2 * day_s);
  ASSERT_FALSE(early);
  EXPECT_EQ(early.error().hint, "set the clock");
}

TEST_F(Pki, RequestMustBeSignedByItsKeyAndBeOurs) {
  EXPECT_FALSE(sign_request(ca, "garbage", node_of(cluster_a), now_s));
  EXPECT_FALSE(sign_request(ca, own.certificate_pem, node_of(cluster_a), now_s));
  EXPECT_FALSE(sign_request(ca, make_signing_request()->csr_pem, {"short", "00000000000000a1"}, now_s));
  EXPECT_FALSE(sign_request(ca, make_signing_request()->csr_pem, {cluster_a, "../../etc/passwd"}, now_s));
}

TEST_F(Pki, FolderIsPrivateAndLoadsBack) {
  const TemporaryFolder tmp;
  const TlsFolder folder{tmp / "tls"};
  ASSERT_TRUE(store_tls(folder, {ca.certificate_pem, ca.key_pem, own}));
  const auto loaded = load_tls(folder, now_s);
  ASSERT_TRUE(loaded) << loaded.error().to_string();
  EXPECT_EQ(loaded->own.key_pem, own.key_pem);
  EXPECT_EQ(loaded->ca_key_pem, ca.key_pem);
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.dir)) {
    EXPECT_EQ(entry.status().permissions(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_write)
        << entry.path();
    ++files;
  }
  EXPECT_EQ(files, 4);
  EXPECT_EQ(std::filesystem::status(folder.dir).permissions(), std::filesystem::perms::owner_all);
}

TEST_F(Pki, MixedUpFilesAreRefusedByName) {
  const TemporaryFolder tmp;
  const TlsFolder folder{tmp / "tls"};
  ASSERT_TRUE(store_tls(folder, {ca.certificate_pem, "", own}));
  ASSERT_TRUE(platform::write_file_durably(folder.key(), as_bytes(make_signing_request()->key_pem)));
  const auto loaded = load_tls(folder, now_s);
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().message, "certificate and key don't belong together");
}

TEST_F(Pki, RenewsWhenDueAndSurvivesACrashBetweenTheTwoFiles) {
  const TemporaryFolder tmp;
  const TlsFolder folder{tmp / "tls"};
  ASSERT_TRUE(store_tls(folder, {ca.certificate_pem, ca.key_pem, own}));
  EXPECT_EQ(renew_if_due(folder, now_s).value(), false);
  const std::int64_t due = now_s + node_validity_s - renew_before_s + 1;
  EXPECT_EQ(renew_if_due(folder, due).value(), true);
  const auto renewed = load_tls(folder, due);
  ASSERT_TRUE(renewed);
  EXPECT_NE(renewed->own.key_pem, own.key_pem);
  EXPECT_EQ(inspect_certificate(renewed->own.certificate_pem)->not_after_s, due + node_validity_s);
  EXPECT_EQ(inspect_certificate(renewed->own.certificate_pem)->subject.node_id, "00000000000000a1");

  // As a crash leaves it: the next pair staged, the key moved, the certificate not.
  const Credentials next = make_node_credentials(ca, node_of(cluster_a), due).value();
  ASSERT_TRUE(platform::write_file_durably(folder.key() + ".next", as_bytes(next.key_pem)));
  ASSERT_TRUE(platform::write_file_durably(folder.certificate() + ".next", as_bytes(next.certificate_pem)));
  ASSERT_TRUE(platform::write_file_durably(folder.key(), as_bytes(next.key_pem)));
  const auto recovered = load_tls(folder, due);
  ASSERT_TRUE(recovered) << recovered.error().to_string();
  EXPECT_EQ(recovered->own.certificate_pem, next.certificate_pem);
  // And with only the staged key: the old pair is in force.
  ASSERT_TRUE(platform::write_file_durably(folder.key() + ".next", as_bytes(own.key_pem)));
  EXPECT_EQ(load_tls(folder, due)->own.certificate_pem, next.certificate_pem);
}

TEST(PkiId, RandomIdsAreIds) {
  const std::string a = random_id_hex(), b = random_id_hex();
  EXPECT_EQ(a.size(), 16u);
  EXPECT_NE(a, b);
}

}  // namespace
}  // namespace holdfast::control
