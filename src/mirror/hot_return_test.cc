// SPDX-License-Identifier: Apache-2.0
#include "mirror/hot_return.h"

#include <gtest/gtest.h>

#include "mirror/test_change_store.h"

namespace holdfast::mirror {
namespace {

constexpr std::uint32_t both = feature_partial_resync | feature_hot_return;

Welcome returned() {
  Welcome w;
  w.clean = false;
  w.features = both;
  w.led = Epoch(3);
  w.covered = {Epoch(3), Sequence(500)};
  return w;
}
LedFrom from(std::uint64_t epoch, std::uint64_t sequence) { return {{Epoch(epoch), Sequence(sequence)}, {1}}; }

TEST(HotReturn, WhatIsListedIsEnough) {
  EXPECT_EQ(why_whole(returned(), both, from(3, 500)), "");
  EXPECT_EQ(why_whole(returned(), both, from(3, 9000)), "");
  Welcome nothing_dropped = returned();  // its epoch went on from there
  nothing_dropped.covered = {Epoch(2), Sequence(1ULL << 40)};
  EXPECT_EQ(why_whole(nothing_dropped, both, from(3, 7)), "");
}

TEST(HotReturn, WithoutAnyOneOfThePremisesAllIsCompared) {
  EXPECT_NE(why_whole(returned(), feature_partial_resync, from(3, 500)), "");
  EXPECT_NE(why_whole(returned(), both, std::nullopt), "") << "went back, or led and ended uncleanly before";
  EXPECT_NE(why_whole(returned(), both, from(4, 500)), "") << "somebody led between";
  EXPECT_NE(why_whole(returned(), both, from(2, 1ULL << 41)), "") << "never followed it in that epoch";
  EXPECT_NE(why_whole(returned(), both, from(3, 499)), "") << "notes of what came after were dropped";
  Welcome w = returned();
  w.features = feature_partial_resync;
  EXPECT_NE(why_whole(w, both, from(3, 500)), "");
  w = returned();
  w.led = Epoch(0);
  EXPECT_NE(why_whole(w, both, from(3, 500)), "") << "no notes of its last epoch";
}

TEST(HotReturn, NotesBecomeChanges) {
  FileId file, folder, block;
  file.bytes.fill(1);
  folder.bytes.fill(2);
  block.bytes.fill(3);
  block.bytes[6] = block.bytes[7] = 0;
  const ChangeSet changes = changes_of(
      {{HotKind::file, 1, file}, {HotKind::folder, 1, folder}, {HotKind::block, 0, block}, {HotKind::set, 2, {}}});
  ASSERT_TRUE(changes.find(1, file) && changes.find(1, folder));
  EXPECT_TRUE(changes.find(1, file)->by_hash);
  EXPECT_EQ(changes.find(1, file)->extents, (std::vector<Extent>{{0, end_of_file}}));
  EXPECT_TRUE(changes.find(1, folder)->listing);
  EXPECT_TRUE(changes.contains_set(2));
  ChangeSet back;  // as it travels
  for (const auto& e : changes.encode()) ASSERT_TRUE(back.add(e.key, e.value));
  EXPECT_EQ(back.encode(), changes.encode());
}

// A folder that was made in a generation has no note of its own; what it holds must be compared (a file in it may be on one disk only).
TEST(HotReturn, AnObjectOfABlockCountsAsWhatItIs) {
  ChangeMap map(std::make_unique<testing::MemoryChangeStore>(), "peer");
  FileId block, made_file, made_folder;
  block.bytes.fill(3);
  block.bytes[6] = block.bytes[7] = 0;
  made_file = made_folder = block;
  made_file.bytes[7] = 1;
  made_folder.bytes[7] = 2;
  ChangeSet listed;
  listed.note_block(0, IdBlock::of(block));
  listed.note_set(4);
  int pieces = 0;
  const auto noted = note_left(
      map, listed.encode(),
      [&](const IdBlock& asked, const auto& found) -> Status {
        EXPECT_EQ(asked.base(), block);
        found(1, made_file, false);
        found(1, made_folder, true);
        return {};
      },
      [&]() -> Status {
        ++pieces;
        return {};
      });
  ASSERT_TRUE(noted);
  EXPECT_EQ(noted->files, 1U);
  EXPECT_EQ(noted->folders, 1U);
  EXPECT_EQ(noted->whole, (std::set<SetNumber>{4}));
  EXPECT_GE(pieces, 1);
  EXPECT_TRUE(map.flushed(1, made_file).value()->by_hash);
  EXPECT_TRUE(map.flushed(1, made_folder).value()->listing);
  EXPECT_TRUE(map.is_whole(4).value());
  EXPECT_FALSE(map.is_whole(1).value());
}

// Nothing may be left out silently.
TEST(HotReturn, WhatCantBeNotedIsAnError) {
  ChangeMap map(std::make_unique<testing::MemoryChangeStore>(), "peer");
  ChangeSet listed;
  listed.note_block(0, IdBlock{});
  const auto broken = [](const IdBlock&, const auto&) -> Status { return fail(ErrorCode::io, "the index is gone"); };
  EXPECT_FALSE(note_left(map, listed.encode(), broken, [] { return Status{}; }));
  EXPECT_FALSE(note_left(
      map, listed.encode(), [](const IdBlock&, const auto&) { return Status{}; },
      []() -> Status { return fail(ErrorCode::unavailable, "the connection is gone"); }));
}

}  // namespace
}  // namespace holdfast::mirror
