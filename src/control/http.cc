// SPDX-License-Identifier: Apache-2.0
#include "control/http.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <chrono>
#include <optional>

namespace holdfast::control {
namespace {

using Steady = std::chrono::steady_clock;

tl::unexpected<Error> not_http(const char* why) {
  return fail(ErrorCode::invalid, "not a valid HTTP request: {}", why);
}

bool is_token(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 ||
           std::string_view("!#$%&'*+-.^_`|~").find(static_cast<char>(c)) != std::string_view::npos;
  });
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

std::optional<std::string> percent_decoded(std::string_view in) {
  std::string out;
  for (std::size_t i = 0; i < in.size(); ++i) {
    if (in[i] != '%') {
      out += in[i];
      continue;
    }
    unsigned value = 0;
    if (i + 2 >= in.size()) return std::nullopt;
    const auto [end, error] = std::from_chars(in.data() + i + 1, in.data() + i + 3, value, 16);
    if (error != std::errc{} || end != in.data() + i + 3 || value == 0) return std::nullopt;
    out += static_cast<char>(value);
    i += 2;
  }
  return out;
}

bool parse_target(std::string_view target, HttpRequest& request) {
  if (target.empty() || target.front() != '/') return false;
  const std::size_t mark = target.find('?');
  const auto path = percent_decoded(target.substr(0, mark));
  if (!path) return false;
  request.path = *path;
  if (mark == std::string_view::npos) return true;
  std::string_view rest = target.substr(mark + 1);
  while (!rest.empty()) {
    const std::string_view pair = rest.substr(0, rest.find('&'));
    rest.remove_prefix(std::min(rest.size(), pair.size() + 1));
    const std::size_t equals = pair.find('=');
    const auto name = percent_decoded(pair.substr(0, equals));
    const auto value = percent_decoded(equals == std::string_view::npos ? "" : pair.substr(equals + 1));
    if (!name || !value || name->empty()) return false;
    request.query[*name] = *value;
  }
  return true;
}

const char* reason_of(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 202:
      return "Accepted";
    case 400:
      return "Bad Request";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 409:
      return "Conflict";
    case 413:
      return "Content Too Large";
    case 429:
      return "Too Many Requests";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    default:
      return status < 400 ? "OK" : "Error";
  }
}

int left_ms(Steady::time_point until) {
  return static_cast<int>(
      std::max<std::int64_t>(0, std::chrono::ceil<std::chrono::milliseconds>(until - Steady::now()).count()));
}

}  // namespace

struct HttpConnection::Head {
  std::string start_line;
  std::optional<std::size_t> content_length;
  bool close = false;
  bool keep_alive = false;
};

Result<std::size_t> HttpConnection::fill(int timeout_ms) {
  std::uint8_t chunk[4096];
  HF_ASSIGN(const std::size_t n, stream_.read_some(chunk, timeout_ms));
  buffer_.append(reinterpret_cast<const char*>(chunk), n);
  return n;
}

Result<HttpConnection::Head> HttpConnection::read_head(int first_byte_ms) {
  if (buffer_.empty()) {
    HF_ASSIGN(const std::size_t n, fill(first_byte_ms));
    if (n == 0) return fail(ErrorCode::not_found, "the connection was closed");
  }
  const auto until = Steady::now() + std::chrono::milliseconds(limits_.transfer_ms);
  std::size_t end = 0;
  for (;;) {
    // Anything that can't begin a method or "HTTP/" is another protocol: say so at once instead of waiting for more of it.
    if (buffer_.front() < 'A' || buffer_.front() > 'Z') return not_http("it does not begin with a method");
    end = buffer_.find("\r\n\r\n");
    if (end != std::string::npos && end <= limits_.head_bytes) break;
    if (buffer_.size() > limits_.head_bytes) return fail(ErrorCode::no_space, "the request's head is too large");
    HF_ASSIGN(const std::size_t n, fill(left_ms(until)));
    if (n == 0) return not_http("it ends in its head");
  }
  const std::string text = buffer_.substr(0, end + 2);
  buffer_.erase(0, end + 4);

  Head head;
  std::size_t at = text.find("\r\n");
  head.start_line = text.substr(0, at);
  for (at += 2; at < text.size();) {
    const std::size_t line_end = text.find("\r\n", at);
    const std::string_view line = std::string_view(text).substr(at, line_end - at);
    at = line_end + 2;
    const std::size_t colon = line.find(':');
    if (colon == std::string_view::npos || !is_token(line.substr(0, colon))) return not_http("a header is malformed");
    if (std::any_of(line.begin(), line.end(), [](unsigned char c) { return c < 0x20 && c != '\t'; }))
      return not_http("a header holds a control character");
    const std::string name = lower(line.substr(0, colon));
    const std::string_view value = trimmed(line.substr(colon + 1));
    if (name == "transfer-encoding") return not_http("chunked bodies are not accepted, send Content-Length");
    if (name == "connection") {
      head.close = lower(value).find("close") != std::string::npos;
      head.keep_alive = lower(value).find("keep-alive") != std::string::npos;
    }
    if (name != "content-length") continue;
    std::size_t length = 0;
    const auto [last, error] = std::from_chars(value.data(), value.data() + value.size(), length);
    // Two lengths are how requests are smuggled: refused even when equal.
    if (error != std::errc{} || last != value.data() + value.size() || head.content_length)
      return not_http("bad Content-Length");
    head.content_length = length;
  }
  return head;
}

