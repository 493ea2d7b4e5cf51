// SPDX-License-Identifier: Apache-2.0
// One TLS connection of a control link, non-blocking, driven by the one I/O thread of PeerLinks. Not thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "network/peer_link_frame.h"

namespace holdfast::network {

using SteadyTime = std::chrono::steady_clock::time_point;

struct SslDeleter {
  void operator()(SSL* ssl) const { SSL_free(ssl); }
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
};
using SslPtr = std::unique_ptr<SSL, SslDeleter>;
using SslContextPtr = std::unique_ptr<SSL_CTX, SslDeleter>;

// Who the peer's certificate says it is: SAN URI "holdfast:cluster/<cluster id>/node/<16 hex digits>", OU "node" or "witness".
struct CertificateIdentity {
  std::string cluster;
  NodeId id;
  PeerKind kind = PeerKind::node;
};
Result<CertificateIdentity> peer_certificate(SSL* ssl);

std::string remote_address(int fd);  // "10.0.0.2:41234", for messages

// TLS 1.3 only, mutual, ALPN holdfast-control/1; `dir` holds ca.crt, node.crt, node.key.
Result<SslContextPtr> control_context(const std::string& dir, bool server);

// "10.0.0.2:9727" or "[fe80::1]:9727"; numeric addresses only, so that no name look-up can block the I/O thread.
struct SocketAddress {
  std::vector<std::uint8_t> bytes;  // struct sockaddr_*
};
Result<SocketAddress> parse_socket_address(const std::string& text);

class LinkConnection {
 public:
  // Starts a non-blocking connect to `address`.
  static Result<std::unique_ptr<LinkConnection>> dial(const std::string& address, SSL_CTX* context,
                                                      const std::string& sni);
  // Takes an accepted socket; the handshake may be still to do or done already.
  static std::unique_ptr<LinkConnection> accepted(int fd, SslPtr ssl, bool handshake_done);
  ~LinkConnection();
  LinkConnection(const LinkConnection&) = delete;
  LinkConnection& operator=(const LinkConnection&) = delete;

  int fd() const { return fd_; }
  SSL* ssl() const { return ssl_.get(); }
  bool secured() const { return state_ == State::secured; }
  std::uint32_t wanted_events() const;
  const std::string& remote() const { return remote_; }

  // Moves the handshake, reads, writes. Frames that came in are appended to `frames`. An error means: close it.
  Status drive(std::vector<Frame>& frames);
  void queue(FrameType type, ByteView payload);
  // Best effort write of what is queued before a close.
  void flush();
  std::size_t queued_bytes() const { return out_.size() - out_start_; }

  // Book-keeping of the hub.
  std::uint64_t id = 0;
  bool dialled = false;
  std::optional<Hello> hello;  // of the peer, once accepted
  SteadyTime opened{};
  SteadyTime last_heard{};
  SteadyTime next_heartbeat{};
  std::optional<double> rtt_ms;
  std::string realm;    // cluster id
  std::string address;  // as dialled
  NodeId expected;      // whom we dialled

 private:
  enum class State { connecting, handshaking, secured };
  LinkConnection(int fd, SslPtr ssl, State state);
  Status finish_connect();
  Status handshake();
  Status read_frames(std::vector<Frame>& frames);
  Status write_queued();

  int fd_ = -1;
  SslPtr ssl_;
  State state_;
  bool want_write_ = false;
  Bytes out_;
  std::size_t out_start_ = 0;
  FrameReader reader_;
  std::string remote_;
};

}  // namespace holdfast::network
