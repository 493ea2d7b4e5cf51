// SPDX-License-Identifier: Apache-2.0
#include "mirror/log_ring.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "mirror/active_log.h"

namespace holdfast::mirror {
namespace {

class TestTimes final : public ports::Times {
 public:
  std::int64_t realtime_ns() override { return now; }
  std::int64_t steady_ns() override { return now; }
  std::atomic<std::int64_t> now{1'000'000'000};
};

class LogRingTest : public ::testing::Test {
 protected:
  LogRingTest() : ring(least_ring_bytes, times) { ring.open(Epoch(1), {}); }

  Sequence append(std::size_t payload_bytes, NodeId to = NodeId(0)) {
    EXPECT_TRUE(ring.try_reserve(payload_bytes));
    return append_reserved(payload_bytes, to);
  }
  Sequence append_reserved(std::size_t payload_bytes, NodeId to = NodeId(0)) {
    const Bytes payload(payload_bytes, static_cast<std::uint8_t>(payload_bytes));
    log::Record r;
    r.kind = to.value != 0 ? log::Kind::ship_data : log::Kind::write;
    r.addressed_to = to;
    r.file.bytes[0] = 1;
    r.payload = payload;
    return ring.append(r, payload_bytes);
  }
  // Takes everything there is, checks it, and says how far it got.
  std::uint64_t drain(LogRing::Cursor& cursor, std::uint64_t after, NodeId reader = NodeId(9), int* noops = nullptr) {
    Bytes records;
    for (;;) {
      records.clear();
      const auto batch = ring.take(cursor, 256 * 1024, reader, records);
      if (batch.count == 0) return after;
      EXPECT_EQ(batch.first.sequence.value, after + 1);
      for (ByteView rest = records; !rest.empty();) {
        log::RecordHead head;
        EXPECT_EQ(log::inspect(rest, head), log::Found::record);
        EXPECT_EQ(head.sequence.value, ++after);
        if (head.kind == log::Kind::noop && noops) ++*noops;
        rest = rest.subspan(head.length);
      }
      EXPECT_EQ(batch.last.sequence.value, after);
      for (const auto& retry : ring.release(cursor, batch.end)) retry();
    }
  }

