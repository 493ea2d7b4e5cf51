// SPDX-License-Identifier: Apache-2.0
// The terminal of a command-line program, and waiting that ends early when the user or the window manager says so.
#pragma once

#include <csignal>
#include <string>

namespace holdfast::platform {

bool is_terminal(int fd);

struct TerminalSize {
  int columns = 80;
  int rows = 24;
};
TerminalSize terminal_size(int fd);  // 80x24 when it isn't a terminal

// While it lives, SIGINT and SIGTERM (interrupted) and SIGWINCH (resized) are taken in pause() instead of acting. One at a time,
// made before threads are.
class SignalPause {
 public:
  enum class Woken { time, interrupted, resized };
  SignalPause();
  ~SignalPause();
  SignalPause(const SignalPause&) = delete;
  SignalPause& operator=(const SignalPause&) = delete;
  Woken pause(int ms);

 private:
  sigset_t taken_;
  sigset_t before_;
};

std::string user_name();  // of the real user id; "uid 1000" when it has no name
std::string host_name();  // without domain

}  // namespace holdfast::platform
