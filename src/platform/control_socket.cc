// SPDX-License-Identifier: Apache-2.0
#include "platform/control_socket.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "base/log.h"

namespace holdfast::platform {
namespace {

constexpr std::size_t max_message_bytes = 256 * 1024;

}  // namespace

struct ControlSocket::Connection {
  explicit Connection(int descriptor) : fd(descriptor) {}
  ~Connection() { ::close(fd); }
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void send(const nlohmann::json& message) {
    const std::string text = message.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    const std::lock_guard lock(write_mutex);
    if (::send(fd, text.data(), text.size(), MSG_NOSIGNAL) < 0 && errno != EPIPE && errno != ECONNRESET)
      log_warning("control socket: cannot send {} bytes: {}", text.size(), std::strerror(errno));
  }

  const int fd;
  std::mutex write_mutex;
};

Result<std::unique_ptr<ControlSocket>> ControlSocket::listen(const std::string& path, Handler handler) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return fail(ErrorCode::invalid, "socket path is too long: {}", path);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  const int fd = ::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (fd < 0) return fail_errno(errno, "cannot make a socket");
  ::unlink(path.c_str());
  const mode_t old_mask = ::umask(0177);
  const int bound = ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address);
  const int bind_errno = errno;
  ::umask(old_mask);
  if (bound < 0 || ::listen(fd, 4) < 0) {
    const int e = bound < 0 ? bind_errno : errno;
    ::close(fd);
    return fail_errno(e, "cannot listen on {}", path);
  }
  const int wake = ::eventfd(0, EFD_CLOEXEC);
  if (wake < 0) {
    ::close(fd);
    return fail_errno(errno, "cannot make an eventfd");
  }
  return std::unique_ptr<ControlSocket>(new ControlSocket(fd, wake, path, std::move(handler)));
}

ControlSocket::ControlSocket(int listen_fd, int wake_fd, std::string path, Handler handler)
    : listen_fd_(listen_fd), wake_fd_(wake_fd), path_(std::move(path)), handler_(std::move(handler)) {}

ControlSocket::~ControlSocket() {
  ::close(listen_fd_);
  ::close(wake_fd_);
  ::unlink(path_.c_str());
}

void ControlSocket::stop() {
  const std::uint64_t one = 1;
  if (::write(wake_fd_, &one, sizeof one) < 0) log_error("control socket: cannot wake: {}", std::strerror(errno));
}

void ControlSocket::push(const nlohmann::json& event) {
  std::shared_ptr<Connection> connection;
  {
    const std::lock_guard lock(mutex_);
    connection = current_;
  }
  if (connection) connection->send(event);
}

void ControlSocket::run() {
  std::vector<std::thread> readers;
  for (;;) {
    pollfd fds[2] = {{listen_fd_, POLLIN, 0}, {wake_fd_, POLLIN, 0}};
    if (::poll(fds, 2, -1) < 0 && errno != EINTR) break;
    if (fds[1].revents) break;
    if (!(fds[0].revents & POLLIN)) continue;
    const int fd = ::accept4(listen_fd_, nullptr, nullptr, SOCK_CLOEXEC);
    if (fd < 0) continue;
    auto connection = std::make_shared<Connection>(fd);
    std::shared_ptr<Connection> previous;
    {
      const std::lock_guard lock(mutex_);
      previous = std::exchange(current_, connection);
    }
    // What the old connection still had in its queue is taken before anything of the new one: a late wait set must not replace a newer one.
    if (previous) {
      ::shutdown(previous->fd, SHUT_RDWR);
      readers.back().join();
      readers.pop_back();
    }
    readers.emplace_back([this, connection] { serve(connection); });
  }
  {
    const std::lock_guard lock(mutex_);
    if (current_) ::shutdown(current_->fd, SHUT_RDWR);
    current_.reset();
  }
  for (auto& reader : readers) reader.join();
  for (int busy = busy_.load(); busy != 0; busy = busy_.load()) busy_.wait(busy);
}

void ControlSocket::serve(std::shared_ptr<Connection> connection) {
  std::string buffer(max_message_bytes, '\0');
  for (;;) {
    const ssize_t n = ::recv(connection->fd, buffer.data(), buffer.size(), 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;
    auto request = nlohmann::json::parse(buffer.begin(), buffer.begin() + n, nullptr, false);
    if (!request.is_object() || !request.contains("op") || !request["op"].is_string()) {
      log_warning("control socket: a message of {} bytes is not a request; closed", n);
      ::shutdown(connection->fd, SHUT_RDWR);
      return;
    }
    answer(connection, request);
  }
}

void ControlSocket::answer(std::shared_ptr<Connection> connection, const nlohmann::json& request) {
  // A field of the wrong type is the request's fault, not a crash.
  const auto malformed = [](const nlohmann::json::exception& e) {
    return nlohmann::json{{"ok", false}, {"code", "invalid"}, {"error", std::string("malformed request: ") + e.what()}};
  };
  Answer second_half;
  try {
    second_half = handler_(request);
  } catch (const nlohmann::json::exception& e) {
    second_half = [reply = malformed(e)] { return reply; };
  }
  ++busy_;
  std::thread([this, connection, malformed, second_half = std::move(second_half),
               id = request.value("id", nlohmann::json())] {
    nlohmann::json reply;
    try {
      reply = second_half();
    } catch (const nlohmann::json::exception& e) {
      reply = malformed(e);
    }
    if (!id.is_null()) reply["id"] = id;
    connection->send(reply);
    if (--busy_ == 0) busy_.notify_all();
  }).detach();
}

}  // namespace holdfast::platform
