// SPDX-License-Identifier: Apache-2.0
#include "daemon/holdfastd/mirror_client.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <csignal>
#include <future>
#include <vector>

#include "base/check.h"
#include "base/log.h"
#include "daemon/holdfastd/json_read.h"

namespace holdfast::daemon {
namespace {
constexpr std::size_t max_message_bytes = 1u << 20;
constexpr auto redial = std::chrono::milliseconds(100);
using Clock = std::chrono::steady_clock;

ErrorCode error_code_from(const nlohmann::json& json) {
  const std::string text = text_of(json, "code");
  for (int c = 0; c <= static_cast<int>(ErrorCode::internal); ++c)
    if (text == to_string(static_cast<ErrorCode>(c))) return static_cast<ErrorCode>(c);
  return ErrorCode::refused;
}

}  // namespace

Result<nlohmann::json> call_mirror(MirrorPort& mirror, const std::string& op, nlohmann::json arguments,
                                   int timeout_ms) {
  auto answer = std::make_shared<std::promise<Result<nlohmann::json>>>();
  auto future = answer->get_future();
  mirror.request(op, std::move(arguments), timeout_ms,
                 [answer](Result<nlohmann::json> r) { answer->set_value(std::move(r)); });
  return future.get();
}

Result<Position> position_from(const nlohmann::json& reply, const char* member) {
  const auto it = reply.find(member);
  if (it == reply.end() || !it->is_object()) return fail(ErrorCode::corrupt, "mirror's reply has no {}", member);
  const auto epoch = it->find("epoch"), sequence = it->find("seq");
  if (epoch == it->end() || sequence == it->end() || !epoch->is_number_unsigned() || !sequence->is_number_unsigned())
    return fail(ErrorCode::corrupt, "mirror's {} is not a position", member);
  return Position{Epoch(epoch->get<std::uint64_t>()), Sequence(sequence->get<std::uint64_t>())};
}

MirrorClient::MirrorClient(std::string path, Events events)
    : path_(std::move(path)), events_(std::move(events)), wake_fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  CHECK(wake_fd_ >= 0, "eventfd");
  CHECK(path_.size() < sizeof(sockaddr_un{}.sun_path), "socket path {} is too long", path_);
  thread_ = std::thread([this] { run(); });
}

MirrorClient::~MirrorClient() {
  stopping_ = true;
  wake();
  thread_.join();
  close(wake_fd_);
}

void MirrorClient::wake() const {
  const std::uint64_t one = 1;
  (void)!write(wake_fd_, &one, sizeof one);
}

void MirrorClient::request(const std::string& op, nlohmann::json arguments, int timeout_ms, Reply reply) {
  if (!arguments.is_object()) arguments = nlohmann::json::object();
  arguments["op"] = op;
  Pending pending{Clock::now() + std::chrono::milliseconds(timeout_ms), op, std::move(reply)};
  if (const char* refusal = send_request(std::move(arguments), pending); refusal != nullptr)
    return pending.reply(tl::unexpected(
        Error{ErrorCode::unavailable, fmt::format("{}: {}", op, refusal), "systemctl status holdfast-mirror", 0}));
  wake();  // the time-out may be the nearest now
}

const char* MirrorClient::send_request(nlohmann::json arguments, Pending& pending) {
  const std::lock_guard lock(mutex_);
  if (fd_ < 0) return "holdfast-mirror is not running";
  const std::uint64_t id = next_id_++;
  arguments["id"] = id;
  const std::string text = arguments.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (send(fd_, text.data(), text.size(), MSG_NOSIGNAL | MSG_DONTWAIT) != static_cast<ssize_t>(text.size()))
    return "holdfast-mirror does not read its control socket";
  pending_[id] = std::move(pending);
  return nullptr;
}

bool MirrorClient::kill() {
  const std::lock_guard lock(mutex_);
  return fd_ >= 0 && process_ && syscall(SYS_pidfd_send_signal, process_.get(), SIGKILL, nullptr, 0) == 0;
}

