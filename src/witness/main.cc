// SPDX-License-Identifier: Apache-2.0
// holdfast-witness: join a cluster, or run. See README.md.
#include <csignal>
#include <iostream>
#include <random>
#include <thread>

#include "base/log.h"
#include "control/join_client.h"
#include "control/pki.h"
#include "platform/durable_file.h"
#include "platform/process.h"
#include "witness/witness.h"

namespace {

using namespace holdfast;

struct Arguments {
  std::string dir = "/var/lib/holdfast-witness";
  std::string command, address, token, name;
  std::string listen;  // run: where to listen; join: what the nodes dial
  bool reload = true;
};

constexpr const char* usage_text =
    "usage: holdfast-witness join ADDRESS --token TOKEN|- [--name NAME] [--listen ADDRESS[:PORT]] [--state-dir DIR]\n"
    "       holdfast-witness run [--listen ADDRESS:PORT] [--state-dir DIR]\n"
    "       holdfast-witness --version\n";

int complain(const Error& error) {
  fmt::print(stderr, "holdfast-witness: {}\n", error.to_string());
  return error.code == ErrorCode::invalid ? 2 : 1;
}

Result<Arguments> parse(int argc, char** argv) {
  Arguments a;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    const bool more = i + 1 < argc;
    if (arg == "--token" && more)
      a.token = argv[++i];
    else if (arg == "--listen" && more)
      a.listen = argv[++i];
    else if ((arg == "--name" || arg == "--node") && more)
      a.name = argv[++i];
    else if (arg == "--state-dir" && more)
      a.dir = argv[++i];
    else if (arg == "--no-reload")
      a.reload = false;
    else if (arg == "--debug")
      set_log_level(LogLevel::debug);
    else if (!arg.empty() && arg.front() == '-')
      return fail(ErrorCode::invalid, "unknown argument '{}'", arg);
    else if (a.command.empty())
      a.command = arg;
    else if (a.address.empty())
      a.address = arg;
    else
      return fail(ErrorCode::invalid, "one argument too many: '{}'", arg);
  }
  return a;
}

std::string host_name() {
  const auto name = platform::run_checked({.argv = {"hostname", "-s"}, .timeout_ms = 3'000});
  return name ? name->substr(0, name->find_first_of("\r\n")) : std::string("witness");
}

Status join(Arguments a) {
  if (a.address.empty()) return fail(ErrorCode::invalid, "join needs the address of a node of the cluster");
  if (a.token == "-") std::getline(std::cin, a.token);
  if (a.token.empty())
    return fail(ErrorCode::invalid, "join needs a token: 'holdfast token --witness' on a node makes one");
  std::random_device source;
  const std::uint64_t incarnation = (static_cast<std::uint64_t>(source()) << 32) | source() | 1u;
  control::JoinOptions options;
  options.address = a.address;
  options.token = a.token;
  options.node = a.name.empty() ? host_name() : a.name;
  options.kind = control::CertificateKind::witness;
  options.version = HF_VERSION;
  options.incarnation = fmt::format("{:016x}", incarnation);
  if (!a.listen.empty()) options.channel = {a.listen};
  HF_TRY(platform::make_private_dir(a.dir));
  HF_TRY(platform::make_private_dir(a.dir + "/clusters"));
  HF_ASSIGN(const control::Joined joined, control::join_cluster(options));
  witness::ClusterAbout about;
  about.cluster_id = joined.reply.cluster_id;
  about.cluster_name = joined.reply.cluster;
  about.name = options.node;
  HF_ASSIGN(about.node_id, node_id_from_hex(joined.reply.node_id));
  const witness::ClusterFiles files{a.dir + "/clusters/" + about.cluster_id};
  HF_TRY(platform::make_private_dir(files.dir));
  HF_TRY(control::store_tls({files.tls()}, joined.material));
  HF_TRY(witness::store_new_voter(files, about, cluster::Incarnation(incarnation)));
  if (a.reload) {
    const Status reloaded = [&]() -> Status {
      HF_TRY(platform::run_checked(
          {.argv = {"systemctl", "reload-or-restart", "holdfast-witness.service"}, .timeout_ms = 20'000}));
      return {};
    }();
    if (!reloaded)
      return tl::unexpected(
          with_hint(reloaded.error(), "joined, but the service is not running: systemctl start holdfast-witness"));
  }
  fmt::print("witness of cluster {} as {}\n", about.cluster_name, about.name);
  return {};
}

Status run(const Arguments& a) {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int s : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, s);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // before any thread: all inherit it
  HF_TRY(platform::make_private_dir(a.dir));
  HF_TRY(platform::make_private_dir(a.dir + "/clusters"));
  witness::Witness w(a.dir);
  Status listening = w.listen(a.listen.empty() ? "[::]:9729" : a.listen);
  if (!listening && a.listen.empty()) listening = w.listen("0.0.0.0:9729");  // a kernel without IPv6
  HF_TRY(listening);
  std::thread waiter([&] {
    for (int signal = 0;;) {
      if (sigwait(&signals, &signal) != 0) continue;
      if (signal != SIGHUP) return w.stop();
      w.rescan();
    }
  });
  log_info("holdfast-witness {} is ready", HF_VERSION);
  w.run();
  waiter.join();
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::string(argv[1]) == "--version") return fmt::print("holdfast-witness {}\n", HF_VERSION), 0;
  const auto arguments = parse(argc, argv);
  if (!arguments) return complain(arguments.error());
  if (arguments->command != "join" && arguments->command != "run") {
    fmt::print(stderr, "{}", usage_text);
    return 2;
  }
  const Status done = arguments->command == "join" ? join(*arguments) : run(*arguments);
  return done ? 0 : complain(done.error());
}
