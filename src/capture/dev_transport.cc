// SPDX-License-Identifier: Apache-2.0
#include "capture/dev_transport.h"

#include <signal.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/log.h"
#include "capture/buffers.h"

namespace holdfast::capture {
namespace {

// Ends a read that waits. Only these threads take it, and it interrupts nothing else of theirs: system calls on local disks don't end for a signal.
int stop_signal() {
  static const int number = [] {
    struct sigaction nothing {};
    nothing.sa_handler = [](int) {};
    sigaction(SIGRTMIN + 4, &nothing, nullptr);
    return SIGRTMIN + 4;
  }();
  return number;
}

void take_stop_signal() {
  sigset_t one;
  sigemptyset(&one);
  sigaddset(&one, stop_signal());
  pthread_sigmask(SIG_UNBLOCK, &one, nullptr);
}

}  // namespace

DevTransport::DevTransport(int device, Handler& handler, unsigned threads, unsigned most_threads)
    : device_(device), handler_(handler), threads_(threads) {
  load_.most = most_threads;
}

Status DevTransport::start() { return add_threads(threads_); }

bool DevTransport::pause(std::chrono::milliseconds patience) {
  constexpr std::chrono::milliseconds again{2};  // a thread may have been about to read
  const auto until = std::chrono::steady_clock::now() + patience;
  paused_ = true;
  do workers_.interrupt(stop_signal());
  while (!workers_.wait_idle(again) && std::chrono::steady_clock::now() < until);
  if (!workers_.wait_idle({})) return false;
  workers_.join();
  return true;
}

Status DevTransport::add_threads(unsigned count) {
  paused_ = false;
  load_.most = std::max(load_.most, load_.threads.load() + count);
  for (unsigned i = 0; i < count; ++i) {
    load_.threads.fetch_add(1);
    HF_TRY(workers_.add("hf-fuse-dev", [this] { serve(); }));
  }
  return {};
}

void DevTransport::wait_begins(unsigned) {
  if (!load_.wait_begins()) return;
  if (auto started = workers_.add("hf-fuse-more", [this] { serve(); }); !started) {
    load_.threads.fetch_sub(1);
    log_warning("capture goes on with fewer threads: {}", started.error().to_string());
  }
}

void DevTransport::serve() {
  // Headers end where a page begins, so that the data of a WRITE is page aligned.
  constexpr std::size_t headers = sizeof(fuse::InHeader) + sizeof(fuse::WriteIn);
  PageBuffer in(page_bytes + max_write_bytes + page_bytes), out(page_bytes + max_write_bytes);
  if (!in.data() || !out.data()) {
    log_error("no memory for a capture thread");
    load_.threads.fetch_sub(1);
    return;
  }
  alignas(8) std::uint8_t fixed[128];
  std::uint8_t* const start = in.data() + page_bytes - headers;
  const std::size_t room = in.size() - (page_bytes - headers);
  take_stop_signal();
  while (!paused_ && serve_one(start, room, fixed, {out.data() + page_bytes, out.size() - page_bytes})) {
  }
  load_.threads.fetch_sub(1);
}

bool DevTransport::serve_one(std::uint8_t* in, std::size_t in_bytes, std::uint8_t* fixed, std::span<std::uint8_t> out) {
  const ssize_t n = read(device_, in, in_bytes);
  if (n < 0) {
    if (errno == EINTR || errno == EAGAIN || errno == ENOENT)
      return true;  // ENOENT: the request was interrupted before we had it
    if (errno != ENODEV && errno != ECONNABORTED)
      log_error("reading /dev/fuse: {}", errno_error(errno, "read").message);
    handler_.connection_ended(errno != ENODEV);
    return false;
  }
  Request request;
  if (static_cast<std::size_t>(n) < sizeof request.head) return true;
  std::memcpy(&request.head, in, sizeof request.head);
  const std::size_t left = static_cast<std::size_t>(n) - sizeof request.head;
  const std::size_t fixed_bytes = std::min(fuse::fixed_size(request.op()), left);
  std::memset(fixed, 0, 128);
  std::memcpy(fixed, in + sizeof request.head, fixed_bytes);
  request.fixed = fixed;
  request.args = {in + sizeof request.head + fixed_bytes, left - fixed_bytes};
  request.reply = out;
  request.queue = 0;
  request.transport = this;
  const Answer answer = handler_.handle(request);
  if (answer == no_answer) return true;
  if (!send(request.head.unique, answer, out.data())) return true;
  if (request.op() == fuse::Op::init && answer >= 0) handler_.initialized();
  return true;
}

bool DevTransport::send(std::uint64_t unique, Answer answer, std::uint8_t* out) {
  const std::size_t body = answer > 0 ? static_cast<std::size_t>(answer) : 0;
  fuse::OutHeader head{static_cast<std::uint32_t>(sizeof head + body),
                       answer < 0 ? static_cast<std::int32_t>(answer) : 0, unique};
  const iovec parts[2] = {{&head, sizeof head}, {out, body}};
  // ENOENT: the caller was interrupted; anything else shows at the next read.
  return writev(device_, parts, body ? 2 : 1) >= 0;
}

}  // namespace holdfast::capture
