// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cerrno>

#include "platform/tls_stream.h"

namespace holdfast::platform {
namespace {

struct AddressList {
  addrinfo* first = nullptr;
  ~AddressList() {
    if (first) freeaddrinfo(first);
  }
};

Status resolve(const std::string& host, std::uint16_t port, int flags, AddressList& into) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags | AI_NUMERICSERV;
  const int rc = getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &into.first);
  if (rc != 0) return fail(ErrorCode::unavailable, "cannot resolve {}: {}", host, gai_strerror(rc));
  return {};
}

Status bind_local(int fd, const std::string& local_address) {
  AddressList local;
  HF_TRY(resolve(local_address, 0, AI_NUMERICHOST | AI_PASSIVE, local));
  if (::bind(fd, local.first->ai_addr, local.first->ai_addrlen) != 0)
    return fail_errno(errno, "cannot use the local address {}", local_address);
  return {};
}

Result<TcpSocket> connect_one(const addrinfo& to, const std::string& label, int timeout_ms,
                              const std::string& local_address) {
  TcpSocket socket(::socket(to.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (socket.fd() < 0) return fail_errno(errno, "cannot make a socket");
  if (!local_address.empty()) HF_TRY(bind_local(socket.fd(), local_address));
  if (::connect(socket.fd(), to.ai_addr, to.ai_addrlen) != 0 && errno != EINPROGRESS)
    return tl::unexpected(
        Error{ErrorCode::unavailable, errno_error(errno, "cannot connect to " + label).message, {}, errno});
  pollfd waiting{socket.fd(), POLLOUT, 0};
  int ready = 0;
  do ready = ::poll(&waiting, 1, timeout_ms);
  while (ready < 0 && errno == EINTR);
  if (ready == 0) return fail(ErrorCode::timeout, "cannot connect to {}: no answer within {} ms", label, timeout_ms);
  int error = 0;
  socklen_t length = sizeof error;
  ::getsockopt(socket.fd(), SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0)
    return tl::unexpected(
        Error{ErrorCode::unavailable, errno_error(error, "cannot connect to " + label).message, {}, error});
  return socket;
}

}  // namespace

TcpSocket& TcpSocket::operator=(TcpSocket&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = other.release();
  }
  return *this;
}

TcpSocket::~TcpSocket() {
  if (fd_ >= 0) ::close(fd_);
}

std::string TcpSocket::peer_address() const {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (::getpeername(fd_, reinterpret_cast<sockaddr*>(&address), &length) != 0 ||
      ::getnameinfo(reinterpret_cast<sockaddr*>(&address), length, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return "?";
  return address.ss_family == AF_INET6 ? fmt::format("[{}]:{}", host, port) : fmt::format("{}:{}", host, port);
}

Result<TcpSocket> tcp_connect(const std::string& host, std::uint16_t port, int timeout_ms,
                              const std::string& local_address) {
  AddressList list;
  HF_TRY(resolve(host, port, 0, list));
  const std::string label = fmt::format("{} port {}", host, port);
  Result<TcpSocket> last = fail(ErrorCode::unavailable, "cannot connect to {}: no address", label);
  for (const addrinfo* a = list.first; a; a = a->ai_next) {
    last = connect_one(*a, label, timeout_ms, local_address);
    if (last) break;
  }
  return last;
}

Result<std::unique_ptr<TlsListener>> TlsListener::open(const std::string& address, std::uint16_t port) {
  AddressList list;
  HF_TRY(resolve(address, port, AI_PASSIVE | AI_NUMERICHOST, list));
  std::unique_ptr<TlsListener> made(new TlsListener);
  made->fd_ = ::socket(list.first->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  made->wake_fd_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (made->fd_ < 0 || made->wake_fd_ < 0) return fail_errno(errno, "cannot make a socket");
  const int on = 1, off = 0;
  ::setsockopt(made->fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (list.first->ai_family == AF_INET6) ::setsockopt(made->fd_, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
  ::setsockopt(made->fd_, IPPROTO_IP, IP_FREEBIND, &on, sizeof on);  // the channel address may come up after us at boot
  if (::bind(made->fd_, list.first->ai_addr, list.first->ai_addrlen) != 0 || ::listen(made->fd_, 64) != 0)
    return fail_errno(errno, "cannot listen on {} port {}", address, port);
  sockaddr_storage bound{};
  socklen_t length = sizeof bound;
  ::getsockname(made->fd_, reinterpret_cast<sockaddr*>(&bound), &length);
  made->port_ = ntohs(bound.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&bound)->sin6_port
                                                  : reinterpret_cast<sockaddr_in*>(&bound)->sin_port);
  return made;
}

TlsListener::~TlsListener() {
  if (fd_ >= 0) ::close(fd_);
  if (wake_fd_ >= 0) ::close(wake_fd_);
}

Result<TcpSocket> TlsListener::accept() {
  for (;;) {
    pollfd waiting[2] = {{fd_, POLLIN, 0}, {wake_fd_, POLLIN, 0}};
    if (::poll(waiting, 2, -1) < 0 && errno != EINTR) return fail_errno(errno, "cannot wait for connections");
    if (waiting[1].revents) return fail(ErrorCode::unavailable, "the listener was closed");
    const int fd = ::accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) return TcpSocket(fd);
    // A connection that broke before we took it is not our failure; out of descriptors is, and is worth a line, not a spin.
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
      return fail_errno(errno, "cannot accept a connection");
  }
}

void TlsListener::close() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto n = ::write(wake_fd_, &one, sizeof one);
}

}  // namespace holdfast::platform
