// SPDX-License-Identifier: Apache-2.0
// How the daemon speaks to the mirror; MirrorClient over the Unix socket, a fake one in tests.
#pragma once

#include <functional>

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "base/types.h"

namespace holdfast::daemon {

class MirrorPort {
 public:
  // The mirror's reply without "id" and "ok", or its refusal, or `unavailable`/`timeout`. Called once, from any thread.
  using Reply = std::function<void(Result<nlohmann::json>)>;

  virtual ~MirrorPort() = default;
  // Any thread; never blocks. `op` as in docs/formats/mirror-control.md.
  virtual void request(const std::string& op, nlohmann::json arguments, int timeout_ms, Reply reply) = 0;
  virtual bool connected() const = 0;
  // Ends the process at the other end, which systemd starts again: for one that does not answer any more. False: nobody is there.
  virtual bool kill() = 0;
};

// For threads that may wait.
Result<nlohmann::json> call_mirror(MirrorPort& mirror, const std::string& op, nlohmann::json arguments, int timeout_ms);

// {"epoch":e,"seq":s}; absent or odd members are an error, never a guess.
Result<Position> position_from(const nlohmann::json& reply, const char* member);

}  // namespace holdfast::daemon
