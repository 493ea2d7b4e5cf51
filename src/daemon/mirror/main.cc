// SPDX-License-Identifier: Apache-2.0
// holdfast-mirror: the data plane. `holdfast-mirror run` serves holdfastd; `holdfast-mirror watchdog` is its guard, started by itself.
#include <signal.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <string>
#include <string_view>
#include <thread>

#include "base/log.h"
#include "daemon/mirror/service.h"
#include "platform/durable_file.h"
#include "platform/process_setup.h"

namespace {

using namespace holdfast;
using namespace holdfast::mirror_process;

constexpr const char* run_dir = "/run/holdfast";
constexpr const char* socket_path = "/run/holdfast/mirror.sock";
constexpr const char* state_dir = "/var/lib/holdfast/mirror";
// After the lease is over the mirror itself blocks at once; this long later the watchdog ends the wait of whoever is blocked (R4). A renewal
// that comes within it goes on as if nothing had happened, so a clock that jumps does not cost the epoch.
constexpr std::int64_t watchdog_grace_ms = 700;

int usage() {
  std::fputs(
      "usage: holdfast-mirror [run]\n       holdfast-mirror version\nStarted by systemd as holdfast-mirror.service; "
      "administrators use holdfast(1).\n",
      stderr);
  return 2;
}

// SIGTERM and SIGINT end run() in order; blocked everywhere else so that no thread is interrupted.
std::thread stop_on_signal(Service& service, platform::ControlSocket& socket, const sigset_t& signals) {
  return std::thread([&service, &socket, signals] {
    int signal_number = 0;
    sigwait(&signals, &signal_number);
    log_info("stopping on signal {}", signal_number);
    if (service.leave_to_successor()) _exit(0);
    socket.stop();
  });
}

Status run() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  platform::prepare_process();
  platform::enable_fuse_io_uring();
  HF_TRY(platform::make_private_dir(run_dir));
  HF_ASSIGN(auto lease, platform::LeaseWord::open(platform::LeaseWord::Side::reader));
  HF_ASSIGN(auto watchdog, platform::Watchdog::start(platform::lease_word_path, watchdog_grace_ms));

  std::unique_ptr<platform::ControlSocket> socket;
  Service service({state_dir, platform::lease_word_path}, std::move(lease), std::move(watchdog),
                  [&socket](const nlohmann::json& event) {
                    if (socket) socket->push(event);
                  });
  HF_ASSIGN(socket, platform::ControlSocket::listen(
                        socket_path, [&service](const nlohmann::json& request) { return service.handle(request); }));
  if (auto left = take_succession(); !left)
    log_error("{}", left.error().to_string());
  else if (*left)
    service.inherit(std::move(**left));
  service.cover_known_paths();
  std::thread stopper = stop_on_signal(service, *socket, signals);
  sd_notify(0, "READY=1");
  socket->run();
  sd_notify(0, "STOPPING=1");
  service.shut_down();
  stopper.join();
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view command = argc > 1 ? argv[1] : "";
  if (command == "version") {
    std::puts("holdfast-mirror " HF_VERSION);
    return 0;
  }
  if (command == "watchdog" && argc == 4) return platform::watchdog_main(argv[2], std::strtoll(argv[3], nullptr, 10));
  if (command == "push" && argc == 2) return capture::serve_push_rounds(platform::helper_socket);
  if (argc > 2 || (argc == 2 && command != "run")) return usage();
  if (auto done = run(); !done) {
    log_error("{}", done.error().to_string());
    return 1;
  }
  return 0;
}
