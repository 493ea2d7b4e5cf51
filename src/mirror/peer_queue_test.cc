// SPDX-License-Identifier: Apache-2.0
// A peer's queue between ring, disk and map: whatever happens, the peer is sent every record once, in order; or the map has it; or it is told.
#include "mirror/peer_queue.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <thread>

#include "mirror/test_peer_queue.h"

namespace holdfast::mirror {
namespace {

using testing::append_next;
using testing::check_records;
using testing::SpillDisk;
using testing::TestSink;
using testing::TestTimes;

constexpr std::uint64_t segment = 2U << 20, plenty = 1ULL << 40;
constexpr std::size_t reserve_bytes = 60'000;

class PeerQueueTest : public ::testing::Test {
 protected:
  PeerQueueTest() { ring.open(Epoch(1), {}); }
  void make(ChangeSink* sink = nullptr, std::uint64_t limit = plenty) {
    queue = std::make_unique<PeerQueue>(ring, testing::this_peer, "p", disk.opener(), sink, segment);
    queue->set_limit(limit);
    queue->begin({});
  }
  bool append(int count = 1) {
    for (; count > 0; --count) {
      if (!ring.try_reserve(reserve_bytes)) return false;
      append_next(ring, reserve_bytes);
    }
    return true;
  }
  void spool_all() {
    while (queue->spool()) {
    }
  }
  // Appends `count`, with the spooler at work.
  void append_spooled(int count) {
    for (; count > 0; --count) {
      if (!append()) {
        spool_all();
        ASSERT_TRUE(append());
      }
    }
  }
  std::uint64_t take_all(std::uint64_t after) {
    for (;;) {
      const auto batch = queue->take(256 * 1024, bytes);
      EXPECT_TRUE(batch) << batch.error().to_string();
      if (!batch || batch->count == 0) return after;
      EXPECT_EQ(batch->first.value, after + 1);
      after = check_records(bytes, after);
      EXPECT_EQ(batch->last.value, after);
    }
  }
  Position at(std::uint64_t sequence) const { return {Epoch(sequence == 0 ? 0 : 1), Sequence(sequence)}; }
  PeerQueue::Mode mode() const { return queue->status().mode; }

