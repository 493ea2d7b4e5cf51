// SPDX-License-Identifier: Apache-2.0
// A passive goes back as part of its promotion; shadows; a node one of whose sets never had a copy.
#include "mirror/passive_test_support.h"

namespace holdfast::mirror {
namespace {

using namespace testing;

void bring_to_two_points(Node& node) {
  ASSERT_TRUE(node.start());
  EXPECT_EQ(node.session(1, false, {}, {create(1, "a"), write(1, "first")}), "");
  EXPECT_EQ(node.session(1, false, {Epoch(1), Sequence(2)}, {write(1, "other"), create(2, "b"), unlink(1, "a")}), "");
  EXPECT_EQ(node.names(), "b ");
}

PromoteOptions to(std::uint64_t batch, const std::string& plan = "p") {
  PromoteOptions options;
  options.to_batch = batch;
  options.plan = plan;
  return options;
}

TEST(NodePromote, APassiveGoesBackInsideItsPromotion) {
  Node node;
  bring_to_two_points(node);
  const std::uint64_t batch = node.batch_from(Sequence(2));
  ASSERT_NE(batch, 0U);
  EXPECT_EQ(node.log->promote(Epoch(2), to(batch + 1000)).error().code, ErrorCode::not_found);
  EXPECT_TRUE(node.log->status().receive.complete) << "a refusal touches nothing";
  EXPECT_EQ(node.names(), "b ");
  const auto promoted = node.log->promote(Epoch(2), to(batch));
  ASSERT_TRUE(promoted) << promoted.error().to_string();
  EXPECT_EQ(node.names(), "a ");
  EXPECT_EQ(node.content(id(1)), "first");
  EXPECT_EQ(promoted->base.epoch, Epoch(1));
  EXPECT_GT(promoted->base.sequence.value, 1ULL << 40) << "nobody else holds it";
  EXPECT_EQ(promoted->recovered_time_ns, 2'000'000'000);
  ASSERT_TRUE(promoted->went_back);
  EXPECT_EQ(promoted->went_back->position, (Position{Epoch(1), Sequence(2)}));
  const auto status = node.log->status();
  EXPECT_EQ(status.role, Role::active);
  ASSERT_TRUE(status.went_back);
  EXPECT_EQ(status.went_back->plan, "p");
  EXPECT_EQ(status.went_back->epoch, Epoch(2));
}

// Between "complete at the end" and "active of that epoch" there is nothing that a vote could count.
TEST(NodePromote, ThePowerGoesAtEachStepOfGoingBackInAPromotion) {
  unsigned untouched = 0, half_way = 0, led = 0;
  for (std::uint64_t step = 0;; ++step) {
    Node node;
    bring_to_two_points(node);
    if (HasFatalFailure()) return;
    const std::uint64_t batch = node.batch_from(Sequence(2));
    node.fuse.left = step;
    const bool done = node.log->promote(Epoch(2), to(batch)).has_value();
    if (done && !node.fuse.burnt) break;
    node.crash(static_cast<unsigned>(step));
    node.fuse.left = step % 7 * 3;
    (void)node.start();
    node.crash(static_cast<unsigned>(step) + 1);
    const Status up = node.start();
    ASSERT_TRUE(up) << step << " " << up.error().to_string();
    const auto status = node.log->status();
    EXPECT_FALSE(status.receive.rewinding) << step;
    if (status.position.epoch == Epoch(2)) {
      ++led;
      EXPECT_EQ(node.names(), "a ") << step;
    } else if (status.receive.complete) {
      ++untouched;
      ASSERT_TRUE(node.log->promote(Epoch(3)));
      EXPECT_EQ(node.names(), "b ") << step;
    } else {
      ++half_way;
      EXPECT_EQ(node.names(), "a ") << step;
      ASSERT_TRUE(status.receive.point) << step;
      EXPECT_EQ(status.receive.point->applied, (Position{Epoch(1), Sequence(2)})) << step;
      EXPECT_EQ(node.log->promote(Epoch(3)).error().code, ErrorCode::refused) << step;
      const auto forced = node.log->promote(Epoch(3), false, true);
      ASSERT_TRUE(forced) << step << " " << forced.error().to_string();
      EXPECT_EQ(node.names(), "a ") << step;
      EXPECT_EQ(node.content(id(1)), "first") << step;
    }
  }
  EXPECT_GT(untouched, 3U);
  EXPECT_GT(half_way, 3U);
}

TEST(NodePromote, AnEpochThatNobodyWantsAnyMoreIsNotOpened) {
  Node node;
  bring_to_two_points(node);
  PromoteOptions options = to(node.batch_from(Sequence(2)));
  int asked = 0;
  options.given_up = [&] { return ++asked == 2; };
  EXPECT_EQ(node.log->promote(Epoch(2), options).error().code, ErrorCode::stale);
  const auto status = node.log->status();
  EXPECT_NE(status.role, Role::active);
  EXPECT_FALSE(status.receive.complete) << "others may have gone on from where it was";
  EXPECT_TRUE(status.receive.point);
  EXPECT_EQ(node.names(), "a ");
}

// The epoch that went back was lost before anybody followed it: the same plan needs not go back again, another one is refused nothing it needs.
TEST(NodePromote, ThePlanThatTookItBackPromotesItAgain) {
  Node node;
  bring_to_two_points(node);
  const std::uint64_t batch = node.batch_from(Sequence(2));
  ASSERT_TRUE(node.log->promote(Epoch(2), to(batch)));
  node.log->abort();
  EXPECT_EQ(node.log->promote(Epoch(3), to(batch, "another")).error().code, ErrorCode::refused);
  const auto sealed = node.log->seal(Epoch(4));
  ASSERT_TRUE(sealed);
  const auto again = node.log->promote(Epoch(4), to(batch));
  ASSERT_TRUE(again) << again.error().to_string();
  EXPECT_EQ(again->went_back->epoch, Epoch(4));
  EXPECT_EQ(node.names(), "a ");
}

log::Record shadow_record(std::string_view name) {
  log::Record r;
  r.kind = log::Kind::shadow;
  r.name = name;
  return r;
}

TEST(NodePromote, AMarkMakesAShadowOnThePassive) {
  Node node;
  ASSERT_TRUE(node.start());
  EXPECT_EQ(node.session(1, false, {},
                         {create(1, "a"), write(1, "first"), shadow_record("uc:before"), write(1, "other"),
                          create(2, "b"), shadow_record("s-:hourly"), shadow_record("?:unknown")}),
            "");
  for (int life = 0; life < 2; ++life) {
    const auto shadow = node.log->shadows().find("before");
    ASSERT_TRUE(shadow) << life;
    EXPECT_EQ(shadow->position, (Position{Epoch(1), Sequence(3)}));
    EXPECT_EQ(shadow->time_ns, 3'000'000'000);
    EXPECT_TRUE(shadow->application_consistent);
    EXPECT_EQ(shadow->origin, ShadowOrigin::user);
    EXPECT_EQ(node.log->shadows().list().size(), 2U);
    const auto point = node.journal->first_from(shadow->batch);
    ASSERT_TRUE(point);
    EXPECT_EQ(point->head.before.sequence, Sequence(3)) << "a batch ends behind the mark";
    EXPECT_TRUE(point->head.consistent);
    if (life == 1) break;
    node.crash(7);  // redo passes the marks again
    ASSERT_TRUE(node.start());
    EXPECT_EQ(node.session(1, false, {Epoch(1), Sequence(7)}, {write(1, "more")}), "");
  }
  const auto shadow = node.log->shadows().find("before");
  const auto there = node.log->rewind(node.journal->first_from(shadow->batch)->number, false);
  ASSERT_TRUE(there) << there.error().to_string();
  EXPECT_EQ(node.content(id(1)), "first");
  bool named = false;  // what was before the rewind has a name
  for (const auto& s : node.log->shadows().list()) named = named || s.name.starts_with("before-rewind-");
  EXPECT_TRUE(named);
}

TEST(NodePromote, WhatAResynchronizationReplacedHasAName) {
  Node node;
  bring_to_mid_resync(node);
  EXPECT_EQ(node.session(2, false, {Epoch(2), Sequence(906)}, {mark(log::Kind::resync_end)}), "");
  ASSERT_TRUE(node.log->status().receive.complete);
  const auto shadows = node.log->shadows().list();
  ASSERT_EQ(shadows.size(), 1U);
  EXPECT_TRUE(shadows[0].name.starts_with("before-resync-")) << shadows[0].name;
  const auto point = node.journal->first_from(shadows[0].batch);
  ASSERT_TRUE(point);
  ASSERT_TRUE(node.log->rewind(point->number, false));
  EXPECT_EQ(node.names(), "a b ");
  EXPECT_EQ(node.content(id(2)), "old b");
}

// What an active changed last is in no log of its successor: how old its data is, is what it noted itself.
TEST(NodePromote, ThePointOfAnActiveThatDiedIsAsOldAsItsLastChange) {
  Node node;
  ASSERT_TRUE(node.start());
  EXPECT_EQ(node.session(1, false, {}, {create(1, "a")}), "");
  ASSERT_TRUE(node.log->promote(Epoch(2)));
  node.stop();
  node.last_active_ns = 777;
  ASSERT_TRUE(node.start());
  EXPECT_EQ(node.session(3, true, {Epoch(2), Sequence(900)}, {mark(log::Kind::resync_begin), create(2, "b")}), "");
  const auto status = node.log->status().receive;
  ASSERT_TRUE(status.point);
  EXPECT_EQ(status.point_time_ns, 777);
  const auto shadows = node.log->shadows().list();
  ASSERT_EQ(shadows.size(), 1U);
  EXPECT_EQ(shadows[0].name, "n2-epoch-2-divergent");
  EXPECT_EQ(shadows[0].time_ns, 777);
}

// I6: a set that was added and has no copy yet takes nothing from the others.
TEST(NodePromote, ASetThatNeverHadACopyIsEmptyAfterAForcedPromotion) {
  Node node;
  node.second = std::make_shared<MemoryTree>(SetNumber{2}, node.fuse);
  ASSERT_TRUE(node.start());
  EXPECT_EQ(node.session(1, false, {}, {create(1, "a"), write(1, "first")}), "");
  log::Record begin = mark(log::Kind::resync_begin), half = create(9, "half");
  begin.set = half.set = 2;
  half.parent = FileId::root(2);
  EXPECT_EQ(node.session(1, false, {Epoch(1), Sequence(2)}, {begin, half, write(1, "second")}), "");
  EXPECT_EQ(Node::names_of(*node.second), "half ");
  EXPECT_EQ(node.log->promote(Epoch(2)).error().code, ErrorCode::refused);
  EXPECT_EQ(node.log->status().receive.first_copies, std::set<SetNumber>{2});
  EXPECT_TRUE(node.log->seal(Epoch(2), true)->fallback);
  const auto promoted = node.log->promote(Epoch(2), false, true);
  ASSERT_TRUE(promoted) << promoted.error().to_string();
  EXPECT_EQ(node.content(id(1)), "second") << "nothing of the others is given up";
  EXPECT_EQ(Node::names_of(*node.second), "");
}

TEST(Shadows, NamesKeepsAndThinning) {
  Fuse fuse;
  ModelCell cell(fuse);
  Shadows shadows(&cell);
  ASSERT_TRUE(shadows.load());
  EXPECT_FALSE(check_shadow_name("a/b"));
  EXPECT_FALSE(check_shadow_name(""));
  ASSERT_TRUE(shadows.add({"x", 5, {}, 100, false, ShadowOrigin::user, false}));
  ASSERT_TRUE(shadows.add({"x", 7, {}, 200, false, ShadowOrigin::user, false}));
  EXPECT_EQ(shadows.find("x")->batch, 7U) << "the newer one has the name";
  ASSERT_TRUE(shadows.set_keep("x", true));
  EXPECT_EQ(shadows.add({"x", 9, {}, 300, false, ShadowOrigin::user, false})->name, "x-2");
  EXPECT_EQ(shadows.oldest_kept(), 7U);
  constexpr std::int64_t minute = 60'000'000'000;
  for (int i = 0; i < 48 * 6; ++i)  // every ten minutes for two days
    ASSERT_TRUE(shadows.add({"s" + std::to_string(i),
                             100 + static_cast<std::uint64_t>(i),
                             {},
                             i * 10 * minute,
                             false,
                             ShadowOrigin::schedule,
                             false}));
  std::size_t scheduled = 0;
  for (const auto& s : shadows.list()) scheduled += s.origin == ShadowOrigin::schedule ? 1 : 0;
  EXPECT_GE(scheduled, 24U);
  EXPECT_LE(scheduled, 28U);
  EXPECT_TRUE(shadows.find("s287")) << "the newest stays";
  Shadows again(&cell);
  ASSERT_TRUE(again.load());
  EXPECT_EQ(again.list().size(), shadows.list().size());
  const auto dropped = shadows.drop([](const Shadow& s) { return s.batch < 8; });
  ASSERT_TRUE(dropped);
  EXPECT_EQ(dropped->size(), 1U);
}

// --- full folders

const std::string eight_sectors(4096, 'x');

// What was deleted stays for the history's sake until somebody needs the room.
TEST(NodePromote, AFullFolderGivesUpDeletedFilesBeforeApplyWaits) {
  for (const bool checkpoint_between : {false, true}) {
    Node node;
    node.tree->sectors_at_most = 8;
    ASSERT_TRUE(node.start());
    EXPECT_EQ(node.session(1, false, {}, {create(1, "a"), write(1, eight_sectors)}), "");
    // A checkpoint before and after it.
    const log::Record between = mark(checkpoint_between ? log::Kind::epoch_begin : log::Kind::consistent);
    EXPECT_EQ(node.session(1, false, {Epoch(1), Sequence(2)}, {unlink(1, "a"), create(2, "b"), between}), "");
    EXPECT_EQ(node.content(id(1)), eight_sectors) << "its grave";
    EXPECT_EQ(node.session(1, false, {Epoch(1), Sequence(5)}, {write(2, "more"), create(3, "c"), write(3, "c")}), "");
    EXPECT_EQ(node.content(id(1)), "gone");
    EXPECT_EQ(node.content(id(2)), "more");
    EXPECT_FALSE(node.log->status().receive.waits_for_space);
    node.crash(checkpoint_between ? 1 : 2);
    ASSERT_TRUE(node.start());
    ASSERT_TRUE(node.log->promote(Epoch(2)));
    EXPECT_EQ(node.names(), "b c ");
    EXPECT_EQ(node.content(id(3)), "c");
  }
}

TEST(NodePromote, AFullFolderRefusesTheOfficeInsteadOfHangingInIt) {
  Node node;
  node.tree->sectors_at_most = 8;
  ASSERT_TRUE(node.start());
  EXPECT_EQ(node.session(1, false, {}, {create(1, "a"), write(1, eight_sectors)}), "");
  node.applies = false;
  EXPECT_EQ(node.session(1, false, {Epoch(1), Sequence(2)}, {create(2, "b"), write(2, "no room")}), "");
  const auto refused = node.log->promote(Epoch(2));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::no_space);
  EXPECT_NE(refused.error().hint, "");
  EXPECT_TRUE(node.log->status().receive.waits_for_space);
  EXPECT_TRUE(node.log->seal(Epoch(3))) << "nobody stands before it";
  node.tree->sectors_at_most = 9;
  ASSERT_TRUE(node.log->promote(Epoch(3)));
  EXPECT_EQ(node.content(id(2)), "no room");
}

// The point of the resynchronization pins the history: apply waits for room for it. That is another disk than the folder's, and who goes back to the
// point needs none of it.
TEST(NodePromote, AHistoryWithoutRoomIsNamedAndKeepsNobodyFromItsPoint) {
  Node node;
  bring_to_mid_resync(node);
  if (HasFatalFailure()) return;
  UndoSettings full;
  full.max_bytes = 1ULL << 30;
  full.free_bytes = [] { return std::uint64_t{0}; };
  full.reserve_bytes = 1;
  node.journal->set_settings(full);
  node.applies = false;  // it can't
  EXPECT_EQ(node.session(2, false, {Epoch(2), Sequence(906)}, {write(1, "and more")}), "");
  while (!node.log->status().receive.waits_for_space) std::this_thread::yield();
  node.log->tick();
  const auto shortages = node.log->status().shortages;
  ASSERT_EQ(shortages.size(), 1U);
  EXPECT_EQ(shortages.front().where, Shortage::Where::history) << to_string(shortages.front().where);
  const auto refused = node.log->promote(Epoch(3));
  ASSERT_FALSE(refused);
  const auto promoted = node.log->promote(Epoch(4), false, true);
  ASSERT_TRUE(promoted) << promoted.error().to_string();
  EXPECT_EQ(node.names(), "a b ");
  EXPECT_EQ(node.content(id(1)), "old a");
}

// A dial blocks for seconds: the epoch it was for can be over when it succeeds, and the next one's peers be held off still.
TEST(NodePromote, ADialForAnEarlierEpochBeginsNoPeerAnew) {
  Node node;
  ASSERT_TRUE(node.start());
  EXPECT_EQ(node.session(1, false, {}, {create(1, "a")}), "");
  node.log->set_peers({{active, "n1"}});
  PromoteOptions held;
  held.hold_peers = true;
  ASSERT_TRUE(node.log->promote(Epoch(2), held));
  node.log->abort();
  ASSERT_TRUE(node.log->seal(Epoch(3)));
  ASSERT_TRUE(node.log->promote(Epoch(3), held));
  Welcome welcome;
  welcome.node = active;
  welcome.highest_kind = log::highest_kind;
  const auto sender = node.log->senders().front();
  for (const Epoch epoch : {Epoch(2), Epoch(3)}) {
    Script peer(encode_frame(welcome), Sequence(0));
    EXPECT_EQ(sender->open(peer, epoch).error().code, ErrorCode::stale);
    EXPECT_FALSE(peer.started);
    sender->close();
  }
  node.log->let_peers_in(Epoch(3));
  Script peer(encode_frame(welcome), Sequence(0));
  const Status opened = sender->open(peer, Epoch(3));
  EXPECT_TRUE(opened) << opened.error().to_string();
  EXPECT_TRUE(peer.started);
  sender->close();
}

}  // namespace
}  // namespace holdfast::mirror
