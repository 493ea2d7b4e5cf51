// SPDX-License-Identifier: Apache-2.0
#include "platform/process.h"

#include <grp.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include <gtest/gtest.h>

namespace holdfast::platform {
namespace {

TEST(Process, OutputStatusAndInput) {
  const CommandResult r = run_command({.argv = {"sh", "-c", "cat; echo two >&2; exit 3"}, .input = "one"}).value();
  EXPECT_EQ(r.out, "one");
  EXPECT_EQ(r.err, "two\n");
  EXPECT_EQ(r.exit_status, 3);
  EXPECT_FALSE(r.ok());
  EXPECT_EQ(run_command({.argv = {"sh", "-c", "kill -9 $$"}})->exit_status, 128 + SIGKILL);
}

TEST(Process, NoShellAndNothingInherited) {
  setenv("HF_SECRET", "x", 1);
  EXPECT_EQ(run_checked({.argv = {"echo", "$HOME; rm"}}).value(), "$HOME; rm\n");
  const std::string env = run_checked({.argv = {"env"}, .environment = {"A=b"}}).value();
  EXPECT_EQ(env.find("HF_SECRET"), std::string::npos);
  EXPECT_NE(env.find("A=b\n"), std::string::npos);
}

TEST(Process, TheWholeGroupDiesAtTheTimeLimit) {
  const auto start = std::chrono::steady_clock::now();
  const CommandResult r =
      run_command({.argv = {"sh", "-c", "sleep 100 & echo $!; sleep 100"}, .timeout_ms = 200}).value();
  EXPECT_TRUE(r.timed_out);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
  const pid_t grandchild = std::stoi(r.out);
  for (int i = 0; i < 1'000 && kill(grandchild, 0) == 0; ++i) {
    // Killed, but its new parent may not have collected it yet.
    const auto stat = run_command({.argv = {"cat", "/proc/" + std::to_string(grandchild) + "/stat"}});
    if (stat->out.find(") Z ") != std::string::npos) return;
  }
  EXPECT_NE(kill(grandchild, 0), 0);
}

TEST(Process, ErrorsAreOneLine) {
  EXPECT_EQ(run_command({.argv = {"no-such-program"}}).error().code, ErrorCode::not_found);
  EXPECT_EQ(run_command({.argv = {"/etc/passwd"}}).error().code, ErrorCode::not_found);
  EXPECT_EQ(run_checked({.argv = {"sh", "-c", "echo one >&2; echo two >&2; exit 1"}}).error().message,
            "sh failed with status 1: two");
  EXPECT_EQ(run_checked({.argv = {"sleep", "9"}, .timeout_ms = 50}).error().code, ErrorCode::timeout);
}

TEST(Process, AsAUser) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root: changes the user";
  const gid_t adm = 4, none = 0;
  ASSERT_EQ(setgroups(1, &adm), 0);
  EXPECT_EQ(run_checked({.argv = {"id", "-un"}, .user = "nobody"}).value(), "nobody\n");
  EXPECT_EQ(run_checked({.argv = {"id", "-Gn"}, .user = "nobody"}).value(), "nogroup\n") << "none of root's groups";
  ASSERT_EQ(setgroups(0, &none), 0);
  EXPECT_NE(run_command({.argv = {"cat", "/etc/shadow"}, .user = "nobody"})->exit_status, 0);
  EXPECT_EQ(run_command({.argv = {"id"}, .user = "no-such-user"}).error().code, ErrorCode::not_found);
}

TEST(Process, LongOutputIsCutNotBlocking) {
  const CommandResult r = run_command({.argv = {"head", "-c", "3000000", "/dev/zero"}, .max_output = 1'000}).value();
  EXPECT_EQ(r.out.size(), 1'000U);
  EXPECT_TRUE(r.ok());
}

TEST(Process, FromManyThreadsAtOnce) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i)
    threads.emplace_back([i] {
      for (int k = 0; k < 10; ++k)
        EXPECT_EQ(run_checked({.argv = {"echo", std::to_string(i)}}).value(), std::to_string(i) + "\n");
    });
  for (std::thread& t : threads) t.join();
}

}  // namespace
}  // namespace holdfast::platform
