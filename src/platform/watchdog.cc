// SPDX-License-Identifier: Apache-2.0
#include "platform/watchdog.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/log.h"
#include "platform/lease_word.h"
#include "platform/unique_fd.h"

namespace holdfast::platform {
namespace {

// What travels over the socket pair; both ends are this binary.
struct Message {
  char op;  // 'a' arm, 'd' disarm, 'l' let go
  std::uint64_t epoch;
};

bool send_with_fd(int socket_fd, const Message& message, int pass_fd) {
  iovec data{const_cast<Message*>(&message), sizeof message};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  if (pass_fd >= 0) {
    header.msg_control = control;
    header.msg_controllen = sizeof control;
    cmsghdr* c = CMSG_FIRSTHDR(&header);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(c), &pass_fd, sizeof pass_fd);
  }
  return ::sendmsg(socket_fd, &header, MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof message);
}

// Bytes received (0 = the other end is gone), and the descriptor that came along or -1.
ssize_t receive_with_fd(int socket_fd, Message& message, int& passed_fd) {
  passed_fd = -1;
  iovec data{&message, sizeof message};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr header{};
  header.msg_iov = &data;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof control;
  ssize_t n;
  do n = ::recvmsg(socket_fd, &header, MSG_CMSG_CLOEXEC);
  while (n < 0 && errno == EINTR);
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); n > 0 && c; c = CMSG_NXTHDR(&header, c))
    if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
      std::memcpy(&passed_fd, CMSG_DATA(c), sizeof passed_fd);
  return n;
}

std::int64_t boottime_ms() {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return now.tv_sec * 1000 + now.tv_nsec / 1'000'000;
}

// The file beside .../connections/N/abort that says how many requests are not answered yet. None when it is no such file.
UniqueFd waiting_beside(int abort_fd) {
  char path[256] = {};
  const ssize_t n = ::readlink(fmt::format("/proc/self/fd/{}", abort_fd).c_str(), path, sizeof path - 1);
  constexpr std::string_view name = "/abort";
  const std::string_view at(path, n > 0 ? static_cast<std::size_t>(n) : 0);
  if (!at.ends_with(name)) return {};
  const std::string beside = std::string(at.substr(0, at.size() - name.size())) + "/waiting";
  return UniqueFd(::open(beside.c_str(), O_RDONLY | O_CLOEXEC));
}

// Connections that were aborted, until nobody waits in them any more.
class Release {
 public:
  explicit Release(UniqueFd mirror) : mirror_(std::move(mirror)) {}

  void watch(std::vector<UniqueFd> waiting) {
    waiting_ = std::move(waiting);
    since_ms_ = boottime_ms();
  }
  bool pending() const { return !waiting_.empty(); }
  void check() {
    std::erase_if(waiting_, [](const UniqueFd& fd) { return !anyone_waits(fd.get()); });
    if (waiting_.empty() || boottime_ms() - since_ms_ < patience_ms) return;
    log_error("watchdog: the mirror does not run and is killed, so that the applications that wait in it go on");
    if (::syscall(SYS_pidfd_send_signal, mirror_.get(), SIGKILL, nullptr, 0) < 0)
      log_error("watchdog: cannot kill the mirror: {}", std::strerror(errno));
    waiting_.clear();
  }

 private:
  // A mirror that runs ends its requests within microseconds of the abort.
  static constexpr std::int64_t patience_ms = 500;

  // The kernel's file can't be read at an offset nor rewound, so it is opened again; by its descriptor, for its name may be another's by now.
  static bool anyone_waits(int fd) {
    const UniqueFd again(::open(fmt::format("/proc/self/fd/{}", fd).c_str(), O_RDONLY | O_CLOEXEC));
    char text[32] = {};  // nothing to read: the connection is gone
    return ::read(again.get(), text, sizeof text - 1) > 0 && std::atoi(text) > 0;
  }
  const UniqueFd mirror_;  // a pidfd
  std::vector<UniqueFd> waiting_;
  std::int64_t since_ms_ = 0;
};

class Guard {
 public:
  Guard(const LeaseWord& lease, std::int64_t grace_ms, UniqueFd mirror)
      : lease_(lease), grace_ms_(grace_ms), release_(std::move(mirror)) {}

  void arm(Epoch epoch, int abort_fd) {
    epoch_ = epoch;
    abort_fds_.emplace_back(abort_fd);
    if (UniqueFd waiting = waiting_beside(abort_fd)) waiting_fds_.push_back(std::move(waiting));
    invalid_since_ms_ = -1;
  }
  void disarm() {
    abort_fds_.clear();
    waiting_fds_.clear();
  }

