// SPDX-License-Identifier: Apache-2.0
// Over real TLS on the loopback: a member with its listener, a stranger with a token.
#include "control/join_client.h"

#include <chrono>
#include <thread>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "control/api_server.h"
#include "control/testing/fake_handlers.h"
#include "control/testing/temporary_folder.h"
#include "control/tls_bridge.h"
#include "control/tokens.h"

namespace holdfast::control {
namespace {

const std::int64_t now_s =
    std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();

// Admits as the daemon does: token first, certificate after.
class Member : public FakeHandlers {
 public:
  explicit Member(const std::string& id) : cluster_id(id), tokens(tmp / "tokens.json") {
    ca = make_ca(id, now_s).value();
    const auto own = make_node_credentials(ca, {id, "00000000000000a1", CertificateKind::node}, now_s).value();
    EXPECT_TRUE(store_tls({tmp / "tls"}, {ca.certificate_pem, ca.key_pem, own}));
    auto context =
        platform::TlsContext::load(tmp / "tls", platform::TlsRole::server, platform::TlsPeerPolicy::optional);
    EXPECT_TRUE(context) << context.error().to_string();
    listener = platform::TlsListener::open("127.0.0.1", 0).value();
    acceptor = std::thread([this, context = *context] {
      for (;;) {
        auto socket = listener->accept();
        if (!socket) return;
        platform::TlsOptions options;
        options.alpn = {"http/1.1"};
        auto stream = platform::TlsStream::accept(context, std::move(*socket), options);
        if (!stream) continue;
        TlsTimedStream timed(**stream);
        Caller caller;
        caller.address = (*stream)->peer_address();
        caller.peer_node_id = (*stream)->peer_common_name();
        caller.origin = caller.peer_node_id.empty() ? Origin::join : Origin::peer;
        server.serve(timed, caller);
      }
    });
  }
  ~Member() override {
    listener->close();
    acceptor.join();
  }
  Result<JoinAsksReply> join_asks(const Caller&, const JoinAsksRequest& r) override {
    HF_TRY(tokens.check(r.token, cluster_id, CertificateKind::node));
    return JoinAsksReply{asks};
  }
  Result<AdmitReply> admit(const Caller&, const AdmitRequest& r) override {
    HF_ASSIGN(const CertificateKind kind, certificate_kind_from_text(r.kind));
    HF_TRY(tokens.consume(r.token, cluster_id, kind, r.node));
    asked = r;
    AdmitReply reply;
    reply.cluster = "erp", reply.cluster_id = cluster_id, reply.node_id = "00000000000000b2",
    reply.identity = "secondary";
    if (lie) reply.cluster_id = "00000000000000ff";
    HF_ASSIGN(reply.certificate, sign_request(ca, r.csr, {cluster_id, reply.node_id, kind}, now_s));
    reply.ca_certificate = ca.certificate_pem;
    if (kind == CertificateKind::node) reply.ca_key = ca.key_pem;
    reply.bootstrap = "{}";
    return reply;
  }
  Result<RenewReply> renew(const Caller& c, const RenewRequest& r) override {
    HF_ASSIGN(std::string pem, sign_request(ca, r.csr, {cluster_id, c.peer_node_id, CertificateKind::witness}, now_s));
    return RenewReply{std::move(pem)};
  }
  std::string new_token(CertificateKind kind = CertificateKind::node) {
    return tokens.issue(cluster_id, fingerprint_of(ca.certificate_pem).value(), kind, 900)->text;
  }
  JoinOptions options(const std::string& text, CertificateKind kind = CertificateKind::node) const {
    JoinOptions o;
    o.address = fmt::format("127.0.0.1:{}", listener->port());
    o.token = text, o.node = "n2", o.kind = kind, o.timeout_ms = 5000;
    return o;
  }

