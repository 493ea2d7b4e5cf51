// SPDX-License-Identifier: Apache-2.0
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <optional>

#include <unistd.h>

#include "cli/app.h"
#include "platform/terminal.h"

namespace {

using holdfast::cli::Look;
using holdfast::cli::Surroundings;
namespace platform = holdfast::platform;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool speaks_utf8() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    const std::string value = environment(name);
    if (!value.empty()) return value.find("UTF-8") != std::string::npos || value.find("utf8") != std::string::npos;
  }
  return false;
}

Look look_of_output() {
  const bool terminal = platform::is_terminal(STDOUT_FILENO);
  Look look;
  // A pipe or a log gets whole lines; a terminal what fits.
  look.width = terminal ? std::max(40, platform::terminal_size(STDOUT_FILENO).columns) : 200;
  look.colour = terminal && environment("NO_COLOR").empty() && environment("TERM") != "dumb";
  look.unicode = speaks_utf8();
  return look;
}

Surroundings::Woken translate(platform::SignalPause::Woken woken) {
  switch (woken) {
    case platform::SignalPause::Woken::interrupted:
      return Surroundings::Woken::interrupted;
    case platform::SignalPause::Woken::resized:
      return Surroundings::Woken::resized;
    case platform::SignalPause::Woken::time:
      break;
  }
  return Surroundings::Woken::time;
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe shows as a failed write
  std::optional<platform::SignalPause> held;
  Surroundings around{std::cin, std::cout, std::cerr};
  around.in_is_terminal = platform::is_terminal(STDIN_FILENO);
  around.out_is_terminal = platform::is_terminal(STDOUT_FILENO) && environment("TERM") != "dumb";
  around.look = look_of_output;
  around.rows = [] { return platform::terminal_size(STDOUT_FILENO).rows; };
  around.environment = environment;
  around.user = platform::user_name;
  around.host = platform::host_name;
  around.hold_signals = [&] {
    if (!held) held.emplace();
  };
  around.pause = [&](int ms) {
    if (held) return translate(held->pause(ms));
    platform::SignalPause once;
    return translate(once.pause(ms));
  };
  return holdfast::cli::run(std::vector<std::string>(argv + 1, argv + argc), around);
}
