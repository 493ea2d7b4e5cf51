// SPDX-License-Identifier: Apache-2.0
#include "control/api_server.h"

#include <filesystem>
#include <random>
#include <thread>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "control/api_client.h"
#include "control/api_routes.h"
#include "control/testing/fake_handlers.h"
#include "control/testing/temporary_folder.h"
#include "control/unix_bridge.h"

namespace holdfast::control {
namespace {

using nlohmann::json;

class Api : public ::testing::Test {
 protected:
  FakeHandlers fake;
  ApiServer server{fake};
  TemporaryFolder tmp;
  std::string socket = tmp / "api.sock";

  HttpResponse ask(const std::string& method, const std::string& path, const std::string& body = "",
                   Origin origin = Origin::local) {
    Caller caller;
    caller.origin = origin;
    caller.address = "10.0.0.7:4711";
    HttpRequest request;
    request.method = method, request.path = path, request.body = body;
    return server.handle(request, caller);
  }
  static std::string message(const HttpResponse& r) { return json::parse(r.body).at("error").at("message"); }
};

TEST_F(Api, EveryRouteByOrigin) {
  for (const ApiRoute& route : api_routes()) {
    const std::string path = std::string(route.path).ends_with('/') ? std::string(route.path) + "p1" : route.path;
    const auto open_to = [&](Origin origin) {
      const HttpResponse r = ask(route.method, path, R"({"actor":"alice"})", origin);
      return r.status != 403 && r.status != 429;
    };
    EXPECT_EQ(open_to(Origin::local), route.local) << path;
    EXPECT_EQ(open_to(Origin::peer), route.peer) << path;
    EXPECT_EQ(open_to(Origin::witness), path == "/v1/renew") << path << ": a witness votes, and nothing else";
    if (!route.join) {
      EXPECT_FALSE(open_to(Origin::join)) << path;
    }
  }
}

TEST_F(Api, StrangersMayOnlyAskToJoinAndNotOften) {
  EXPECT_EQ(ask("GET", "/v1/status", "", Origin::join).status, 403);
  EXPECT_EQ(ask("GET", "/v1/nonsense", "", Origin::join).status, 403);
  int admitted = 0, limited = 0;
  EXPECT_EQ(ask("POST", "/v1/join/asks", R"({"token":"t","kind":"node"})", Origin::join).status, 200);
  for (int i = 0; i < 30; ++i) {
    const int status = ask("POST", "/v1/join", R"({"token":"t","node":"n2"})", Origin::join).status;
    admitted += status == 200;
    limited += status == 429;
  }
  EXPECT_EQ(admitted, 17) << "three of twenty were spent above";
  EXPECT_EQ(limited, 13);
  EXPECT_EQ(fake.calls.at(0), "admit joining from 10.0.0.7:4711 n2");
}

TEST_F(Api, RateLimitForgetsAndBoundsAll) {
  RateLimit limit(2, 1000);
  EXPECT_TRUE(limit.allow("a", 0));
  EXPECT_TRUE(limit.allow("a", 10));
  EXPECT_FALSE(limit.allow("a", 20));
  EXPECT_TRUE(limit.allow("b", 20));
  EXPECT_TRUE(limit.allow("a", 1001));
  int allowed = 0;
  for (int i = 0; i < 100; ++i) allowed += limit.allow(std::to_string(i), 5000) ? 1 : 0;
  EXPECT_EQ(allowed, 16);
}

TEST_F(Api, MutationsNeedAnActorAndLeaveAnEvent) {
  EXPECT_EQ(message(ask("POST", "/v1/make-active", R"({"node":"n2"})")),
            "\"actor\" must say who asks: 1 to 128 printable characters");
  EXPECT_EQ(ask("POST", "/v1/make-active", R"({"node":"n2","actor":"a\nb"})").status, 400);
  EXPECT_TRUE(fake.calls.empty());
  fake.accepted = {"switchover-1", "holdfast make-active n1", ""};
  const HttpResponse accepted = ask("POST", "/v1/make-active", R"({"node":"n2","actor":"alice"})");
  EXPECT_EQ(accepted.status, 202);
  EXPECT_EQ(json::parse(accepted.body)["plan"], "switchover-1");
  EXPECT_EQ(fake.calls.at(0), "make_active alice n2");
  ASSERT_EQ(fake.recorded.size(), 1u);
  EXPECT_EQ(fake.recorded[0].text, "make-active n2");
  EXPECT_EQ(fake.recorded[0].actor, "alice");
  fake.refusal = Error{ErrorCode::refused, "n2 is not synchronized", "wait for it", 0};
  const HttpResponse refused = ask("POST", "/v1/make-active", R"({"node":"n2","actor":"alice"})");
  EXPECT_EQ(refused.status, 409);
  EXPECT_EQ(refused.body, R"({"error":{"code":"refused","hint":"wait for it","message":"n2 is not synchronized"}})");
  EXPECT_EQ(fake.recorded.at(1).text, "make-active n2: n2 is not synchronized");
  EXPECT_EQ(fake.recorded.at(1).code, "make_active_refused");
}

TEST_F(Api, SecretsStayOutOfEvents) {
  EXPECT_EQ(ask("POST", "/v1/join", R"({"address":"10.0.0.1","token":"hf1-SECRET","actor":"root"})").status, 200);
  EXPECT_EQ(ask("POST", "/v1/token", R"({"actor":"root"})").status, 200);
  for (const EventDraft& e : fake.recorded) EXPECT_EQ(e.text.find("SECRET"), std::string::npos) << e.text;
  EXPECT_EQ(fake.recorded.size(), 2u);
}

TEST_F(Api, BodiesAreReadStrictly) {
  EXPECT_EQ(message(ask("POST", "/v1/failover", R"({"actor":"a","forse":true})")),
            "failover: has the unknown member \"forse\"");
  EXPECT_EQ(message(ask("POST", "/v1/failover", R"({"actor":"a","force":"yes"})")),
            "failover: force must be true or false");
  EXPECT_EQ(message(ask("POST", "/v1/token", R"({"actor":"a","ttl_s":99999999999999999999})")),
            "token: ttl_s must be a whole number");
  EXPECT_EQ(message(ask("POST", "/v1/init", R"({"actor":"a","channel":"10.0.0.1"})")), "init: channel must be a list");
  EXPECT_EQ(message(ask("POST", "/v1/init", "[1]")), "the body must be a JSON object");
  EXPECT_EQ(message(ask("POST", "/v1/init", "{")), "the body must be a JSON object");
}

TEST_F(Api, WrongPathsAndMethods) {
  EXPECT_EQ(ask("GET", "/").status, 404);
  EXPECT_EQ(ask("DELETE", "/v1/status").status, 405);
  const HttpResponse metrics = ask("GET", "/v1/metrics");
  EXPECT_EQ(metrics.status, 200);
  EXPECT_TRUE(metrics.body.starts_with("# HELP holdfast_state ")) << metrics.body;
  EXPECT_TRUE(metrics.type.starts_with("text/plain; version=0.0.4"));
  EXPECT_EQ(ask("GET", "/v1/plans/a/b").status, 404);
  EXPECT_EQ(ask("GET", "/v1/plans/").status, 404);
}

TEST_F(Api, SpeaksOverTheSocket) {
  ASSERT_TRUE(server.listen(socket));
  EXPECT_EQ(std::filesystem::status(socket).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  fake.cluster.name = "erp";
  const ApiClient client(socket);
  const auto status = client.call("GET", "/v1/status", nullptr, 5000);
  ASSERT_TRUE(status) << status.error().to_string();
  EXPECT_EQ(cluster_status_from_json(*status)->name, "erp");
  fake.refusal = Error{ErrorCode::refused, "no", "hint", 0};
  const auto refused = client.call("POST", "/v1/release", {{"actor", "alice"}}, 5000);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::refused);
  EXPECT_EQ(refused.error().to_string(), "no: hint");
}

TEST_F(Api, SecondServerAndStaleSocket) {
  ASSERT_TRUE(server.listen(socket));
  ApiServer second(fake);
  EXPECT_EQ(second.listen(socket).error().code, ErrorCode::exists);
  server.stop();
  EXPECT_FALSE(std::filesystem::exists(socket));
  const auto gone = ApiClient(socket).call("GET", "/v1/status", nullptr, 5000);
  EXPECT_EQ(gone.error().code, ErrorCode::unavailable);
  EXPECT_EQ(gone.error().to_string(),
            "holdfastd is not running on this machine: start it with: systemctl start holdfastd");
  EXPECT_TRUE(second.listen(socket));
}

TEST_F(Api, GarbageOnTheSocketIsAnsweredOrDroppedNeverFatal) {
  ASSERT_TRUE(server.listen(socket));
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    auto stream = platform::UnixStream::connect(socket);
    ASSERT_TRUE(stream);
    std::string bytes(1 + random() % 300, 0);
    for (char& c : bytes) c = static_cast<char>(random());
    if (round % 3 == 0) bytes = "POST /v1/init HTTP/1.1\r\nContent-Length: 5\r\n\r\n" + bytes;
    if (!(*stream)->write_all(as_bytes(bytes), 1000)) continue;
  }
  EXPECT_TRUE(ApiClient(socket).call("GET", "/v1/status", nullptr, 5000));
}

TEST_F(Api, ManyAtOnceAndStopWithOpenConnections) {
  ASSERT_TRUE(server.listen(socket));
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (int t = 0; t < 8; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) good += ApiClient(socket).call("GET", "/v1/status", nullptr, 5000) ? 1 : 0;
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(good, 400);
  auto idle = platform::UnixStream::connect(socket);
  ASSERT_TRUE(idle);
  server.stop();
  std::uint8_t byte;
  const auto end = (*idle)->read_some({&byte, 1}, 5000);
  EXPECT_TRUE(!end || *end == 0) << "an idle connection doesn't hold up the stop";
}

TEST(ApiErrors, ComeBackAsTheyWere) {
  for (const ErrorCode code :
       {ErrorCode::invalid, ErrorCode::refused, ErrorCode::exists, ErrorCode::timeout, ErrorCode::corrupt}) {
    const Error back = error_from_response(error_response({code, "what", "do", 0}));
    EXPECT_EQ(back.code, code);
    EXPECT_EQ(back.to_string(), "what: do");
  }
  EXPECT_EQ(error_from_response({500, "<html>", true}).message, "the server answered with status 500");
}

TEST(Model, StatusReadsBackWhatItWrote) {
  ClusterStatus s;
  s.time_ms = 1'795'000'000'123, s.name = "erp", s.mode = "fsync";
  NodeStatus n;
  n.name = "n1", n.role = "active", n.synchronized = true, n.recovery_point_s = 0.0, n.since_ms = 1'795'000'000'000;
  n.channel.push_back({"10.0.0.1 -> 10.0.0.2", "up", 0.25});
  NodeStatus m;
  m.name = "n2", m.role = "passive";
  m.sync_progress = SyncProgress{"resync", 43.0, 43, 100, 5, 12.0};
  m.last_sync = LastSync{"partial", 3, 4, 5, 6};
  n.hot = HotStatus{7, {1, 3}};
  s.nodes = {n, m};
  s.lease = LeaseStatus{"n1", 1800, 7};
  s.plan = PlanStatus{};
  s.plan->id = "p", s.plan->steps.push_back({"drain", "mirror", "running", 1.25, 30, 1, false, "x"});
  const json j = to_json(s);
  EXPECT_EQ(j["nodes"][0]["recovery_point_s"], 0.0);
  EXPECT_TRUE(j["nodes"][1]["recovery_point_s"].is_null()) << "unknown is not zero";
  EXPECT_EQ(j["nodes"][0]["since"], iso_time(1'795'000'000'000));
  EXPECT_EQ(j["witness"], nullptr);
  const auto back = cluster_status_from_json(j);
  ASSERT_TRUE(back) << back.error().to_string();
  EXPECT_EQ(to_json(*back), j);
  json newer = j;
  newer["something_new"] = 1;
  EXPECT_TRUE(cluster_status_from_json(newer));
  newer["nodes"][0]["synchronized"] = "yes";
  EXPECT_EQ(cluster_status_from_json(newer).error().message,
            "status: nodes has an item that synchronized must be true or false");
}

TEST(Model, TimesAreStrict) {
  EXPECT_EQ(from_iso_time("2026-11-25T17:40:00.123Z").value() % 1000, 123);
  EXPECT_EQ(from_iso_time(iso_time(1'795'000'000'007)).value(), 1'795'000'000'007);
  EXPECT_EQ(from_iso_time("1970-01-01T00:00:01Z").value(), 1000);
  for (const char* bad :
       {"", "yesterday", "2026-11-25", "2026-11-25T17:40:00", "2026-11-25T17:40:00+01:00", "2026-11-25T17:40:00Zx"})
    EXPECT_FALSE(from_iso_time(bad)) << bad;
}

}  // namespace
}  // namespace holdfast::control
