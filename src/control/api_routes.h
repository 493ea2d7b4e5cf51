// SPDX-License-Identifier: Apache-2.0
// The route table of /v1: one row a route, so that who may call what can be read, and tested, in one place.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "control/handlers.h"
#include "control/http.h"

namespace holdfast::control {

// JSON text that is always valid UTF-8: names of files may hold any bytes, those are replaced for display.
std::string dump(const nlohmann::json& json);

struct ApiCall {
  Handlers& handlers;
  const Caller& caller;
  const HttpRequest& request;
  const nlohmann::json& body;  // without "actor"; an object for mutations
  std::string subject;         // set by the route: what the audit event names; never a secret
};

struct ApiRoute {
  const char* method;
  const char* path;                                     // exact, or a prefix when it ends in '/'
  bool local, peer, join;                               // who may call it
  const char* mutation;                                 // the event's code; null = only reads
  std::function<Result<nlohmann::json>(ApiCall&)> run;  // a JSON string is answered as plain text
  bool witness = false;                                 // may a witness call it?
};

const std::vector<ApiRoute>& api_routes();

}  // namespace holdfast::control
