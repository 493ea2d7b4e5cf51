// SPDX-License-Identifier: Apache-2.0
// Real links over loopback with real certificates.
#include "network/peer_link.h"

#include "network/who_answers.h"

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <unistd.h>

#include <condition_variable>
#include <filesystem>

namespace holdfast::network {
namespace {

using namespace std::chrono_literals;

const std::string cluster_a = "00000000000000aa", cluster_b = "00000000000000bb";

struct Authority {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = nullptr;
  explicit Authority(const std::string& cluster) { certificate = make(key, cluster, "ca", "", true); }
  ~Authority() {
    X509_free(certificate);
    EVP_PKEY_free(key);
  }
  X509* make(EVP_PKEY* subject_key, const std::string& name, const std::string& unit, const std::string& uri, bool ca,
             long lifetime_s = 3600) {
    X509* x = X509_new();
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), static_cast<long>(std::hash<std::string>{}(name + uri) & 0xffffff));
    X509_gmtime_adj(X509_getm_notBefore(x), -60);
    X509_gmtime_adj(X509_getm_notAfter(x), lifetime_s);
    X509_set_pubkey(x, subject_key);
    X509_NAME* subject = X509_get_subject_name(x);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(name.c_str()), -1,
                               -1, 0);
    X509_NAME_add_entry_by_txt(subject, "OU", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(unit.c_str()), -1,
                               -1, 0);
    X509_set_issuer_name(x, ca ? subject : X509_get_subject_name(certificate));
    const auto add = [&](int nid, const std::string& value) {
      X509V3_CTX c;
      X509V3_set_ctx(&c, ca ? x : certificate, x, nullptr, nullptr, 0);
      X509_EXTENSION* e = X509V3_EXT_conf_nid(nullptr, &c, nid, value.c_str());
      X509_add_ext(x, e, -1);
      X509_EXTENSION_free(e);
    };
    add(NID_basic_constraints, ca ? "critical,CA:TRUE" : "CA:FALSE");
    if (!uri.empty()) add(NID_subject_alt_name, "URI:" + uri);
    X509_sign(x, key, EVP_sha256());
    return x;
  }
  void issue(const std::string& dir, const std::string& cluster, NodeId id, PeerKind kind, long lifetime_s = 3600) {
    std::filesystem::create_directories(dir);
    EVP_PKEY* own = EVP_EC_gen("P-256");
    X509* x = make(own, to_hex(id), to_string(kind), "holdfast:cluster/" + cluster + "/node/" + to_hex(id), false,
                   lifetime_s);
    const auto put = [&](const char* file, auto writer) {
      FILE* f = fopen((dir + "/" + file).c_str(), "w");
      writer(f);
      fclose(f);
    };
    put("ca.crt", [&](FILE* f) { PEM_write_X509(f, certificate); });
    put("node.crt", [&](FILE* f) { PEM_write_X509(f, x); });
    put("node.key", [&](FILE* f) { PEM_write_PrivateKey(f, own, nullptr, nullptr, 0, nullptr, nullptr); });
    X509_free(x);
    EVP_PKEY_free(own);
  }
};

struct Side {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::string> ups, summaries;
  std::vector<Bytes> messages;
  int downs = 0;
  std::string cluster, dir;
  NodeId id;
  std::unique_ptr<PeerLinks> links;

  template <class F>
  void bump(F f) {
    const std::lock_guard lock(mutex);
    f();
    changed.notify_all();
  }
  template <class P>
  bool wait(P holds, std::chrono::milliseconds limit = 5s) {
    std::unique_lock lock(mutex);
    const auto until = std::chrono::steady_clock::now() + limit;
    // Some of what is waited for has no callback: looked at again now and then.
    while (!changed.wait_for(lock, 20ms, holds))
      if (std::chrono::steady_clock::now() > until) return false;
    return true;
  }
};

struct PeerLinkTest : ::testing::Test {
  std::string root = std::filesystem::temp_directory_path() / fmt::format("hf-links-{}", getpid());
  Authority a{cluster_a}, b{cluster_b};
  long lifetime_s = 3600;  // of certificates from now on; below 0: expired
  ~PeerLinkTest() override { std::filesystem::remove_all(root); }