Result<std::string> HttpConnection::read_body(std::size_t length) {
  if (length > limits_.body_bytes)
    return fail(ErrorCode::no_space, "the body is larger than {} bytes", limits_.body_bytes);
  const auto until = Steady::now() + std::chrono::milliseconds(limits_.transfer_ms);
  while (buffer_.size() < length) {
    HF_ASSIGN(const std::size_t n, fill(left_ms(until)));
    if (n == 0) return not_http("it ends in its body");
  }
  std::string body = buffer_.substr(0, length);
  buffer_.erase(0, length);
  return body;
}

Result<HttpRequest> HttpConnection::read_request() {
  HF_ASSIGN(const Head head, read_head(limits_.idle_ms));
  const std::string& line = head.start_line;
  const std::size_t first = line.find(' ');
  const std::size_t second = line.find(' ', first + 1);
  if (first == std::string::npos || second == std::string::npos) return not_http("bad request line");
  HttpRequest request;
  request.method = line.substr(0, first);
  const std::string version = line.substr(second + 1);
  if (!is_token(request.method) || (version != "HTTP/1.1" && version != "HTTP/1.0"))
    return not_http("bad request line");
  if (!parse_target(std::string_view(line).substr(first + 1, second - first - 1), request))
    return not_http("bad target");
  request.keep_alive = version == "HTTP/1.1" ? !head.close : head.keep_alive;
  HF_ASSIGN(request.body, read_body(head.content_length.value_or(0)));
  return request;
}

Status HttpConnection::write_response(const HttpResponse& response) {
  const std::string text = fmt::format(
      "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: "
      "no-store\r\nConnection: {}\r\n\r\n{}",
      response.status, reason_of(response.status), response.type, response.body.size(),
      response.keep_alive ? "keep-alive" : "close", response.body);
  return stream_.write_all(as_bytes(text), limits_.transfer_ms);
}

Status HttpConnection::write_request(const HttpRequest& request) {
  std::string target = request.path;
  for (const auto& [name, value] : request.query)
    target += (target.find('?') == std::string::npos ? "?" : "&") + name + "=" + value;
  const std::string text = fmt::format(
      "{} {} HTTP/1.1\r\nHost: holdfast\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: "
      "{}\r\n\r\n{}",
      request.method, target, request.body.size(), request.keep_alive ? "keep-alive" : "close", request.body);
  return stream_.write_all(as_bytes(text), limits_.transfer_ms);
}

Result<HttpResponse> HttpConnection::read_response(int wait_ms) {
  HF_ASSIGN(const Head head, read_head(wait_ms));
  HttpResponse response;
  const std::string& line = head.start_line;
  if (line.size() < 12 || !line.starts_with("HTTP/1.") || line[8] != ' ')
    return fail(ErrorCode::corrupt, "the answer is not HTTP");
  const auto [end, error] = std::from_chars(line.data() + 9, line.data() + 12, response.status);
  if (error != std::errc{} || end != line.data() + 12) return fail(ErrorCode::corrupt, "the answer is not HTTP");
  if (!head.content_length) return fail(ErrorCode::corrupt, "the answer has no length");
  response.keep_alive = !head.close;
  HF_ASSIGN(response.body, read_body(*head.content_length));
  return response;
}

}  // namespace holdfast::control
