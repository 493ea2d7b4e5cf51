// SPDX-License-Identifier: Apache-2.0
// The active's side of a partial resynchronization, case by case: what it keeps in doubt when one is broken off. The peer's: partial_resync_test.cc.
#include <gtest/gtest.h>

#include "base/log.h"
#include "mirror/active_log.h"
#include "mirror/changed_walk.h"
#include "mirror/resync.h"
#include "mirror/test_change_store.h"
#include "mirror/test_ids.h"
#include "mirror/test_live_tree.h"
#include "mirror/test_machine.h"
#include "ports/times.h"

namespace holdfast::mirror::testing {
namespace {

constexpr SetNumber set = 1;
constexpr NodeId self{7};

const FileId root = FileId::root(set);

// The same set, on the active.
class PartialActive : public ::testing::Test {
 protected:
  struct Times final : ports::Times {
    std::int64_t realtime_ns() override { return ++now; }
    std::int64_t steady_ns() override { return ++now; }
    std::int64_t now = 1;
  };
  PartialActive() : model_(set), live_(model_), application_(model_, random_, set) {
    set_log_level(LogLevel::error);
    active_.begin_epoch();
    active_.ring().open(Epoch(2), {Epoch(1), Sequence(100)});
  }
  // That some name in the root changed, and whose it is.
  FileId note_a_name() {
    while (model_.find(root)->names.empty()) {
      OwnedRecord r;
      application_.step(r);
    }
    const auto& [name, id] = *model_.find(root)->names.begin();
    ChangeSet changes;
    changes.name(set, root, name);
    EXPECT_TRUE(map_.note(changes));
    return id;
  }
  // All that can be said before the peer answers.
  void step() {
    while (resync_.step().value() == Resync::Turn::more) {
    }
  }

  Times times_;
  std::mt19937 random_{5};
  ModelTree model_;
  ModelLiveTree live_;
  RandomModelApplication application_;
  ActiveLog active_{least_ring_bytes, times_};
  MemoryChangeStore* store_ = new MemoryChangeStore;
  ChangeMap map_{std::unique_ptr<ports::ChangeStore>(store_), "peer"};
  Resync resync_{active_, live_, self, set, std::make_unique<ChangedWalk>(map_, set, "peer")};
};

TEST_F(PartialActive, OneThatIsBrokenOffKeepsInDoubtWhatWasNamedAndWhatWasAskedFor) {
  const FileId id = note_a_name();
  step();
  resync_.acked({Sequence(101), Sequence(101)});  // it has the beginning
  step();
  ASSERT_EQ(resync_.unsettled().size(), 1U);
  EXPECT_EQ(resync_.unsettled()[0].id, id);
  EXPECT_EQ(resync_.unsettled()[0].folder, root);
  resync_.nak({set, id_of(9), nak_with_parent, 0});
  resync_.cancel();
  // The peer is another process by now: it applied what it had, and asked nobody.
  resync_.acked({Sequence(102), Sequence(102)});
  ASSERT_EQ(resync_.unsettled().size(), 2U);
  EXPECT_EQ(resync_.unsettled()[1].id, id_of(9));
  EXPECT_EQ(resync_.unsettled()[1].folder, id_of(9));
}

// A range of a big file was collapsed while the file was shipped: what had been sent has moved on the peer, and it asks for all of it.
TEST_F(PartialActive, AnObjectWhoseTurnHasBegunIsShippedAgainWhenItIsAskedFor) {
  for (std::uint8_t n = 1; n < 4; ++n) map_.note_object(set, id_of(n));
  ChangedWalk walk(map_, set, "peer");
  ASSERT_TRUE(walk.begin());
  ASSERT_EQ(walk.next().value()->id, id_of(1));  // its turn: some of it is shipped, in pieces
  const auto answer = [&](std::uint8_t n) {
    EXPECT_TRUE(walk.again({set, id_of(n), 0, 0}));
    const auto job = walk.next().value();
    EXPECT_EQ(job->id, id_of(n));
    return *job;
  };
  EXPECT_FALSE(answer(1).unless_file) << "what follows is not all of it";
  EXPECT_TRUE(answer(3).unless_file) << "it comes whole, later";
  EXPECT_TRUE(walk.again({set, id_of(1), nak_contents, 0}));
  EXPECT_EQ(walk.next().value()->id, id_of(1));
  EXPECT_TRUE(walk.again({set, id_of(2), nak_contents, 0}));
  EXPECT_EQ(walk.next().value()->id, id_of(2));
  EXPECT_EQ(walk.next().value()->id, id_of(3));
  const auto names = walk.next();
  ASSERT_TRUE(names);
  EXPECT_FALSE(answer(3).unless_file);
}

// What can't be looked at is not gone.
TEST_F(PartialActive, NothingIsSaidOfASetThatIsNotHereAnyMore) {
  const FileId id = note_a_name();
  map_.note_object(set, id);
  step();
  resync_.acked({Sequence(101), Sequence(101)});
  live_.lost = true;
  Result<Resync::Turn> turn = Resync::Turn::more;
  while (turn && *turn == Resync::Turn::more) turn = resync_.step();
  ASSERT_FALSE(turn);
  EXPECT_EQ(turn.error().code, ErrorCode::unavailable);
  EXPECT_EQ(active_.last_sequence(), Sequence(101)) << "only that it begins";
}

TEST_F(PartialActive, AMapThatCannotBeKeptIsNone) {
  store_->no_space = true;
  map_.note_object(set, id_of(1));
  step();
  resync_.acked({Sequence(101), Sequence(101)});
  const auto turn = resync_.step();
  ASSERT_FALSE(turn);
  EXPECT_EQ(turn.error().code, ErrorCode::unavailable);
  EXPECT_TRUE(map_.overflowed());
  EXPECT_TRUE(map_.is_whole(set).value()) << "it is compared as a whole";
}

TEST_F(PartialActive, AMapThatOverflowsUnderItsWalkEndsIt) {
  for (std::uint8_t n = 1; n < 10; ++n) map_.note_object(set, id_of(n));
  step();
  resync_.acked({Sequence(101), Sequence(101)});
  ASSERT_EQ(resync_.step().value(), Resync::Turn::more);
  map_.give_up({ErrorCode::no_space, "says the test", {}, 0});
  Result<Resync::Turn> turn = Resync::Turn::more;
  while (turn && *turn == Resync::Turn::more) turn = resync_.step();
  ASSERT_FALSE(turn) << "half of the keys were taken for all";
  EXPECT_EQ(turn.error().code, ErrorCode::unavailable);
}

}  // namespace
}  // namespace holdfast::mirror::testing
