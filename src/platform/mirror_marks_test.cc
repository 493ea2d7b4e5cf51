// SPDX-License-Identifier: Apache-2.0
// What a node remembers is believed only of the folder that it speaks of: not of another one in its place, nor of an older state of it
// (mirror/tree_marks.h).
#include <gtest/gtest.h>

#include <sys/xattr.h>

#include "platform/test_mirror_return.h"

namespace holdfast::platform {
namespace {

using testing::MirrorReturn;
using testing::RandomApplication;
using testing::seeded;
using testing::TestNode;

class MirrorMarks : public MirrorReturn {
 protected:
  static std::string hidden(const TestNode& node) { return node.tree_path() + "/" + std::string(ports::hidden_name); }
  // What a snapshot keeps of how far the tree had got.
  static std::string mark_of(const TestNode& node, const char* name) {
    std::string value(ports::mark_bytes, '\0');
    const ssize_t n = ::getxattr(hidden(node).c_str(), name, value.data(), value.size());
    EXPECT_GT(n, 0) << name;
    value.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
    return value;
  }
  static void put_back(const TestNode& node, const char* name, const std::string& mark) {
    ASSERT_EQ(::setxattr(hidden(node).c_str(), name, mark.data(), mark.size(), 0), 0);
  }
  // As a disk that was replaced, and mounted at the same place.
  static void replace_folder(const TestNode& node) {
    std::filesystem::rename(node.tree_path(), node.tree_path() + ".before");
    std::filesystem::create_directory(node.tree_path());
  }
  static bool complete(TestNode& node) { return node.log->status().receive.complete; }
  static constexpr const char* hot = "trusted.holdfast.hot";
  static constexpr const char* checkpoint = "trusted.holdfast.checkpoint";
};

TEST_F(MirrorMarks, AnActiveThatReturnsWithAnotherFolderIsCopiedAnew) {
  ASSERT_NO_FATAL_FAILURE(begin());
  RandomApplication(a, seeded(1)).run(100);
  ASSERT_TRUE(equal(a, b));
  a.stop();
  replace_folder(a);
  take_over(b, 2);
  ASSERT_TRUE(a.start());
  EXPECT_FALSE(complete(a));
  follow(a, b, 2);
  ASSERT_TRUE(synchronized(b));
  EXPECT_TRUE(equal(b, a));
}

// A crash right after the folder was seen must not make it the one that was remembered.
TEST_F(MirrorMarks, AnotherFolderStaysAnotherOverARestart) {
  ASSERT_NO_FATAL_FAILURE(begin());
  a.stop();
  replace_folder(a);
  ASSERT_TRUE(a.start(false));
  {
    UniqueFd root(::open(a.tree_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    const auto tree = PosixTree::open(std::move(root), 1, *a.index);
    ASSERT_TRUE(tree);
    EXPECT_TRUE((*tree)->is_another());
  }
  a.stop();
  ASSERT_TRUE(a.start());
  EXPECT_FALSE(complete(a));
  a.stop();
  ASSERT_TRUE(a.start());
  EXPECT_FALSE(complete(a)) << "it is known by now, and is not what it was";
  a.stop();
  ASSERT_TRUE(a.start(false));
  EXPECT_FALSE(complete(a)) << "nor is a set nothing whose folder can't be opened";
}

TEST_F(MirrorMarks, OneWithAnotherFolderDoesNotLeadAgain) {
  ASSERT_NO_FATAL_FAILURE(begin());
  a.stop();
  replace_folder(a);
  ASSERT_TRUE(a.start());
  const auto promoted = a.log->promote(Epoch(2));
  ASSERT_FALSE(promoted);
  EXPECT_EQ(promoted.error().code, ErrorCode::refused) << promoted.error().to_string();
}

// The last one that is left: an administrator put a backup there.
TEST_F(MirrorMarks, ByForceAnotherFolderLeadsAsItStands) {
  ASSERT_NO_FATAL_FAILURE(begin());
  a.stop();
  replace_folder(a);
  std::ofstream(a.tree_path() + "/restored") << "from a backup";
  ASSERT_TRUE(a.start());
  const auto sealed = a.log->seal(Epoch(2), true);
  ASSERT_TRUE(sealed);
  EXPECT_FALSE(sealed->complete);
  EXPECT_TRUE(sealed->fallback) << sealed->no_fallback;
  EXPECT_TRUE(a.log->status().receive.leads_as_it_is) << "holdfastd does not even try otherwise";
  ASSERT_FALSE(a.log->promote(Epoch(2)));
  const auto promoted = a.log->promote(Epoch(2), false, true);
  ASSERT_TRUE(promoted) << promoted.error().to_string();
  EXPECT_TRUE(std::filesystem::exists(a.tree_path() + "/restored"));
  ASSERT_TRUE(b.log->follow(Epoch(2), a.id()));
  connect(a, b);
  ASSERT_TRUE(synchronized(a));
  EXPECT_TRUE(equal(a, b));
}

// It leads by an administrator's word while the folder is away, and remembers how far that had got.
TEST_F(MirrorMarks, ASetThatCouldNotBeAddedCanBeAddedLater) {
  ASSERT_NO_FATAL_FAILURE(begin());
  const auto end = a.log->end_epoch();
  ASSERT_TRUE(end);
  ASSERT_TRUE(a.log->step_down(*end));  // a tree that was an active's only carries no such mark
  a.stop();
  const std::string away = a.tree_path() + ".away";
  ASSERT_TRUE(a.start(false));
  EXPECT_FALSE(complete(a)) << "what was whole is not here";
  ASSERT_TRUE(a.log->promote(Epoch(2), true));
  std::filesystem::rename(a.tree_path(), away);
  std::filesystem::create_directory(a.tree_path());
  EXPECT_EQ(a.add_set().error().code, ErrorCode::refused) << "it leads, and this is not what it remembers";
  std::filesystem::remove_all(a.tree_path());
  std::filesystem::rename(away, a.tree_path());
  EXPECT_TRUE(a.add_set());
}

// The state began anew, the index is of before: set 1 was another folder then.
TEST_F(MirrorMarks, AnIndexOfAnEarlierClusterIsNoMemory) {
  make_tree(a, 20);
  ASSERT_TRUE(a.start() && b.start());
  ASSERT_TRUE(a.log->promote(Epoch(1), true));
  a.stop();
  std::filesystem::remove_all(a.log_path() + "/../state");
  std::filesystem::remove_all(a.log_path());
  replace_folder(a);
  std::ofstream(a.tree_path() + "/anew") << "of the new cluster";
  ASSERT_TRUE(a.start(false));
  lead(a, b, 1);
  ASSERT_TRUE(a.add_set());
  ASSERT_TRUE(synchronized(a));
  EXPECT_TRUE(equal(a, b));
  EXPECT_TRUE(std::filesystem::exists(b.tree_path() + "/anew"));
}

// In the middle of a copy nothing is whole, and there may be no history: it is told all the same, or only what changed would be sent.
TEST_F(MirrorMarks, InMidResyncAnotherFolderIsNoticedToo) {
  b.undo_bytes = 0;
  ASSERT_NO_FATAL_FAILURE(begin());
  ASSERT_TRUE(equal(a, b));
  b.stop();
  {
    auto cell = DurableSlots(b.log_path() + "/../state");
    auto state = mirror::decode_node_state(cell.load().value()).value();
    state.complete.clear();  // as after a start 2
    state.resyncing = {1};
    ASSERT_TRUE(cell.store(mirror::encode(state)));
  }
  replace_folder(b);
  ASSERT_TRUE(b.start());
  const auto told = mirror::decode_node_state(b.state->load().value());
  ASSERT_TRUE(told);
  EXPECT_TRUE(told->doubted.contains(1));
}

TEST_F(MirrorMarks, AnActiveThatReturnsWithAnOlderStateIsComparedAsAWhole) {
  ASSERT_NO_FATAL_FAILURE(begin());
  const std::string before = mark_of(a, hot);
  RandomApplication application(a, seeded(21));
  ASSERT_TRUE(wait(a, [&] {  // another generation of notes is dropped
    application.run(3);
    return mark_of(a, hot) != before && !a.log->status().hot->releasing;
  }));
  a.stop();
  put_back(a, hot, before);
  take_over(b, 2);
  ASSERT_TRUE(a.start());
  EXPECT_FALSE(complete(a));
  follow(a, b, 2);
  ASSERT_TRUE(synchronized(b));
  EXPECT_FALSE(peer_of(b).resync.partial);
  EXPECT_TRUE(equal(b, a));
}

// Protected in the active's last moments: recorded by the cluster, and nobody took it any more. Its content is here and nowhere else.
TEST_F(MirrorMarks, WhatWasProtectedInTheLastMomentsIsHere) {
  make_tree(a, 20);
  std::ofstream(a.tree_path() + "/only here") << "x";
  ASSERT_TRUE(a.start(false) && b.start());
  ASSERT_TRUE(a.log->promote(Epoch(1), true));
  a.stop();
  ASSERT_TRUE(a.start(false));
  ASSERT_TRUE(a.add_set(1, Epoch(2)));
  EXPECT_FALSE(complete(a)) << "somebody else's epoch";
  a.stop();
  ASSERT_TRUE(a.start(false));
  ASSERT_TRUE(a.add_set(1, Epoch(1)));
  EXPECT_TRUE(complete(a));
  a.stop();
  ASSERT_TRUE(a.start(false));
  ASSERT_TRUE(a.add_set(1, Epoch(1)));
  EXPECT_TRUE(complete(a)) << "it carries the mark of the epoch";
  // Nobody waited for it. What it alone had is displaced now, and can be looked at.
  ASSERT_TRUE(b.log->promote(Epoch(2), true));
  follow(a, b, 2);
  ASSERT_TRUE(synchronized(b));
  EXPECT_TRUE(equal(b, a));
  EXPECT_FALSE(std::filesystem::exists(a.tree_path() + "/only here"));
  ASSERT_FALSE(a.undo->batches().empty());
  const auto view = a.log->look(a.undo->batches().front().number);
  ASSERT_TRUE(view) << view.error().to_string();
  const auto found = (*view)->lookup(1, FileId::root(1), "only here");
  ASSERT_TRUE(found);
  EXPECT_TRUE(*found);
}

// It was taken by a peer, and then could not be captured: what was done to the folder afterwards is in no log.
TEST_F(MirrorMarks, WhatLeftTheEpochIsComparedAsAWhole) {
  make_tree(a, 20);
  ASSERT_TRUE(a.start(false) && b.start());
  ASSERT_TRUE(a.log->promote(Epoch(1), true));
  ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
  ASSERT_TRUE(a.add_set(1, Epoch(1)));
  connect(a, b);
  ASSERT_TRUE(synchronized(a));
  ASSERT_NO_FATAL_FAILURE(settle(a));  // that it gave ids to all of it is noted no more
  ASSERT_TRUE(equal(a, b));
  ASSERT_TRUE(a.log->remove_set(1));
  const std::string file = a.tree_path() + "/t0/f7";
  const auto when = std::filesystem::last_write_time(file);
  std::fstream(file, std::ios::in | std::ios::out).put('?');
  std::filesystem::last_write_time(file, when);
  a.stop();
  take_over(b, 2);
  ASSERT_TRUE(a.start(false));
  ASSERT_TRUE(a.add_set(1, Epoch(1)));
  follow(a, b, 2);
  ASSERT_TRUE(synchronized(b));
  EXPECT_TRUE(equal(b, a));
}

TEST_F(MirrorMarks, ASetAddedToAnEpochIsMarkedBeforeItCounts) {
  make_tree(a);
  ASSERT_TRUE(a.start(false) && b.start());
  ASSERT_TRUE(a.log->promote(Epoch(1), true));
  ASSERT_TRUE(a.add_set());
  ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
  connect(a, b);
  ASSERT_TRUE(synchronized(a));
  a.stop();
  ASSERT_TRUE(a.start());
  EXPECT_TRUE(complete(a));
}

TEST_F(MirrorMarks, APassiveWithAnOlderStateIsComparedAsAWhole) {
  ASSERT_NO_FATAL_FAILURE(begin());
  RandomApplication application(a, seeded(31));
  const auto checkpointed = [&](const std::string& last) {
    return wait(a, [&] {
      application.run(3);
      return mark_of(b, checkpoint) != last;
    });
  };
  const std::string before = mark_of(b, checkpoint);
  ASSERT_TRUE(checkpointed(before));
  ASSERT_TRUE(equal(a, b));
  ASSERT_TRUE(checkpointed(mark_of(b, checkpoint))) << "and the state says so of the one before";
  b.stop();
  ASSERT_TRUE(b.start());
  EXPECT_TRUE(complete(b)) << "a crash alone is no older state";
  b.stop();
  put_back(b, checkpoint, before);
  ASSERT_TRUE(b.start());
  EXPECT_FALSE(complete(b));
  ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
  connect(a, b);
  ASSERT_TRUE(synchronized(a));
  EXPECT_FALSE(peer_of(a).resync.partial);
  EXPECT_TRUE(equal(a, b));
}

// The log has begun anew since, twice.
TEST_F(MirrorMarks, SoIsOneOfBeforeARoleChange) {
  ASSERT_NO_FATAL_FAILURE(begin());
  ASSERT_TRUE(equal(a, b));
  const std::string before = mark_of(b, checkpoint);
  TestNode *from = &a, *to = &b;
  for (std::uint64_t epoch = 2; epoch < 4; ++epoch, std::swap(from, to)) {
    const auto end = from->log->end_epoch();
    ASSERT_TRUE(end);
    ASSERT_TRUE(from->log->wait_handed_over(to->id(), *end, 20'000));
    ASSERT_TRUE(from->log->step_down(*end));
    take_over(*to, epoch);
    follow(*from, *to, epoch);
    ASSERT_TRUE(synchronized(*to));
  }
  b.stop();
  put_back(b, checkpoint, before);
  ASSERT_TRUE(b.start());
  EXPECT_FALSE(complete(b));
}

TEST_F(MirrorMarks, APassiveWithAnotherFolderIsCopiedAnew) {
  ASSERT_NO_FATAL_FAILURE(begin());
  ASSERT_TRUE(equal(a, b));
  b.stop();
  replace_folder(b);
  ASSERT_TRUE(b.start());
  EXPECT_FALSE(complete(b));
  ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
  connect(a, b);
  ASSERT_TRUE(synchronized(a));
  EXPECT_TRUE(equal(a, b));
}

// A comparison found it before the active died; its successor does not know.
TEST_F(MirrorMarks, WhatWasKnownToDifferIsComparedAsAWhole) {
  ASSERT_NO_FATAL_FAILURE(begin());
  ASSERT_TRUE(equal(a, b));
  const std::string rotten = b.tree_path() + "/t0/f7";
  const auto when = std::filesystem::last_write_time(rotten);
  {
    std::fstream file(rotten, std::ios::in | std::ios::out);
    file.put('?');
  }
  std::filesystem::last_write_time(rotten, when);
  ASSERT_TRUE(a.log->verify({}));
  ASSERT_TRUE(wait(a, [&] { return a.log->verify_status().front().open == 1; }));
  a.stop();
  take_over(b, 2);
  ASSERT_TRUE(a.start());
  follow(a, b, 2);
  ASSERT_TRUE(synchronized(b));
  EXPECT_FALSE(peer_of(b).resync.partial);
  EXPECT_TRUE(equal(b, a));
}

// It was fenced, and goes on in the same process: giving ids to what has none is no change any more that would have to be noted.
TEST_F(MirrorMarks, AFencedNodeThatFollowsGivesIdsAgain) {
  ASSERT_NO_FATAL_FAILURE(begin());
  a.log->abort();
  std::ofstream(a.tree_path() + "/unknown") << "of nobody";
  take_over(b, 2);
  UniqueFd fd(::open((a.tree_path() + "/unknown").c_str(), O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(a.index->identify(fd.get(), 1).error().code, ErrorCode::stale) << "what it may differ in is still needed";
  follow(a, b, 2);
  ASSERT_TRUE(synchronized(b));
  EXPECT_TRUE(a.index->identify(fd.get(), 1));
  mirror::HotGate::Guard guard;
  EXPECT_FALSE(a.enter_hot(guard, 1, {{FileId::root(1), true}})) << "a straggler of the epoch that ended";
  EXPECT_TRUE(a.fault_text().empty());
}

}  // namespace
}  // namespace holdfast::platform
