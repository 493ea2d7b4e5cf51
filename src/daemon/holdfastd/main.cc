// SPDX-License-Identifier: Apache-2.0
// holdfastd: the control plane of a node. See README.md.
#include <csignal>
#include <cstring>
#include <thread>

#include <systemd/sd-daemon.h>

#include "base/log.h"
#include "daemon/holdfastd/daemon.h"
#include "platform/process.h"

namespace {

using namespace holdfast;

// A restart of the daemon must not be noticed, so SIGTERM alone gives nothing back. Only when the machine itself goes down.
bool machine_goes_down() {
  const auto state = platform::run_command({.argv = {"systemctl", "is-system-running"}, .timeout_ms = 1'000});
  return state && state->out.rfind("stopping", 0) == 0;
}

int usage(const char* complaint) {
  fmt::print(stderr, "holdfastd: {}\nusage: holdfastd [--state-dir DIR] [--run-dir DIR] [--debug] | --version\n",
             complaint);
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  daemon::DaemonPaths paths;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--version") return fmt::print("holdfastd {}\n", HF_VERSION), 0;
    if (arg == "--debug")
      set_log_level(LogLevel::debug);
    else if (arg == "--state-dir" && i + 1 < argc)
      paths.state = argv[++i];
    else if (arg == "--run-dir" && i + 1 < argc)
      paths.run = argv[++i];
    else
      return usage(("unknown argument '" + arg + "'").c_str());
  }
  sigset_t signals;
  sigemptyset(&signals);
  for (const int s : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, s);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // before any thread: all inherit it
  std::signal(SIGPIPE, SIG_IGN);

  daemon::Daemon d(paths);
  if (const Status opened = d.open(); !opened) {
    log_error("holdfastd can't start: {}", opened.error().to_string());
    return 1;
  }
  std::thread waiter([&] {
    for (;;) {
      int signal = 0;
      if (sigwait(&signals, &signal) != 0 || signal == SIGHUP) continue;
      log_info("holdfastd stops; the lease goes on until it lapses, so that a restart is not noticed");
      sd_notify(0, "STOPPING=1");
      if (signal == SIGTERM && machine_goes_down())
        d.shut_down_machine();
      else
        d.stop();
      return;
    }
  });
  d.beat([] { sd_notify(0, "WATCHDOG=1"); });
  sd_notify(0, "READY=1");
  d.run();
  waiter.join();
  return 0;
}
