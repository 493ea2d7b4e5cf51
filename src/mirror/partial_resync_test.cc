// SPDX-License-Identifier: Apache-2.0
// A partial resynchronization, case by case, where random lives (test_change_model.h) hardly come: what the peer asks for, when it may call its
// copy whole. The active's side: partial_active_test.cc.
#include <gtest/gtest.h>

#include "base/log.h"
#include "log/hash.h"
#include "log/record_codec.h"
#include "log/segment_log.h"
#include "log/ship.h"
#include "mirror/applier.h"
#include "mirror/test_ids.h"
#include "mirror/test_machine.h"

namespace holdfast::mirror::testing {
namespace {

using log::Kind;
using log::Record;
constexpr SetNumber set = 1;
constexpr NodeId self{7};

const FileId root = FileId::root(set);

// The passive: what is appended is applied at once.
class PartialPeer : public ::testing::Test {
 protected:
  PartialPeer() { set_log_level(LogLevel::error); }
  void SetUp() override {
    state_.applied = end_;
    state_.complete.insert(set);
    ASSERT_TRUE(log_.reset(end_));
    Applier::Hooks hooks;
    hooks.update_state = [this](const auto& change) {
      if (std::exchange(no_space_once_, false)) return Status(fail(ErrorCode::no_space, "says the test"));
      change(state_);
      return Status{};
    };
    hooks.nak = [this](const Nak& nak) { naks_.push_back(nak); };
    hooks.applied = [](std::uint64_t) {};
    hooks.resync_broken = [this] { ++broken_; };
    hooks.unknown_set = [](SetNumber) {};
    hooks.whole = [this](SetNumber number) { settled_.push_back(number); };
    applier_ = std::make_unique<Applier>(log_, no_undo_, std::move(hooks));
    ASSERT_TRUE(applier_->begin(state_));
    ASSERT_TRUE(applier_->add_tree(tree_));
  }
  void receive(Record r, bool addressed = false) {
    end_ = {Epoch(1), end_.sequence.next()};
    r.set = set;
    r.epoch = end_.epoch;
    r.sequence = end_.sequence;
    if (addressed) r.addressed_to = self;
    ASSERT_TRUE(log_.append(log::encode(r), 1, end_));
    ASSERT_TRUE(log_.sync());
  }
  void apply(Record r, bool addressed = false) {
    receive(r, addressed);
    for (;;) {
      const auto more = applier_->step();
      ASSERT_TRUE(more) << more.error().to_string();
      if (!*more && !applier_->waits_for_space()) break;
    }
  }
  void mark(Kind kind, std::uint32_t flags = 0) {
    Record r;
    r.kind = kind;
    r.flags = flags;
    apply(r, true);
  }
  void begin() { mark(Kind::resync_begin, log::flag_partial_resync); }
  // Start 2.
  void restart() {
    ASSERT_TRUE(applier_->checkpoint());
    state_.complete.clear();
    state_.resyncing.clear();
    ++state_.log_life;
    end_.sequence = Sequence(end_.sequence.value + 10);
    state_.applied = end_;
    ASSERT_TRUE(log_.reset(end_));
    ASSERT_TRUE(applier_->begin(state_));
    naks_.clear();
  }
  void make(Kind kind, const FileId& id, const FileId& parent, std::string_view name, std::uint32_t flags = 0) {
    Record r;
    r.kind = kind;
    r.file = id;
    r.parent = parent;
    r.name = name;
    r.mode = (kind == Kind::mkdir ? folder_type : regular_type) | 0644;
    r.flags = flags;
    apply(r);
  }
  void link(const FileId& id, std::string_view name, const FileId& parent = root) {
    Record r;
    r.kind = Kind::link;
    r.file = id;
    r.parent = parent;
    r.name = name;
    r.mode = regular_type;
    apply(r);
  }
  void write(const FileId& id, std::uint64_t offset, std::string_view text) {
    Record r;
    r.kind = Kind::write;
    r.file = id;
    r.offset = offset;
    r.payload = ByteView(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
    apply(r);
  }
  void ship_node(const FileId& id, std::uint32_t mode, std::uint64_t length, std::uint64_t rdev = 0) {
    Record r;
    r.kind = Kind::ship_node;
    r.file = id;
    r.mode = mode;
    r.length = length;
    r.rdev = rdev;
    apply(r, true);
  }
  bool asked(const FileId& id, std::uint64_t how) const {
    return std::find(naks_.begin(), naks_.end(), Nak{set, id, how, 0}) != naks_.end();
  }
  bool whole() const { return state_.complete.contains(set) && !state_.resyncing.contains(set); }

  static constexpr std::uint32_t regular_type = 0100000, folder_type = 0040000;
  Fuse fuse_;
  ModelSegments segments_{fuse_};
  std::shared_ptr<MemoryTree> tree_ = std::make_shared<MemoryTree>(set, fuse_);
  log::SegmentLog log_{segments_};
  NoUndo no_undo_;
  NodeState state_;
  Position end_{Epoch(1), Sequence(100)};
  std::unique_ptr<Applier> applier_;
  std::vector<Nak> naks_;
  std::vector<SetNumber> settled_;
  bool no_space_once_ = false;
  int broken_ = 0;
};

// Here /p/c, on the active /c by now; then p is moved into c, which for the peer lies below it.
TEST_F(PartialPeer, AFolderThatIsTakenFromItsPlaceIsAskedForWithTheOneThatHoldsIt) {
  const FileId p = id_of(1), c = id_of(2);
  make(Kind::mkdir, p, root, "p");
  make(Kind::mkdir, c, p, "c");
  restart();
  begin();
  Record r;
  r.kind = Kind::rename;
  r.file = p;
  r.parent = root;
  r.name = "p";
  r.parent2 = c;
  r.name2 = "p";
  r.mode = folder_type;
  apply(r);
  EXPECT_TRUE(asked(c, nak_with_parent));
  // Which is answered by what the root holds.
  Bytes listing;
  log::append_ship_entry(listing, {c, folder_type, "c"});
  Record names;
  names.kind = Kind::ship_dir;
  names.file = root;
  names.flags = log::flag_first_chunk | log::flag_last_chunk;
  names.payload = listing;
  apply(names, true);
  mark(Kind::resync_end);
  EXPECT_TRUE(whole());
  EXPECT_EQ(tree_->lookup(root, "c").value()->id, c);
  EXPECT_EQ(tree_->lookup(c, "p").value()->id, p);
  EXPECT_FALSE(tree_->lookup(root, "p").value());
  EXPECT_EQ(tree_->in_grave_count(ports::Grave::limbo), 0U);
}

// The active took it for known here: it was made before it died, got another id after that, and was changed since.
TEST_F(PartialPeer, AFolderThatItsAttributesMadeIsAskedForUnlessItsNamesFollow) {
  restart();
  begin();
  ship_node(id_of(1), folder_type | 0700, 0);
  EXPECT_TRUE(asked(id_of(1), 0));
  ship_node(id_of(2), folder_type | 0700, 0, log::rdev_all_follows);
  EXPECT_FALSE(asked(id_of(2), 0));
}

TEST_F(PartialPeer, AQuestionThatComesTooLateKeepsTheCopyFromBeingWhole) {
  restart();
  begin();
  link(id_of(1), "f");  // made without a name before this copy was told of it
  EXPECT_TRUE(asked(id_of(1), 0));
  mark(Kind::resync_end);
  EXPECT_FALSE(whole());
  EXPECT_EQ(broken_, 1);
  begin();
  ship_node(id_of(1), regular_type | 0600, 0, log::rdev_all_follows);
  mark(Kind::resync_end);
  EXPECT_TRUE(whole());
  EXPECT_EQ(broken_, 1);
}

// Its record and resync_end were appended one after the other: the walk had looked for it before.
TEST_F(PartialPeer, AFileThatGetsItsFirstNameAsAFullResynchronizationEndsKeepsTheCopyFromBeingWhole) {
  restart();
  mark(Kind::resync_begin);
  link(id_of(1), "f");
  mark(Kind::resync_end);
  EXPECT_FALSE(whole()) << "it is empty here";
  EXPECT_EQ(broken_, 1);
  mark(Kind::resync_begin);
  link(id_of(2), "g");
  ship_node(id_of(1), regular_type | 0600, 0);
  ship_node(id_of(2), regular_type | 0600, 0);
  mark(Kind::resync_end);
  EXPECT_TRUE(whole()) << "in a full one all of it follows its node";
}

// A name of something that can't be made empty and filled later, in a folder that went before the peer was answered.
TEST_F(PartialPeer, AFolderThatIsGoneAgainNeedsNoListing) {
  make(Kind::mkdir, id_of(1), root, "d");
  restart();
  begin();
  Record r;
  r.kind = Kind::rename;
  r.file = id_of(2);
  r.parent = root;
  r.name = "s";
  r.parent2 = id_of(1);
  r.name2 = "s";
  r.mode = 0120000;
  apply(r);
  EXPECT_TRUE(asked(id_of(2), 0));
  Record removed;
  removed.kind = Kind::unlink;
  removed.file = id_of(2);
  removed.parent = id_of(1);
  removed.name = "s";
  apply(removed);
  removed.kind = Kind::rmdir;
  removed.file = id_of(1);
  removed.parent = root;
  removed.name = "d";
  apply(removed);
  mark(Kind::resync_end);
  EXPECT_TRUE(whole());
}

// When the batch is done again the copy is none any more, and nothing in it is seen: what is owed for it is not owed then.
TEST_F(PartialPeer, ACopyThatIsGivenUpIsAskedForAlsoWhereThereIsNoSpace) {
  tree_->no_space_once_at_unstage = true;
  link(id_of(1), "f");
  EXPECT_FALSE(whole());
  EXPECT_FALSE(tree_->no_space_once_at_unstage);
  EXPECT_EQ(broken_, 1);
}

// It is done again as a redo would, but nothing of it was done by another life.
TEST_F(PartialPeer, ABeginningThatFoundNoSpaceOnceIsNoBrokenOne) {
  restart();
  no_space_once_ = true;
  begin();
  mark(Kind::resync_end);
  EXPECT_TRUE(whole());
  EXPECT_EQ(broken_, 0);
}

TEST_F(PartialPeer, AWholeSetHasNoQuestionsAnyMore) {
  make(Kind::create, id_of(1), root, "f");
  write(id_of(1), 0, "some");
  restart();
  begin();
  Record r;  // after everything was shipped: it holds what it should, and asks all the same
  r.kind = Kind::fallocate;
  r.mode_flags = fallocate_insert;
  r.file = id_of(1);
  r.length = sector_bytes;
  r.size = sector_bytes + 4;
  apply(r);
  EXPECT_EQ(naks_.size(), 1U);
  EXPECT_TRUE(settled_.empty());
  mark(Kind::resync_end);
  EXPECT_EQ(settled_, std::vector<SetNumber>{set});
}

TEST_F(PartialPeer, WhatIsGoneAgainNeedsNoContents) {
  restart();
  begin();
  link(id_of(1), "f");
  Record r;
  r.kind = Kind::unlink;
  r.parent = root;
  r.name = "f";
  r.file = id_of(1);
  apply(r);
  mark(Kind::resync_end);
  EXPECT_TRUE(whole());
}

// What it holds of a file that had no name when it fell behind is old, and can't be shipped.
TEST_F(PartialPeer, AFileThatHadNoNameComesAsAWholeWhenItGetsOne) {
  make(Kind::create, id_of(1), {}, "", log::flag_orphan);
  write(id_of(1), 0, "old");
  restart();
  write(id_of(1), 3, "missed");
  begin();
  link(id_of(1), "f");
  EXPECT_TRUE(asked(id_of(1), 0));
  mark(Kind::resync_end);
  EXPECT_FALSE(whole());
}

// Nor can it in a full one.
TEST_F(PartialPeer, AFileThatHadNoNameIsNotKeptThroughAFullResynchronization) {
  make(Kind::create, id_of(1), {}, "", log::flag_orphan);
  write(id_of(1), 0, "old");
  restart();
  write(id_of(1), 0, "new");  // skipped
  mark(Kind::resync_begin);
  mark(Kind::resync_end);
  EXPECT_TRUE(whole());
  EXPECT_EQ(tree_->in_grave_count(ports::Grave::orphan), 0U);
  link(id_of(1), "f");
  EXPECT_FALSE(whole()) << "it came back as it was";
  EXPECT_EQ(broken_, 1);
}

// What came after it in its batch had been made already, for names that are not given any more.
TEST_F(PartialPeer, WhatWasStagedWhenACopyIsGivenUpIsUnknownAgain) {
  restart();
  mark(Kind::resync_begin);
  mark(Kind::resync_end);
  Record r;
  r.kind = Kind::link;
  r.file = id_of(1);
  r.parent = root;
  r.name = "f";
  r.mode = regular_type;
  receive(r);
  make(Kind::create, id_of(2), root, "g");
  EXPECT_EQ(broken_, 1);
  EXPECT_FALSE(tree_->attributes(id_of(2)).value());
  mark(Kind::resync_begin);
  ship_node(id_of(2), regular_type | 0600, 0);
  link(id_of(2), "g");
  mark(Kind::resync_end);
  EXPECT_TRUE(whole());
  EXPECT_EQ(tree_->lookup(root, "g").value()->id, id_of(2));
}

// Those that were open while it was made a copy are known: they came in the log.
TEST_F(PartialPeer, AFileWithoutANameThatIsMadeInAResynchronizationStays) {
  restart();
  mark(Kind::resync_begin);
  make(Kind::create, id_of(1), {}, "", log::flag_orphan);
  mark(Kind::resync_end);
  link(id_of(1), "f");
  EXPECT_TRUE(whole());
}

TEST_F(PartialPeer, AFileThatItsNodeMadeIsAskedForUnlessAllOfItFollows) {
  restart();
  begin();
  ship_node(id_of(1), regular_type | 0600, 10, log::rdev_all_follows);
  EXPECT_TRUE(naks_.empty());
  ship_node(id_of(2), regular_type | 0600, 10);
  EXPECT_TRUE(asked(id_of(2), nak_contents));
  EXPECT_EQ(tree_->attributes(id_of(1)).value()->rdev, 0U);
}

TEST_F(PartialPeer, WhatWasComputedInAnEarlierBatchIsNotBelieved) {
  make(Kind::create, id_of(1), root, "f");
  write(id_of(1), 0, "old");
  restart();
  begin();
  tree_->will_digest(id_of(1), 0, 3);
  const std::string text = "new";
  const ByteView now(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
  tree_->spoil(id_of(1)).data.write(0, now);
  ship_node(id_of(1), regular_type | 0644, text.size());
  naks_.clear();
  const auto hash = log::content_hash(now);
  Record r;
  r.kind = Kind::ship_hash;
  r.file = id_of(1);
  r.length = text.size();
  r.payload = hash;
  apply(r, true);
  EXPECT_TRUE(naks_.empty());
}

// Unlike a resynchronization, it is not done anew after a crash: whatever the mark says is done.
TEST_F(PartialPeer, TheIdOfWhatARepairAdoptedIsDurableBeforeItsNameIsDone) {
  make(Kind::create, id_of(1), root, "f");
  ASSERT_TRUE(applier_->checkpoint());
  tree_->forget_ids();  // below the mirror, another file took its name
  Bytes listing;
  log::append_ship_entry(listing, {id_of(1), regular_type, "f"});
  Record names;
  names.kind = Kind::repair_dir;
  names.file = root;
  names.flags = log::flag_first_chunk | log::flag_last_chunk;
  names.payload = listing;
  apply(names, true);
  std::mt19937 random(1);
  ASSERT_TRUE(tree_->sync());
  tree_->crash(random);
  EXPECT_TRUE(*tree_->attributes(id_of(1)));
}

TEST_F(PartialPeer, TheIdsOfAdoptedObjectsOutliveThePower) {
  Record made;
  made.kind = Kind::create;
  made.file = id_of(1);
  made.parent = root;
  made.name = "f";
  made.mode = regular_type | 0644;
  apply(made);
  restart();
  tree_->forget_ids();
  mark(Kind::resync_begin);
  Bytes listing;
  log::append_ship_entry(listing, {id_of(9), regular_type, "f"});
  Record names;
  names.kind = Kind::ship_dir;
  names.file = root;
  names.flags = log::flag_first_chunk | log::flag_last_chunk;
  names.payload = listing;
  apply(names, true);
  ship_node(id_of(9), regular_type | 0644, 0);
  mark(Kind::resync_end);
  ASSERT_TRUE(whole());
  std::mt19937 random(1);
  tree_->crash(random);
  EXPECT_TRUE(*tree_->attributes(id_of(9)));
}

// Nobody writes here but the log; an application that takes over does, and would meet a full disk.
TEST_F(PartialPeer, WhatIsDeletedPressesWhenItHoldsWhatIsLeft) {
  for (std::uint8_t n = 1; n <= 3; ++n) make(Kind::create, id_of(n), root, std::to_string(n));
  for (std::uint8_t n = 1; n <= 3; ++n) {
    Record r;
    r.kind = Kind::unlink;
    r.file = id_of(n);
    r.parent = root;
    const std::string name = std::to_string(n);
    r.name = name;
    apply(r);
  }
  tree_->free_now = 0;
  EXPECT_FALSE(applier_->sweep(1)->presses) << "a redo may need them";
  ASSERT_TRUE(applier_->checkpoint());
  tree_->free_now = sweep_spare_bytes + 2 * least_object_bytes;
  auto swept = applier_->sweep(0);
  EXPECT_TRUE(swept->more);
  EXPECT_TRUE(swept->presses) << "three are left";
  swept = applier_->sweep(1);
  EXPECT_TRUE(swept->more);
  EXPECT_FALSE(swept->presses);
  tree_->free_now = 0;
  EXPECT_FALSE(applier_->sweep(2)->presses) << "none is left";
}

}  // namespace
}  // namespace holdfast::mirror::testing
