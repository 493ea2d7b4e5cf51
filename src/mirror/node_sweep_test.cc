// SPDX-License-Identifier: Apache-2.0
// What nobody needs any more goes beside everything else: no role change waits for it, and no crash leaves it behind.
#include "mirror/passive_test_support.h"

namespace holdfast::mirror {
namespace {

using namespace testing;

constexpr std::uint8_t files = 200;

// `node` made and deleted them all, within the history.
void bury_many(Node& node) {
  ASSERT_TRUE(node.start());
  std::vector<std::string> names;
  for (std::uint8_t n = 1; n <= files; ++n) names.push_back("f" + std::to_string(n));
  std::vector<log::Record> made, gone;
  for (std::uint8_t n = 1; n <= files; ++n) {
    made.push_back(create(n, names[n - 1]));
    gone.push_back(unlink(n, names[n - 1]));
  }
  EXPECT_EQ(node.session(1, false, {}, made), "");
  EXPECT_EQ(node.session(1, false, {Epoch(1), Sequence(files)}, gone), "");
  EXPECT_EQ(node.names(), "");
  ASSERT_EQ(node.tree->in_grave_count(ports::Grave::deleted), files);
}

TEST(NodeSweep, APromotionWaitsForNoGrave) {
  Node node;
  bury_many(node);
  if (HasFatalFailure()) return;
  std::atomic<int> early{0}, late{0};
  node.tree->on_purge = [&] { ++(node.log->status().role == Role::active ? late : early); };
  ASSERT_TRUE(node.log->promote(Epoch(2)));
  node.let_it_sweep();
  EXPECT_EQ(early, 0) << "before the epoch was open";
  EXPECT_EQ(late, files);
  EXPECT_EQ(node.tree->in_grave_count(ports::Grave::deleted), 0U);
}

TEST(NodeSweep, SwitchingHistoryOffWaitsForNoGrave) {
  Node node;
  bury_many(node);
  if (HasFatalFailure()) return;
  std::atomic<bool> off{false};
  std::atomic<int> early{0};
  node.tree->on_purge = [&] { early += off ? 0 : 1; };
  node.log->set_history(false);
  off = true;
  node.let_it_sweep();
  EXPECT_LT(early, 128) << "at most two steps in between";
  EXPECT_EQ(node.tree->in_grave_count(ports::Grave::deleted), 0U);
}

TEST(NodeSweep, ACrashInBetweenLeavesNothing) {
  Node node;
  bury_many(node);
  if (HasFatalFailure()) return;
  std::atomic<int> purged{0};
  node.tree->on_purge = [&] {
    if (++purged == 10) node.fuse.left = 0;
  };
  ASSERT_TRUE(node.log->promote(Epoch(2)));
  while (node.log->status().receive.graves_aside == 0) std::this_thread::yield();
  node.crash(3);
  const int left = static_cast<int>(node.tree->in_grave_count(ports::Grave::deleted));
  EXPECT_GE(left, files - 10);
  purged = 0;
  node.tree->on_purge = [&] { ++purged; };
  ASSERT_TRUE(node.start());
  while (purged != left) std::this_thread::yield();
  node.stop();
  EXPECT_EQ(node.tree->in_grave_count(ports::Grave::deleted), 0U);
}

// Its space is needed at once: a takeover would be refused for want of it.
TEST(NodeSweep, WithoutHistoryWhatNobodyNeedsMakesRoomAtOnce) {
  Node node;
  node.tree->sectors_at_most = 8;
  ASSERT_TRUE(node.start());
  node.log->set_history(false);
  EXPECT_EQ(node.session(1, false, {}, {create(1, "a"), write(1, std::string(8 * sector_bytes, 'a'))}), "");
  std::atomic<int> purged{0}, late{0};
  node.tree->on_purge = [&] {
    ++purged;
    late += node.log->status().receive.waits_for_space ? 1 : 0;
  };
  EXPECT_EQ(node.session(1, false, {Epoch(1), Sequence(2)},
                         {unlink(1, "a"), create(2, "b"), mark(log::Kind::epoch_begin), write(2, "b")}),
            "");
  EXPECT_EQ(node.content(id(2)), "b");
  EXPECT_EQ(purged, 1);
  EXPECT_EQ(late, 0) << "it waited for what it could have had";
}

// Something is mounted below it, or its file system is full or damaged there. It is nobody's, and no reason to end an office.
TEST(NodeSweep, AnActiveGoesOnWithWhatCantGo) {
  Node node;
  bury_many(node);
  if (HasFatalFailure()) return;
  node.tree->cant_go = {
      {id(1), ErrorCode::denied}, {id(2), ErrorCode::busy}, {id(3), ErrorCode::no_space}, {id(4), ErrorCode::corrupt}};
  ASSERT_TRUE(node.log->promote(Epoch(2)));
  node.let_it_sweep();
  const auto status = node.log->status();
  EXPECT_EQ(status.role, Role::active);
  EXPECT_EQ(status.fault, "");
  EXPECT_EQ(status.receive.graves_aside, 4U);
  EXPECT_NE(status.receive.why_aside, "");
  EXPECT_EQ(node.tree->in_grave_count(ports::Grave::deleted), 4U);
}

// The disk says no. Nobody needs what it was asked for; what else comes of the disk is the capture's to judge.
TEST(NodeSweep, AnActiveGoesOnWhenTheDiskFailsAtADeadFile) {
  Node node;
  bury_many(node);
  if (HasFatalFailure()) return;
  node.tree->cant_go = {{id(7), ErrorCode::io}};
  ASSERT_TRUE(node.log->promote(Epoch(2)));
  while (node.log->status().receive.graves_aside == 0) ASSERT_EQ(node.log->status().fault, "");
  EXPECT_EQ(node.log->status().role, Role::active);
  node.times.now += 600'000'000'000;
  node.log->remove_set(77);  // something to do
  node.let_it_sweep();
  EXPECT_EQ(node.log->status().fault, "");
  EXPECT_EQ(node.tree->in_grave_count(ports::Grave::deleted), 1U);
}

TEST(NodeSweep, APassiveStopsWhenTheDiskFailsAndForNothingElse) {
  Node node;
  bury_many(node);
  if (HasFatalFailure()) return;
  node.tree->cant_go = {{id(1), ErrorCode::busy}, {id(2), ErrorCode::no_space}};
  node.log->set_history(false);
  node.let_it_sweep();
  EXPECT_EQ(node.log->status().fault, "");
  EXPECT_EQ(node.log->status().receive.graves_aside, 2U);
  EXPECT_EQ(node.session(1, false, {Epoch(1), Sequence(2 * files)}, {create(220, "a")}), "");
  EXPECT_EQ(node.names(), "a ");
  node.tree->cant_go = {{id(1), ErrorCode::io}};
  node.times.now += 600'000'000'000;
  node.log->remove_set(77);
  while (node.log->status().fault.empty()) std::this_thread::yield();
}

// Without a history what a resynchronization displaced goes at its end.
TEST(NodeSweep, WhatAResynchronizationDisplacedAndCantGoStopsNothing) {
  Node node;
  ASSERT_TRUE(node.start());
  node.log->set_history(false);
  EXPECT_EQ(node.session(1, false, {}, {create(1, "a"), create(2, "b")}), "");
  node.tree->cant_go = {{id(1), ErrorCode::busy}};
  log::Record empty;
  empty.kind = log::Kind::ship_dir;
  empty.file = FileId::root(set);
  empty.flags = log::flag_first_chunk | log::flag_last_chunk;
  EXPECT_EQ(node.session(2, true, {Epoch(1), Sequence(900)},
                         {mark(log::Kind::resync_begin), empty, mark(log::Kind::resync_end)}),
            "");
  EXPECT_EQ(node.names(), "");
  while (node.log->status().receive.graves_aside == 0) ASSERT_EQ(node.log->status().fault, "");
  EXPECT_TRUE(node.log->status().receive.complete);
  EXPECT_EQ(node.tree->in_grave_count(ports::Grave::limbo), 0U);
  EXPECT_EQ(node.tree->in_grave_count(ports::Grave::deleted), 1U);
  node.stop();
  ASSERT_TRUE(node.start());
  while (node.log->status().receive.graves_aside == 0) ASSERT_EQ(node.log->status().fault, "");
}

TEST(NodeSweep, WhatDeletedFilesCostTheHistoryIsSaidOnce) {
  Node node;
  bury_many(node);
  if (HasFatalFailure()) return;
  UndoSettings few;
  few.max_bytes = 1ULL << 30;
  few.max_grave_bytes = files / 2 * least_object_bytes;
  node.journal->set_settings(few);
  const std::uint64_t first = node.journal->batches().front().number;
  std::uint64_t at = 2 * files;
  // Checkpoints: at the first one the segment that is being written ends.
  for (int n = 0; n < 3; ++n, at += 2)
    EXPECT_EQ(
        node.session(1, false, {Epoch(1), Sequence(at)},
                     {mark(log::Kind::epoch_begin), create(static_cast<std::uint8_t>(210 + n), std::to_string(n))}),
        "");
  EXPECT_FALSE(node.journal->is_reachable(first));
  // Until somebody looks more goes, for its size: that is no news, and no reason to keep the other from anybody.
  few.max_grave_bytes = 1ULL << 40;
  few.max_bytes = 1;
  node.journal->set_settings(few);
  for (int n = 0; n < 2; ++n, at += 2)
    EXPECT_EQ(node.session(
                  1, false, {Epoch(1), Sequence(at)},
                  {mark(log::Kind::epoch_begin), create(static_cast<std::uint8_t>(220 + n), std::to_string(10 + n))}),
              "");
  EXPECT_FALSE(node.journal->shortened());
  for (int n = 0; n < 120; ++n) node.log->tick();
  ASSERT_EQ(node.shortened.size(), 1U);
  EXPECT_NE(node.shortened.front().find("deleted files"), std::string::npos) << node.shortened.front();
}

// It follows again while much is left: nothing that its new history needs may go.
TEST(NodeSweep, WhatANewHistoryNeedsStays) {
  Node node;
  bury_many(node);
  if (HasFatalFailure()) return;
  ASSERT_TRUE(node.log->promote(Epoch(2)));
  const auto end = node.log->end_epoch();
  ASSERT_TRUE(end);
  ASSERT_TRUE(node.log->step_down(*end));
  const std::uint8_t number = 220;
  EXPECT_EQ(node.session(3, false, *end, {create(number, "a"), write(number, "text"), unlink(number, "a")}), "");
  node.let_it_sweep();
  EXPECT_EQ(node.tree->in_grave_count(ports::Grave::deleted), 1U);
  const std::uint64_t batch = node.batch_from(end->sequence.next().next());
  ASSERT_NE(batch, 0U);
  ASSERT_TRUE(node.log->rewind(batch, false));
  EXPECT_EQ(node.names(), "a ");
  EXPECT_EQ(node.content(id(number)), "text");
}

}  // namespace
}  // namespace holdfast::mirror
