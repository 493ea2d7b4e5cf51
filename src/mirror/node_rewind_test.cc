// SPDX-License-Identifier: Apache-2.0
// A node in mid-resync goes back to where the resynchronization began and is promoted there; the power goes at each step of it.
#include <future>

#include "mirror/passive_test_support.h"

namespace holdfast::mirror {
namespace {

using namespace testing;

// The power went while the log began anew: the only segment has a name and no header, or one of something else.
TEST(NodeRestart, ALogThatWasAboutToBeginAnewIsBegunWhateverIsLeftOfIt) {
  for (const bool zeros : {true, false}) {
    Node node;
    NodeState state;
    state.restarting = true;
    state.applied = {Epoch(3), Sequence(70)};
    ASSERT_TRUE(node.cell.store(encode(state)));
    auto segment = node.segments.create(1, 1 << 20);
    const Bytes noise(4096, zeros ? 0 : 0x5a);
    ASSERT_TRUE((*segment)->write_at(0, std::array{ByteView(noise)}));
    ASSERT_TRUE((*segment)->sync());
    const auto started = node.start();
    ASSERT_TRUE(started) << started.error().to_string();
    EXPECT_EQ(node.log->status().position, state.applied);
    EXPECT_EQ(node.session(4, false, state.applied, {mark(log::Kind::consistent)}), "") << "it goes on";
  }
}

TEST(NodeRewind, InMidResyncANodeIsPromotedByForceAtItsLastConsistentPoint) {
  Node node;
  bring_to_mid_resync(node);
  const auto status = node.log->status();
  EXPECT_FALSE(status.receive.complete);
  ASSERT_TRUE(status.receive.point);
  EXPECT_EQ(status.receive.point->applied, (Position{Epoch(1), Sequence(4)}));
  EXPECT_EQ(status.receive.point_time_ns, 4'000'000'000);
  EXPECT_EQ(node.log->promote(Epoch(3)).error().code, ErrorCode::refused);
  EXPECT_EQ(node.content(id(1)), "NEW") << "a refusal touches nothing";
  const auto promoted = node.log->promote(Epoch(3), false, true);
  ASSERT_TRUE(promoted) << promoted.error().to_string();
  EXPECT_EQ(promoted->recovered_time_ns, 4'000'000'000);
  EXPECT_EQ(promoted->base.epoch, Epoch(1));
  EXPECT_GT(promoted->base.sequence.value, 1ULL << 40) << "nobody else holds it";
  EXPECT_EQ(node.names(), "a b ");
  EXPECT_EQ(node.content(id(1)), "old a");
  EXPECT_EQ(node.content(id(2)), "old b");
  EXPECT_EQ(node.log->status().role, Role::active);
  node.let_it_sweep();
  EXPECT_EQ(node.tree->in_grave_count(ports::Grave::deleted), 0U) << "nothing that an active could stumble over";
}

// What was whole is lost also where its folder is away: a later copy of it is not its first.
TEST(NodeRewind, AWholeSetWhoseFolderIsAwayIsLostWithTheOthers) {
  Node node;
  NodeState state;
  state.complete = {set, SetNumber{2}};
  ASSERT_TRUE(node.cell.store(encode(state)));
  ASSERT_TRUE(node.start());
  EXPECT_EQ(node.session(2, true, {Epoch(1), Sequence(900)}, {mark(log::Kind::epoch_begin)}), "");
  const auto now = decode_node_state(*node.cell.load());
  ASSERT_TRUE(now);
  EXPECT_EQ(now->lost, (std::set<SetNumber>{set, SetNumber{2}}));
}

// The way back waits for the folder of a set that is then unprotected.
TEST(NodeRewind, AWayBackDoesNotWaitForASetThatIsGone) {
  Node node;
  ASSERT_TRUE(node.start());
  EXPECT_EQ(node.session(1, false, {}, {create(1, "a"), write(1, "first")}), "");
  EXPECT_EQ(node.session(1, false, {Epoch(1), Sequence(2)}, {write(1, "other")}), "");
  const std::uint64_t to = node.batch_from(Sequence(2));
  ASSERT_NE(to, 0U);
  node.stop();
  NodeState state = *decode_node_state(*node.cell.load());
  state.rewind = PastState{to, {Epoch(1), Sequence(2)}, Epoch(0), true, {set, SetNumber{2}}};
  ASSERT_TRUE(node.cell.store(encode(state)));
  ASSERT_TRUE(node.start());
  EXPECT_EQ(node.content(id(1)), "other") << "it waits";
  ASSERT_TRUE(node.log->remove_set(2));
  EXPECT_EQ(node.content(id(1)), "first");
  EXPECT_FALSE(decode_node_state(*node.cell.load())->rewind);
  const auto promoted = node.log->promote(Epoch(2));
  EXPECT_TRUE(promoted) << promoted.error().to_string();
}

// Of three nodes two change roles: the third's history goes on across it.
TEST(NodeRewind, AHistoryGoesOnAcrossARoleChangeOfOthers) {
  Node node;
  ASSERT_TRUE(node.start());
  EXPECT_EQ(node.session(1, false, {}, {create(1, "a"), write(1, "first"), mark(log::Kind::consistent)}), "");
  EXPECT_EQ(node.session(1, false, {Epoch(1), Sequence(3)}, {write(1, "other")}), "");
  const std::uint64_t earlier = node.batch_from(Sequence(3));
  ASSERT_NE(earlier, 0U);
  EXPECT_EQ(node.session(2, false, {Epoch(1), Sequence(4)}, {mark(log::Kind::epoch_begin), write(1, "third")}), "");
  EXPECT_EQ(node.content(id(1)), "third");
  const auto there = node.log->rewind(earlier, false);
  ASSERT_TRUE(there) << there.error().to_string();
  EXPECT_EQ(there->epoch, Epoch(1));
  EXPECT_EQ(node.content(id(1)), "first");
}

TEST(NodeHistory, IsSwitchedOffAndOnWhileTheNodeFollows) {
  Node node;
  ASSERT_TRUE(node.start());
  EXPECT_EQ(node.session(1, false, {}, {create(1, "a"), write(1, "first"), create(2, "b"), unlink(2, "b")}), "");
  const std::uint64_t old_point = node.batch_from(Sequence(0));
  ASSERT_NE(old_point, 0U);
  EXPECT_EQ(node.tree->in_grave_count(ports::Grave::deleted), 1U);
  node.log->set_history(false);
  EXPECT_FALSE(node.journal->on());
  EXPECT_TRUE(node.journal->batches().empty());
  node.let_it_sweep();
  EXPECT_EQ(node.tree->in_grave_count(ports::Grave::deleted), 0U) << "nobody needs it";
  EXPECT_EQ(node.log->rewind(old_point, false).error().code, ErrorCode::refused);
  EXPECT_EQ(node.session(1, false, {Epoch(1), Sequence(4)}, {write(1, "other"), create(3, "c")}), "");
  EXPECT_TRUE(node.journal->batches().empty());
  node.log->set_history(true);
  EXPECT_EQ(node.session(1, false, {Epoch(1), Sequence(6)}, {write(1, "third"), unlink(3, "c")}), "");
  EXPECT_EQ(node.names(), "a ");
  EXPECT_EQ(node.log->rewind(old_point, false).error().code, ErrorCode::not_found) << "what lay before is gone";
  const std::uint64_t point = node.batch_from(Sequence(6));
  EXPECT_GT(point, old_point) << "numbers rise for ever";
  const auto back = node.log->rewind(point, false);
  ASSERT_TRUE(back) << back.error().to_string();
  EXPECT_EQ(node.names(), "a c ");
  EXPECT_EQ(node.content(id(1)), "other");
}

TEST(NodeLook, ThePastIsSeenWhileTheNodeFollowsAndUntilItLeads) {
  Node node;
  ASSERT_TRUE(node.start());
  EXPECT_EQ(node.session(1, false, {}, {create(1, "a"), write(1, "first")}), "");
  EXPECT_EQ(node.session(1, false, {Epoch(1), Sequence(2)}, {write(1, "other"), create(2, "b")}), "");
  EXPECT_EQ(node.log->look(12345).error().code, ErrorCode::not_found);
  const auto view = node.log->look(node.batch_from(Sequence(2)));
  ASSERT_TRUE(view) << view.error().to_string();
  const auto content = [&] {
    Bytes bytes(100);
    const auto got = (*view)->read(set, id(1), 0, bytes);
    return got ? std::string(as_text(ByteView(bytes).first(*got))) : to_string(got.error().code);
  };
  EXPECT_EQ(content(), "first");
  EXPECT_EQ((*view)->list(set, FileId::root(set))->size(), 1U);
  EXPECT_EQ(node.session(1, false, {Epoch(1), Sequence(4)}, {write(1, "third"), unlink(1, "a"), create(3, "c")}), "");
  EXPECT_EQ(node.names(), "b c ");
  EXPECT_EQ(content(), "first");
  const auto entries = (*view)->list(set, FileId::root(set));
  ASSERT_TRUE(entries && entries->size() == 1);
  EXPECT_EQ(entries->front().name, "a");
  ASSERT_TRUE(node.log->promote(Epoch(2)));
  EXPECT_EQ(content(), "stale") << "nobody knows what an active changes";
}

TEST(NodeHistory, IsNotSwitchedOffWhileItIsTheWayBack) {
  Node node;
  bring_to_mid_resync(node);
  node.log->set_history(false);
  EXPECT_TRUE(node.journal->on());
  const auto promoted = node.log->promote(Epoch(3), false, true);
  ASSERT_TRUE(promoted) << promoted.error().to_string();
  EXPECT_EQ(node.content(id(1)), "old a");
  for (int i = 0; i < 60; ++i) node.log->tick();
  EXPECT_FALSE(node.journal->on()) << "as soon as nobody needs it";
}

TEST(NodeRewind, ASealLooksIfTheWayBackIsOpen) {
  Node node;
  bring_to_mid_resync(node);
  EXPECT_FALSE(node.log->seal(Epoch(3))->fallback) << "nobody asked";
  const auto open = node.log->seal(Epoch(4), true);
  ASSERT_TRUE(open);
  EXPECT_FALSE(open->complete);
  EXPECT_TRUE(open->fallback) << open->no_fallback;
  ASSERT_TRUE(node.journal->gap(0, "something changed it"));
  const auto closed = node.log->seal(Epoch(5), true);
  ASSERT_TRUE(closed);
  EXPECT_FALSE(closed->fallback);
  EXPECT_NE(closed->no_fallback, "");
}

// A rewind holds the append lock for minutes; holdfastd kills a mirror that does not answer for three seconds.
TEST(NodeRewind, StatusWaitsForNoRewind) {
  Node node;
  bring_to_mid_resync(node);
  const Position end = node.log->status().position;
  const auto as_a_rewind_does = node.log->receiver().hold();
  auto asked = std::async(std::launch::async, [&] { return node.log->status().position; });
  ASSERT_EQ(asked.wait_for(std::chrono::seconds(10)), std::future_status::ready);
  EXPECT_EQ(asked.get(), end);
}

TEST(NodeRewind, ARestartInMidResyncKeepsThePoint) {
  Node node;
  bring_to_mid_resync(node);
  for (unsigned life = 0; life < 3; ++life) {
    node.crash(life);
    ASSERT_TRUE(node.start());
    ASSERT_TRUE(node.log->status().receive.point) << life;
    EXPECT_FALSE(node.log->status().receive.complete);
  }
  const auto promoted = node.log->promote(Epoch(3), false, true);
  ASSERT_TRUE(promoted) << promoted.error().to_string();
  EXPECT_EQ(node.names(), "a b ");
  EXPECT_EQ(node.content(id(1)), "old a");
}

TEST(NodeRewind, APointIsGivenUpWhenTheCopyIsWhole) {
  Node node;
  bring_to_mid_resync(node);
  EXPECT_EQ(node.session(2, false, {Epoch(2), Sequence(906)}, {mark(log::Kind::resync_end)}), "");
  const auto status = node.log->status();
  EXPECT_TRUE(status.receive.complete);
  EXPECT_FALSE(status.receive.point);
  EXPECT_FALSE(node.journal->pinned());
  EXPECT_EQ(node.names(), "a c ");
}

// The power goes at each step, and at one more on the way up: the node is where it was, or at its point; never between.
TEST(NodeRewind, ThePowerGoesAtEachStepOfAPromotionInMidResync) {
  unsigned back = 0, resumed = 0;
  for (std::uint64_t step = 0;; ++step) {
    Node node;
    bring_to_mid_resync(node);
    if (HasFatalFailure()) return;
    node.fuse.left = step;
    const bool done = node.log->promote(Epoch(3), false, true).has_value();
    if (done && !node.fuse.burnt) break;
    node.crash(static_cast<unsigned>(step));
    node.fuse.left = step % 7 * 3;
    if (Status up = node.start(); !up) {
      EXPECT_TRUE(node.fuse.burnt) << step << " " << up.error().to_string();
      ++resumed;
    }
    node.crash(static_cast<unsigned>(step) + 1);
    const Status up = node.start();
    ASSERT_TRUE(up) << step << " " << up.error().to_string();
    const auto status = node.log->status();
    EXPECT_FALSE(status.receive.rewinding) << step;
    if (status.receive.complete) {
      ++back;
      EXPECT_EQ(node.names(), "a b ") << step;
      EXPECT_EQ(node.content(id(1)), "old a") << step;
    } else {
      ASSERT_TRUE(status.receive.point || status.position.epoch == Epoch(3)) << step;
    }
    if (status.position.epoch == Epoch(3)) continue;  // it led the epoch, and says so
    const auto promoted = node.log->promote(Epoch(4), false, true);
    ASSERT_TRUE(promoted) << step << " " << promoted.error().to_string();
    EXPECT_EQ(node.names(), "a b ") << step;
    EXPECT_EQ(node.content(id(1)), "old a") << step;
    EXPECT_EQ(node.content(id(2)), "old b") << step;
  }
  EXPECT_GT(back, 3U);
  EXPECT_GT(resumed, 0U);
}

TEST(NodeRewind, APassiveGoesBackInTimeAndForthAgain) {
  Node node;
  ASSERT_TRUE(node.start());
  EXPECT_EQ(node.session(1, false, {}, {create(1, "a"), write(1, "first")}), "");
  EXPECT_EQ(node.session(1, false, {Epoch(1), Sequence(2)}, {write(1, "other"), create(2, "b"), unlink(1, "a")}), "");
  std::uint64_t target = 0;
  for (const auto& b : node.journal->batches())
    if (b.head.before.sequence == Sequence(2)) target = b.number;
  ASSERT_NE(target, 0U) << "each second begins a batch";
  EXPECT_EQ(node.log->rewind(target + 1000, false).error().code, ErrorCode::not_found);
  EXPECT_EQ(node.log->rewind(target - 1, false).error().code, ErrorCode::not_found) << "no batch begins there";
  EXPECT_EQ(node.names(), "b ");
  const auto there = node.log->rewind(target, false);
  ASSERT_TRUE(there) << there.error().to_string();
  EXPECT_EQ(*there, (Position{Epoch(1), Sequence(2)}));
  EXPECT_EQ(node.names(), "a ");
  EXPECT_EQ(node.content(id(1)), "first");
  EXPECT_EQ(node.log->status().position, *there);
  EXPECT_TRUE(node.log->status().receive.complete);
  std::uint64_t reversal = 0;
  for (const auto& b : node.journal->batches())
    if (b.head.why == BatchWhy::rewind) reversal = b.number;
  const auto forth = node.log->rewind(reversal, false);
  ASSERT_TRUE(forth) << forth.error().to_string();
  EXPECT_EQ(*forth, (Position{Epoch(1), Sequence(5)}));
  EXPECT_EQ(node.names(), "b ");
  // And it follows on from there, as if nothing had been.
  EXPECT_EQ(node.session(1, false, *forth, {write(2, "after")}), "");
  EXPECT_EQ(node.content(id(2)), "after");
}

TEST(NodeState, AnOlderProgramReadsItWhileThereIsNeitherPointNorRewind) {
  NodeState state;
  state.complete = {1, 2};
  EXPECT_EQ(encode(state)[8], 1);
  state.point = PastState{7, {Epoch(1), Sequence(2)}, Epoch(3), false, {1}};
  state.point_time_ns = -5;
  state.rewind = PastState{9, {Epoch(4), Sequence(5)}, Epoch(6), true, {2}};
  state.reversal = 11;
  const Bytes bytes = encode(state);
  EXPECT_EQ(bytes[8], 2);
  const auto read = decode_node_state(bytes);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->point->batch, 7U);
  EXPECT_FALSE(read->point->clean);
  EXPECT_EQ(read->point_time_ns, -5);
  EXPECT_EQ(read->rewind->complete, std::set<SetNumber>{2});
  EXPECT_EQ(read->reversal, 11U);
}

// It led, and what it changed then was no record that it applied: its history, which begins after that, goes back no further.
TEST(NodeRewind, WhoLedGoesBackNoFurtherThanToTheEndOfThat) {
  Node node;
  ASSERT_TRUE(node.start());
  EXPECT_EQ(node.session(1, false, {}, {create(1, "a"), create(2, "b")}), "");
  ASSERT_TRUE(node.log->promote(Epoch(2)));
  const auto end = node.log->end_epoch();
  ASSERT_TRUE(end);
  ASSERT_TRUE(node.log->step_down(*end));
  EXPECT_EQ(node.session(3, false, *end, {create(3, "c")}), "");
  const auto point = node.journal->point_at(3'000'000'000);  // after the last record before it led
  ASSERT_FALSE(point) << point->has_value();
  EXPECT_EQ(point.error().code, ErrorCode::not_found);
}

}  // namespace
}  // namespace holdfast::mirror