  TestTimes times;
  LogRing ring{least_ring_bytes, times};
  SpillDisk disk;
  std::unique_ptr<PeerQueue> queue;
  Bytes bytes;
};

TEST_F(PeerQueueTest, WhatIsTooMuchForTheRingComesFromDiskAndThenFromTheRing) {
  make();
  append_spooled(1000);
  EXPECT_EQ(mode(), PeerQueue::Mode::disk);
  EXPECT_GT(queue->status().disk_bytes, 3 * ring.size_bytes() / 2);
  ASSERT_EQ(queue->resume({}), PeerQueue::Source::queue);
  EXPECT_EQ(take_all(0), 1000U);
  queue->acked(Sequence(500));
  spool_all();
  EXPECT_EQ(mode(), PeerQueue::Mode::disk);
  queue->acked(Sequence(1000));
  EXPECT_EQ(mode(), PeerQueue::Mode::ring);
  spool_all();
  EXPECT_EQ(disk.files, 0U) << "what was acknowledged takes no room";
  EXPECT_EQ(queue->status().ring_bytes, 0U);
}

TEST_F(PeerQueueTest, AReturningPeerGoesOnInTheMiddleOfABatchOnDisk) {
  make();
  append_spooled(900);
  for (const std::uint64_t from : {3U, 100U, 101U, 350U, 899U}) {
    ASSERT_EQ(queue->resume(at(from)), PeerQueue::Source::queue) << from;
    EXPECT_EQ(take_all(from), 900U);
    queue->pause();
  }
  EXPECT_EQ(queue->resume({Epoch(2), Sequence(899)}), PeerQueue::Source::stale) << "another history";
  EXPECT_EQ(queue->resume(at(901)), PeerQueue::Source::stale) << "ahead of us";
}

// It had been sent from the ring what is now on disk: the connection breaks, and part of it was never received.
TEST_F(PeerQueueTest, WhatWasSentAndNotAcknowledgedIsPutAsideToo) {
  make();
  ASSERT_EQ(queue->resume({}), PeerQueue::Source::queue);
  std::uint64_t taken = 0;
  for (int i = 0; i < 40; ++i) {
    append_spooled(20);
    taken = take_all(taken);
  }
  EXPECT_EQ(mode(), PeerQueue::Mode::disk);
  queue->pause();
  ASSERT_EQ(queue->resume(at(17)), PeerQueue::Source::queue);
  EXPECT_EQ(take_all(17), 800U);
}

TEST_F(PeerQueueTest, ABoundThatIsReachedCostsTheCopyNotTheApplication) {
  make(nullptr, 8 * segment);
  append_spooled(1500);
  EXPECT_EQ(mode(), PeerQueue::Mode::lost);
  EXPECT_NE(queue->status().given_up.find("bound of 16 MiB"), std::string::npos) << queue->status().given_up;
  EXPECT_TRUE(queue->status().is_given_up());
  spool_all();
  EXPECT_EQ(disk.files, 0U);
  EXPECT_EQ(queue->resume(at(1)), PeerQueue::Source::stale);
  const Position from = queue->restart();
  EXPECT_EQ(from, at(1500));
  EXPECT_FALSE(queue->status().is_given_up());
  append_spooled(500);
  EXPECT_EQ(take_all(1500), 2000U);
}

TEST_F(PeerQueueTest, BeyondTheBoundTheMapHasEverything) {
  TestSink sink;
  make(&sink, 8 * segment);
  append_spooled(1500);
  ASSERT_EQ(mode(), PeerQueue::Mode::map);
  const auto covered = queue->covered();
  ASSERT_TRUE(covered);
  EXPECT_TRUE(sink.has_all(covered->since.sequence, covered->to.sequence));
  ASSERT_EQ(queue->resume(at(5)), PeerQueue::Source::map);
  const Position from = queue->resume_from_map().value();
  EXPECT_TRUE(sink.has_all(Sequence(5), from.sequence));
  queue->fold_taken_until(Sequence(1500));
  const auto batch = queue->take(4096, bytes);
  ASSERT_TRUE(batch);
  EXPECT_TRUE(sink.folded.contains(from.sequence.value + 1)) << "until the plan begins";
  append_spooled(400);
  EXPECT_FALSE(sink.folded.empty()) << "kept until the peer is whole";
  const std::uint64_t end = take_all(batch->last.value);
  queue->acked(Sequence(end));
  EXPECT_FALSE(sink.folded.empty());
  queue->settled();
  EXPECT_TRUE(sink.folded.empty());
}

// A position counts only if it is on this node's own history, and nothing after it went by unnoted.
TEST_F(PeerQueueTest, TheMapCoversOnlyPositionsOfThisHistoryAfterItsBegin) {
  const Position base{Epoch(1), Sequence(100)};
  ring.close();
  ring.open(Epoch(2), base);
  TestSink sink;
  queue = std::make_unique<PeerQueue>(ring, testing::this_peer, "p", disk.opener(), &sink, segment);
  queue->set_limit(4 * segment);
  queue->begin(base);
  append_spooled(1500);
  ASSERT_EQ(mode(), PeerQueue::Mode::map);
  const Position to = queue->covered()->to;
  const auto resume = [&](std::uint64_t epoch, std::uint64_t sequence) {
    return queue->resume({Epoch(epoch), Sequence(sequence)});
  };
  EXPECT_EQ(resume(1, 100), PeerQueue::Source::map) << "where the epoch began";
  EXPECT_EQ(resume(1, 101), PeerQueue::Source::stale) << "the epoch before went on elsewhere";
  EXPECT_EQ(resume(1, 99), PeerQueue::Source::stale);
  EXPECT_EQ(resume(2, 100), PeerQueue::Source::stale);
  EXPECT_EQ(resume(2, 101), PeerQueue::Source::map);
  EXPECT_EQ(resume(2, 500), PeerQueue::Source::map);
  EXPECT_EQ(resume(3, 101), PeerQueue::Source::stale);
  EXPECT_EQ(resume(2, 1601), PeerQueue::Source::stale) << "ahead of us";
  EXPECT_EQ(resume(2, to.sequence.value), PeerQueue::Source::queue);
}

TEST_F(PeerQueueTest, WhatWasAcknowledgedBeforeTheMapBeganIsNotInIt) {
  TestSink sink;
  make(&sink, 4 * segment);
  ASSERT_TRUE(append(100));
  ASSERT_EQ(take_all(0), 100U);
  queue->acked(Sequence(50));
  append_spooled(1500);
  ASSERT_EQ(mode(), PeerQueue::Mode::map);
  const std::uint64_t since = queue->covered()->since.sequence.value;
  ASSERT_GT(since, 20U);
  EXPECT_EQ(queue->resume(at(20)), PeerQueue::Source::stale) << "a peer that went back, or whose disk did";
  EXPECT_EQ(queue->resume(at(since)), PeerQueue::Source::map);
}

TEST_F(PeerQueueTest, WithoutASpillAPeerThatIsAwayGivesWayAndOneThatIsThereDoesNot) {
  make(nullptr, 0);
  ASSERT_EQ(queue->resume({}), PeerQueue::Source::queue);
  while (append()) {
  }
  spool_all();
  EXPECT_FALSE(append()) << "it is there: the ring is its bound";
  EXPECT_EQ(mode(), PeerQueue::Mode::ring);
  times.now += 1'000'000'000;
  EXPECT_LT(take_all(0), 2000U);
  queue->pause();
  spool_all();
  EXPECT_EQ(mode(), PeerQueue::Mode::lost);
  EXPECT_TRUE(append());
}

TEST_F(PeerQueueTest, DamageOnDiskIsNotSent) {
  make();
  append_spooled(1000);
  ASSERT_EQ(queue->resume({}), PeerQueue::Source::queue);
  disk.read_fails_in = 5;
  Result<PeerQueue::Batch> batch;
  std::uint64_t last = 0;
  while ((batch = queue->take(1 << 20, bytes)) && batch->count != 0) last = check_records(bytes, last);
  ASSERT_FALSE(batch);
  EXPECT_EQ(batch.error().code, ErrorCode::stale);
  EXPECT_EQ(mode(), PeerQueue::Mode::lost);
}

TEST_F(PeerQueueTest, AHangingDiskCostsThePlaceAfterAWhile) {
  make();
  while (append()) {  // nobody spools
  }
  ring.expire(250'000'000);
  EXPECT_EQ(mode(), PeerQueue::Mode::ring);
  times.now += 300'000'000;
  ring.expire(250'000'000);
  EXPECT_TRUE(append());
  EXPECT_FALSE(queue->take(4096, bytes));
  EXPECT_EQ(mode(), PeerQueue::Mode::lost);
  EXPECT_FALSE(queue->spool());
}

// A random life of a queue and of its peer. What the peer holds is a number: it has been sent everything up to there, or was made equal.
class Life {
 public:
  Life(std::uint64_t seed, bool with_map, bool with_failures)
      : random_(seed), with_failures_(with_failures), with_map_(with_map) {
    ring_.open(Epoch(1), {});
    queue_ = std::make_unique<PeerQueue>(ring_, testing::this_peer, "p", disk_.opener(), with_map ? &sink_ : nullptr,
                                         segment);
    queue_->set_limit(with_failures ? (2 + pick(8)) * segment : plenty);
    queue_->begin({});
  }
  void run(int steps) {
    for (int i = 0; i < steps && !::testing::Test::HasFailure(); ++i) step();
    if (::testing::Test::HasFailure()) return;
    disk_.create_fails_in = disk_.write_fails_in = disk_.read_fails_in = -1;
    for (int tries = 0; taken_ < ring_.last_sequence().value; ++tries) {
      ASSERT_LT(tries, 10'000);
      if (!connected_) connect();
      take();
    }
  }
  bool saw_disk = false, saw_map = false, saw_lost = false;

 private:
  std::uint64_t pick(std::uint64_t n) { return random_() % n; }
  Position at(std::uint64_t sequence) const {
    auto it = epochs_.upper_bound(sequence);
    return it == epochs_.begin() ? Position{} : Position{Epoch(std::prev(it)->second), Sequence(sequence)};
  }

  void step() {
    const auto mode = queue_->status().mode;
    saw_disk = saw_disk || mode == PeerQueue::Mode::disk;
    saw_map = saw_map || mode == PeerQueue::Mode::map;
    saw_lost = saw_lost || mode == PeerQueue::Mode::lost;
    if (with_failures_ && pick(300) == 0) fail_something();
    switch (pick(16)) {
      case 0:
        return connected_ ? disconnect() : connect();
      case 1:
      case 2:
        if (connected_) take();
        return;
      case 3:
      case 4:
        if (connected_ && taken_ > held_) {
          held_ += 1 + pick(taken_ - held_);
          queue_->acked(Sequence(held_));
        }
        return;
      case 5:
        queue_->spool();
        return;
      case 6:
        if (pick(150) == 0) new_epoch();
        return;
      default:
        for (auto n = pick(12); n > 0; --n) append();
    }
  }
  void append() {
    const std::size_t bytes = 1 + pick(40'000);
    for (int tries = 0; !ring_.try_reserve(bytes); ++tries) {
      ASSERT_LT(tries, 100) << "the application waits";
      queue_->spool();
    }
    append_next(ring_, bytes);
  }
  void take() {
    const auto batch = queue_->take(1 + pick(1 << 20), bytes_);
    if (!batch) {
      ASSERT_TRUE(with_failures_) << batch.error().to_string();
      return disconnect();
    }
    bool ids = false;
    const std::uint64_t last = check_records(bytes_, taken_, &ids);
    if (batch->count == 0) return;
    ASSERT_EQ(batch->last.value, last);
    ASSERT_EQ(batch->carries_ids, ids);
    taken_ = last;
  }
  void disconnect() {
    queue_->pause();
    connected_ = false;
    held_ += taken_ > held_ ? pick(taken_ - held_ + 1) : 0;  // some of it had arrived
    taken_ = held_;
  }
  void connect() {
    connected_ = true;
    switch (queue_->resume(at(held_))) {
      case PeerQueue::Source::queue:
        break;
      case PeerQueue::Source::map: {
        const Position from = queue_->resume_from_map().value();
        ASSERT_TRUE(sink_.has_all(Sequence(held_), from.sequence)) << held_ << " to " << from.sequence.value;
        held_ = from.sequence.value;
        if (pick(2) == 0) queue_->settled();
        break;
      }
      case PeerQueue::Source::stale:
        ASSERT_TRUE(with_failures_ && (!with_map_ || new_epochs_ > 0)) << "nothing of what it needs was given up";
        held_ = queue_->restart().sequence.value;
    }
    taken_ = held_;
  }
  void new_epoch() {
    if (connected_) disconnect();
    ring_.close();
    queue_->end();
    ring_.open(Epoch(++epoch_), ring_.last_position());
    epochs_[ring_.last_sequence().value + 1] = epoch_;
    queue_->begin(ring_.last_position());
    ++new_epochs_;
    if (!with_failures_)
      held_ = taken_ = ring_.last_sequence().value;  // who was behind is resynchronized: not our matter here
  }
  void fail_something() {
    (pick(3) == 0   ? disk_.create_fails_in
     : pick(2) == 0 ? disk_.write_fails_in
                    : disk_.read_fails_in) = static_cast<int>(pick(4));
  }

  std::mt19937_64 random_;
  const bool with_failures_, with_map_;
  TestTimes times_;
  LogRing ring_{least_ring_bytes, times_};
  SpillDisk disk_;
  TestSink sink_;
  std::unique_ptr<PeerQueue> queue_;
  Bytes bytes_;
  bool connected_ = false;
  std::uint64_t held_ = 0, taken_ = 0, epoch_ = 1;
  int new_epochs_ = 0;
  std::map<std::uint64_t, std::uint64_t> epochs_{{1, 1}};  // first sequence -> epoch
};

void run_lives(bool with_map, bool with_failures, int count) {
  const char* const more = std::getenv("HOLDFAST_TEST_RUNS");
  if (more) count = std::atoi(more);
  int disk = 0, map = 0, lost = 0;
  for (int seed = 1; seed <= count && !::testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    Life life(static_cast<std::uint64_t>(seed), with_map, with_failures);
    life.run(3000);
    disk += life.saw_disk;
    map += life.saw_map;
    lost += life.saw_lost;
  }
  EXPECT_GT(disk, count / 3);
  if (with_failures) {
    EXPECT_GT(with_map ? map : lost, count / 4);
  }
}

TEST(PeerQueueLives, NothingIsLostOrDoubled) { run_lives(false, false, 20); }
TEST(PeerQueueLives, NorWhenTheDiskFails) { run_lives(false, true, 20); }
TEST(PeerQueueLives, NorWithAMap) { run_lives(true, true, 20); }

// The threads as they are: an application, a spooler, a session that reads and one that acknowledges.
class Threads {
 public:
  explicit Threads(SpillDisk& disk, std::uint64_t limit) {
    ring.open(Epoch(1), {});
    queue = std::make_unique<PeerQueue>(ring, testing::this_peer, "p", disk.opener(), nullptr, segment);
    queue->set_limit(limit);
    queue->begin({});
    spooler = std::thread([this] {
      while (!stop)
        if (!queue->spool()) ring.wait_pressure(queue->is_busy() ? 10 : 1000);
    });
  }
  ~Threads() {
    stop = true;
    ring.end_wait();
    spooler.join();
  }
  // Returns the longest wait for space.
  std::chrono::nanoseconds append(std::size_t bytes) {
    std::chrono::nanoseconds waited{0};
    while (!ring.try_reserve(bytes)) {
      const auto begin = std::chrono::steady_clock::now();
      struct Waiter {
        std::mutex mutex;
        std::condition_variable cv;
        bool freed = false;
      };
      auto w = std::make_shared<Waiter>();
      ring.when_space([w] {
        const std::lock_guard lock(w->mutex);
        w->freed = true;
        w->cv.notify_all();
      });
      if (ring.try_reserve(bytes)) break;
      std::unique_lock lock(w->mutex);
      EXPECT_TRUE(w->cv.wait_for(lock, std::chrono::seconds(20), [&] { return w->freed; }));
      waited += std::chrono::steady_clock::now() - begin;
      if (::testing::Test::HasFailure()) return waited;
    }
    append_next(ring, bytes);
    return waited;
  }
  TestTimes times;
  LogRing ring{least_ring_bytes, times};
  std::unique_ptr<PeerQueue> queue;
  std::atomic<bool> stop{false};
  std::thread spooler;
};

TEST(PeerQueueThreads, AReaderThatStallsForEverHoldsNobodyUp) {
  SpillDisk disk;
  disk.keeps_bytes = false;
  Threads t(disk, 4ULL << 30);
  ASSERT_EQ(t.queue->resume({}), PeerQueue::Source::queue);  // connected, and takes nothing
  std::uint64_t appended = 0;
  std::chrono::nanoseconds longest{0};
  while (appended < (3ULL << 29)) {  // not all records have that payload
    longest = std::max(longest, t.append(256 * 1024));
    appended += testing::payload_bytes(t.ring.last_sequence().value, 256 * 1024);
    ASSERT_FALSE(HasFailure());
  }
  EXPECT_EQ(t.queue->status().mode, PeerQueue::Mode::disk);
  EXPECT_GT(t.queue->status().disk_bytes, 1U << 30) << "it is all there";
  EXPECT_LT(longest, std::chrono::seconds(2)) << "only for the spooler";
}

TEST(PeerQueueThreads, AReaderThatStumblesGetsEverythingInOrder) {
  SpillDisk disk;
  Threads t(disk, 4ULL << 30);
  ASSERT_EQ(t.queue->resume({}), PeerQueue::Source::queue);
  constexpr std::uint64_t count = 6000;
  std::thread application([&] {
    for (std::uint64_t i = 0; i < count && !HasFailure(); ++i) t.append(50'000);
  });
  std::mt19937 random(5);
  Bytes bytes;
  std::uint64_t last = 0, held = 0;
  while (last < count && !HasFailure()) {
    t.queue->wait(100, 0, 1);
    const auto batch = t.queue->take(64 * 1024 + random() % 500'000, bytes);
    ASSERT_TRUE(batch);
    last = check_records(bytes, last);
    if (random() % 3 == 0) {
      held += last > held ? random() % (last - held + 1) : 0;
      t.queue->acked(Sequence(held));
    }
    if (random() % 100 == 0) {  // the connection broke: some of what was sent is sent again
      held += last > held ? random() % (last - held + 1) : 0;
      last = held;
      t.queue->pause();
      ASSERT_EQ(t.queue->resume({Epoch(last == 0 ? 0 : 1), Sequence(last)}), PeerQueue::Source::queue);
    }
  }
  application.join();
  EXPECT_EQ(last, count);
}

}  // namespace
}  // namespace holdfast::mirror