  std::unique_ptr<Side> side(Authority& authority, const std::string& cluster, NodeId id, PeerKind kind,
                             std::uint16_t version = 1) {
    auto s = std::make_unique<Side>();
    s->cluster = cluster;
    s->id = id;
    s->dir = fmt::format("{}/{}-{}", root, cluster, id.value);
    authority.issue(s->dir, cluster, id, kind, lifetime_s);
    Side* raw = s.get();
    LinkEvents events;
    events.up = [raw](const std::string&, const Hello& h) { raw->bump([&] { raw->ups.push_back(h.name); }); };
    events.down = [raw](const std::string&, NodeId) { raw->bump([&] { ++raw->downs; }); };
    events.message = [raw](const std::string&, NodeId, ByteView m) {
      raw->bump([&] { raw->messages.emplace_back(m.begin(), m.end()); });
    };
    events.summary = [raw](const std::string&, NodeId, std::string t) {
      raw->bump([&] { raw->summaries.push_back(t); });
    };
    events.request = [](const std::string&, NodeId, std::string op, std::string body, Responder respond) {
      if (op == "echo")
        respond(body);
      else if (op != "never")
        respond(fail(ErrorCode::refused, "not {}", op));
    };
    LinkTimings timings;
    timings.heartbeat = 50ms;
    timings.silence = 400ms;
    timings.redial_first = 30ms;
    timings.redial_most = 100ms;
    timings.certificates = 20ms;
    s->links = std::make_unique<PeerLinks>(events, timings);
    EXPECT_TRUE(join(*s, version, kind));
    return s;
  }
  Status join(Side& s, std::uint16_t version, PeerKind kind) {
    LinkRealm realm;
    realm.cluster = s.cluster;
    realm.tls_dir = s.dir;
    realm.hello.cluster = s.cluster;
    realm.hello.id = s.id;
    realm.hello.kind = kind;
    realm.hello.name = fmt::format("m{}", s.id.value);
    realm.hello.version_min = realm.hello.version_max = version;
    return s.links->add_realm(realm);
  }
  static std::string port_of(Side& s) {
    for (int port = 21000 + static_cast<int>(getpid() % 2000); port < 24000; ++port) {
      const std::string at = fmt::format("127.0.0.1:{}", port);
      if (s.links->listen(at)) return at;
    }
    return {};
  }
};

