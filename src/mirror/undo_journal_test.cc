// SPDX-License-Identifier: Apache-2.0
#include "mirror/undo_journal.h"

#include <gtest/gtest.h>

#include <random>

#include "log/test_segments.h"
#include "mirror/range_set.h"

namespace holdfast::mirror {
namespace {

constexpr std::uint64_t segment_bytes = log::segment_header_bytes + log::group_head_bytes + log::max_group_bytes + 4096;

struct TestTimes final : ports::Times {
  std::int64_t now = 1'000'000'000'000;
  std::int64_t realtime_ns() override { return now; }
  std::int64_t steady_ns() override { return now; }
};

Position at(std::uint64_t sequence, std::uint64_t epoch = 1) { return {Epoch(epoch), Sequence(sequence)}; }

FileId id(std::uint8_t n) {
  FileId i;
  i.bytes[0] = n;
  return i;
}

UndoHead head(std::uint64_t before, std::uint64_t after, std::uint64_t life = 1) {
  UndoHead h;
  h.life = life;
  h.before = at(before);
  h.after = at(after);
  h.first_time_ns = h.last_time_ns = static_cast<std::int64_t>(before + 1) * 1'000'000'000;
  h.sets = {1};
  return h;
}

class UndoJournalTest : public ::testing::Test {
 protected:
  log::testing::MemorySegments store;
  TestTimes times;
  UndoSettings settings{64ULL << 20, 0, default_undo_age_ns};

