// SPDX-License-Identifier: Apache-2.0
#include "control/api_server.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <list>
#include <thread>

#include <unistd.h>

#include "base/log.h"
#include "control/api_routes.h"
#include "control/unix_bridge.h"
#include "platform/unix_stream.h"

namespace holdfast::control {
namespace {

using nlohmann::json;

constexpr int most_connections = 64;
constexpr std::size_t longest_actor = 128;
constexpr HttpLimits join_limits{
    .head_bytes = 4 * 1024, .body_bytes = 16 * 1024, .idle_ms = 5'000, .transfer_ms = 5'000};

bool is_actor(const std::string& text) {
  return !text.empty() && text.size() <= longest_actor &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return c >= 0x20 && c != 0x7f; });
}

// Takes "actor" out of a mutation's body. A stranger who wants to join has no name yet: the address stands for it.
Result<std::string> take_actor(json& body, const Caller& caller) {
  if (caller.origin == Origin::join) {
    body.erase("actor");
    return "joining from " + caller.address;
  }
  const auto found = body.find("actor");
  if (found == body.end() || !found->is_string() || !is_actor(found->get<std::string>()))
    return fail(ErrorCode::invalid, "\"actor\" must say who asks: 1 to {} printable characters", longest_actor);
  std::string actor = found->get<std::string>();
  body.erase(found);
  return actor;
}

bool allowed(const ApiRoute& route, Origin origin) {
  switch (origin) {
    case Origin::local:
      return route.local;
    case Origin::peer:
      return route.peer;
    case Origin::witness:
      return route.witness;
    case Origin::join:
      return route.join;
  }
  return false;
}

bool path_matches(const ApiRoute& route, const std::string& path) {
  const std::string_view pattern = route.path;
  if (pattern.back() != '/') return path == pattern;
  return path.size() > pattern.size() && path.starts_with(pattern) &&
         path.find('/', pattern.size()) == std::string::npos;
}

void audit(Handlers& handlers, const ApiRoute& route, const Caller& caller, const std::string& subject,
           const Error* error) {
  EventDraft event;
  event.actor = caller.actor;
  event.code = route.mutation;
  event.severity = error == nullptr ? "info" : "warning";
  std::string name = route.mutation;
  std::replace(name.begin(), name.end(), '_', '-');
  event.text = subject.empty() ? name : name + " " + subject;
  if (error != nullptr) {
    event.code += "_refused";
    event.text += ": " + error->message;
  }
  for (char& c : event.text)
    if (static_cast<unsigned char>(c) < 0x20) c = ' ';
  handlers.record(event);
}

HttpResponse run_route(Handlers& handlers, const ApiRoute& route, const HttpRequest& request, Caller& caller) {
  json body = json::object();
  if (!request.body.empty()) body = json::parse(request.body, nullptr, false);
  if (!body.is_object()) return error_response({ErrorCode::invalid, "the body must be a JSON object", "", 0});
  if (route.mutation != nullptr) {
    auto actor = take_actor(body, caller);
    if (!actor) return error_response(actor.error());
    caller.actor = std::move(*actor);
  }
  ApiCall call{handlers, caller, request, body, {}};
  const Result<json> result = route.run(call);
  if (route.mutation != nullptr) audit(handlers, route, caller, call.subject, result ? nullptr : &result.error());
  if (!result) return error_response(result.error());
  if (result->is_string()) return {200, result->get<std::string>(), true, "text/plain; version=0.0.4; charset=utf-8"};
  const auto plan = result->find("plan");
  const bool goes_on =
      route.mutation != nullptr && plan != result->end() && plan->is_string() && !plan->get<std::string>().empty();
  return {goes_on ? 202 : 200, dump(*result), true};
}

}  // namespace

bool RateLimit::allow(const std::string& key, std::int64_t now_ms) {
  const std::lock_guard lock(mutex_);
  while (!recent_.empty() && recent_.front().first <= now_ms - window_ms_) recent_.pop_front();
  const auto same = std::count_if(recent_.begin(), recent_.end(), [&](const auto& r) { return r.second == key; });
  if (same >= burst_ || recent_.size() >= static_cast<std::size_t>(burst_) * 8) return false;
  recent_.emplace_back(now_ms, key);
  return true;
}

int http_status(ErrorCode code) {
  switch (code) {
    case ErrorCode::invalid:
      return 400;
    case ErrorCode::denied:
      return 403;
    case ErrorCode::not_found:
      return 404;
    case ErrorCode::exists:
    case ErrorCode::refused:
    case ErrorCode::stale:
      return 409;
    case ErrorCode::busy:
      return 429;
    case ErrorCode::unavailable:
      return 503;
    case ErrorCode::timeout:
      return 504;
    case ErrorCode::no_space:
      return 507;
    case ErrorCode::io:
    case ErrorCode::corrupt:
    case ErrorCode::internal:
      return 500;
  }
  return 500;
}

HttpResponse error_response(const Error& error) {
  const json body{{"error", {{"code", to_string(error.code)}, {"message", error.message}, {"hint", error.hint}}}};
  return {http_status(error.code), dump(body), true};
}

