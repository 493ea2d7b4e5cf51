// SPDX-License-Identifier: Apache-2.0
// MirrorClient against a real socket with a mirror that misbehaves.
#include "daemon/holdfastd/mirror_client.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <condition_variable>
#include <csignal>
#include <filesystem>
#include <future>

namespace holdfast::daemon {
namespace {

using namespace std::chrono_literals;

// One connection at a time, served by the test itself.
struct FakeMirror {
  std::string dir = std::filesystem::temp_directory_path() / fmt::format("hf-mirror-{}", getpid());
  std::string path = dir + "/mirror.sock";
  int listen_fd = -1, fd = -1;

  FakeMirror() {
    std::filesystem::create_directories(dir);
    unlink(path.c_str());
    listen_fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    sockaddr_un a{};
    a.sun_family = AF_UNIX;
    path.copy(a.sun_path, sizeof a.sun_path - 1);
    EXPECT_EQ(bind(listen_fd, reinterpret_cast<sockaddr*>(&a), sizeof a), 0);
    EXPECT_EQ(listen(listen_fd, 4), 0);
  }
  ~FakeMirror() {
    hang_up();
    close(listen_fd);
    std::filesystem::remove_all(dir);
  }
  void take() { fd = accept(listen_fd, nullptr, nullptr); }
  void hang_up() {
    if (fd >= 0) close(fd);
    fd = -1;
  }
  nlohmann::json receive() {
    char buffer[4096];
    const ssize_t n = recv(fd, buffer, sizeof buffer, 0);
    return nlohmann::json::parse(std::string(buffer, n > 0 ? static_cast<std::size_t>(n) : 0), nullptr, false);
  }
  void say(const std::string& text) {
    EXPECT_EQ(send(fd, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
};

struct Seen {
  std::mutex mutex;
  std::condition_variable changed;
  int connected = 0, lost = 0;
  std::vector<nlohmann::json> events;
  std::chrono::steady_clock::time_point lost_at;
  MirrorClient::Events hooks() {
    return {[this] { bump([this] { ++connected; }); },
            [this] {
              bump([this] {
                ++lost;
                lost_at = std::chrono::steady_clock::now();
              });
            },
            [this](nlohmann::json e) { bump([this, e = std::move(e)] { events.push_back(e); }); }};
  }
  template <class F>
  void bump(F f) {
    const std::lock_guard lock(mutex);
    f();
    changed.notify_all();
  }
  template <class P>
  bool wait(P holds) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, 5s, holds);
  }
};

std::future<Result<nlohmann::json>> ask(MirrorClient& client, const char* op, int timeout_ms) {
  auto promise = std::make_shared<std::promise<Result<nlohmann::json>>>();
  auto future = promise->get_future();
  client.request(op, {{"epoch", 3}}, timeout_ms,
                 [promise](Result<nlohmann::json> r) { promise->set_value(std::move(r)); });
  return future;
}

TEST(MirrorClient, RepliesRefusalsEventsAndGarbage) {
  FakeMirror mirror;
  Seen seen;
  MirrorClient client(mirror.path, seen.hooks());
  mirror.take();
  ASSERT_TRUE(seen.wait([&] { return seen.connected == 1; }));

  auto first = ask(client, "seal", 5000);
  const nlohmann::json request = mirror.receive();
  EXPECT_EQ(request["op"], "seal");
  EXPECT_EQ(request["epoch"], 3);
  mirror.say("\xff\xfe not json");
  mirror.say("[1,2]");
  mirror.say(R"({"id":999,"ok":true})");
  mirror.say(R"({"event":"fault","reason":"EIO"})");
  mirror.say(nlohmann::json{{"id", request["id"]}, {"ok", true}, {"position", {{"epoch", 2}, {"seq", 77}}}}.dump());
  const auto reply = first.get();
  ASSERT_TRUE(reply) << reply.error().to_string();
  EXPECT_EQ(position_from(*reply, "position")->sequence, Sequence(77));
  EXPECT_FALSE(position_from(*reply, "elsewhere"));
  ASSERT_TRUE(seen.wait([&] { return seen.events.size() == 1; }));

  auto second = ask(client, "release_capture", 5000);
  const nlohmann::json held = mirror.receive();
  mirror.say(nlohmann::json{{"id", held["id"]},
                            {"ok", false},
                            {"code", "busy"},
                            {"error", "held"},
                            {"holders", {{{"pid", 12}, {"comm", "psql"}, {"path", "/data/x"}}}}}
                 .dump());
  const auto refusal = second.get();
  ASSERT_FALSE(refusal);
  EXPECT_EQ(refusal.error().code, ErrorCode::busy);
  EXPECT_NE(refusal.error().hint.find("psql(12) /data/x"), std::string::npos) << refusal.error().hint;
}

TEST(MirrorClient, DeathIsNoticedWithinMillisecondsAndPendingRequestsAnswered) {
  FakeMirror mirror;
  Seen seen;
  MirrorClient client(mirror.path, seen.hooks());
  mirror.take();
  ASSERT_TRUE(seen.wait([&] { return seen.connected == 1; }));
  auto pending = ask(client, "activate", 60'000);
  mirror.receive();
  const auto died = std::chrono::steady_clock::now();
  mirror.hang_up();
  ASSERT_TRUE(seen.wait([&] { return seen.lost == 1; }));
  EXPECT_LT(seen.lost_at - died, 150ms);
  EXPECT_EQ(pending.get().error().code, ErrorCode::unavailable);
  mirror.take();  // it dials again
  EXPECT_TRUE(seen.wait([&] { return seen.connected == 2; }));
}

// Stopped, it answers nothing and takes no other signal; the process itself is found through its socket.
TEST(MirrorClient, KillsAMirrorThatHangs) {
  FakeMirror mirror;
  const pid_t pid = fork();
  if (pid == 0) {
    // The credentials that a client sees are those of who called listen().
    if (listen(mirror.listen_fd, 4) == 0) raise(SIGSTOP);
    _exit(1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, WUNTRACED), pid);
  ASSERT_TRUE(WIFSTOPPED(status));
  Seen seen;
  MirrorClient nobody("/nonexistent/mirror.sock", {[] {}, [] {}, [](nlohmann::json) {}});
  EXPECT_FALSE(nobody.kill());
  MirrorClient client(mirror.path, seen.hooks());
  ASSERT_TRUE(seen.wait([&] { return seen.connected == 1; }));
  EXPECT_TRUE(client.kill());
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

TEST(MirrorClient, TimeoutAndAbsence) {
  FakeMirror mirror;
  Seen seen;
  MirrorClient client(mirror.path, seen.hooks());
  mirror.take();
  ASSERT_TRUE(seen.wait([&] { return seen.connected == 1; }));
  EXPECT_EQ(ask(client, "status", 60).get().error().code, ErrorCode::timeout);
  MirrorClient nobody("/nonexistent/mirror.sock", seen.hooks());
  EXPECT_EQ(ask(nobody, "status", 60).get().error().code, ErrorCode::unavailable);
}

}  // namespace
}  // namespace holdfast::daemon
