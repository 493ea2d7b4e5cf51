// SPDX-License-Identifier: Apache-2.0
#include "mirror/hot_set.h"

#include <deque>
#include <random>
#include <set>
#include <thread>

#include "mirror/test_hot_file.h"

namespace holdfast::mirror {
namespace {

using namespace testing;

Status change(HotSet& hot, HotGate::Cell& cell, const FileId& id, bool folder = false, SetNumber set = 1) {
  HotGate::Guard guard;
  const HotGate::Object object{id, cell, folder};
  return hot.enter(guard, set, std::span(&object, 1));
}

TEST(HotSet, OneWriteAnObjectAndGeneration) {
  HotSetFile storage;
  auto hot = storage.open();
  ASSERT_TRUE(begin_epoch(*hot, Epoch(1), {}));
  int calls = 0;
  storage.file->called = [&] { ++calls; };
  HotGate::Cell cell{0}, again{0};
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(change(*hot, cell, id_of(1)));
  EXPECT_EQ(calls, 2) << "a write and a sync";
  ASSERT_TRUE(change(*hot, again, id_of(1))) << "forgotten by the kernel and looked up again";
  EXPECT_EQ(calls, 2);
  const auto turn = hot->open_next(Epoch(1));
  ASSERT_TRUE(turn && hot->wait_left_behind(*turn, [] { return false; }) && hot->drop(*turn, {}));
  calls = 0;
  ASSERT_TRUE(change(*hot, cell, id_of(1)));
  EXPECT_EQ(calls, 2);
}

TEST(HotSet, NothingIsNotedOutsideAnEpoch) {
  HotSetFile storage;
  auto hot = storage.open();
  storage.file->called = [] { ADD_FAILURE(); };
  HotGate::Cell cell{0};
  EXPECT_TRUE(change(*hot, cell, id_of(1)));
  EXPECT_EQ(hot->notes()->size(), 0U);
  storage.file->called = {};
  ASSERT_TRUE(begin_epoch(*hot, Epoch(1), {}));
  ASSERT_TRUE(change(*hot, cell, id_of(1)));
  ASSERT_TRUE(hot->end({Epoch(1), Sequence(9)}));
  EXPECT_TRUE(change(*hot, cell, id_of(1)));
  EXPECT_EQ(storage.open()->header().epoch, Epoch(0));
  EXPECT_EQ(storage.open()->notes()->size(), 0U);
}

TEST(HotSet, ALaterLifeFindsTheNotesAndTheNextEpochDropsThem) {
  HotSetFile storage;
  auto hot = storage.open();
  ASSERT_TRUE(begin_epoch(*hot, Epoch(5), {Epoch(4), Sequence(77)}));
  HotGate::Cell file{0}, folder{0};
  ASSERT_TRUE(change(*hot, file, id_of(1)) && change(*hot, folder, id_of(2), true, 3));
  hot = storage.open();
  EXPECT_EQ(hot->header().epoch, Epoch(5));
  EXPECT_EQ(hot->header().covered, (Position{Epoch(4), Sequence(77)}));
  const auto notes = hot->notes().value();
  EXPECT_EQ(notes.size(), 3U) << "and the block";
  EXPECT_TRUE(covers(notes, 1, id_of(1), false));
  EXPECT_TRUE(covers(notes, 3, id_of(2), true));
  EXPECT_FALSE(covers(notes, 1, id_of(2), true));
  ASSERT_TRUE(begin_epoch(*hot, Epoch(6), {}));
  EXPECT_EQ(storage.open()->notes()->size(), 1U) << "the block of the new epoch";
}

TEST(HotSet, AFullOneNotesTheSet) {
  HotSetFile storage;
  auto hot = storage.open();
  ASSERT_TRUE(begin_epoch(*hot, Epoch(1), {}));
  std::deque<HotGate::Cell> cells(200);
  for (unsigned i = 0; i < 60; ++i) ASSERT_TRUE(change(*hot, cells[i], id_of(i + 1), false, i % 2 ? 1 : 2));
  EXPECT_EQ(hot->status().whole, (std::vector<SetNumber>{1, 2}));
  int calls = 0;
  storage.file->called = [&] { ++calls; };
  for (unsigned i = 60; i < 200; ++i) ASSERT_TRUE(change(*hot, cells[i], id_of(i + 1)));
  EXPECT_EQ(calls, 0);
  const auto notes = storage.open()->notes().value();
  EXPECT_TRUE(covers(notes, 1, id_of(190), false) && covers(notes, 2, id_of(190), false));
  EXPECT_TRUE(hot->wait_due(60'000)) << "slots are scarce";
}

TEST(HotSet, TooManyWaitsNoteTheSet) {
  constexpr HotSetOptions options{4096, 16, 32, 1'000'000'000};
  HotSetFile storage(options);
  auto hot = storage.open(options);
  ASSERT_TRUE(begin_epoch(*hot, Epoch(1), {}));
  std::deque<HotGate::Cell> cells(300);
  for (unsigned i = 0; i < 100; ++i) {
    storage.times.now += 100'000'000;
    ASSERT_TRUE(change(*hot, cells[i], id_of(i + 1)));
  }
  EXPECT_TRUE(hot->status().whole.empty()) << "ten a second";
  for (unsigned i = 100; i < 300; ++i) ASSERT_TRUE(change(*hot, cells[i], id_of(i + 1)));
  EXPECT_EQ(hot->status().whole, std::vector<SetNumber>{1});
  EXPECT_LT(hot->status().used, 100 + 40U);
}

TEST(HotSet, IdsOfABlockAreNotedAheadAndEndWithTheirGeneration) {
  HotSetFile storage;
  auto hot = storage.open();
  ASSERT_TRUE(begin_epoch(*hot, Epoch(1), {}));
  HotGate::Guard guard;
  HotGate::Cell cell{0};
  const FileId root = FileId::root(1);
  const HotGate::Object parent{root, cell, true};
  ASSERT_TRUE(hot->enter(guard, 1, std::span(&parent, 1)));
  std::set<FileId> all;
  for (int i = 0; i < 50'000; ++i) all.insert(hot->fresh(1).value());
  hot->wait_due(60'000);
  ASSERT_TRUE(hot->prepare_block());
  int calls = 0;
  storage.file->called = [&] { ++calls; };
  for (int i = 0; i < 50'000; ++i) all.insert(hot->fresh(1).value());
  EXPECT_EQ(calls, 0) << "the next block was there";
  EXPECT_EQ(all.size(), 100'000U);
  const auto notes = storage.open()->notes().value();
  for (const FileId& id : all) ASSERT_TRUE(covers(notes, 1, id, false));
  std::set<std::string> prefixes;
  for (const FileId& id : all) prefixes.insert(id.to_hex().substr(0, 16));
  EXPECT_EQ(prefixes.size(), all.size()) << "node ids of the kernel, handles of exports";
  ASSERT_TRUE(hot->prepare_block());
  const auto turn = hot->open_next(Epoch(1));
  ASSERT_TRUE(turn);
  guard.leave();
  ASSERT_TRUE(hot->wait_left_behind(*turn, [] { return false; }) && hot->drop(*turn, {}));
  EXPECT_TRUE(covers(storage.open()->notes().value(), 1, hot->fresh(1).value(), false))
      << "nothing of an older block is given out";
}

TEST(HotSet, NoSlotForABlock) {
  HotSetFile storage;
  auto hot = storage.open();
  ASSERT_TRUE(begin_epoch(*hot, Epoch(1), {}));
  std::deque<HotGate::Cell> cells(100);
  for (unsigned i = 0; i < 60; ++i) ASSERT_TRUE(change(*hot, cells[i], id_of(i + 1)));
  FileId last;
  for (int i = 0; i < 200'000; ++i) last = hot->fresh(7).value();
  EXPECT_TRUE(covers(storage.open()->notes().value(), 7, last, false));
}

TEST(HotSet, ASealedEpochChangesNothingMore) {
  HotSetFile storage;
  auto hot = storage.open();
  ASSERT_TRUE(begin_epoch(*hot, Epoch(1), {}));
  HotGate::Cell cell{0}, other{0};
  const FileId id = id_of(1);
  const HotGate::Object object{id, cell, false};
  {
    HotGate::Guard guard;
    ASSERT_TRUE(hot->enter(guard, 1, std::span(&object, 1)));
    EXPECT_EQ(hot->notes().error().code, ErrorCode::busy);
    hot->seal();
    EXPECT_EQ(hot->notes().error().code, ErrorCode::busy) << "a change is still under way";
    EXPECT_EQ(change(*hot, cell, id).error().code, ErrorCode::stale);
    EXPECT_EQ(change(*hot, other, id_of(2)).error().code, ErrorCode::stale);
    EXPECT_EQ(hot->fresh(1).error().code, ErrorCode::stale);
    EXPECT_EQ(hot->open_next(Epoch(1)).error().code, ErrorCode::stale);
  }
  EXPECT_TRUE(covers(hot->notes().value(), 1, id, false));
  ASSERT_TRUE(begin_epoch(*hot, Epoch(2), {}));
  EXPECT_TRUE(change(*hot, cell, id));
}

// Whoever turned generations may be late: what it leaves behind would stop the next epoch.
TEST(HotSet, ATurnOfAnEpochThatIsOverChangesNothing) {
  HotSetFile storage;
  auto hot = storage.open();
  ASSERT_TRUE(begin_epoch(*hot, Epoch(2), {}));
  ASSERT_TRUE(begin_epoch(*hot, Epoch(3), {}));
  EXPECT_EQ(hot->open_next(Epoch(2)).error().code, ErrorCode::stale);
  const auto turn = hot->open_next(Epoch(3));
  ASSERT_TRUE(turn);
  EXPECT_TRUE(hot->drop(*turn, {}));
}

// Nothing has to be noted any more, and nothing may be changed yet.
TEST(HotSet, ASealedEpochThatEndedLetsNobodyInButGivesIds) {
  HotSetFile storage;
  auto hot = storage.open();
  ASSERT_TRUE(begin_epoch(*hot, Epoch(1), {}));
  hot->seal();
  const auto body = [] { return Status{}; };
  EXPECT_EQ(hot->with_whole_set(1, body).error().code, ErrorCode::stale);
  ASSERT_TRUE(hot->end({Epoch(1), Sequence(9)}));
  EXPECT_TRUE(hot->with_whole_set(1, body));
  HotGate::Cell cell{0};
  EXPECT_EQ(change(*hot, cell, id_of(1)).error().code, ErrorCode::stale);
  EXPECT_EQ(hot->status().generation, 0U);
  ASSERT_TRUE(begin_epoch(*hot, Epoch(2), {}));
  EXPECT_TRUE(change(*hot, cell, id_of(1)));
}

// The disk rotted: what the older header calls noted has been overwritten since.
TEST(HotSet, AnOlderHeaderThanTheNotesIsNotBelieved) {
  HotSetFile storage;
  auto hot = storage.open();
  ASSERT_TRUE(begin_epoch(*hot, Epoch(1), {}));
  for (int i = 0; i < 2; ++i) {
    HotGate::Cell cell{0};
    ASSERT_TRUE(change(*hot, cell, id_of(1)));
    const auto turn = hot->open_next(Epoch(1));
    ASSERT_TRUE(turn && hot->drop(*turn, {}));
  }
  ASSERT_TRUE(hot->open_next(Epoch(1)));
  EXPECT_EQ(storage.open()->header().epoch, Epoch(1));
  const std::uint64_t newest = (hot->header().serial & 1) * hot_header_spacing;
  storage.disk.files.at(1)->now[newest + 20] ^= 1;
  EXPECT_EQ(storage.open()->header().epoch, Epoch(0));
}

TEST(HotSet, AFailedSyncIsFinal) {
  HotSetFile storage;
  auto hot = storage.open();
  ASSERT_TRUE(begin_epoch(*hot, Epoch(1), {}));
  storage.disk.fail_sync = true;
  HotGate::Cell cell{0}, other{0};
  EXPECT_EQ(change(*hot, cell, id_of(1)).error().code, ErrorCode::io);
  storage.disk.fail_sync = false;
  EXPECT_EQ(change(*hot, other, id_of(2)).error().code, ErrorCode::io);
}

TEST(HotSet, GarbageIsNoNote) {
  HotSetFile storage;
  std::mt19937 random(1);
  for (auto& b : storage.disk.files.at(1)->now) b = static_cast<std::uint8_t>(random());
  auto hot = storage.open();
  EXPECT_EQ(hot->header().epoch, Epoch(0));
  ASSERT_TRUE(begin_epoch(*hot, Epoch(1), {}));
  hot = storage.open();
  EXPECT_EQ(hot->notes()->size(), 1U);
  // A file of another size or version is no reason to stop.
  auto bytes = encode_hot_header({9, Epoch(1), 1, {}}, 128);
  std::copy(bytes.begin(), bytes.end(), storage.disk.files.at(1)->now.begin());
  std::fill_n(storage.disk.files.at(1)->now.begin() + hot_header_spacing, 64, 0);
  EXPECT_EQ(storage.open()->header().epoch, Epoch(0));
}

TEST(HotSet, ManyThreadsAndAnEndlessTurning) {
  HotSetFile storage(HotSetOptions{});
  auto hot = storage.open(HotSetOptions{});
  ASSERT_TRUE(begin_epoch(*hot, Epoch(1), {}));
  constexpr int threads = 4;
  std::atomic<std::uint64_t> opening{1};
  std::array<std::atomic<std::uint64_t>, threads> entered{};
  std::deque<HotGate::Cell> cells(64);
  std::atomic<bool> done{false};
  std::atomic<std::uint64_t> entries{0};
  std::vector<std::thread> all;
  for (int t = 0; t < threads; ++t)
    all.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      while (!done) {
        const unsigned which = static_cast<unsigned>(random() % cells.size());
        const FileId id = id_of(which + 1);
        const HotGate::Object object{id, cells[which], false};
        HotGate::Guard guard;
        EXPECT_TRUE(hot->enter(guard, 1, std::span(&object, 1)));
        entered[static_cast<std::size_t>(t)] = opening.load();
        if (random() % 8 == 0) {
          EXPECT_TRUE(hot->fresh(1));
        }
        entered[static_cast<std::size_t>(t)] = 0;
        ++entries;
        entries.notify_one();
      }
    });
  for (int turn_number = 0; turn_number < 40; ++turn_number) {
    entries.wait(entries.load());  // Somebody entered since the last turn.
    const std::uint64_t mine = ++opening;
    const auto turn = hot->open_next(Epoch(1));
    ASSERT_TRUE(turn);
    ASSERT_TRUE(hot->wait_left_behind(*turn, [] { return false; }));
    for (auto& e : entered) {
      const std::uint64_t at = e.load();
      EXPECT_TRUE(at == 0 || at >= mine) << "somebody is still in the generation that is dropped";
    }
    ASSERT_TRUE(hot->drop(*turn, {}));
  }
  done = true;
  for (auto& t : all) t.join();
  EXPECT_GE(entries.load(), 40U);
}

}  // namespace
}  // namespace holdfast::mirror
