// SPDX-License-Identifier: Apache-2.0
#include "platform/tls_stream.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <numeric>
#include <random>
#include <thread>

#include "platform/test_certificates.h"

namespace holdfast::platform {
namespace {

using testing::TemporaryFolder;
using testing::TestAuthority;

struct Pair {
  std::unique_ptr<TlsStream> client, server;
  Error client_error, server_error;
};

Pair connect_pair(std::shared_ptr<TlsContext> client, std::shared_ptr<TlsContext> server,
                  TlsOptions client_options = {}, TlsOptions server_options = {}) {
  Pair pair;
  auto listener = TlsListener::open("127.0.0.1", 0).value();
  std::thread accepting([&] {
    auto socket = listener->accept();
    auto stream = TlsStream::accept(server, std::move(*socket), server_options);
    if (stream)
      pair.server = std::move(*stream);
    else
      pair.server_error = stream.error();
  });
  auto stream = TlsStream::connect(client, "127.0.0.1", listener->port(), client_options);
  accepting.join();
  if (stream)
    pair.client = std::move(*stream);
  else
    pair.client_error = stream.error();
  return pair;
}

class TlsStreamTest : public ::testing::Test {
 protected:
  TlsStreamTest() {
    authority.issue(folder / "a", "00000000000000aa");
    authority.issue(folder / "b", "00000000000000bb");
    client = TlsContext::load(folder / "a", TlsRole::client).value();
    server = TlsContext::load(folder / "b", TlsRole::server).value();
  }
  TemporaryFolder folder;
  TestAuthority authority;
  std::shared_ptr<TlsContext> client, server;
};

TEST_F(TlsStreamTest, NamesAndAlpnAreSeenOnBothSides) {
  TlsOptions options;
  options.alpn = {"holdfast-data/1"};
  auto pair = connect_pair(client, server, options, options);
  ASSERT_TRUE(pair.client && pair.server) << pair.client_error.message << pair.server_error.message;
  EXPECT_EQ(pair.client->peer_common_name(), "00000000000000bb");
  EXPECT_EQ(pair.server->peer_common_name(), "00000000000000aa");
  EXPECT_EQ(pair.server->peer_names(), std::vector<std::string>{"holdfast:cluster/1/node/00000000000000aa"});
  EXPECT_EQ(pair.client->alpn(), "holdfast-data/1");
  EXPECT_EQ(pair.server->alpn(), "holdfast-data/1");
}

// Both ends write as fast as they can while both read: what a lock over a blocking read would turn into a deadlock.
TEST_F(TlsStreamTest, BothDirectionsAtOnceFromFourThreads) {
  auto pair = connect_pair(client, server);
  ASSERT_TRUE(pair.client && pair.server);
  constexpr std::size_t total = 48U << 20;
  const auto send = [](TlsStream& stream, unsigned seed) {
    std::mt19937 random(seed);
    Bytes block(1U << 20);
    std::iota(block.begin(), block.end(), static_cast<std::uint8_t>(seed));
    for (std::size_t done = 0; done < total;) {
      const std::size_t n = std::min<std::size_t>(total - done, 1 + random() % block.size());
      const ByteView pieces[2] = {ByteView(block).first(n / 3), ByteView(block).subspan(n / 3, n - n / 3)};
      ASSERT_TRUE(stream.write_pieces(pieces));
      done += n;
    }
  };
  const auto receive = [](TlsStream& stream, unsigned seed) {
    std::mt19937 random(seed);
    Bytes expected(1U << 20), block;
    std::iota(expected.begin(), expected.end(), static_cast<std::uint8_t>(seed));
    for (std::size_t done = 0; done < total;) {
      const std::size_t n = std::min<std::size_t>(total - done, 1 + random() % expected.size());
      block.resize(n);
      ASSERT_TRUE(stream.read_exact(block));
      ASSERT_TRUE(std::equal(block.begin(), block.end(), expected.begin()));
      done += n;
    }
  };
  std::thread threads[4] = {std::thread([&] { send(*pair.client, 1); }), std::thread([&] { send(*pair.server, 2); }),
                            std::thread([&] { receive(*pair.client, 2); }),
                            std::thread([&] { receive(*pair.server, 1); })};
  for (auto& t : threads) t.join();
  pair.client.reset();
  std::uint8_t byte[1];
  EXPECT_EQ(pair.server->read_some(byte).value_or(99), 0U) << "an orderly end is 0, not an error";
}

TEST_F(TlsStreamTest, StrangersAreRefused) {
  TestAuthority other;
  other.issue(folder / "x", "00000000000000aa");
  auto stranger = TlsContext::load(folder / "x", TlsRole::client).value();
  auto pair = connect_pair(stranger, server);
  EXPECT_FALSE(pair.client);
  EXPECT_EQ(pair.client_error.code, ErrorCode::denied);
  EXPECT_FALSE(pair.server);
}

TEST_F(TlsStreamTest, AnExpiredCertificateIsNamed) {
  authority.issue(folder / "old", "00000000000000cc", -7200, -3600);
  auto pair = connect_pair(client, TlsContext::load(folder / "old", TlsRole::server).value());
  ASSERT_FALSE(pair.client);
  const auto says = [](const std::string& text, const char* words) { return text.find(words) != std::string::npos; };
  EXPECT_TRUE(says(pair.client_error.message, "the certificate of node 00000000000000cc expired on 20"))
      << pair.client_error.message;
  EXPECT_TRUE(says(pair.client_error.message, "restart holdfastd there")) << pair.client_error.message;
  EXPECT_TRUE(says(pair.server_error.message, "this machine's certificate has expired")) << pair.server_error.message;

  pair = connect_pair(TlsContext::load(folder / "old", TlsRole::client).value(), server);
  EXPECT_TRUE(says(pair.server_error.message, "the certificate of node 00000000000000cc expired on 20"))
      << pair.server_error.message;

  authority.issue(folder / "early", "00000000000000ee", 3600, 7200);
  pair = connect_pair(client, TlsContext::load(folder / "early", TlsRole::server).value());
  EXPECT_TRUE(says(pair.client_error.message, "of node 00000000000000ee is valid from 20"))
      << pair.client_error.message;
}

TEST_F(TlsStreamTest, AnotherNodeThanExpectedIsRefused) {
  TlsOptions options;
  options.expected_common_name = "00000000000000dd";
  EXPECT_EQ(connect_pair(client, server, options).client_error.code, ErrorCode::denied);
}

TEST_F(TlsStreamTest, AJoinerWithoutCertificatePinsTheAuthority) {
  auto open_server = TlsContext::load(folder / "b", TlsRole::server, TlsPeerPolicy::optional).value();
  const std::string pin = TlsContext::certificate_sha256(folder / "b/ca.crt").value();
  auto pair = connect_pair(TlsContext::pinned_client(pin).value(), open_server);
  ASSERT_TRUE(pair.client && pair.server) << pair.client_error.message << pair.server_error.message;
  EXPECT_EQ(pair.server->peer_common_name(), "");
  std::string wrong = pin;
  wrong[0] = wrong[0] == '0' ? '1' : '0';
  EXPECT_FALSE(connect_pair(TlsContext::pinned_client(wrong).value(), open_server).client);
  EXPECT_FALSE(connect_pair(TlsContext::pinned_client(pin).value(), server).server)
      << "the data channel wants a certificate";
}

TEST_F(TlsStreamTest, TimeLimitsAndShutdownEndAWait) {
  auto pair = connect_pair(client, server);
  ASSERT_TRUE(pair.client && pair.server);
  std::uint8_t byte[1];
  pair.client->set_idle_timeout(50);
  EXPECT_EQ(pair.client->read_some(byte).error().code, ErrorCode::timeout);
  pair.client->set_idle_timeout(-1);
  pair.client->set_deadline(50);
  EXPECT_EQ(pair.client->read_some(byte).error().code, ErrorCode::timeout);
  pair.client->set_deadline(-1);
  std::thread reader([&] { EXPECT_FALSE(pair.client->read_some(byte)); });
  pair.client->shutdown();
  reader.join();
}

TEST_F(TlsStreamTest, GarbageInsteadOfTlsIsAnError) {
  auto listener = TlsListener::open("127.0.0.1", 0).value();
  std::thread accepting([&] {
    auto stream = TlsStream::accept(server, listener->accept().value(), {});
    EXPECT_FALSE(stream);
  });
  {
    auto socket = tcp_connect("127.0.0.1", listener->port(), 1000).value();
    const char garbage[] = "GET / HTTP/1.0\r\n\r\n";
    ASSERT_GT(::write(socket.fd(), garbage, sizeof garbage), 0);
    accepting.join();
  }
  std::thread waiting([&] { EXPECT_FALSE(listener->accept()); });
  listener->close();
  waiting.join();
}

}  // namespace
}  // namespace holdfast::platform
