// SPDX-License-Identifier: Apache-2.0
#include "platform/lease_word.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include <gtest/gtest.h>

namespace holdfast::platform {
namespace {

using Side = LeaseWord::Side;
constexpr std::int64_t ms = 1'000'000;
constexpr Epoch e1(1), e2(2), e3(3);

class LeaseWordTest : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::remove_all(folder); }
  void TearDown() override { std::filesystem::remove_all(folder); }
  LeaseWord writer() { return LeaseWord::open(Side::writer, path).value(); }
  LeaseWord reader() { return LeaseWord::open(Side::reader, path).value(); }
  std::string folder = std::filesystem::temp_directory_path() / ("hf_lease_" + std::to_string(getpid()));
  std::string path = folder + "/lease";
};

TEST_F(LeaseWordTest, ValidOnlyForItsEpochAndTime) {
  LeaseWord r = reader();  // either side may be first
  EXPECT_FALSE(r.valid(e1));
  EXPECT_FALSE(r.valid(Epoch(0)));
  LeaseWord w = writer();
  ASSERT_TRUE(w.extend(e2, read_clocks(), 60'000 * ms));
  EXPECT_TRUE(r.valid(e2));
  EXPECT_FALSE(r.valid(e1));
  EXPECT_FALSE(r.valid(e3));
  EXPECT_GT(r.remaining_ns(e2), 59'000 * ms);
  EXPECT_LE(r.remaining_ns(e2), 60'000 * ms);
  EXPECT_TRUE(r.over(e1));
  EXPECT_FALSE(r.over(e2));
  EXPECT_EQ(w.extend(e1, read_clocks(), ms).error().code, ErrorCode::stale);
  struct stat st {};
  ASSERT_EQ(stat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0600U);
}

TEST_F(LeaseWordTest, AnyOneOfTheThreeClocksEndsIt) {
  LeaseWord w = writer();
  const ClockReading sent = read_clocks();
  ASSERT_TRUE(w.extend(e1, sent, 2'000 * ms));
  ClockReading now = sent;
  EXPECT_EQ(w.remaining_ns_at(e1, &now), 2'000 * ms);
  now.real_ns += 2'000 * ms;
  EXPECT_EQ(w.remaining_ns_at(e1, &now), 0);
  now = sent;
  now.boot_ns += 2'001 * ms;
  EXPECT_EQ(w.remaining_ns_at(e1, &now), 0);
  if (tsc_hz() > 0) {
    now = sent;
    now.tsc_ticks += static_cast<std::uint64_t>(tsc_hz() * 2.001);
    EXPECT_EQ(w.remaining_ns_at(e1, &now), 0);
  }
  now = sent;
  now.real_ns -= 3'600'000 * ms;
  now.boot_ns += 500 * ms;
  EXPECT_EQ(w.remaining_ns_at(e1, &now), 1'500 * ms) << "an hour back is no gain";
}

TEST_F(LeaseWordTest, LapsedMayBeWonAgainRevokedNever) {
  LeaseWord w = writer();
  LeaseWord r = reader();
  ClockReading past = read_clocks();
  past.boot_ns -= 1'000 * ms;
  ASSERT_TRUE(w.extend(e1, past, 500 * ms));
  EXPECT_FALSE(r.valid(e1));
  ASSERT_TRUE(w.extend(e1, read_clocks(), 60'000 * ms));
  EXPECT_TRUE(r.valid(e1));
  r.revoke(e1);
  EXPECT_FALSE(w.valid(e1));
  EXPECT_EQ(w.extend(e1, read_clocks(), ms).error().code, ErrorCode::stale);
  r.revoke(Epoch(0));
  EXPECT_TRUE(w.over(e1)) << "only rises";
  ASSERT_TRUE(w.extend(e2, read_clocks(), 60'000 * ms));
  EXPECT_TRUE(r.valid(e2));
}

TEST_F(LeaseWordTest, OneWriterAndItsSuccessorGoesOn) {
  {
    LeaseWord w = writer();
    ASSERT_TRUE(w.extend(e1, read_clocks(), 60'000 * ms));
    const auto second = LeaseWord::open(Side::writer, path);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, ErrorCode::busy);
  }
  LeaseWord again = writer();
  EXPECT_TRUE(again.valid(e1)) << "a restart within the lease is not noticed";
}

TEST_F(LeaseWordTest, AWriterThatDiedHalfWayIsNotBelieved) {
  {
    LeaseWord w = writer();
    ASSERT_TRUE(w.extend(e1, read_clocks(), 60'000 * ms));
  }
  const int fd = open(path.c_str(), O_RDWR);
  std::uint32_t lock = 0;
  ASSERT_EQ(pread(fd, &lock, sizeof lock, 12), 4);
  ++lock;
  ASSERT_EQ(pwrite(fd, &lock, sizeof lock, 12), 4);
  close(fd);
  LeaseWord r = reader();
  EXPECT_FALSE(r.valid(e1)) << "and the look ends";
  LeaseWord w = writer();
  EXPECT_FALSE(r.valid(e1)) << "the half-written lease does not come back";
  ASSERT_TRUE(w.extend(e1, read_clocks(), 60'000 * ms));
  EXPECT_TRUE(r.valid(e1));
}

TEST_F(LeaseWordTest, ForeignContentIsRefusedToAReader) {
  std::filesystem::create_directories(folder);
  const int fd = open(path.c_str(), O_RDWR | O_CREAT, 0600);
  ASSERT_EQ(write(fd, "something else entirely", 23), 23);
  close(fd);
  EXPECT_EQ(LeaseWord::open(Side::reader, path).error().code, ErrorCode::corrupt);
  LeaseWord w = writer();
  EXPECT_FALSE(w.valid(w.epoch()));
  EXPECT_TRUE(LeaseWord::open(Side::reader, path));
}

// The child waits in the futex of another process's word; exit status = LeaseWait.
pid_t waiting_child(const std::string& path, Epoch epoch, std::int64_t timeout_ms) {
  const pid_t pid = fork();
  if (pid == 0) {
    const auto r = LeaseWord::open(Side::reader, path);
    _exit(static_cast<int>(r->wait_valid(epoch, timeout_ms)));
  }
  return pid;
}

int outcome(pid_t pid) {
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_F(LeaseWordTest, OtherProcessesAreWoken) {
  LeaseWord w = writer();
  const auto start = std::chrono::steady_clock::now();
  const pid_t valid = waiting_child(path, e2, 20'000), over = waiting_child(path, e1, 20'000),
              late = waiting_child(path, e3, 50);
  EXPECT_EQ(outcome(late), static_cast<int>(LeaseWait::timed_out));
  ASSERT_TRUE(w.extend(e2, read_clocks(), 60'000 * ms));
  EXPECT_EQ(outcome(valid), static_cast<int>(LeaseWait::valid));
  EXPECT_EQ(outcome(over), static_cast<int>(LeaseWait::epoch_over)) << "a later epoch";
  const pid_t revoked = waiting_child(path, e3, 20'000);
  w.revoke(e3);
  EXPECT_EQ(outcome(revoked), static_cast<int>(LeaseWait::epoch_over));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5)) << "woken, not timed out";
}

TEST_F(LeaseWordTest, ReadersNeverSeeAMixture) {
  LeaseWord w = writer();
  LeaseWord r = reader();
  // Epochs alternate between one whose numbers make it valid and one whose numbers make it long over: a mixture would show.
  std::atomic<bool> done = false;
  std::thread t([&] {
    ClockReading old{};
    old.boot_ns = old.real_ns = 1;
    old.tsc_ticks = 1;
    for (std::uint64_t e = 2; e < 100'000; e += 2) {
      (void)w.extend(Epoch(e), read_clocks(), 60'000 * ms);
      (void)w.extend(Epoch(e + 1), old, 1);
    }
    done = true;
  });
  int valid = 0;
  while (!done) {
    const Epoch seen = r.epoch();
    if (r.valid(seen)) {
      ++valid;
      EXPECT_EQ(seen.value % 2, 0U);
    }
  }
  t.join();
  EXPECT_GT(valid, 0);
}

TEST_F(LeaseWordTest, TheHotPathIsCheap) {
  LeaseWord w = writer();
  ASSERT_TRUE(w.extend(e1, read_clocks(), 60'000 * ms));
  constexpr int rounds = 200'000;
  const auto start = std::chrono::steady_clock::now();
  int valid = 0;
  for (int i = 0; i < rounds; ++i) valid += w.valid(e1) ? 1 : 0;
  const auto ns =
      std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - start).count() / rounds;
  EXPECT_EQ(valid, rounds);
  RecordProperty("valid_ns", static_cast<int>(ns));
  EXPECT_LT(ns, 1'000) << "tens of ns; a system call in it would be seen";
}

}  // namespace
}  // namespace holdfast::platform
