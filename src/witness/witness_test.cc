// SPDX-License-Identifier: Apache-2.0
// A real witness, asked over a real link with real certificates.
#include "witness/witness.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <ctime>
#include <filesystem>

#include "cluster/codec.h"
#include "control/pki.h"

namespace holdfast::witness {
namespace {

using namespace std::chrono_literals;
using namespace cluster;

struct WitnessTest : ::testing::Test {
  std::string root = std::filesystem::temp_directory_path() / fmt::format("hf-witness-{}", getpid());
  std::string cluster = "00000000000000c1";
  NodeId node{1}, self{3};
  control::Credentials ca = *control::make_ca(cluster, std::time(nullptr));
  std::string address;
  std::unique_ptr<Witness> witness;
  std::thread loop;
  std::unique_ptr<network::PeerLinks> links;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<Envelope> heard;

  WitnessTest() {
    std::filesystem::create_directories(root + "/w/clusters");
    put_tls(root + "/w/clusters/" + cluster + "/tls", self, control::CertificateKind::witness);
    put_tls(root + "/node", node, control::CertificateKind::node);
    EXPECT_TRUE(store_new_voter(files(), {cluster, "erp", self, "w1"}, Incarnation(77)));
  }
  ~WitnessTest() override {
    links.reset();
    stop();
    std::filesystem::remove_all(root);
  }
  ClusterFiles files() const { return {root + "/w/clusters/" + cluster}; }
  void put_tls(const std::string& dir, NodeId id, control::CertificateKind kind) {
    const auto own = control::make_node_credentials(ca, {cluster, to_hex(id), kind}, std::time(nullptr));
    ASSERT_TRUE(own);
    std::filesystem::create_directories(dir);
    ASSERT_TRUE(control::store_tls({dir}, {ca.certificate_pem, "", *own}));
  }
  void start() {
    witness = std::make_unique<Witness>(root + "/w");
    for (int port = 24000 + static_cast<int>(getpid() % 2000); port < 27000; ++port) {
      address = fmt::format("127.0.0.1:{}", port);
      if (witness->listen(address)) break;
    }
    loop = std::thread([this] { witness->run(); });
  }
  void stop() {
    if (!witness) return;
    witness->stop();
    loop.join();
    witness.reset();
  }
  void dial() {
    network::LinkEvents events;
    events.up = [](const std::string&, const network::Hello&) {};
    events.down = [](const std::string&, NodeId) {};
    events.summary = [](const std::string&, NodeId, std::string) {};
    events.request = [](const std::string&, NodeId, std::string, std::string, network::Responder) {};
    events.message = [this](const std::string&, NodeId, ByteView bytes) {
      auto e = decode_envelope(bytes);
      const std::lock_guard lock(mutex);
      if (e) heard.push_back(*e);
      changed.notify_all();
    };
    links = std::make_unique<network::PeerLinks>(events);
    network::LinkRealm realm;
    realm.cluster = cluster;
    realm.tls_dir = root + "/node";
    realm.hello.cluster = cluster;
    realm.hello.id = node;
    realm.hello.name = "n1";
    ASSERT_TRUE(links->add_realm(realm));
    links->set_peers(cluster, {{self, "w1", network::PeerKind::witness, {address}}});
  }
  // Best effort like every message: asked again until an answer comes.
  std::optional<CanvassReply> canvass(std::uint64_t round) {
    const Envelope ask{ClusterId(0xc1), node, self, Canvass{round}};
    std::unique_lock lock(mutex);
    for (int i = 0; i < 100; ++i) {
      links->send(cluster, self, encode(ask));
      changed.wait_for(lock, 50ms);
      for (const Envelope& e : heard)
        if (const auto* reply = std::get_if<CanvassReply>(&e.body); reply != nullptr && reply->round == round)
          return *reply;
    }
    return std::nullopt;
  }
};

TEST_F(WitnessTest, AnswersUnderTheIncarnationItJoinedWith) {
  start();
  dial();
  const auto reply = canvass(5);
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->incarnation, Incarnation(77));
  links->send(cluster, self, Bytes(300, 0xee));  // garbage from a member
  EXPECT_TRUE(canvass(6)) << "it goes on";
}

TEST_F(WitnessTest, KeepsItsIncarnationOverARestartAndLosesItWithItsRegister) {
  start();
  dial();
  ASSERT_TRUE(canvass(1));
  links.reset();
  stop();
  start();
  dial();
  ASSERT_EQ(canvass(2)->incarnation, Incarnation(77));
  links.reset();
  stop();
  std::filesystem::remove(files().register_file());
  start();
  dial();
  const auto reply = canvass(3);
  ASSERT_TRUE(reply);
  EXPECT_NE(reply->incarnation, Incarnation(77)) << "who forgets is somebody else (R9)";
}

TEST_F(WitnessTest, DamagedFilesEndOneClusterNotTheProcess) {
  std::filesystem::create_directories(root + "/w/clusters/00000000000000c2");
  std::filesystem::create_directories(root + "/w/clusters/garbage");
  start();
  dial();
  EXPECT_TRUE(canvass(1));
  EXPECT_EQ(witness->clusters(), 1u);
}

TEST_F(WitnessTest, ACertificateThatIsDueIsRenewedThroughANode) {
  const RenewalAsk ask{"erp", files().tls(), {}};
  const std::int64_t now_s = std::time(nullptr);
  const auto early = renew_certificate(ask, now_s);
  ASSERT_TRUE(early) << early.error().message;
  EXPECT_FALSE(*early);
  const auto certificate = control::inspect_certificate(control::load_tls({files().tls()}, now_s)->own.certificate_pem);
  const std::int64_t late_s = certificate->not_after_s - 3600;
  ASSERT_TRUE(control::renewal_due(*certificate, late_s));
  EXPECT_EQ(renew_certificate(ask, late_s).error().code, ErrorCode::unavailable) << "nobody to ask";
  const auto refused = renew_certificate({"erp", files().tls(), {"127.0.0.1:1"}}, late_s);
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("127.0.0.1"), std::string::npos) << refused.error().message;
}

TEST(WitnessRenewal, AsksTheNodesThatTheRegisterNames) {
  Value value;
  const auto member = [](std::uint64_t id, MemberKind kind) {
    Member m;
    m.id = NodeId(id);
    m.kind = kind;
    return m;
  };
  value.members = {member(1, MemberKind::data), member(2, MemberKind::data), member(3, MemberKind::witness)};
  value.config = R"({"nodes":{"0000000000000001":{"channel":["10.0.0.1","10.1.0.1"]},"0000000000000002":{"channel":7},
                    "0000000000000003":{"channel":["10.0.0.9"]},"0000000000000004":{"channel":["10.0.0.4"]},"x":{}}})";
  EXPECT_EQ(node_addresses(value), (std::vector<std::string>{"10.0.0.1", "10.1.0.1"})) << "members that hold data";
  value.config = "damaged";
  EXPECT_TRUE(node_addresses(value).empty());
}

}  // namespace
}  // namespace holdfast::witness