  std::unique_ptr<UndoJournal> open() { return UndoJournal::open(store, times, settings, segment_bytes).value(); }
  static void batch(UndoJournal& journal, std::uint64_t before, std::uint64_t after, std::uint8_t object = 7) {
    ASSERT_TRUE(journal.begin(head(before, after)));
    ASSERT_TRUE(journal.add(ObjectCell{1, id(object), false, {}, {}}));
    ASSERT_TRUE(journal.seal());
  }
  static std::vector<std::uint64_t> numbers(const UndoJournal& journal) {
    std::vector<std::uint64_t> list;
    for (const auto& b : journal.batches()) list.push_back(b.number);
    return list;
  }
};

TEST(RangeSet, AgreesWithASetOfBytes) {
  std::mt19937 random(5);
  for (int run = 0; run < 50; ++run) {
    RangeSet ranges;
    std::vector<bool> bytes(100);
    for (int i = 0; i < 30; ++i) {
      const std::uint64_t begin = random() % 100, end = begin + random() % (101 - begin);
      std::vector<bool> missing(100);
      ranges.for_each_missing<Status>(begin, end, [&](std::uint64_t b, std::uint64_t e) -> Status {
        EXPECT_LT(b, e);
        for (; b < e; ++b) missing[b] = true;
        return {};
      });
      for (std::uint64_t b = 0; b < 100; ++b) ASSERT_EQ(missing[b], b >= begin && b < end && !bytes[b]);
      ranges.add(begin, end);
      for (std::uint64_t b = begin; b < end; ++b) bytes[b] = true;
      ASSERT_TRUE(ranges.covers(begin, end));
      ASSERT_EQ(ranges.bytes(), static_cast<std::uint64_t>(std::count(bytes.begin(), bytes.end(), true)));
    }
  }
}

TEST_F(UndoJournalTest, WhatWasSealedIsFoundAgainAndAVoidHeadIsNot) {
  {
    auto journal = open();
    batch(*journal, 0, 10);
    batch(*journal, 10, 20);
    ASSERT_TRUE(journal->begin(head(20, 30)));
    ASSERT_TRUE(journal->add(NameCell{1, id(1), "x", {}, 0}));  // and the power goes
  }
  store.power_cut(1, 100);
  auto journal = open();
  ASSERT_EQ(journal->batches().size(), 2U);
  EXPECT_EQ(journal->batches()[1].head.after, at(20));
  EXPECT_EQ(journal->batches()[1].head.sets, std::set<SetNumber>{1});
  EXPECT_TRUE(journal->reaches(journal->batches()[0].number, 1));
  EXPECT_FALSE(journal->reaches(journal->batches()[0].number, 2)) << "another set is not captured";
  batch(*journal, 20, 25);
  const auto before = numbers(*journal);
  journal.reset();
  EXPECT_EQ(numbers(*open()), before);
}

TEST_F(UndoJournalTest, SwitchedOffItMakesNothingAndKeepsLittle) {
  auto journal = UndoJournal::open(store, times, settings, segment_bytes, false).value();
  EXPECT_FALSE(journal->on());
  ASSERT_TRUE(journal->sync());
  ASSERT_TRUE(journal->jump(head(0, 10)));
  EXPECT_TRUE(store.list()->empty());
  ASSERT_TRUE(journal->turn(true));
  batch(*journal, 0, 10);
  ASSERT_TRUE(journal->turn(false));
  EXPECT_TRUE(journal->batches().empty());
  const std::uint64_t last = journal->next_number();
  journal = UndoJournal::open(store, times, settings, segment_bytes, false).value();
  EXPECT_TRUE(journal->on()) << "what is there may be needed: who opens it says";
  EXPECT_FALSE(journal->is_reachable(1));
  ASSERT_TRUE(journal->turn(false));
  ASSERT_TRUE(journal->turn(true));
  batch(*journal, 20, 30);
  EXPECT_GE(numbers(*journal).front(), last);
  EXPECT_TRUE(journal->is_reachable(numbers(*journal).front()));
}

// A head whose cells reached the disk and whose seal did not.
TEST_F(UndoJournalTest, AHeadWithoutSealIsVoidEvenWhenOthersFollow) {
  {
    auto journal = open();
    batch(*journal, 0, 10, 1);
    ASSERT_TRUE(journal->begin(head(10, 20)));
    const Bytes big(max_data_cell_bytes, 3);
    for (std::uint64_t i = 0; i < 9; ++i)
      ASSERT_TRUE(journal->add(DataCell{1, id(9), i * big.size(), big.size(), big}));
  }
  store.power_cut(1, 100);
  auto journal = open();
  ASSERT_EQ(journal->batches().size(), 1U);
  const auto plan = journal->redo(at(0), 1, at(40)).value();
  EXPECT_EQ(plan.pass_to, Sequence(0));
  EXPECT_EQ(plan.m_after, Sequence(10));
  Covered covered;
  ASSERT_TRUE(journal->resume(covered));
  EXPECT_EQ(covered[1].objects.size(), 1U) << "the void batch's cells are not the first one's";
  EXPECT_TRUE(covered[1].objects.contains(id(1)));
  ASSERT_TRUE(journal->add(ObjectCell{1, id(2), true, {}, {}}));
  ASSERT_TRUE(journal->flush_late());
  batch(*journal, 10, 20, 3);
  for (int life = 0; life < 2; ++life) {
    ASSERT_EQ(journal->batches().size(), 3U);
    EXPECT_EQ(journal->batches()[1].head.why, BatchWhy::resume);
    EXPECT_FALSE(journal->reaches(journal->batches()[1].number, 1)) << "a continuation is no point";
    std::set<std::uint8_t> seen;
    ASSERT_TRUE(journal->read(journal->batches()[0].number, [&](const UndoBatch&, const log::Record& r) -> Status {
      if (r.kind == log::Kind::undo_object) seen.insert(r.file.bytes[0]);
      EXPECT_NE(r.kind, log::Kind::undo_bytes) << "of the void batch";
      return {};
    }));
    EXPECT_EQ(seen, (std::set<std::uint8_t>{1, 2, 3}));
    journal.reset();
    journal = open();
  }
}

TEST_F(UndoJournalTest, LateCellsBelongToTheirBatch) {
  auto journal = open();
  batch(*journal, 0, 10, 1);
  EXPECT_EQ(journal->stats().late_groups, 0U);
  ASSERT_TRUE(journal->add(ObjectCell{1, id(2), true, {}, {}}));
  ASSERT_TRUE(journal->flush_late());
  EXPECT_EQ(journal->stats().late_groups, 1U);
  store.power_cut(3, 0);
  journal = open();
  Covered covered;
  ASSERT_TRUE(journal->resume(covered));
  EXPECT_EQ(covered[1].objects.size(), 2U);
  EXPECT_TRUE(covered[1].objects[id(2)].absent);
}

struct RedoRow {
  const char* what;
  std::uint64_t checkpoint, life;
  bool gap_after;
  std::uint64_t pass_to, m_after;  // m_after 0: none
  bool new_gap;
};
// Batches of life 1: 0-10, 10-20; the log ends at 40.
TEST_F(UndoJournalTest, WhereRedoPassesUndoBy) {
  const RedoRow rows[] = {
      {"checkpoint at the end of m", 20, 1, false, 20, 0, false},
      {"checkpoint at its start", 10, 1, false, 10, 20, false},
      {"checkpoint before it", 0, 1, false, 10, 20, false},
      {"checkpoint within it", 15, 1, false, 40, 0, true},
      {"the tree is past the history", 30, 1, false, 40, 0, true},
      {"another life of the log", 10, 2, false, 40, 0, true},
      {"a gap is the last that was said", 20, 1, true, 40, 0, false},
  };
  for (const auto& row : rows) {
    store = {};
    auto journal = open();
    batch(*journal, 0, 10);
    batch(*journal, 10, 20);
    const std::uint64_t first = journal->batches()[0].number;
    if (row.gap_after) {
      ASSERT_TRUE(journal->gap(0, "test"));
    }
    const std::size_t gaps = journal->gaps().size();
    const auto plan = journal->redo(at(row.checkpoint), row.life, at(40)).value();
    EXPECT_EQ(plan.pass_to.value, row.pass_to) << row.what;
    EXPECT_EQ(plan.m_after.value_or(Sequence(0)).value, row.m_after) << row.what;
    EXPECT_EQ(journal->gaps().size(), gaps + (row.new_gap ? 1 : 0)) << row.what;
    EXPECT_EQ(journal->reaches(first, 1), !row.gap_after && !row.new_gap) << row.what;
  }
  store = {};
  EXPECT_EQ(open()->redo(at(3), 1, at(40))->pass_to, Sequence(40)) << "no history: the log's rest may be half applied";
}

TEST_F(UndoJournalTest, AJumpGoesOnInAnotherLifeAndIsSaidOnce) {
  auto journal = open();
  batch(*journal, 0, 10);
  UndoHead jump = head(10, 0, 2);
  jump.after = at(500, 2);
  ASSERT_TRUE(journal->jump(jump));
  ASSERT_TRUE(journal->jump(jump));
  store.power_cut(1, 0);
  journal = open();
  ASSERT_TRUE(journal->jump(jump));
  EXPECT_EQ(journal->batches().size(), 2U);
  const auto plan = journal->redo(at(500, 2), 2, at(500, 2)).value();
  EXPECT_EQ(plan.pass_to, Sequence(500));
  EXPECT_TRUE(journal->gaps().empty());
  EXPECT_TRUE(journal->reaches(journal->batches()[0].number, 1)) << "the tree stayed as it was";
}

TEST_F(UndoJournalTest, DamageGivesTheHistoryUpAndNumbersGoOnFarAbove) {
  std::uint64_t last = 0;
  {
    auto journal = open();
    for (std::uint64_t i = 0; i < 20; ++i) batch(*journal, i, i + 1);
    last = journal->batches().back().number;
  }
  store.files.begin()->second->now[log::segment_header_bytes + 200] ^= 1;
  auto journal = open();
  EXPECT_FALSE(journal->stats().damage.empty());
  EXPECT_TRUE(journal->batches().empty());
  EXPECT_GT(journal->oldest_batch(), last) << "graves of the lost history are not needed";
  batch(*journal, 20, 21);
  EXPECT_EQ(open()->batches().size(), 1U);
}

TEST_F(UndoJournalTest, BoundsGiveUpWholeSegmentsButNotWhatIsPinnedOrNeededForRedo) {
  settings.max_bytes = 3 * segment_bytes;
  auto journal = open();
  const Bytes big(max_data_cell_bytes, 3);
  const auto fill = [&](std::uint64_t from, std::uint64_t to) {
    for (std::uint64_t i = from; i < to; ++i) {
      ASSERT_TRUE(journal->begin(head(i, i + 1)));
      for (std::uint64_t n = 0; n < 4; ++n)
        ASSERT_TRUE(journal->add(DataCell{1, id(9), n * big.size(), big.size(), big}));
      ASSERT_TRUE(journal->seal());
    }
  };
  fill(0, 12);
  const auto pinned = journal->batches()[2].number;
  journal->pin("test", pinned);
  while (journal->keep_bounds({}, {}).value()) {
  }
  EXPECT_LE(journal->oldest_batch(), pinned);
  EXPECT_TRUE(journal->reaches(pinned, 1));
  journal->pin("test", 0);
  while (journal->keep_bounds({}, {}).value()) {
  }
  EXPECT_LE(journal->stats().bytes, settings.max_bytes);
  EXPECT_GT(journal->oldest_batch(), pinned);
  const auto kept = numbers(*journal);
  journal = open();
  EXPECT_EQ(numbers(*journal), kept) << "nothing is given up in memory only";
  EXPECT_TRUE(journal->keep_bounds({1ULL << 40, 1}, {}).value()) << "graves count";
  while (journal->drop_oldest("says the test").value()) {
  }
  EXPECT_EQ(journal->batches().back().number, kept.back()) << "redo needs the last one";
  // Age: a quiet history goes too, by the parts it was written in.
  fill(12, 13);
  times.now += default_undo_age_ns / 4;
  fill(13, 14);
  ASSERT_FALSE(journal->keep_bounds({}, {}).value());
  fill(14, 15);
  times.now += default_undo_age_ns + 1'000'000'000;
  fill(15, 16);
  while (journal->keep_bounds({}, {}).value()) {
  }
  EXPECT_GE(journal->batches().front().head.before, at(12));
}

// Two million small files, in a folder that a resynchronization displaced: what they cost is a guess, and they are no memory.
TEST_F(UndoJournalTest, ABigDeadFolderCostsNoHistoryBeforeItsTime) {
  auto journal = open();
  batch(*journal, 0, 1);
  times.now += default_undo_age_ns / 100;
  batch(*journal, 1, 2);
  const std::uint64_t first = journal->batches()[0].number, resync = journal->batches()[1].number;
  const GravesHeld all{2'000'001 * least_object_bytes, 2'000'001}, in{all.bytes - 4096, 2'000'000};
  const auto checkpoints = [&](const GravesHeld& held, const GravesInside& inside) {
    for (int n = 0; n < 3; ++n)
      while (journal->keep_bounds(held, inside).value()) {
      }
  };
  for (std::uint64_t s = 2; s < 10; ++s) {
    batch(*journal, s, s + 1);
    checkpoints(all, {{resync, in}});
    times.now += default_undo_age_ns / 100;
  }
  EXPECT_TRUE(journal->reaches(first, 1)) << "nothing was gained by giving it up";
  EXPECT_FALSE(journal->shortened());
  times.now += default_undo_age_ns / 4;
  batch(*journal, 10, 11);
  checkpoints(all, {{resync, in}});
  batch(*journal, 11, 12);
  checkpoints(all, {{resync, in}});
  EXPECT_FALSE(journal->reaches(resync, 1));
  ASSERT_TRUE(journal->shortened());
  EXPECT_EQ(journal->shortened()->number, journal->batches().front().number);
  EXPECT_NE(journal->shortened()->why.find("deleted files"), std::string::npos);
  // Bytes are bytes.
  batch(*journal, 12, 13);
  const std::uint64_t young = journal->batches().back().number;
  const GravesHeld real{settings.max_bytes + 5000, 3};
  checkpoints(real, {{young, {4000, 2}}});
  batch(*journal, 13, 14);
  checkpoints(real, {{young, {4000, 2}}});
  EXPECT_FALSE(journal->reaches(young, 1));
}

// Batches of one second each; one rewind in between.
TEST_F(UndoJournalTest, ATimeIsFoundOnTheLineThatWasTaken) {
  auto journal = open();
  const auto at_second = [&](std::int64_t s) { return journal->point_at(s * 1'000'000'000); };
  for (std::uint64_t s = 0; s < 5; ++s) batch(*journal, s, s + 1);  // batch s holds second s + 1
  EXPECT_EQ(at_second(3)->value().head.before, at(3));
  EXPECT_FALSE(at_second(5)->has_value()) << "now";
  EXPECT_EQ(at_second(1)->value().head.before, at(1));
  EXPECT_EQ(at_second(0).error().code, ErrorCode::not_found);
  UndoHead back = head(5, 2);
  back.why = BatchWhy::rewind;
  back.target = journal->batches()[2].number;  // to before second 3
  ASSERT_TRUE(journal->begin(back));
  ASSERT_TRUE(journal->seal());
  EXPECT_FALSE(at_second(4)->has_value()) << "second 3 did not happen any more: that is now";
  batch(*journal, 6, 7);  // second 7
  EXPECT_EQ(at_second(5)->value().head.before, at(6));
  EXPECT_EQ(at_second(1)->value().head.before, at(1));
  ASSERT_TRUE(journal->gap(0, "test"));
  EXPECT_EQ(at_second(5).error().code, ErrorCode::not_found);
}

// The log began anew, and of the time of that nothing may be known, as after a restart. What was before it is found as if it were not there.
TEST_F(UndoJournalTest, AJumpIsNoMomentOfItsOwn) {
  const auto jump = [&](UndoJournal& journal, std::uint64_t before, std::int64_t second) {
    UndoHead head_of_jump = head(before, 0, 2);
    head_of_jump.after = at(500, 2);
    head_of_jump.first_time_ns = head_of_jump.last_time_ns = second * 1'000'000'000;
    ASSERT_TRUE(journal.jump(head_of_jump));
  };
  for (const std::int64_t known : {0, 4}) {
    store = {};
    auto journal = open();
    const auto at_second = [&](std::int64_t s) { return journal->point_at(s * 1'000'000'000); };
    for (std::uint64_t s = 0; s < 3; ++s) batch(*journal, s, s + 1);
    jump(*journal, 3, known);
    batch(*journal, 9, 10);  // second 10
    EXPECT_EQ(at_second(2)->value().head.before, at(2));
    EXPECT_EQ(at_second(5)->value().head.why, BatchWhy::jump);
    UndoBatch after_jump;
    after_jump.number = journal->batches().back().number;
    after_jump.head.before = at(500, 2);
    EXPECT_EQ(journal->time_before(after_jump), 3'000'000'000);
    // With it a history begins: its trees are of then.
    ASSERT_TRUE(journal->gap(0, "test"));
    jump(*journal, 10, known);
    batch(*journal, 19, 20);
    EXPECT_EQ(at_second(3).error().code, ErrorCode::not_found);
    if (known == 0)
      EXPECT_EQ(at_second(15).error().code, ErrorCode::not_found);
    else
      EXPECT_EQ(at_second(15)->value().head.why, BatchWhy::jump);
  }
}

// What lies before a gap of everything is of no use, unless a way back without a way forth is about to use it.
TEST_F(UndoJournalTest, NothingIsKeptBehindAGap) {
  auto journal = open();
  const Bytes big(max_data_cell_bytes, 3);
  for (std::uint64_t i = 0; i < 12; ++i) {
    ASSERT_TRUE(journal->begin(head(i, i + 1)));
    for (std::uint64_t n = 0; n < 4; ++n)
      ASSERT_TRUE(journal->add(DataCell{1, id(9), n * big.size(), big.size(), big}));
    ASSERT_TRUE(journal->seal());
  }
  const std::uint64_t last = journal->batches().back().number;
  ASSERT_GT(store.list()->size(), 2U);
  journal->pin("test", last);
  ASSERT_TRUE(journal->gap(0, "test"));
  ASSERT_EQ(journal->batches().size(), 12U);
  journal->pin("test", 0);
  ASSERT_TRUE(journal->gap(0, "test"));
  while (journal->shed().value()) {
  }
  EXPECT_EQ(store.list()->size(), 1U);
  EXPECT_GT(journal->oldest_batch(), last) << "no grave of before it is needed";
  journal = open();
  EXPECT_GT(journal->oldest_batch(), last) << "after a restart too";
  batch(*journal, 20, 21);
  EXPECT_EQ(open()->oldest_batch(), journal->batches().back().number);
}

// What one batch needs is asked for before it is written, and while it is; what it wrote and is of no use goes with the gap.
TEST_F(UndoJournalTest, ABigBatchLeavesTheReserveAlone) {
  const std::uint64_t disk = 8 * segment_bytes;
  settings.free_bytes = [&] { return disk - std::min(disk, store.list()->size() * segment_bytes); };
  settings.reserve_bytes = 2 * segment_bytes;
  auto journal = open();
  batch(*journal, 0, 1);
  ASSERT_TRUE(journal->begin(head(1, 2)));
  EXPECT_EQ(journal->expect(65ULL << 20).error().code, ErrorCode::no_space);
  EXPECT_TRUE(journal->hopeless()) << "more than the history may hold";
  EXPECT_EQ(journal->expect(disk).error().code, ErrorCode::no_space);
  EXPECT_TRUE(journal->expect(segment_bytes));
  const std::size_t before = store.list()->size();
  EXPECT_EQ(before, 1U) << "nothing was written";
  const Bytes big(max_data_cell_bytes, 3);
  Status added;
  for (std::uint64_t n = 0; added && n < 1000; ++n)
    added = journal->add(DataCell{1, id(9), n * big.size(), big.size(), big});
  ASSERT_FALSE(added);
  EXPECT_EQ(added.error().code, ErrorCode::no_space);
  EXPECT_TRUE(journal->starved());
  EXPECT_GE(settings.free_bytes(), settings.reserve_bytes - segment_bytes);
  ASSERT_TRUE(journal->gap(0, "test"));
  while (journal->shed().value()) {
  }
  EXPECT_LE(store.list()->size(), 2U);
  EXPECT_TRUE(journal->begin(head(2, 3)));
}

// The disk's reserve is used up, and then there is no room for a segment either.
TEST_F(UndoJournalTest, AJumpIsSaidWithoutRoom) {
  std::uint64_t free = 1;
  settings.free_bytes = [&free] { return free; };
  settings.reserve_bytes = 1;
  auto journal = open();
  batch(*journal, 0, 10);
  const std::uint64_t first = journal->batches()[0].number;
  free = 0;
  EXPECT_EQ(journal->begin(head(10, 11)).error().code, ErrorCode::no_space);
  UndoHead jump = head(10, 0, 2);
  jump.after = at(500, 2);
  ASSERT_TRUE(journal->jump(jump));
  EXPECT_TRUE(journal->reaches(first, 1)) << "the history goes on over it";
  journal = open();
  EXPECT_EQ(journal->redo(at(500, 2), 2, at(500, 2))->pass_to, Sequence(500));
  EXPECT_TRUE(journal->gaps().empty());
}

TEST_F(UndoJournalTest, OneBatchOverTheBoundStarves) {
  settings.max_bytes = 2 << 20;
  auto journal = open();
  ASSERT_TRUE(journal->begin(head(0, 1)));
  const Bytes big(max_data_cell_bytes, 3);
  Status added;
  for (std::uint64_t n = 0; n < 20 && added; ++n) added = journal->add(DataCell{1, id(9), n, big.size(), big});
  ASSERT_FALSE(added);
  EXPECT_EQ(added.error().code, ErrorCode::no_space);
  EXPECT_TRUE(journal->starved());
  ASSERT_TRUE(journal->gap(0, "no space for the history"));
  EXPECT_TRUE(open()->batches().empty());
}

}  // namespace
}  // namespace holdfast::mirror