  // Looks at the word; fires when it is time. Returns how long nothing can happen, for poll().
  int check() {
    const int next_ms = check_lease();
    if (release_.pending()) release_.check();
    return release_.pending() ? static_cast<int>(look_every_ms) : next_ms;
  }

  void abort_all(const char* why) {
    for (const UniqueFd& fd : abort_fds_)
      if (::write(fd.get(), "1", 1) < 0 && errno != ENOENT &&
          errno != ENODEV)  // not pwrite: the kernel refuses an offset here
        log_error("watchdog: cannot abort a FUSE connection: {}", std::strerror(errno));
    if (!abort_fds_.empty()) log_warning("watchdog: epoch {} fenced: {}", epoch_.value, why);
    release_.watch(std::exchange(waiting_fds_, {}));
    disarm();
  }

 private:
  // The word changes without waking us (a lease given back, a clock that jumped), so it is looked at again this often.
  static constexpr std::int64_t look_every_ms = 50;

  int check_lease() {
    if (abort_fds_.empty()) return -1;
    if (lease_.over(epoch_)) {
      abort_all("its lease was given back");
      return -1;
    }
    const std::int64_t left_ms = lease_.remaining_ns(epoch_) / 1'000'000;
    if (left_ms > 0) {
      invalid_since_ms_ = -1;
      return static_cast<int>(std::min(left_ms + 1, look_every_ms));
    }
    const std::int64_t now_ms = boottime_ms();
    if (invalid_since_ms_ < 0) invalid_since_ms_ = now_ms;
    if (now_ms - invalid_since_ms_ >= grace_ms_) {
      abort_all("its lease is over");
      return -1;
    }
    return static_cast<int>(std::min(grace_ms_, look_every_ms));
  }

  const LeaseWord& lease_;
  const std::int64_t grace_ms_;
  Release release_;
  Epoch epoch_;
  std::int64_t invalid_since_ms_ = -1;
  std::vector<UniqueFd> abort_fds_, waiting_fds_;
};

}  // namespace

int watchdog_main(const std::string& lease_path, std::int64_t grace_ms) {
  ::prctl(PR_SET_NAME, "holdfast-wdog");
  auto lease = LeaseWord::open(LeaseWord::Side::reader, lease_path);
  if (!lease) {
    log_error("watchdog: {}", lease.error().to_string());
    return 1;
  }
  if (::mlockall(MCL_CURRENT | MCL_FUTURE) < 0) log_warning("watchdog: cannot lock memory: {}", std::strerror(errno));
  // The mirror is our parent; by the time that it died, its number might be another's.
  Guard guard(*lease, grace_ms, UniqueFd(static_cast<int>(::syscall(SYS_pidfd_open, ::getppid(), 0))));
  bool let_go = false;
  for (;;) {
    pollfd in{helper_socket, POLLIN, 0};
    if (::poll(&in, 1, guard.check()) <= 0) continue;
    Message message{};
    int fd = -1;
    const ssize_t n = receive_with_fd(helper_socket, message, fd);
    if (n <= 0) {  // the mirror is gone: its requests can never be answered
      if (!let_go) guard.abort_all("the mirror is gone");
      return 0;
    }
    if (message.op == 'a' && fd >= 0) guard.arm(Epoch(message.epoch), fd);
    if (message.op == 'd') guard.disarm();
    if (message.op == 'l') let_go = true;
    send_with_fd(helper_socket, message, -1);
  }
}

Result<Watchdog> Watchdog::start(const std::string& lease_path, std::int64_t grace_ms) {
  HF_ASSIGN(auto process, SelfProcess::start({"watchdog", lease_path, std::to_string(grace_ms)}, SOCK_SEQPACKET));
  return Watchdog(std::move(process));
}

Status Watchdog::request(char op, Epoch epoch, int pass_fd) {
  if (!send_with_fd(process_.socket(), Message{op, epoch.value}, pass_fd))
    return fail_errno(errno, "the watchdog is gone");
  Message answer{};
  int ignored = -1;
  if (receive_with_fd(process_.socket(), answer, ignored) != static_cast<ssize_t>(sizeof answer) || answer.op != op)
    return fail(ErrorCode::internal, "the watchdog did not answer");
  return {};
}

Status Watchdog::arm(Epoch epoch, int abort_fd) { return request('a', epoch, abort_fd); }
Status Watchdog::let_go() { return request('l', Epoch(), -1); }
Status Watchdog::disarm() { return request('d', Epoch(), -1); }

}  // namespace holdfast::platform
