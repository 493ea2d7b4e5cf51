// SPDX-License-Identifier: Apache-2.0
// A client of /v1 over the Unix socket: the CLI's side. One request a connection: nothing to keep, nothing to go stale.
#pragma once

#include <string>

#include <nlohmann/json_fwd.hpp>

#include "base/result.h"

namespace holdfast::control {

class ApiClient {
 public:
  explicit ApiClient(std::string socket_path);
  // `body` null = none. Errors of the server arrive with their code, message and hint; `unavailable` = not running.
  Result<nlohmann::json> call(const std::string& method, const std::string& path_and_query, const nlohmann::json& body,
                              int timeout_ms) const;

 private:
  const std::string socket_path_;
};

}  // namespace holdfast::control