  TestTimes times;
  LogRing ring;
};

TEST_F(LogRingTest, ManyTimesAroundInOrder) {
  auto cursor = ring.attach({}).value();
  std::mt19937 random(1);
  std::uint64_t read = 0;
  for (int i = 0; i < 3000; ++i) {
    append(random() % 50'000);
    if (random() % 4 == 0) read = drain(*cursor, read);
  }
  EXPECT_EQ(drain(*cursor, read), 3000U);
  EXPECT_EQ(ring.used_bytes(), 0U);
}

TEST_F(LogRingTest, ConcurrentAppendersFillEverySequence) {
  auto cursor = ring.attach({}).value();
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 3; ++t)
    threads.emplace_back([&, t] {
      std::mt19937 random(t);
      for (int i = 0; i < 800; ++i) {
        const std::size_t bytes = random() % (i % 5 == 0 ? 200'000 : 3000);
        while (!ring.try_reserve(bytes)) std::this_thread::yield();
        append_reserved(bytes);
      }
    });
  std::uint64_t read = 0;
  while (read < 2400) {
    ring.wait(*cursor, 100, 0, 1);
    read = drain(*cursor, read);
  }
  for (auto& t : threads) t.join();
  EXPECT_EQ(ring.last_sequence(), Sequence(2400));
}

TEST_F(LogRingTest, AReaderThatLingersIsWokenByAKickOrByMuch) {
  auto cursor = ring.attach({}).value();
  constexpr int never_ms = 600'000;
  append(10);
  std::thread kicker([&] { ring.kick(*cursor); });
  EXPECT_EQ(ring.wait(*cursor, never_ms, never_ms, 100'000), LogRing::Wake::hurry);
  kicker.join();
  std::thread much([&] { append(100'000); });
  EXPECT_EQ(ring.wait(*cursor, never_ms, never_ms, 100'000), LogRing::Wake::data);
  much.join();
  EXPECT_EQ(drain(*cursor, 0), 2U);
  append(10);
  EXPECT_EQ(ring.wait(*cursor, never_ms, 0, 100'000), LogRing::Wake::data) << "no patience, no wait";
}

TEST_F(LogRingTest, FindsAPlaceInALongHistory) {
  constexpr std::uint64_t count = 40'000;  // more than the ring holds
  for (std::uint64_t i = 0; i < count; ++i) {
    append(i % 700);
    times.now += i % 3 == 0 ? 4'000'000 : 0;
  }
  std::uint64_t found = 0;
  for (std::uint64_t at = 1; at <= count; at += 7) {
    auto cursor = ring.attach({Epoch(1), Sequence(at)});
    if (!cursor) {
      EXPECT_EQ(found, 0U) << "what is kept has no holes";
      continue;
    }
    ++found;
    Bytes records;
    const auto batch = ring.take(**cursor, 4096, NodeId(9), records);
    EXPECT_EQ(batch.first.sequence.value, at + 1);
    EXPECT_TRUE(ring.detach(*cursor).empty());
  }
  EXPECT_GT(found, 100U);
  EXPECT_LT(found, count / 7);
  EXPECT_FALSE(ring.attach({Epoch(2), Sequence(count)})) << "another history";
}

TEST_F(LogRingTest, PiecesAreTakenTogetherOrNotAtAll) {
  std::size_t filled = 0;
  while (ring.try_reserve(500'000)) ++filled;
  bool woken = false;
  ring.when_space([&] { woken = true; });
  const std::size_t pieces[] = {10, 500'000};
  EXPECT_FALSE(ring.try_reserve_all(pieces));
  EXPECT_FALSE(woken) << "nothing was taken, so nothing came back";
  ring.give_back(500'000);
  ring.give_back(500'000);
  EXPECT_TRUE(ring.try_reserve_all(pieces));
}

TEST_F(LogRingTest, AFullRingParksUntilThePeerMovesOn) {
  auto cursor = ring.attach({}).value();
  while (ring.try_reserve(500'000)) append_reserved(500'000);
  bool called = false;
  ring.when_space([&] { called = true; });
  EXPECT_FALSE(ring.try_reserve(500'000));
  drain(*cursor, 0);
  EXPECT_TRUE(called);
  EXPECT_TRUE(ring.try_reserve(500'000));
}

TEST_F(LogRingTest, MuchThatIsHeldPresses) {
  auto cursor = ring.attach({}).value();
  std::atomic<bool> pressed{false};
  std::thread waiter([&] {
    ring.wait_pressure(600'000);
    pressed = true;
  });
  for (int i = 0; i < 7; ++i) append(500'000);
  EXPECT_FALSE(pressed);
  for (int i = 0; i < 3; ++i) append(500'000);
  waiter.join();
  Bytes records;
  const auto batch = ring.peek(*cursor, 1 << 20, NodeId(9), records);
  EXPECT_EQ(batch.first.sequence, Sequence(1));
  EXPECT_EQ(ring.take(*cursor, 1 << 20, NodeId(9), records).first.sequence, Sequence(1)) << "peek is no reader";
  for (const auto& retry : ring.release(*cursor, ring.take(*cursor, 1 << 20, NodeId(9), records).end)) retry();
  EXPECT_EQ(drain(*cursor, batch.last.sequence.value * 2), 10U) << "it reads on after what was released";
}

// It has had nothing to move for: that is no fault of its.
TEST_F(LogRingTest, AnIdlePeerHasTheWholePatienceWhenTheRingFillsAtOnce) {
  auto cursor = ring.attach({}).value();
  times.now += 3'600'000'000'000;
  while (ring.try_reserve(500'000)) append_reserved(500'000);
  ring.expire(1'000'000'000);
  EXPECT_TRUE(cursor->attached());
}

TEST_F(LogRingTest, APeerThatTakesNothingLosesItsPlaceAfterAWhile) {
  auto cursor = ring.attach({}).value();
  while (ring.try_reserve(500'000)) append_reserved(500'000);
  ring.expire(1'000'000'000);
  EXPECT_TRUE(cursor->attached());
  times.now += 2'000'000'000;
  ring.expire(1'000'000'000);
  EXPECT_FALSE(cursor->attached());
  EXPECT_TRUE(ring.try_reserve(500'000));
}

// Who asks to be called before it tries, and then succeeds, has waited for nobody.
TEST_F(LogRingTest, APeerThatIsAwayKeepsItsPlaceWhileNobodyWaitsForIt) {
  auto cursor = ring.attach({}).value();
  append(1000);
  ring.when_space([] {});
  append(1000);
  times.now += 3'600'000'000'000;
  ring.expire(250'000'000);
  EXPECT_TRUE(cursor->attached());
}

TEST_F(LogRingTest, AReturningPeerFindsItsPlaceInTheHistory) {
  for (int i = 0; i < 100; ++i) append(1000);
  auto cursor = ring.attach({Epoch(1), Sequence(42)}).value();
  EXPECT_EQ(drain(*cursor, 42), 100U);
  EXPECT_TRUE(ring.rewind(*cursor, {Epoch(1), Sequence(60)}));
  EXPECT_EQ(drain(*cursor, 60), 100U);
  EXPECT_FALSE(ring.attach({Epoch(2), Sequence(42)})) << "another epoch's 42 is another history";
  EXPECT_FALSE(ring.attach({Epoch(1), Sequence(101)})) << "ahead of us";
}

// Reserved when what is older than the last release was free to go.
TEST_F(LogRingTest, APlaceInTheHistoryIsNotPromisedTwice) {
  for (int i = 0; i < 12; ++i) append(500'000);
  int reserved = 0;
  while (ring.try_reserve(500'000)) ++reserved;
  EXPECT_FALSE(ring.attach({Epoch(1), Sequence(1)}));
  EXPECT_TRUE(ring.attach({Epoch(1), Sequence(12)}));
  for (; reserved > 0; --reserved) ring.give_back(500'000);
  auto cursor = ring.attach({Epoch(1), Sequence(1)});
  ASSERT_TRUE(cursor);
  EXPECT_EQ(drain(**cursor, 1), 12U);
}

TEST_F(LogRingTest, OthersReadANoOp) {
  auto mine = ring.attach({}).value(), other = ring.attach({}).value();
  for (int i = 0; i < 500; ++i) append(1000, i % 3 == 0 ? NodeId(9) : NodeId(0));
  int noops = 0;
  EXPECT_EQ(drain(*mine, 0, NodeId(9), &noops), 500U);
  EXPECT_EQ(noops, 0);
  EXPECT_EQ(drain(*other, 0, NodeId(8), &noops), 500U);
  EXPECT_EQ(noops, 167);
}

TEST_F(LogRingTest, StragglersOfAClosedEpochDoNoHarmAndLeaveNoTrace) {
  append(100);
  const Position end = ring.last_position();
  ASSERT_TRUE(ring.try_reserve(10));
  ring.close();
  EXPECT_EQ(append_reserved(10), Sequence(2));
  EXPECT_TRUE(ring.try_reserve(1 << 20)) << "nobody waits in a closed log";
  ring.give_back(1 << 20);
  EXPECT_EQ(ring.last_position(), end);
  ring.open(Epoch(2), {Epoch(1), Sequence(1000)});
  EXPECT_FALSE(ring.attach(end));
  EXPECT_TRUE(ring.attach({Epoch(1), Sequence(1000)}));
}

TEST_F(LogRingTest, TheAgeOfARecordIsNeverUnderstated) {
  const std::int64_t begin = times.now;
  for (int i = 0; i < 20'000; ++i) {
    append(10);
    times.now += 1'000'000;
  }
  for (const std::uint64_t s : {1U, 2U, 100U, 9999U, 20'000U}) {
    EXPECT_LE(ring.appended_at(Sequence(s)), begin + static_cast<std::int64_t>(s - 1) * 1'000'000);
    EXPECT_GE(ring.appended_at(Sequence(s)), begin + static_cast<std::int64_t>(s - 1) * 1'000'000 - 200'000'000);
  }
}

TEST(ActiveLogTest, AnFsyncWaitsForEveryMemberOfTheWaitSet) {
  TestTimes times;
  ActiveLog log(least_ring_bytes, times);
  log.ring().open(Epoch(1), {});
  int done = 0;
  log.when_durable(Sequence(5), [&] { ++done; });
  EXPECT_EQ(done, 1) << "nobody to wait for";
  log.set_wait_set({NodeId(1), NodeId(2)});
  log.when_durable(Sequence(5), [&] { ++done; });
  log.when_durable(Sequence(7), [&] { ++done; });
  log.acknowledged(NodeId(1), Sequence(10));
  EXPECT_EQ(done, 1);
  log.acknowledged(NodeId(2), Sequence(5));
  EXPECT_EQ(done, 2);
  log.acknowledged(NodeId(2), Sequence(4));
  EXPECT_EQ(done, 2);
  log.set_wait_set({NodeId(1)});
  EXPECT_EQ(done, 3) << "a recorded removal releases";
  log.incomplete(NodeId(1));
  log.when_durable(Sequence(8), [&] { ++done; });
  EXPECT_EQ(done, 3) << "what an incomplete peer acknowledged before counts no more";
  log.begin_epoch();
  log.acknowledged(NodeId(1), Sequence(100));
  EXPECT_EQ(done, 3) << "waiters of an epoch that is over never hear again";
}

TEST(ActiveLogTest, InModeAsyncNothingOfTheApplicationWaits) {
  TestTimes times;
  ActiveLog log(least_ring_bytes, times);
  log.ring().open(Epoch(1), {});
  log.set_wait_set({NodeId(1)});
  int fsyncs = 0, held = 0;
  log.when_durable(Sequence(5), [&] { ++fsyncs; });
  log.when_held(Sequence(5), [&] { ++held; });
  EXPECT_EQ(fsyncs, 0);
  log.set_application_waits(false);
  EXPECT_EQ(fsyncs, 1) << "a wait under way ends with the mode";
  log.when_durable(Sequence(6), [&] { ++fsyncs; });
  EXPECT_EQ(fsyncs, 2);
  EXPECT_EQ(held, 0) << "whoever joins the wait set still has to hold all of it";
  log.set_application_waits(true);
  log.when_durable(Sequence(7), [&] { ++fsyncs; });
  EXPECT_EQ(fsyncs, 2);
  log.acknowledged(NodeId(1), Sequence(7));
  EXPECT_EQ(fsyncs, 3);
  EXPECT_EQ(held, 1);
}

}  // namespace
}  // namespace holdfast::mirror
