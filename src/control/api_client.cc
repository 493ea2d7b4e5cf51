// SPDX-License-Identifier: Apache-2.0
#include "control/api_client.h"

#include <nlohmann/json.hpp>

#include "control/api_routes.h"
#include "control/api_server.h"
#include "control/unix_bridge.h"

namespace holdfast::control {

ApiClient::ApiClient(std::string socket_path) : socket_path_(std::move(socket_path)) {}

Result<nlohmann::json> ApiClient::call(const std::string& method, const std::string& path_and_query,
                                       const nlohmann::json& body, int timeout_ms) const {
  auto stream = platform::UnixStream::connect(socket_path_);
  if (!stream) {
    Error error = stream.error();
    if (error.code == ErrorCode::unavailable) {
      error.message = "holdfastd is not running on this machine";
      error.hint = "start it with: systemctl start holdfastd";
    } else if (error.code == ErrorCode::denied) {
      error.hint = "run it as root, for example with sudo";
    }
    return tl::unexpected(std::move(error));
  }
  UnixTimedStream timed(**stream);
  HttpLimits limits;
  limits.body_bytes = 16 << 20;
  HttpConnection http(timed, limits);
  HttpRequest request;
  request.method = method;
  request.path = path_and_query;
  request.keep_alive = false;
  if (!body.is_null()) request.body = dump(body);
  HF_TRY(http.write_request(request));
  auto response = http.read_response(timeout_ms);
  if (!response && response.error().code == ErrorCode::timeout)
    return tl::unexpected(Error{ErrorCode::timeout,
                                fmt::format("holdfastd did not answer within {} s", timeout_ms / 1000),
                                "look at it with: systemctl status holdfastd", 0});
  if (!response && response.error().code == ErrorCode::not_found)
    return tl::unexpected(Error{ErrorCode::unavailable, "holdfastd closed the connection without an answer",
                                "look at it with: journalctl -u holdfastd", 0});
  if (!response) return tl::unexpected(response.error());
  if (response->status < 200 || response->status > 299) return tl::unexpected(error_from_response(*response));
  auto json = nlohmann::json::parse(response->body, nullptr, false);
  if (json.is_discarded()) return fail(ErrorCode::corrupt, "holdfastd's answer is not JSON");
  return json;
}

}  // namespace holdfast::control
