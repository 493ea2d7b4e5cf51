// SPDX-License-Identifier: Apache-2.0
// The /v1 API: routes, the rules of who may call what, the audit event of every mutation, and the Unix socket.
// TLS connections are accepted by the daemon's one listener, which hands those with ALPN http/1.1 to serve().
//
//   origin | may call
//   local  | everything but admit and renew
//   peer   | everything but init and join (of this node); POST /v1/join and /v1/renew are admit and renew
//   join   | POST /v1/join only (admit), one request a connection, small body, rate-limited per address and in all
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "base/result.h"
#include "control/handlers.h"
#include "control/http.h"
#include "control/stream.h"

namespace holdfast::control {

constexpr const char* api_socket_path = "/run/holdfast/api.sock";
constexpr std::uint16_t api_port = 9727;

// At most `burst` in any window, per key and over all keys (8 times burst). Any thread.
class RateLimit {
 public:
  RateLimit(int burst, int window_ms) : burst_(burst), window_ms_(window_ms) {}
  bool allow(const std::string& key, std::int64_t now_ms);

 private:
  const int burst_;
  const int window_ms_;
  std::mutex mutex_;
  std::deque<std::pair<std::int64_t, std::string>> recent_;
};

class ApiServer {
 public:
  explicit ApiServer(Handlers& handlers);
  ~ApiServer();  // stops

  // Listens at `path` (mode 0600; a stale socket is replaced, a live one is ErrorCode::exists) and serves in own threads.
  Status listen(const std::string& path);
  // Serves one connection until it ends, an error, or stop(). `caller.actor` is ignored: each request brings its own.
  void serve(TimedStream& stream, const Caller& caller);
  void stop();

  // One request, without a connection: routes and rules only. Used by serve() and by tests.
  HttpResponse handle(const HttpRequest& request, Caller caller);

 private:
  struct Listener;
  Handlers& handlers_;
  RateLimit join_limit_{20, 60'000};  // a join asks twice
  std::atomic<bool> stopping_{false};
  std::atomic<int> connections_{0};
  std::unique_ptr<Listener> listener_;
};

// HTTP status of an error, and back on the client's side. The body is {"error":{"code","message","hint"}}.
int http_status(ErrorCode code);
HttpResponse error_response(const Error& error);
Error error_from_response(const HttpResponse& response);

}  // namespace holdfast::control