bool MirrorClient::dial() {
  const int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  CHECK(fd >= 0, "socket");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path_.copy(address.sun_path, sizeof address.sun_path - 1);
  const int big = 1 << 20;
  setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &big, sizeof big);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    close(fd);
    return false;
  }
  ucred peer{};
  socklen_t size = sizeof peer;
  const bool known = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.pid > 0;
  {
    const std::lock_guard lock(mutex_);
    fd_ = fd;
    // Of its process, not its number: that may be another's by the time it matters.
    if (known) process_ = platform::UniqueFd(static_cast<int>(syscall(SYS_pidfd_open, peer.pid, 0)));
  }
  connected_ = true;
  return true;
}

void MirrorClient::run() {
  while (!stopping_) {
    if (dial()) {
      events_.connected();
      serve();
      drop("holdfast-mirror closed its control socket");
      if (!stopping_) events_.lost();
    }
    if (stopping_) return;
    pollfd wait{wake_fd_, POLLIN, 0};
    poll(&wait, 1, static_cast<int>(redial.count()));
    std::uint64_t count = 0;
    (void)!read(wake_fd_, &count, sizeof count);
  }
}

void MirrorClient::serve() {
  std::string buffer(max_message_bytes, '\0');
  while (!stopping_) {
    int wait_ms = -1;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& [id, p] : pending_) {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(p.deadline - Clock::now()).count() + 1;
        const int left_ms = static_cast<int>(std::max<long>(0, left));
        wait_ms = wait_ms < 0 ? left_ms : std::min(wait_ms, left_ms);
      }
    }
    pollfd fds[2] = {{fd_, POLLIN, 0}, {wake_fd_, POLLIN, 0}};
    poll(fds, 2, wait_ms);
    if (fds[1].revents != 0) {
      std::uint64_t count = 0;
      (void)!read(wake_fd_, &count, sizeof count);
    }
    expire();
    if (fds[0].revents == 0) continue;
    const ssize_t n = recv(fd_, buffer.data(), buffer.size(), 0);  // poll said that there is something
    if (n <= 0) return;
    take(buffer.substr(0, static_cast<std::size_t>(n)));
  }
}

void MirrorClient::take(const std::string& message) {
  nlohmann::json json = nlohmann::json::parse(message, nullptr, false);
  if (!json.is_object()) {
    log_error("holdfast-mirror sent something that is not a JSON object ({} bytes)", message.size());
    return;
  }
  if (json.contains("event")) {
    events_.event(std::move(json));
    return;
  }
  const auto id = json.find("id");
  if (id == json.end() || !id->is_number_unsigned()) return;
  Pending done;
  {
    const std::lock_guard lock(mutex_);
    const auto it = pending_.find(id->get<std::uint64_t>());
    if (it == pending_.end()) return;  // came after its time-out
    done = std::move(it->second);
    pending_.erase(it);
  }
  if (flag_of(json, "ok")) {
    done.reply(std::move(json));
    return;
  }
  Error error{error_code_from(json), text_of(json, "error", "refused without a reason"), {}, 0};
  if (const auto holders = json.find("holders"); holders != json.end() && holders->is_array() && !holders->empty()) {
    error.code = ErrorCode::busy;
    error.hint = "held by";
    for (const auto& h : *holders)
      error.hint += fmt::format(" {}({}) {}", text_of(h, "comm", "?"), member_of(h, "pid").dump(), text_of(h, "path"));
  }
  done.reply(tl::unexpected(std::move(error)));
}

void MirrorClient::expire() {
  std::vector<Pending> late;
  {
    const std::lock_guard lock(mutex_);
    for (auto it = pending_.begin(); it != pending_.end();) {
      if (Clock::now() < it->second.deadline) {
        ++it;
        continue;
      }
      late.push_back(std::move(it->second));
      it = pending_.erase(it);
    }
  }
  for (Pending& p : late) p.reply(fail(ErrorCode::timeout, "holdfast-mirror did not answer '{}' in time", p.op));
}

void MirrorClient::drop(const std::string& reason) {
  std::map<std::uint64_t, Pending> lost;
  {
    const std::lock_guard lock(mutex_);
    close(fd_);
    fd_ = -1;
    process_.reset();
    lost.swap(pending_);
  }
  connected_ = false;
  for (auto& [id, p] : lost) p.reply(fail(ErrorCode::unavailable, "{}: {}", p.op, reason));
}

}  // namespace holdfast::daemon
