// SPDX-License-Identifier: Apache-2.0
// TLS 1.3 over TCP as a blocking stream with time limits: data channel, control between nodes, witness and the remote API use it.
// Certificates: `tls_dir` holds ca.crt (the cluster's authority), node.crt and node.key. Both sides prove themselves unless the context
// says otherwise (join). The peer's name is its certificate's common name; subject alternative names (DNS and URI) are in peer_names().
// Threads: see ports/stream.h. Contexts are shared by any number of streams. Errors: ErrorCode::denied when the identity is wrong,
// ::timeout, ::unavailable when nobody answers or the connection broke.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ports/stream.h"

namespace holdfast::platform {

enum class TlsRole { client, server };

// What a server asks of its clients.
enum class TlsPeerPolicy {
  required,  // a certificate of the cluster's authority, or no connection
  optional,  // none, or a valid one: peer_common_name() is empty for a stranger (API, join)
};

class TlsContext {
 public:
  // Reads the three files now; load again after they were replaced.
  static Result<std::shared_ptr<TlsContext>> load(const std::string& tls_dir, TlsRole role,
                                                  TlsPeerPolicy policy = TlsPeerPolicy::required);
  // A client without a certificate of its own, for join: the server must show a chain to an authority whose certificate (DER) has this
  // SHA-256 fingerprint, 64 hex digits. Servers made by load() send their authority's certificate along.
  static Result<std::shared_ptr<TlsContext>> pinned_client(std::string_view ca_sha256_hex);
  // The fingerprint of the first certificate in a PEM file: what a token carries.
  static Result<std::string> certificate_sha256(const std::string& pem_path);

  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;
  void* native() const { return context_; }  // SSL_CTX*
  TlsRole role() const { return role_; }

 private:
  explicit TlsContext(TlsRole role) : role_(role) {}
  friend struct TlsContextBuilder;
  void* context_ = nullptr;
  TlsRole role_;
  std::string pin_;  // binary SHA-256, empty when not pinned
};

// An accepted or connected TCP socket; closes it when dropped.
class TcpSocket {
 public:
  TcpSocket() = default;
  explicit TcpSocket(int fd) : fd_(fd) {}
  TcpSocket(TcpSocket&& other) noexcept : fd_(other.release()) {}
  TcpSocket& operator=(TcpSocket&& other) noexcept;
  ~TcpSocket();
  int fd() const { return fd_; }
  int release() {
    const int fd = fd_;
    fd_ = -1;
    return fd;
  }
  std::string peer_address() const;  // "10.0.0.2:41234", for messages

 private:
  int fd_ = -1;
};

// Connects within `timeout_ms`; `local_address` (may be empty) chooses the network path.
Result<TcpSocket> tcp_connect(const std::string& host, std::uint16_t port, int timeout_ms,
                              const std::string& local_address = {});

class TlsListener {
 public:
  // `address`: "0.0.0.0", "::", or one of this node's; port 0 = any (see port()). Dual-stack when "::".
  static Result<std::unique_ptr<TlsListener>> open(const std::string& address, std::uint16_t port);
  ~TlsListener();
  // The TCP connection only, so that a slow or hostile handshake does not hold up the accepting thread: pass it to TlsStream::accept in
  // a thread of its own. ErrorCode::unavailable after close().
  Result<TcpSocket> accept();
  void close();  // any thread; wakes accept()
  std::uint16_t port() const { return port_; }

 private:
  TlsListener() = default;
  int fd_ = -1;
  int wake_fd_ = -1;
  std::uint16_t port_ = 0;
};

struct TlsOptions {
  std::vector<std::string> alpn;  // client: offered; server: accepted, in order of preference. Empty: ALPN is not used
  int handshake_timeout_ms = 5000;
  int user_timeout_ms = 10000;       // TCP_USER_TIMEOUT: unacknowledged bytes for this long break the connection
  std::string server_name;           // client: SNI; empty = none
  std::string expected_common_name;  // when set, another certificate is ErrorCode::denied
};

class TlsStream final : public ports::ByteStream {
 public:
  static Result<std::unique_ptr<TlsStream>> connect(std::shared_ptr<TlsContext> context, const std::string& host,
                                                    std::uint16_t port, const TlsOptions& options,
                                                    int connect_timeout_ms = 3000);
  static Result<std::unique_ptr<TlsStream>> connect(std::shared_ptr<TlsContext> context, TcpSocket socket,
                                                    const TlsOptions& options);
  static Result<std::unique_ptr<TlsStream>> accept(std::shared_ptr<TlsContext> context, TcpSocket socket,
                                                   const TlsOptions& options);
  ~TlsStream() override;

  Result<std::size_t> read_some(std::span<std::uint8_t> into) override;
  bool readable_now() override;
  Status write_pieces(std::span<const ByteView> pieces) override;
  void shutdown() override;

  // Reads and writes that begin from now on must be finished `ms` from now; -1 = no limit (the default after the handshake).
  void set_deadline(int ms);
  // A single read or write may wait this long for the peer to move; -1 = no limit (the default).
  void set_idle_timeout(int ms);

  const std::string& peer_common_name() const { return peer_common_name_; }
  const std::vector<std::string>& peer_names() const { return peer_names_; }
  const std::string& alpn() const { return alpn_; }  // chosen protocol; empty when none
  const std::string& peer_address() const { return peer_address_; }

 private:
  struct State;
  TlsStream(std::shared_ptr<TlsContext> context, TcpSocket socket);
  Status handshake(const TlsOptions& options);
  Status flush(bool wait);
  Status pump_in();
  std::unique_ptr<State> state_;
  std::string peer_common_name_, alpn_, peer_address_;
  std::vector<std::string> peer_names_;
};

}  // namespace holdfast::platform
