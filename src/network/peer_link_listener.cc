// SPDX-License-Identifier: Apache-2.0
#include "network/peer_link_listener.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "base/log.h"
#include "platform/tls_failure.h"

namespace holdfast::network {
namespace {

constexpr int max_busy = 128;
constexpr int handshake_ms = 5000;

int choose_alpn(SSL*, const unsigned char** out, unsigned char* out_length, const unsigned char* in, unsigned in_length,
                void*) {
  static const unsigned char ours[] = "\x12holdfast-control/1\x08http/1.1";
  unsigned char* chosen = nullptr;
  if (SSL_select_next_proto(&chosen, out_length, ours, sizeof ours - 1, in, in_length) != OPENSSL_NPN_NEGOTIATED)
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  *out = chosen;
  return SSL_TLSEXT_ERR_OK;
}

std::string chosen_alpn(SSL* ssl) {
  const unsigned char* name = nullptr;
  unsigned length = 0;
  SSL_get0_alpn_selected(ssl, &name, &length);
  return std::string(reinterpret_cast<const char*>(name), length);
}

}  // namespace

BlockingTls::~BlockingTls() {
  if (ssl_) SSL_shutdown(ssl_.get());
  ssl_.reset();
  if (fd_ >= 0) close(fd_);
}

Status BlockingTls::wait(int ssl_error, SteadyTime deadline) {
  if (ssl_error == SSL_ERROR_ZERO_RETURN) return fail(ErrorCode::not_found, "closed by the peer");
  if (ssl_error != SSL_ERROR_WANT_READ && ssl_error != SSL_ERROR_WANT_WRITE) {
    return fail(ErrorCode::unavailable, "{}", platform::tls_failure(ssl_.get(), "connection closed"));
  }
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()).count();
  pollfd p{fd_, static_cast<short>(ssl_error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT), 0};
  if (left <= 0 || poll(&p, 1, static_cast<int>(left)) == 0) return fail(ErrorCode::timeout, "no answer in time");
  return {};
}

Status BlockingTls::handshake(int timeout_ms) {
  const SteadyTime deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  for (;;) {
    ERR_clear_error();
    const int r = SSL_do_handshake(ssl_.get());
    if (r == 1) return {};
    HF_TRY(wait(SSL_get_error(ssl_.get(), r), deadline));
  }
}

Result<std::size_t> BlockingTls::read_some(std::span<std::uint8_t> into, int timeout_ms) {
  const SteadyTime deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  for (;;) {
    ERR_clear_error();
    const int n = SSL_read(ssl_.get(), into.data(), static_cast<int>(std::min<std::size_t>(into.size(), 1u << 20)));
    if (n > 0) return static_cast<std::size_t>(n);
    const Status waited = wait(SSL_get_error(ssl_.get(), n), deadline);
    if (waited) continue;
    if (waited.error().code == ErrorCode::not_found) return std::size_t{0};
    return tl::unexpected(waited.error());
  }
}

Status BlockingTls::write_all(ByteView bytes, int timeout_ms) {
  const SteadyTime deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
  while (!bytes.empty()) {
    ERR_clear_error();
    const int n = SSL_write(ssl_.get(), bytes.data(), static_cast<int>(std::min<std::size_t>(bytes.size(), 1u << 20)));
    if (n > 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(n));
      continue;
    }
    HF_TRY(wait(SSL_get_error(ssl_.get(), n), deadline));
  }
  return {};
}

Result<std::unique_ptr<TlsDoor>> TlsDoor::open(const std::string& address, const std::string& tls_dir,
                                               DoorEvents events) {
  std::unique_ptr<TlsDoor> door(new TlsDoor(std::move(events)));
  HF_TRY(door->reload(tls_dir));
  HF_ASSIGN(const SocketAddress at, parse_socket_address(address));
  const auto* raw = reinterpret_cast<const sockaddr*>(at.bytes.data());
  door->listen_fd_ = socket(raw->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  door->wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (door->listen_fd_ < 0 || door->wake_fd_ < 0) return fail_errno(errno, "socket");
  const int on = 1, off = 0;
  setsockopt(door->listen_fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (raw->sa_family == AF_INET6) setsockopt(door->listen_fd_, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  if (bind(door->listen_fd_, raw, static_cast<socklen_t>(at.bytes.size())) != 0 || listen(door->listen_fd_, 128) != 0)
    return fail_errno(errno, "cannot listen on {}", address);
  door->thread_ = std::thread([d = door.get()] { d->accept_loop(); });
  return door;
}

Status TlsDoor::reload(const std::string& tls_dir) {
  HF_ASSIGN(SslContextPtr context, control_context(tls_dir, true));
  // A stranger may speak http/1.1 (to join); who speaks holdfast-control/1 is checked after the handshake.
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, nullptr);
  SSL_CTX_set_alpn_select_cb(context.get(), choose_alpn, nullptr);
  const std::lock_guard lock(mutex_);
  context_ = std::shared_ptr<SSL_CTX>(context.release(), SSL_CTX_free);
  return {};
}

TlsDoor::~TlsDoor() {
  stopping_ = true;
  const std::uint64_t one = 1;
  if (wake_fd_ >= 0) (void)!write(wake_fd_, &one, sizeof one);
  if (thread_.joinable()) thread_.join();
  for (int n = busy_; n != 0; n = busy_) busy_.wait(n);
  if (listen_fd_ >= 0) close(listen_fd_);
  if (wake_fd_ >= 0) close(wake_fd_);
}

void TlsDoor::accept_loop() {
  while (!stopping_) {
    pollfd fds[2] = {{listen_fd_, POLLIN, 0}, {wake_fd_, POLLIN, 0}};
    poll(fds, 2, -1);
    if (stopping_) return;
    const int fd = accept4(listen_fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) continue;
    if (busy_ >= max_busy) {
      close(fd);
      continue;
    }
    ++busy_;
    std::thread([this, fd] {
      serve(fd);
      --busy_;
      busy_.notify_all();
    }).detach();
  }
}

void TlsDoor::serve(int fd) {
  std::shared_ptr<SSL_CTX> context;
  {
    const std::lock_guard lock(mutex_);
    context = context_;
  }
  BlockingTls tls(fd, SslPtr(SSL_new(context.get())));
  SSL_set_fd(tls.ssl_.get(), fd);
  SSL_set_accept_state(tls.ssl_.get());
  const std::string address = remote_address(fd);
  const Status shaken = tls.handshake(handshake_ms);
  if (!shaken) {
    static std::atomic<std::int64_t> last_line_s{0};
    const std::int64_t now_s =
        std::chrono::duration_cast<std::chrono::seconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
    // Also at most one a second: strangers can say something else each time.
    if (news_.first(without_port(address), shaken.error().message) && last_line_s.exchange(now_s) != now_s)
      log_warning("connection from {} refused: {}", address, shaken.error().message);
    return;
  }
  auto peer = peer_certificate(tls.ssl_.get());
  if (chosen_alpn(tls.ssl_.get()) != control_alpn) {
    events_.http(tls, peer ? std::optional<CertificateIdentity>(*peer) : std::nullopt, address);
    return;
  }
  if (!peer) {
    if (news_.first(without_port(address), peer.error().message))
      log_warning("control connection from {} refused: {}", address, peer.error().message);
    return;
  }
  news_.forget(without_port(address));
  tls.fd_ = -1;
  events_.control(fd, std::move(tls.ssl_));
}

}  // namespace holdfast::network
