// SPDX-License-Identifier: Apache-2.0
#include "platform/terminal.h"

#include <cerrno>
#include <ctime>
#include <vector>

#include <pwd.h>
#include <sys/ioctl.h>
#include <unistd.h>

namespace holdfast::platform {

bool is_terminal(int fd) { return ::isatty(fd) == 1; }

TerminalSize terminal_size(int fd) {
  winsize size{};
  if (::ioctl(fd, TIOCGWINSZ, &size) != 0 || size.ws_col == 0 || size.ws_row == 0) return {};
  return {size.ws_col, size.ws_row};
}

SignalPause::SignalPause() {
  sigemptyset(&taken_);
  for (const int signal : {SIGINT, SIGTERM, SIGWINCH}) sigaddset(&taken_, signal);
  ::pthread_sigmask(SIG_BLOCK, &taken_, &before_);
}

SignalPause::~SignalPause() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

SignalPause::Woken SignalPause::pause(int ms) {
  const timespec limit{ms / 1000, ms % 1000 * 1'000'000L};
  const int signal = ::sigtimedwait(&taken_, nullptr, &limit);
  if (signal == SIGWINCH) return Woken::resized;
  if (signal == SIGINT || signal == SIGTERM) return Woken::interrupted;
  return Woken::time;  // EAGAIN; EINTR by an unrelated handler is a short pause, no harm
}

std::string user_name() {
  std::vector<char> buffer(16 * 1024);
  passwd entry{};
  passwd* found = nullptr;
  if (::getpwuid_r(::getuid(), &entry, buffer.data(), buffer.size(), &found) == 0 && found != nullptr)
    return found->pw_name;
  return "uid " + std::to_string(::getuid());
}

std::string host_name() {
  char name[256] = "";
  if (::gethostname(name, sizeof name - 1) != 0) return "";
  const std::string full = name;
  return full.substr(0, full.find('.'));
}

}  // namespace holdfast::platform
