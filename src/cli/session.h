// SPDX-License-Identifier: Apache-2.0
// What one invocation works with: where it reads and writes, whom it asks, who asks. Commands return the exit status.
#pragma once

#include <functional>
#include <iosfwd>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"
#include "cli/text.h"
#include "control/api_client.h"

namespace holdfast::cli {

// Documented in --help; scripts depend on them.
enum Exit : int {
  exit_ok = 0,
  exit_failed = 1,
  exit_usage = 2,
  exit_refused = 3,      // a safety rule said no, nothing was changed
  exit_unreachable = 4,  // holdfastd isn't running, or a peer or majority can't be reached
  exit_timeout = 5,
  exit_interrupted = 130,
};
int exit_of(ErrorCode code);

// The process's surroundings, so that tests can be another terminal, user and clock.
struct Surroundings {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  bool in_is_terminal = false;
  bool out_is_terminal = false;
  std::function<Look()> look;  // of the output, now (the window may be resized)
  std::function<int()> rows;
  std::function<std::string(const char*)> environment;  // empty = unset
  std::function<std::string()> user;
  std::function<std::string()> host;
  enum class Woken { time, interrupted, resized };
  std::function<Woken(int ms)> pause;
  std::function<void()> hold_signals;  // from now on Ctrl-C ends only pauses: the screen is put back first
};

class Session {
 public:
  Session(const Surroundings& around, std::string socket) : around_(around), client_(std::move(socket)) {}
  const Surroundings& around() const { return around_; }
  bool json = false;
  bool assume_yes = false;
  bool wait = true;   // follow plans to their end
  int timeout_s = 0;  // of following; 0 = as long as it takes

  Result<nlohmann::json> get(const std::string& path, int timeout_ms = 15'000) const;
  // Adds the actor.
  Result<nlohmann::json> send(const std::string& method, const std::string& path, nlohmann::json body,
                              int timeout_ms = 60'000) const;
  std::string actor() const;

  void print(const std::string& text) const;
  void print_json(const nlohmann::json& value) const;  // one document, indented
  // "holdfast: what: what to do" on stderr, the JSON form on stdout with --json; returns the exit status.
  int failure(const Error& error) const;
  // Asks on the terminal; without one, --yes is needed.
  Status confirm(const std::string& what) const;

  // Follows a plan to its end with its steps live; returns the exit status. `done` = what to say when it has succeeded.
  int follow_plan(const std::string& id, const std::string& done, const std::string& undo_with) const;

 private:
  const Surroundings& around_;
  control::ApiClient client_;
};

}  // namespace holdfast::cli
