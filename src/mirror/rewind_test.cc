// SPDX-License-Identifier: Apache-2.0
// Random changes through UndoTree, then back to the start of any batch, with crashes at any step: the tree must be what it was.
#include "mirror/rewind.h"

#include <gtest/gtest.h>

#include "mirror/test_undo_machine.h"

namespace holdfast::mirror {
namespace {

using namespace testing;

TEST(Rewind, BackToAnyBatchAndForthAgainWithCrashes) {
  for (unsigned seed = 1; seed <= 300; ++seed) {
    const std::string what = fmt::format("seed {}", seed);
    Machine m(seed);
    std::map<std::uint64_t, std::map<std::string, std::string>> points;
    const auto work = [&] {
      for (unsigned batch = 1 + m.pick(8); batch-- > 0;) {
        m.begin_batch();
        points[m.journal->current_batch()] = m.snapshot();
        for (unsigned n = 1 + m.pick(12); n-- > 0;) m.change();
      }
      ASSERT_TRUE(m.tree->sync());
    };
    work();
    const std::size_t most_cells = m.pick(2) ? max_merged_cells : 40;  // in parts
    for (int round = 0; round < 3; ++round) {
      auto target = points.begin();
      std::advance(target, m.pick(points.size()));
      const auto end = m.snapshot();
      Rewind rewind(*m.journal, {{set, m.tree.get()}}, most_cells);
      const auto looked = rewind.look(target->first);
      ASSERT_TRUE(looked) << what << " " << looked.error().to_string();
      expect_same(m.snapshot(), end, what + " look changes nothing");
      ASSERT_TRUE(rewind.reverse({Epoch(1), Sequence(m.position)}, 1, 0)) << what;
      const std::uint64_t reversal = m.journal->current_batch();
      points[reversal] = end;
      if (m.pick(2)) m.fuse.left = m.pick(60);
      Status done = rewind.execute();
      while (!done) {
        ASSERT_TRUE(m.fuse.burnt) << what << " " << done.error().to_string();
        m.crash();
        Rewind again(*m.journal, {{set, m.tree.get()}}, m.pick(2) ? max_merged_cells : 80);
        ASSERT_TRUE(again.look(target->first)) << what;
        if (m.pick(3) == 0) m.fuse.left = m.pick(60);
        done = again.execute();
      }
      m.fuse = {};
      expect_same(m.snapshot(), target->second, fmt::format("{} round {} to {}", what, round, target->first));
      if (::testing::Test::HasFatalFailure()) return;
      if (m.pick(2)) work();
      if (::testing::Test::HasFatalFailure()) return;
    }
  }
}

TEST(Rewind, HolesComeBackAsHoles) {
  Machine m(1);
  constexpr std::uint64_t big = 1ULL << 40;
  m.begin_batch();
  ports::NewNode node;
  node.mode = type_regular | 0644;
  const FileId id = m.fresh();
  ASSERT_TRUE(m.undo->stage(id, node));
  ASSERT_TRUE(m.undo->place(id, FileId::root(set), "sparse"));
  ASSERT_TRUE(m.undo->truncate(id, big));
  const Bytes bytes(512, 1);
  const ByteView piece(bytes);
  ASSERT_TRUE(m.undo->write(id, big / 2, {&piece, 1}));
  m.begin_batch();
  const auto before = m.snapshot();
  const auto point = m.journal->current_batch();
  ASSERT_TRUE(m.undo->write(id, 4096, {&piece, 1}));
  ASSERT_TRUE(m.undo->truncate(id, 0));
  EXPECT_LT(m.journal->next_number() - point, 12U) << "a hole is one cell, however long";
  ASSERT_TRUE(m.tree->sync());
  Rewind rewind(*m.journal, {{set, m.tree.get()}});
  ASSERT_TRUE(rewind.look(point));
  ASSERT_TRUE(rewind.reverse({Epoch(1), Sequence(2)}, 1, 0));
  ASSERT_TRUE(rewind.execute());
  expect_same(m.snapshot(), before, "sparse");
  EXPECT_EQ(m.tree->look(id)->data.sectors(), 1U);
}

// One file whose ranges alone are too many can't be told in parts.
TEST(Rewind, MoreThanMemoryHoldsIsReadInParts) {
  Machine m(1);
  m.begin_batch();
  for (int i = 0; i < 300; ++i) m.change();
  m.begin_batch();
  const auto point = m.journal->current_batch();
  for (int i = 0; i < 300; ++i) m.change();
  ASSERT_TRUE(m.tree->sync());
  Rewind whole(*m.journal, {{set, m.tree.get()}}), parts(*m.journal, {{set, m.tree.get()}}, 30),
      none(*m.journal, {{set, m.tree.get()}}, 0);
  const auto all = whole.look(point), split = parts.look(point);
  ASSERT_TRUE(all);
  ASSERT_TRUE(split);
  EXPECT_GT(all->cells, 90U);
  EXPECT_EQ(split->cells, all->cells);
  EXPECT_EQ(split->data_bytes, all->data_bytes);
  EXPECT_EQ(split->new_bytes, all->new_bytes);
  const auto refused = none.look(point);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::refused);
}

// Extended attributes are in memory with their object.
TEST(Rewind, ExtendedAttributesCount) {
  Machine m(1);
  m.begin_batch();
  const auto point = m.journal->current_batch();
  ASSERT_TRUE(m.journal->add(ObjectCell{set, FileId::root(set), false, {}, Bytes(4096, 1)}));
  ASSERT_TRUE(m.journal->add(NameCell{set, FileId::root(set), std::string(255, 'n'), {}, 0}));
  ASSERT_TRUE(m.journal->flush_late());
  const auto map = CellMap::merge(*m.journal, point);
  ASSERT_TRUE(map && *map);
  EXPECT_EQ((*map)->cells, 1U + 32 + 1 + 1);
  EXPECT_FALSE(CellMap::merge(*m.journal, point, {}, 30).value()) << "more parts are needed";
}

TEST(Rewind, IsRefusedBeforeAnythingIsTouched) {
  Machine m(1);
  m.begin_batch();
  const auto first = m.journal->current_batch();
  for (int i = 0; i < 20; ++i) m.change();
  ASSERT_TRUE(m.journal->gap(set, "test"));
  m.begin_batch();
  Rewind rewind(*m.journal, {{set, m.tree.get()}});
  EXPECT_EQ(rewind.look(first).error().code, ErrorCode::not_found);
  EXPECT_TRUE(rewind.look(m.journal->current_batch()));
}

}  // namespace
}  // namespace holdfast::mirror
