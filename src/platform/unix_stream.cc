// SPDX-License-Identifier: Apache-2.0
#include "platform/unix_stream.h"

#include <cerrno>
#include <chrono>
#include <cstring>

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

namespace holdfast::platform {
namespace {

using Steady = std::chrono::steady_clock;

// Waits until the descriptor is ready or the moment has come.
Status wait_ready(int fd, short events, Steady::time_point until) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Steady::now()).count();
    pollfd p{fd, events, 0};
    const int n = ::poll(&p, 1, left < 0 ? 0 : static_cast<int>(left));
    if (n > 0) return {};
    if (n == 0) return fail(ErrorCode::timeout, "no answer in time");
    if (errno != EINTR) return fail_errno(errno, "cannot wait for a connection");
  }
}

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path)
    return fail(ErrorCode::invalid, "socket path {} is empty or too long", path);
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

Steady::time_point from_now(int ms) { return Steady::now() + std::chrono::milliseconds(ms); }

}  // namespace

Result<std::unique_ptr<UnixStream>> UnixStream::connect(const std::string& path) {
  HF_ASSIGN(const sockaddr_un address, address_of(path));
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!fd) return fail_errno(errno, "cannot make a socket");
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    if (errno == ENOENT || errno == ECONNREFUSED) return fail(ErrorCode::unavailable, "nobody listens at {}", path);
    if (errno == EACCES || errno == EPERM) return fail(ErrorCode::denied, "no permission to use {}", path);
    return fail_errno(errno, "cannot connect to {}", path);
  }
  return std::make_unique<UnixStream>(std::move(fd));
}

Result<std::size_t> UnixStream::read_some(std::span<std::uint8_t> into, int timeout_ms) {
  const auto until = from_now(timeout_ms);
  for (;;) {
    const ssize_t n = ::recv(fd_.get(), into.data(), into.size(), MSG_DONTWAIT);
    if (n >= 0) return static_cast<std::size_t>(n);
    if (errno == EINTR) continue;
    if (errno == ECONNRESET) return fail(ErrorCode::unavailable, "the other side closed the connection");
    if (errno != EAGAIN && errno != EWOULDBLOCK) return fail_errno(errno, "cannot read from a connection");
    HF_TRY(wait_ready(fd_.get(), POLLIN, until));
  }
}

Status UnixStream::write_all(ByteView bytes, int timeout_ms) {
  const auto until = from_now(timeout_ms);
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n >= 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(n));
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EPIPE || errno == ECONNRESET)
      return fail(ErrorCode::unavailable, "the other side closed the connection");
    if (errno != EAGAIN && errno != EWOULDBLOCK) return fail_errno(errno, "cannot write to a connection");
    HF_TRY(wait_ready(fd_.get(), POLLOUT, until));
  }
  return {};
}

Result<uid_t> UnixStream::peer_uid() const {
  ucred credentials{};
  socklen_t length = sizeof credentials;
  if (::getsockopt(fd_.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0)
    return fail_errno(errno, "cannot tell who connected");
  return credentials.uid;
}

void UnixStream::shutdown() { ::shutdown(fd_.get(), SHUT_RDWR); }

Result<std::unique_ptr<UnixListener>> UnixListener::open(const std::string& path, mode_t mode) {
  HF_ASSIGN(const sockaddr_un address, address_of(path));
  if (UnixStream::connect(path)) return fail(ErrorCode::exists, "another process serves {} already", path);
  struct stat st {};
  if (::lstat(path.c_str(), &st) == 0 && !S_ISSOCK(st.st_mode))
    return fail(ErrorCode::exists, "{} is in the way: it is not a socket", path);
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return fail_errno(errno, "cannot replace {}", path);
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  UniqueFd wake(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!fd || !wake) return fail_errno(errno, "cannot make a socket");
  // fchmod before bind: Linux gives the file the socket inode's mode, so nobody can connect in between.
  if (::fchmod(fd.get(), mode) != 0) return fail_errno(errno, "cannot set the mode of {}", path);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    return fail_errno(errno, "cannot bind {}", path);
  if (::chmod(path.c_str(), mode) != 0) return fail_errno(errno, "cannot set the mode of {}", path);
  if (::listen(fd.get(), 64) != 0) return fail_errno(errno, "cannot listen at {}", path);
  return std::unique_ptr<UnixListener>(new UnixListener(path, std::move(fd), std::move(wake)));
}

UnixListener::~UnixListener() {
  close();
  ::unlink(path_.c_str());
}

Result<std::unique_ptr<UnixStream>> UnixListener::accept() {
  for (;;) {
    pollfd p[2] = {{fd_.get(), POLLIN, 0}, {wake_.get(), POLLIN, 0}};
    if (::poll(p, 2, -1) < 0 && errno != EINTR) return fail_errno(errno, "cannot wait at {}", path_);
    if (p[1].revents != 0) return fail(ErrorCode::unavailable, "{} is closed", path_);
    if (p[0].revents == 0) continue;
    UniqueFd fd(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (fd) return std::make_unique<UnixStream>(std::move(fd));
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
      return fail_errno(errno, "cannot accept at {}", path_);
  }
}

void UnixListener::close() {
  const std::uint64_t one = 1;
  if (::write(wake_.get(), &one, sizeof one) < 0) return;  // full means that it is readable already
}

}  // namespace holdfast::platform