Error error_from_response(const HttpResponse& response) {
  const json body = json::parse(response.body, nullptr, false);
  Error error{ErrorCode::internal, fmt::format("the server answered with status {}", response.status), "", 0};
  if (!body.is_object() || !body.contains("error") || !body["error"].is_object()) return error;
  const auto text = [&](const char* name) {
    const auto found = body["error"].find(name);
    return found != body["error"].end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  error.message = text("message");
  error.hint = text("hint");
  constexpr ErrorCode all[] = {ErrorCode::invalid, ErrorCode::not_found, ErrorCode::exists,      ErrorCode::denied,
                               ErrorCode::refused, ErrorCode::busy,      ErrorCode::unavailable, ErrorCode::timeout,
                               ErrorCode::io,      ErrorCode::corrupt,   ErrorCode::no_space,    ErrorCode::stale,
                               ErrorCode::internal};
  for (const ErrorCode code : all)
    if (text("code") == to_string(code)) error.code = code;
  return error;
}

// Connections on the Unix socket, each with its thread; finished ones are joined by the next accept or by stop().
struct ApiServer::Listener {
  struct Connection {
    std::unique_ptr<platform::UnixStream> stream;
    std::thread thread;
    std::atomic<bool> done{false};
  };
  std::unique_ptr<platform::UnixListener> socket;
  std::thread acceptor;
  std::mutex mutex;
  std::list<Connection> connections;

  void reap(bool all) {
    std::list<Connection> finished;
    {
      const std::lock_guard lock(mutex);
      for (auto it = connections.begin(); it != connections.end();) {
        const auto next = std::next(it);
        if (all) it->stream->shutdown();
        if (all || it->done) finished.splice(finished.end(), connections, it);
        it = next;
      }
    }
    for (Connection& c : finished) c.thread.join();
  }
};

ApiServer::ApiServer(Handlers& handlers) : handlers_(handlers) {}
ApiServer::~ApiServer() { stop(); }

Status ApiServer::listen(const std::string& path) {
  auto listener = std::make_unique<Listener>();
  HF_ASSIGN(listener->socket, platform::UnixListener::open(path, 0600));
  listener_ = std::move(listener);
  listener_->acceptor = std::thread([this] {
    Listener& l = *listener_;
    for (;;) {
      auto stream = l.socket->accept();
      l.reap(false);
      if (!stream && stream.error().code == ErrorCode::unavailable) return;
      if (!stream) {
        log_error("{}", stream.error().message);
        if (stopping_) return;
        std::this_thread::sleep_for(std::chrono::milliseconds(100));  // out of descriptors: nothing to wait on but time
        continue;
      }
      const std::lock_guard lock(l.mutex);
      Listener::Connection& c = l.connections.emplace_back();
      c.stream = std::move(*stream);
      c.thread = std::thread([this, &c] {
        UnixTimedStream timed(*c.stream);
        const auto uid = c.stream->peer_uid();
        Caller caller;
        caller.address = uid ? fmt::format("uid {}", *uid) : "local";
        // 0600 keeps others out already; a wrong mode by someone's hand must not open the door.
        if (uid && (*uid == 0 || *uid == ::geteuid())) serve(timed, caller);
        c.stream->shutdown();
        c.done = true;
      });
    }
  });
  return {};
}

void ApiServer::stop() {
  stopping_ = true;
  if (!listener_) return;
  listener_->socket->close();
  if (listener_->acceptor.joinable()) listener_->acceptor.join();
  listener_->reap(true);
  listener_.reset();
}

void ApiServer::serve(TimedStream& stream, const Caller& caller) {
  const bool stranger = caller.origin == Origin::join;
  HttpConnection http(stream, stranger ? join_limits : HttpLimits{});
  if (connections_.fetch_add(1) >= most_connections) {
    HttpResponse busy = error_response({ErrorCode::busy, "too many connections", "try again in a moment", 0});
    busy.keep_alive = false;
    if (auto written = http.write_response(busy); !written) log_debug("api: {}", written.error().message);
    connections_.fetch_sub(1);
    return;
  }
  while (!stopping_) {
    auto request = http.read_request();
    HttpResponse response;
    if (request) {
      response = handle(*request, caller);
      response.keep_alive = request->keep_alive && !stranger;
    } else if (request.error().code == ErrorCode::invalid || request.error().code == ErrorCode::no_space) {
      log_info("api: bad request from {}: {}", caller.address, request.error().message);
      response = error_response(request.error());
      if (request.error().code == ErrorCode::no_space) response.status = 413;
      response.keep_alive = false;
    } else {
      break;  // closed, idle for too long, or broken: nobody to tell
    }
    if (!http.write_response(response) || !response.keep_alive) break;
  }
  connections_.fetch_sub(1);
}

HttpResponse ApiServer::handle(const HttpRequest& request, Caller caller) {
  if (caller.origin == Origin::join) {
    const auto now =
        std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch());
    const std::string host = caller.address.substr(0, caller.address.rfind(':'));
    if (!join_limit_.allow(host, now.count()))
      return error_response({ErrorCode::busy, "too many attempts to join", "wait a minute", 0});
  }
  bool path_known = false;
  for (const ApiRoute& route : api_routes()) {
    if (!path_matches(route, request.path)) continue;
    path_known = true;
    if (request.method != route.method) continue;
    if (!allowed(route, caller.origin)) {
      const char* why = caller.origin == Origin::join ? "a certificate of this cluster is needed" : "not offered here";
      return error_response({ErrorCode::denied, fmt::format("{} {}: {}", request.method, route.path, why), "", 0});
    }
    try {
      return run_route(handlers_, route, request, caller);
    } catch (const std::exception& e) {  // nlohmann-json and the allocator may throw: one request fails, not the daemon
      return error_response(
          {ErrorCode::internal, fmt::format("{} {} failed: {}", request.method, route.path, e.what()), "", 0});
    }
  }
  // A stranger learns nothing about which paths exist.
  if (caller.origin == Origin::join)
    return error_response({ErrorCode::denied, "a certificate of this cluster is needed", "", 0});
  if (path_known) {
    HttpResponse response =
        error_response({ErrorCode::invalid, request.path + " does not take " + request.method, "", 0});
    response.status = 405;
    return response;
  }
  return error_response({ErrorCode::not_found, "no such path: " + request.path.substr(0, 200), "", 0});
}

}  // namespace holdfast::control