  TemporaryFolder tmp;
  const std::string cluster_id;
  Credentials ca;
  TokenStore tokens;
  AdmitRequest asked;
  std::string asks;
  bool lie = false;
  ApiServer server{*this};
  std::unique_ptr<platform::TlsListener> listener;
  std::thread acceptor;
};

std::string error_of(const Result<Joined>& joined) { return joined ? "joined" : joined.error().to_string(); }

TEST(Join, NodeComesBackWithAllItNeeds) {
  Member member("00000000000000c1");
  const auto joined = join_cluster(member.options(member.new_token()));
  ASSERT_TRUE(joined) << joined.error().to_string();
  EXPECT_EQ(joined->reply.cluster, "erp");
  EXPECT_EQ(joined->local_address, "127.0.0.1");
  EXPECT_EQ(member.asked.channel, std::vector<std::string>{"127.0.0.1"});
  const TemporaryFolder tmp;
  ASSERT_TRUE(store_tls({tmp / "tls"}, joined->material));
  const auto loaded = load_tls({tmp / "tls"}, now_s);
  ASSERT_TRUE(loaded) << loaded.error().to_string();
  EXPECT_EQ(inspect_certificate(loaded->own.certificate_pem)->subject.node_id, "00000000000000b2");

  // With that certificate it is a peer and may read the status, which it might not before.
  member.cluster.name = "erp";
  auto context = platform::TlsContext::load(tmp / "tls", platform::TlsRole::client);
  ASSERT_TRUE(context);
  platform::TlsOptions tls;
  tls.alpn = {"http/1.1"};
  auto stream = platform::TlsStream::connect(*context, "127.0.0.1", member.listener->port(), tls);
  ASSERT_TRUE(stream) << stream.error().to_string();
  TlsTimedStream timed(**stream);
  HttpConnection http(timed, HttpLimits{});
  ASSERT_TRUE(http.write_request({"GET", "/v1/status", {}, "", false}));
  EXPECT_EQ(http.read_response(5000)->status, 200);
}

TEST(Join, WitnessGetsNoCaKey) {
  Member member("00000000000000c1");
  const auto joined =
      join_cluster(member.options(member.new_token(CertificateKind::witness), CertificateKind::witness));
  ASSERT_TRUE(joined) << joined.error().to_string();
  EXPECT_TRUE(joined->material.ca_key_pem.empty());
  EXPECT_EQ(inspect_certificate(joined->material.own.certificate_pem)->subject.kind, CertificateKind::witness);
}

TEST(Join, WitnessRenewsThroughAMember) {
  Member member("00000000000000c1");
  const auto options = member.options(member.new_token(CertificateKind::witness), CertificateKind::witness);
  const auto joined = join_cluster(options);
  ASSERT_TRUE(joined) << joined.error().to_string();
  const TemporaryFolder tmp;
  const TlsFolder folder{tmp / "tls"};
  ASSERT_TRUE(store_tls(folder, joined->material));
  const Status renewed = renew_through_member(folder, options.address, 5000);
  ASSERT_TRUE(renewed) << renewed.error().to_string();
  const auto loaded = load_tls(folder, now_s);
  ASSERT_TRUE(loaded) << loaded.error().to_string();
  EXPECT_NE(loaded->own.key_pem, joined->material.own.key_pem);
  EXPECT_EQ(inspect_certificate(loaded->own.certificate_pem)->subject.node_id, joined->reply.node_id);
}

TEST(Join, TokensThatDoNotFitAreOneClearLine) {
  Member member("00000000000000c1");
  Member other("00000000000000c2");
  const std::string used = member.new_token();
  ASSERT_TRUE(join_cluster(member.options(used)));
  EXPECT_EQ(error_of(join_cluster(member.options(used))),
            "the token was used already by n2: make a new one on a member with: holdfast token");
  EXPECT_EQ(error_of(join_cluster(member.options(member.new_token(CertificateKind::witness)))),
            "the token admits a witness, not a node: make one on a member with: holdfast token");
  EXPECT_EQ(error_of(join_cluster(member.options("nonsense"))),
            "this is not a join token: a token starts with hf1-; make one with: holdfast token");
  // The other cluster's token pins another CA: refused before the secret is sent.
  const auto wrong = join_cluster(member.options(other.new_token()));
  ASSERT_FALSE(wrong);
  EXPECT_EQ(wrong.error().code, ErrorCode::denied) << wrong.error().to_string();
  EXPECT_NE(wrong.error().message.find("is not a member of the token's cluster"), std::string::npos)
      << wrong.error().to_string();
  JoinToken forged = join_token_from_text(member.new_token()).value();
  forged.secret[3] ^= 1;
  EXPECT_EQ(join_cluster(member.options(to_text(forged))).error().message, "the token is not known here");
}

TEST(Join, AnswersWhatTheClusterAsksBeforeTheTokenIsUsed) {
  Member member("00000000000000c1");
  JoinOptions options = member.options(member.new_token());
  std::string heard;
  options.answer = [&](const std::string& asks) -> Result<std::string> {
    heard = asks;
    return fail(ErrorCode::io, "this disk is gone");
  };
  member.asks = "[1]";
  EXPECT_EQ(error_of(join_cluster(options)), "this disk is gone");
  EXPECT_EQ(heard, "[1]");
  EXPECT_TRUE(member.asked.node.empty()) << "asked to be admitted all the same";
  options.answer = [](const std::string&) -> Result<std::string> { return std::string("[2]"); };
  EXPECT_EQ(error_of(join_cluster(options)), "joined");
  EXPECT_EQ(member.asked.facts, "[2]");
  // A cluster that protects nothing asks nothing.
  member.asks.clear(), heard.clear();
  options.token = member.new_token();
  options.answer = [&](const std::string& asks) -> Result<std::string> { return heard = "asked " + asks; };
  EXPECT_EQ(error_of(join_cluster(options)), "joined");
  EXPECT_EQ(heard + member.asked.facts, "");
}

TEST(Join, NobodyThereSaysWhereItLooked) {
  Member member("00000000000000c1");
  JoinOptions options = member.options(member.new_token());
  options.address = "127.0.0.1:1";
  const auto joined = join_cluster(options);
  ASSERT_FALSE(joined);
  EXPECT_EQ(joined.error().code, ErrorCode::unavailable);
  EXPECT_TRUE(joined.error().message.starts_with("cannot reach 127.0.0.1:1: ")) << joined.error().message;
}

TEST(Join, AnAnswerThatContradictsItselfIsRefused) {
  Member member("00000000000000c1");
  member.lie = true;
  EXPECT_EQ(error_of(join_cluster(member.options(member.new_token()))),
            "the member issued a certificate for somebody else");
}

TEST(HostPortText, Forms) {
  const auto at = [](const char* text) {
    const auto p = parse_host_port(text, 9727);
    return p ? fmt::format("{} {}", p->host, p->port) : "bad";
  };
  EXPECT_EQ(at("10.0.0.1"), "10.0.0.1 9727");
  EXPECT_EQ(at("10.0.0.1:1"), "10.0.0.1 1");
  EXPECT_EQ(at("[fd00::1]:80"), "fd00::1 80");
  EXPECT_EQ(at("[fd00::1]"), "fd00::1 9727");
  EXPECT_EQ(at("fd00::1"), "fd00::1 9727");
  EXPECT_EQ(at("db1.example"), "db1.example 9727");
  for (const char* bad : {"", ":80", "a:0", "a:99999", "a:x", "[fd00::1", "[fd00::1]80", "http://a", "a b"})
    EXPECT_EQ(at(bad), "bad") << bad;
}

}  // namespace
}  // namespace holdfast::control
