// SPDX-License-Identifier: Apache-2.0
// holdfast-floor SRC MNT: the product's capture with nothing behind it, as the floor that benchmarks compare with.
// Runs until SIGTERM or SIGINT, then unmounts; a mount that is still busy is aborted.
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include <fmt/format.h>

#include "capture/null_log.h"
#include "capture/session.h"
#include "capture/simple_file_ids.h"

namespace {

using namespace holdfast;
using namespace holdfast::capture;

int usage() {
  std::fputs("usage: holdfast-floor SRC MNT [--dev|--uring] [--threads N] [--write-through] [--max-dirty BYTES]\n",
             stderr);
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  SessionOptions options;
  std::string source;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--dev")
      options.transport = TransportKind::dev;
    else if (arg == "--uring")
      options.transport = TransportKind::uring;
    else if (arg == "--write-through")
      options.write_policy = WritePolicy::write_through;
    else if (arg == "--threads" && i + 1 < argc)
      options.threads = static_cast<unsigned>(std::atoi(argv[++i]));
    else if (arg == "--max-dirty" && i + 1 < argc)
      options.max_dirty_bytes = std::strtoull(argv[++i], nullptr, 10);
    else if (arg.starts_with("-"))
      return usage();
    else if (source.empty())
      source = arg;
    else if (options.path.empty())
      options.path = arg;
    else
      return usage();
  }
  if (source.empty() || options.path.empty()) return usage();
  const int root = open(source.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) {
    std::fprintf(stderr, "holdfast-floor: cannot open %s: %s\n", source.c_str(), std::strerror(errno));
    return 1;
  }
  options.root_fd = root;
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigaddset(&stop, SIGINT);
  sigprocmask(SIG_BLOCK, &stop, nullptr);

  NullLog log;
  AlwaysValid lease;
  InodeNumberIds ids;
  auto session = Session::mount(options, log, lease, ids,
                                [](const Error& error) { fmt::print(stderr, "holdfast-floor: {}\n", error.message); });
  close(root);
  if (!session) {
    fmt::print(stderr, "holdfast-floor: {}\n", session.error().to_string());
    return 1;
  }
  fmt::print("mounted {} over {}, abort with {}\n", options.path,
             (*session)->transport() == TransportKind::uring ? "io_uring" : "/dev/fuse", (*session)->abort_path());
  std::fflush(stdout);
  int signal_number;
  sigwait(&stop, &signal_number);
  if (auto ended = (*session)->unmount_and_wait(std::chrono::seconds(10), nullptr); !ended) {
    fmt::print(stderr, "holdfast-floor: {}; aborting\n", ended.error().to_string());
    (*session)->abort();
    return 1;
  }
  return 0;
}
