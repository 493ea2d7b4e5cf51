// SPDX-License-Identifier: Apache-2.0
#include "control/http.h"

#include <random>

#include <gtest/gtest.h>

namespace holdfast::control {
namespace {

// Gives the input in pieces of `step` bytes, then ends (or times out).
class MemoryStream final : public TimedStream {
 public:
  explicit MemoryStream(std::string in, std::size_t step = 7, bool stalls = false)
      : in_(std::move(in)), step_(step), stalls_(stalls) {}
  Result<std::size_t> read_some(std::span<std::uint8_t> into, int) override {
    if (in_.empty() && stalls_) return fail(ErrorCode::timeout, "no answer in time");
    const std::size_t n = std::min({step_, in_.size(), into.size()});
    std::copy_n(in_.begin(), n, into.begin());
    in_.erase(0, n);
    return n;
  }
  Status write_all(ByteView bytes, int) override {
    out += as_text(bytes);
    return {};
  }
  std::string out;

 private:
  std::string in_;
  std::size_t step_;
  bool stalls_;
};

Result<HttpRequest> parse(const std::string& text) {
  MemoryStream stream(text);
  return HttpConnection(stream, HttpLimits{}).read_request();
}

TEST(Http, ReadsRequestsOneAfterTheOther) {
  for (const std::size_t step : {1u, 7u, 4096u}) {
    MemoryStream stream(
        "POST /v1/init HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n{\"a\"GET /v1/events?since=a:1%2Cb:2&limit=5 "
        "HTTP/1.1\r\n\r\n",
        step);
    HttpConnection http(stream, HttpLimits{});
    const auto first = http.read_request();
    ASSERT_TRUE(first) << first.error().message;
    EXPECT_EQ(first->method, "POST");
    EXPECT_EQ(first->body, "{\"a\"");
    const auto second = http.read_request();
    ASSERT_TRUE(second) << second.error().message;
    EXPECT_EQ(second->path, "/v1/events");
    EXPECT_EQ(second->query.at("since"), "a:1,b:2");
    EXPECT_EQ(second->query.at("limit"), "5");
    EXPECT_EQ(http.read_request().error().code, ErrorCode::not_found);
  }
}

TEST(Http, KeepAliveFollowsTheVersionAndTheHeader) {
  EXPECT_TRUE(parse("GET / HTTP/1.1\r\n\r\n")->keep_alive);
  EXPECT_FALSE(parse("GET / HTTP/1.1\r\nConnection: close\r\n\r\n")->keep_alive);
  EXPECT_FALSE(parse("GET / HTTP/1.0\r\n\r\n")->keep_alive);
  EXPECT_TRUE(parse("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")->keep_alive);
}

TEST(Http, RefusesWhatItDoesNotSpeak) {
  const std::string bad[] = {
      "\x16\x03\x01\x02",    // TLS on the plain port
      "GET / HTTP/1.1\n\n",  // bare line feeds: never ends
      "GET /\r\n\r\n",       // HTTP/0.9
      "GET / HTTP/2.0\r\n\r\n",
      "G(T / HTTP/1.1\r\n\r\n",
      "GET http://x/ HTTP/1.1\r\n\r\n",
      "GET /%zz HTTP/1.1\r\n\r\n",
      "GET /%00 HTTP/1.1\r\n\r\n",
      "GET /%4 HTTP/1.1\r\n\r\n",
      "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
      "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",  // smuggling
      "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
      "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
      "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc",
      "GET / HTTP/1.1\r\n folded: x\r\n\r\n",
      "GET / HTTP/1.1\r\nno colon\r\n\r\n",
      std::string("GET / HTTP/1.1\r\nA: \x01\r\n\r\n"),
  };
  for (const std::string& text : bad) {
    const auto request = parse(text);
    ASSERT_FALSE(request) << text;
    EXPECT_EQ(request.error().code, ErrorCode::invalid) << text;
  }
}

TEST(Http, SizesAreBoundedBeforeMemoryIsTaken) {
  EXPECT_EQ(parse("GET /" + std::string(9000, 'a') + " HTTP/1.1\r\n\r\n").error().code, ErrorCode::no_space);
  EXPECT_EQ(parse("POST / HTTP/1.1\r\nContent-Length: 300000\r\n\r\n").error().code, ErrorCode::no_space);
}

TEST(Http, SlowClientTimesOut) {
  MemoryStream stream("GET / HT", 7, true);
  EXPECT_EQ(HttpConnection(stream, HttpLimits{}).read_request().error().code, ErrorCode::timeout);
}

TEST(Http, AnswerReadsBack) {
  MemoryStream server("");
  ASSERT_TRUE(HttpConnection(server, HttpLimits{}).write_response({409, "{\"error\":{}}", false}));
  MemoryStream client(server.out);
  const auto response = HttpConnection(client, HttpLimits{}).read_response(1000);
  ASSERT_TRUE(response) << response.error().message;
  EXPECT_EQ(response->status, 409);
  EXPECT_EQ(response->body, "{\"error\":{}}");
  EXPECT_FALSE(response->keep_alive);
  MemoryStream cut(server.out.substr(0, server.out.size() - 3));
  EXPECT_FALSE(HttpConnection(cut, HttpLimits{}).read_response(1000));
}

// Mutations of a valid request: any outcome but a crash or an over-read (the sanitizer build looks too).
TEST(Http, GarbageNeverHarms) {
  std::mt19937 random(7);
  const std::string valid =
      "POST /v1/config?a=b%20c HTTP/1.1\r\nHost: h\r\nContent-Length: 12\r\nConnection: close\r\n\r\n{\"key\":\"va\"}";
  int accepted = 0;
  for (int round = 0; round < 20'000; ++round) {
    std::string text = valid;
    for (unsigned n = random() % 4; n > 0; --n) {
      const std::size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[at] = static_cast<char>(random());
          break;
        case 1:
          text.erase(at, random() % 9);
          break;
        default:
          text.insert(at, valid.substr(random() % valid.size(), random() % 20));
          break;
      }
      if (text.empty()) text = "x";
    }
    MemoryStream stream(text, 1 + random() % 64);
    HttpConnection http(stream, HttpLimits{});
    for (int i = 0; i < 4; ++i) {
      const auto request = http.read_request();
      if (!request) break;
      EXPECT_LE(request->body.size(), HttpLimits{}.body_bytes);
      ++accepted;
    }
  }
  EXPECT_GT(accepted, 3000);
}

}  // namespace
}  // namespace holdfast::control
