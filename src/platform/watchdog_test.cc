// SPDX-License-Identifier: Apache-2.0
#include "platform/watchdog.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>

#include <gtest/gtest.h>

#include "platform/lease_word.h"

namespace holdfast::platform {
namespace {

constexpr std::int64_t ms = 1'000'000;
constexpr int patience_ms = 10'000;

// The watchdog is its own binary, executed again; here that is this test.
__attribute__((constructor)) void be_the_watchdog(int argc, char** argv, char**) {
  if (argc == 4 && std::strcmp(argv[1], "watchdog") == 0) _exit(watchdog_main(argv[2], std::atoll(argv[3])));
}

// Like the kernel's abort file, a pipe can be written but has no offset.
class WatchdogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::filesystem::remove_all(folder_);
    ASSERT_EQ(pipe(pipe_), 0);
    word_.emplace(LeaseWord::open(LeaseWord::Side::writer, path_).value());
  }
  void TearDown() override {
    for (const int fd : pipe_) close(fd);
    std::filesystem::remove_all(folder_);
  }
  bool aborted_within(int timeout_ms) {
    pollfd in{pipe_[0], POLLIN, 0};
    return poll(&in, 1, timeout_ms) == 1;
  }
  const std::string folder_ = std::filesystem::temp_directory_path() / ("hf_watchdog_" + std::to_string(getpid()));
  const std::string path_ = folder_ + "/lease";
  std::optional<LeaseWord> word_;
  int pipe_[2] = {-1, -1};
};

TEST_F(WatchdogTest, AbortsWhenTheLeaseRunsOut) {
  ASSERT_TRUE(word_->extend(Epoch(1), read_clocks(), 300 * ms));
  auto dog = Watchdog::start(path_, 100);
  ASSERT_TRUE(dog);
  ASSERT_TRUE(dog->arm(Epoch(1), pipe_[1]));
  EXPECT_TRUE(aborted_within(patience_ms));
}

TEST_F(WatchdogTest, AbortsWhenTheLeaseIsGivenBack) {
  ASSERT_TRUE(word_->extend(Epoch(1), read_clocks(), 600'000 * ms));
  auto dog = Watchdog::start(path_, 600'000);
  ASSERT_TRUE(dog);
  ASSERT_TRUE(dog->arm(Epoch(1), pipe_[1]));
  EXPECT_FALSE(aborted_within(200));
  word_->revoke(Epoch(1));
  EXPECT_TRUE(aborted_within(patience_ms));
}

TEST_F(WatchdogTest, AbortsWhenTheMirrorIsGone) {
  ASSERT_TRUE(word_->extend(Epoch(1), read_clocks(), 600'000 * ms));
  {
    auto dog = Watchdog::start(path_, 600'000);
    ASSERT_TRUE(dog);
    ASSERT_TRUE(dog->arm(Epoch(1), pipe_[1]));
  }
  EXPECT_TRUE(aborted_within(patience_ms));
}

// A mirror that is stopped can't end what waits in its io_uring, and an abort can't either. Files stand for the kernel's here.
class StoppedMirror : public WatchdogTest {
 protected:
  // How the "mirror", a child that starts the watchdog and stops itself, has ended; nothing when it had not after `patience_ms`.
  std::optional<int> end_of_mirror(int requests_waiting) {
    std::ofstream(folder_ + "/abort") << "0";
    std::ofstream(folder_ + "/waiting") << requests_waiting << "\n";
    EXPECT_TRUE(word_->extend(Epoch(1), read_clocks(), 300 * ms));
    mirror_ = fork();
    if (mirror_ == 0) {
      auto dog = Watchdog::start(path_, 100);
      const int abort_fd = open((folder_ + "/abort").c_str(), O_WRONLY);
      if (dog && dog->arm(Epoch(1), abort_fd)) raise(SIGSTOP);
      _exit(1);
    }
    int status = 0;
    EXPECT_EQ(waitpid(mirror_, &status, WUNTRACED), mirror_);
    EXPECT_TRUE(WIFSTOPPED(status)) << "the mirror could not start its watchdog";
    const int pidfd = static_cast<int>(syscall(SYS_pidfd_open, mirror_, 0));
    pollfd exit{pidfd, POLLIN, 0};
    const bool ended = poll(&exit, 1, requests_waiting > 0 ? patience_ms : 2'000) == 1;
    close(pidfd);
    if (!ended) kill(mirror_, SIGKILL);
    waitpid(mirror_, &status, 0);
    return ended ? std::optional(status) : std::nullopt;
  }
  pid_t mirror_ = -1;
};

TEST_F(StoppedMirror, IsKilledWhenSomebodyWaitsInIt) {
  const auto status = end_of_mirror(2);
  ASSERT_TRUE(status) << "the callers would wait for ever";
  EXPECT_TRUE(WIFSIGNALED(*status) && WTERMSIG(*status) == SIGKILL);
}

TEST_F(StoppedMirror, IsLeftAloneWhenNobodyWaits) { EXPECT_FALSE(end_of_mirror(0)); }

TEST_F(WatchdogTest, WhatWasLetGoOutlivesTheMirrorButNotTheLease) {
  ASSERT_TRUE(word_->extend(Epoch(1), read_clocks(), 600'000 * ms));
  {
    auto dog = Watchdog::start(path_, 600'000);
    ASSERT_TRUE(dog);
    ASSERT_TRUE(dog->arm(Epoch(1), pipe_[1]));
    ASSERT_TRUE(dog->let_go());
  }
  EXPECT_FALSE(aborted_within(200));
  auto dog = Watchdog::start(path_, 600'000);
  ASSERT_TRUE(dog);
  ASSERT_TRUE(dog->arm(Epoch(1), pipe_[1]));
  ASSERT_TRUE(dog->let_go());
  word_->revoke(Epoch(1));
  EXPECT_TRUE(aborted_within(patience_ms));
}

TEST_F(WatchdogTest, DisarmedItLeavesEverythingAlone) {
  ASSERT_TRUE(word_->extend(Epoch(1), read_clocks(), 600'000 * ms));
  {
    auto dog = Watchdog::start(path_, 100);
    ASSERT_TRUE(dog);
    ASSERT_TRUE(dog->arm(Epoch(1), pipe_[1]));
    ASSERT_TRUE(dog->disarm());
    word_->revoke(Epoch(1));
  }
  EXPECT_FALSE(aborted_within(0)) << "the child has ended: nothing more can come";
}

}  // namespace
}  // namespace holdfast::platform