TEST_F(PeerLinkTest, MessagesRequestsHeartbeatsAndLoss) {
  auto witness = side(a, cluster_a, NodeId(3), PeerKind::witness);
  auto node = side(a, cluster_a, NodeId(1), PeerKind::node);
  const std::string at = port_of(*witness);
  node->links->set_peers(cluster_a, {{NodeId(3), "w1", PeerKind::witness, {at}}});
  ASSERT_TRUE(node->wait([&] { return node->ups.size() == 1; }));
  ASSERT_TRUE(witness->wait([&] { return witness->ups.size() == 1; }));
  node->links->send(cluster_a, NodeId(3), Bytes{1, 2, 3});
  ASSERT_TRUE(witness->wait([&] { return witness->messages.size() == 1; }));
  witness->links->send(cluster_a, NodeId(1), Bytes(100'000, 7));  // back over the connection that came in
  ASSERT_TRUE(node->wait([&] { return node->messages.size() == 1; }));
  EXPECT_EQ(node->messages[0].size(), 100'000u);

  std::vector<Result<std::string>> answers;
  const auto ask = [&](const char* op, std::chrono::milliseconds limit) {
    node->links->request(cluster_a, NodeId(3), op, "hi", limit,
                         [&](Result<std::string> r) { node->bump([&] { answers.push_back(std::move(r)); }); });
    const std::size_t n = answers.size();
    EXPECT_TRUE(node->wait([&] { return answers.size() > n || !answers.empty(); }));
    auto r = answers.back();
    answers.clear();
    return r;
  };
  EXPECT_EQ(ask("echo", 3s).value_or("?"), "hi");
  EXPECT_EQ(ask("dance", 3s).error().code, ErrorCode::refused);
  EXPECT_EQ(ask("never", 100ms).error().code, ErrorCode::timeout);
  ASSERT_TRUE(node->wait([&] {
    const auto paths = node->links->paths(cluster_a, NodeId(3));
    return paths.size() == 1 && paths[0].connected && paths[0].rtt_ms.has_value();
  }));
  witness->links.reset();
  EXPECT_TRUE(node->wait([&] { return node->downs == 1; }));
  EXPECT_FALSE(node->links->connected(cluster_a, NodeId(3)));
}

TEST_F(PeerLinkTest, WrongClusterStrangersVersionsAndGarbageAreRefused) {
  auto witness = side(a, cluster_a, NodeId(3), PeerKind::witness);
  const std::string at = port_of(*witness);
  auto foreign = side(b, cluster_b, NodeId(9), PeerKind::node);
  foreign->links->set_peers(cluster_b, {{NodeId(3), "w1", PeerKind::witness, {at}}});
  auto newer = side(a, cluster_a, NodeId(2), PeerKind::node, 900);
  newer->links->set_peers(cluster_a, {{NodeId(3), "w1", PeerKind::witness, {at}}});
  // Garbage on the port, and a connection that says nothing.
  const int port = std::stoi(at.substr(at.rfind(':') + 1));
  const auto address = parse_socket_address(fmt::format("127.0.0.1:{}", port));
  std::vector<int> fds;
  for (int i = 0; i < 5; ++i) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    ASSERT_EQ(connect(fd, reinterpret_cast<const sockaddr*>(address->bytes.data()),
                      static_cast<socklen_t>(address->bytes.size())),
              0);
    const std::string noise(static_cast<std::size_t>(i) * 1000, '\xee');
    if (i > 0) (void)!write(fd, noise.data(), noise.size());
    fds.push_back(fd);
  }
  auto good = side(a, cluster_a, NodeId(1), PeerKind::node);
  good->links->set_peers(cluster_a, {{NodeId(3), "w1", PeerKind::witness, {at}}});
  ASSERT_TRUE(good->wait([&] { return good->ups.size() == 1; })) << "an honest member must get through";
  ASSERT_TRUE(newer->wait([&] {
    const auto p = newer->links->paths(cluster_a, NodeId(3));
    return p.size() == 1 && p[0].last_error.find("versions do not meet") != std::string::npos;
  })) << newer->links->paths(cluster_a, NodeId(3))[0].last_error;
  // The two ends hear of a connection each in its own time.
  ASSERT_TRUE(witness->wait([&] { return !witness->ups.empty(); }));
  for (Side* s : {foreign.get(), newer.get()}) {
    const std::lock_guard lock(s->mutex);
    EXPECT_TRUE(s->ups.empty());
  }
  {
    const std::lock_guard lock(witness->mutex);
    EXPECT_EQ(witness->ups, std::vector<std::string>{"m1"});
  }
  for (const int fd : fds) close(fd);
}

TEST_F(PeerLinkTest, ARenewedCertificateIsUsedWithoutARestart) {
  auto witness = side(a, cluster_a, NodeId(3), PeerKind::witness);
  const std::string at = port_of(*witness);
  lifetime_s = -30;
  auto node = side(a, cluster_a, NodeId(1), PeerKind::node);
  node->links->set_peers(cluster_a, {{NodeId(3), "w1", PeerKind::witness, {at}}});
  ASSERT_TRUE(node->wait([&] {
    const auto p = node->links->paths(cluster_a, NodeId(3));
    return p.size() == 1 && !p[0].last_error.empty();
  }));
  a.issue(node->dir, cluster_a, NodeId(1), PeerKind::node);
  EXPECT_TRUE(node->wait([&] { return node->ups.size() == 1; }));
}

TEST_F(PeerLinkTest, WhoAnswersIsToldByTheCertificate) {
  auto node = side(a, cluster_a, NodeId(1), PeerKind::node);
  const std::string at = port_of(*node);
  auto asker = side(a, cluster_a, NodeId(2), PeerKind::node);
  const auto who = who_answers(at, cluster_a, asker->dir, 5'000);
  ASSERT_TRUE(who) << who.error().to_string();
  EXPECT_EQ(who->id, NodeId(1));
  auto stranger = side(b, cluster_b, NodeId(2), PeerKind::node);
  EXPECT_FALSE(who_answers(at, cluster_b, stranger->dir, 5'000)) << "a member of another cluster is nobody here";
  const int deaf =
      socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);  // takes connections and says nothing, as a process that hangs
  sockaddr_in any{};
  any.sin_family = AF_INET;
  any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof any;
  ASSERT_EQ(bind(deaf, reinterpret_cast<sockaddr*>(&any), length), 0);
  ASSERT_EQ(listen(deaf, 4), 0);
  getsockname(deaf, reinterpret_cast<sockaddr*>(&any), &length);
  const auto silent = who_answers(fmt::format("127.0.0.1:{}", ntohs(any.sin_port)), cluster_a, asker->dir, 50);
  ASSERT_FALSE(silent);
  EXPECT_EQ(silent.error().code, ErrorCode::timeout);
  close(deaf);
  EXPECT_FALSE(who_answers("127.0.0.1:1", cluster_a, asker->dir, 50));
}

TEST_F(PeerLinkTest, OneWitnessServesTwoClustersByServerName) {
  auto witness = side(a, cluster_a, NodeId(3), PeerKind::witness);
  const std::string dir = root + "/second";
  b.issue(dir, cluster_b, NodeId(4), PeerKind::witness);
  LinkRealm realm;
  realm.cluster = cluster_b;
  realm.tls_dir = dir;
  realm.hello.cluster = cluster_b;
  realm.hello.id = NodeId(4);
  realm.hello.kind = PeerKind::witness;
  realm.hello.name = "w";
  ASSERT_TRUE(witness->links->add_realm(realm));
  const std::string at = port_of(*witness);
  auto one = side(a, cluster_a, NodeId(1), PeerKind::node);
  auto two = side(b, cluster_b, NodeId(1), PeerKind::node);
  one->links->set_peers(cluster_a, {{NodeId(3), "w", PeerKind::witness, {at}}});
  two->links->set_peers(cluster_b, {{NodeId(4), "w", PeerKind::witness, {at}}});
  EXPECT_TRUE(one->wait([&] { return one->ups.size() == 1; }));
  EXPECT_TRUE(two->wait([&] { return two->ups.size() == 1; }));
}

}  // namespace
}  // namespace holdfast::network
