// SPDX-License-Identifier: Apache-2.0
// Runs a command: argv (no shell), a time limit, output captured, as a user if asked. Safe in a process with threads.
// At the time limit the command's whole process group is killed, so nothing it started lingers with our pipes.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace holdfast::platform {

struct Command {
  std::vector<std::string> argv;  // argv[0] is looked up in a fixed PATH of system folders
  int timeout_ms = 30'000;
  std::string user;   // empty: as ourselves; else needs root
  std::string input;  // written to its stdin (at most 64 KiB)
  std::vector<std::string>
      environment;  // "NAME=value"; PATH and LANG=C.UTF-8 are always set, nothing of ours is inherited
  std::size_t max_output = 256 * 1024;  // of each stream; the rest is read and dropped
};

struct CommandResult {
  int exit_status = 0;  // 128 + signal when killed by one
  bool timed_out = false;
  std::string out;
  std::string err;
  bool ok() const { return exit_status == 0 && !timed_out; }
};

// An error only when it could not be started (not found, no such user). Blocks the calling thread; any thread.
Result<CommandResult> run_command(const Command& command);

// Runs and turns a time-out or a non-zero status into an Error that carries the last line the command wrote. Value: its stdout.
Result<std::string> run_checked(const Command& command);

}  // namespace holdfast::platform
