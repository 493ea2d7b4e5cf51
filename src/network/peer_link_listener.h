// SPDX-License-Identifier: Apache-2.0
// The one TLS listener of a node (9727). It accepts, does the handshake in a thread of its own per connection, and hands over by
// ALPN: holdfast-control/1 (only with a certificate of this cluster) to the peer links, http/1.1 to the API.
// Garbage, slow handshakes and floods cost a bounded number of threads for a bounded time and one log line a second.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>

#include "base/news.h"
#include "network/peer_link_connection.h"

namespace holdfast::network {

// A TLS connection for threads that may block.
class BlockingTls {
 public:
  BlockingTls(int fd, SslPtr ssl) : fd_(fd), ssl_(std::move(ssl)) {}
  ~BlockingTls();
  BlockingTls(const BlockingTls&) = delete;
  BlockingTls& operator=(const BlockingTls&) = delete;
  Result<std::size_t> read_some(std::span<std::uint8_t> into, int timeout_ms);  // 0 = the end
  Status write_all(ByteView bytes, int timeout_ms);

 private:
  friend class TlsDoor;
  Status wait(int ssl_error, SteadyTime deadline);
  Status handshake(int timeout_ms);
  int fd_;
  SslPtr ssl_;
};

struct DoorEvents {
  std::function<void(int fd, SslPtr ssl)> control;  // takes both over
  // Runs in the connection's own thread; the connection ends when it returns.
  std::function<void(BlockingTls& tls, std::optional<CertificateIdentity> peer, const std::string& address)> http;
};

class TlsDoor {
 public:
  // `tls_dir`: ca.crt, node.crt, node.key, read now and on reload().
  static Result<std::unique_ptr<TlsDoor>> open(const std::string& address, const std::string& tls_dir,
                                               DoorEvents events);
  ~TlsDoor();  // no event runs after it; http handlers must have been told to end
  Status reload(const std::string& tls_dir);

 private:
  explicit TlsDoor(DoorEvents events) : events_(std::move(events)) {}
  void accept_loop();
  void serve(int fd);

  const DoorEvents events_;
  int listen_fd_ = -1;
  int wake_fd_ = -1;
  std::atomic<bool> stopping_{false};
  std::atomic<int> busy_{0};
  News news_;  // refusals, by host
  std::mutex mutex_;
  std::shared_ptr<SSL_CTX> context_;
  std::thread thread_;
};

}  // namespace holdfast::network
