// SPDX-License-Identifier: Apache-2.0
// As much HTTP/1.1 as the API needs, read strictly: anything else is answered 400 and the connection closed, so that a
// port scanner, a wrong protocol or a broken client costs one small buffer and no guess. No chunked bodies, no upgrades,
// no line folding; sizes are bounded before memory is taken.
#pragma once

#include <map>
#include <string>

#include "base/result.h"
#include "control/stream.h"

namespace holdfast::control {

struct HttpLimits {
  std::size_t head_bytes = 8 * 1024;
  std::size_t body_bytes = 256 * 1024;
  int idle_ms = 60'000;      // between requests
  int transfer_ms = 10'000;  // for the rest of a request once its first byte came, and for writing an answer
};

struct HttpRequest {
  std::string method;
  std::string path;                          // decoded, without the query
  std::map<std::string, std::string> query;  // decoded
  std::string body;
  bool keep_alive = true;
};

struct HttpResponse {
  int status = 200;
  std::string body;
  bool keep_alive = true;
  std::string type = "application/json";
};

// Keeps what was read beyond one message, for the next one on the same connection.
class HttpConnection {
 public:
  HttpConnection(TimedStream& stream, HttpLimits limits) : stream_(stream), limits_(limits) {}

  // not_found = the peer closed between requests (not an error); invalid = not HTTP as we speak it; no_space = too large.
  Result<HttpRequest> read_request();
  Status write_response(const HttpResponse& response);

  Status write_request(const HttpRequest& request);
  Result<HttpResponse> read_response(int wait_ms);

 private:
  struct Head;
  Result<Head> read_head(int first_byte_ms);
  Result<std::string> read_body(std::size_t length);
  Result<std::size_t> fill(int timeout_ms);

  TimedStream& stream_;
  const HttpLimits limits_;
  std::string buffer_;
};

}  // namespace holdfast::control
