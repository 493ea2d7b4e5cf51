// SPDX-License-Identifier: Apache-2.0
// The whole data plane between two nodes in one process: real folders, real TLS over loopback, real segments and index; only capture is
// replaced by a random application. Trees are compared by content, metadata, extended attributes, links and file ids.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "platform/test_mirror_pair.h"

namespace holdfast::platform {
namespace {

using mirror::PeerState;
using testing::difference;
using testing::RandomApplication;
using testing::seeded;
using testing::TestNode;
using testing::TreeDigest;

using MirrorPair = testing::MirrorPair;

TEST_F(MirrorPair, WhatTheActiveDoesStandsOnThePassive) {
  ASSERT_TRUE(a.start() && b.start());
  lead(a, b, 1);
  ASSERT_TRUE(synchronized(a));
  RandomApplication application(a, seeded(1));
  application.run(2500);
  EXPECT_TRUE(equal(a, b));
  EXPECT_EQ(peer_of(a).recovery_point_ns, 0);
  EXPECT_GT(TreeDigest::of(a.tree_path()).size(), 50U);
}

TEST_F(MirrorPair, TwoApplicationThreads) {
  ASSERT_TRUE(a.start() && b.start());
  lead(a, b, 1);
  std::thread other([&] { RandomApplication(a, seeded(7)).run(1500); });
  RandomApplication(a, seeded(8)).run(1500);
  other.join();
  EXPECT_TRUE(synchronized(a));
  EXPECT_TRUE(equal(a, b));
}

// Unprotected before b became a member, or while it was down: nobody will ever add that set there.
TEST_F(MirrorPair, ASetThatIsProtectedNoMoreHoldsNothingUp) {
  ASSERT_TRUE(a.start() && b.start());
  ASSERT_TRUE(a.log->promote(Epoch(1), true));
  for (const auto kind : {log::Kind::resync_begin, log::Kind::fallocate}) {
    log::Record gone;
    gone.kind = kind;
    gone.set = 2;
    gone.file = a.index->fresh();
    ASSERT_TRUE(a.log->capture_log().try_reserve(4096));
    a.log->capture_log().append(gone, 4096);
  }
  RandomApplication(a, seeded(21)).run(200);
  ASSERT_TRUE(b.log->remove_set(2));
  ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
  connect(a, b);
  EXPECT_TRUE(synchronized(a));
  EXPECT_TRUE(equal(a, b));
  const auto sealed = b.log->seal(Epoch(2));
  ASSERT_TRUE(sealed);
  EXPECT_TRUE(sealed->complete) << "it can take over";
}

TEST_F(MirrorPair, FsyncWaitsForThePeer) {
  ASSERT_TRUE(a.start() && b.start());
  lead(a, b, 1);
  ASSERT_TRUE(synchronized(a));
  a.log->set_wait_set({b.id()});
  RandomApplication application(a, seeded(3));
  for (int i = 0; i < 50; ++i) {
    application.run(5);
    std::mutex mutex;
    std::condition_variable cv;
    bool durable = false;
    const Sequence sequence = a.log->capture_log().last_sequence();
    a.log->capture_log().when_durable(sequence, [&] {
      const std::lock_guard lock(mutex);
      durable = true;
      cv.notify_all();
    });
    std::unique_lock lock(mutex);
    ASSERT_TRUE(cv.wait_for(lock, std::chrono::seconds(5), [&] { return durable; }));
    EXPECT_GE(b.log->status().receive.logged, sequence);
  }
}

TEST_F(MirrorPair, FirstCopyOfAPopulatedFolderWhileItIsWrittenTo) {
  ASSERT_TRUE(a.start() && b.start(false));
  ASSERT_TRUE(a.log->promote(Epoch(1), true));
  RandomApplication application(a, seeded(11));
  application.run(2000);
  ASSERT_TRUE(b.add_set());
  ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
  std::thread writer([&] { RandomApplication(a, seeded(12)).run(2000); });
  connect(a, b);
  EXPECT_TRUE(synchronized(a));
  writer.join();
  EXPECT_TRUE(equal(a, b));
}

// The peer holds a copy made by other means (cp -a: even the ids are copied): nothing of it may be trusted, most of it can be used.
TEST_F(MirrorPair, FirstCopyOntoAnOlderCopySendsDifferencesOnly) {
  ASSERT_TRUE(a.start() && b.start(false));
  ASSERT_TRUE(a.log->promote(Epoch(1), true));
  RandomApplication application(a, seeded(21));
  application.run(2000);
  b.stop();
  ASSERT_EQ(std::system(("cp -a --sparse=always " + a.tree_path() + "/. " + b.tree_path() + " && rm -rf " +
                         b.tree_path() + "/.holdfast")
                            .c_str()),
            0);
  application.run(400);
  ASSERT_EQ(std::system(("cd " + b.tree_path() +
                         " && mkdir -p stranger/deep && echo x > stranger/deep/file && ln -f stranger/deep/file f0 && "
                         "mv d0 d0-elsewhere 2>/dev/null; true")
                            .c_str()),
            0);
  ASSERT_TRUE(b.start());
  ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
  std::thread writer([&] { RandomApplication(a, seeded(22)).run(1500); });
  connect(a, b);
  EXPECT_TRUE(synchronized(a));
  writer.join();
  EXPECT_TRUE(equal(a, b));
}

// kill -9 of the passive's process at random moments: what was applied and not yet covered by a checkpoint is applied again over itself.
TEST_F(MirrorPair, APassiveThatIsKilledAgainAndAgainCatchesUp) {
  ASSERT_TRUE(a.start() && b.start(true, 100'000));
  lead(a, b, 1);
  ASSERT_TRUE(synchronized(a));
  std::mt19937 random(seeded(5));
  RandomApplication application(a, seeded(31));
  for (int round = 0; round < 4; ++round) {
    application.run(600);
    const auto target = peer_of(a).applied.value + random() % 500;
    wait(
        a, [&] { return peer_of(a).applied.value >= target; }, 1);
    b.stop();
    application.run(100);
    // Seldom checkpoints: most of the log is applied again over its own result. In other rounds it begins in the middle.
    ASSERT_TRUE(b.start(true, round % 3 == 0 ? 5 : 100'000)) << round;
    ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
    ASSERT_TRUE(equal(a, b)) << "round " << round;
    EXPECT_NE(peer_of(a).state, PeerState::resync) << "its place was still in the ring";
  }
}

// A file that the log writes 8 MiB to and then deletes: a checkpoint in the middle of the redo must not empty the graveyard it lies in.
TEST_F(MirrorPair, WhatALaterRecordDeletesIsThereForTheRedoOfEarlierOnes) {
  ASSERT_TRUE(a.start() && b.start(true, 100'000));
  lead(a, b, 1);
  ASSERT_TRUE(synchronized(a));
  auto& log = a.log->capture_log();
  const std::string path = a.tree_path() + "/doomed";
  const Bytes block(256 * 1024, 0x77);
  const auto append = [&](log::Record record) {
    struct stat root {};
    ASSERT_EQ(::stat(a.tree_path().c_str(), &root), 0);
    record.set = 1;
    record.parent_mtime_ns = root.st_mtim.tv_sec * 1'000'000'000LL + root.st_mtim.tv_nsec;
    ASSERT_TRUE(log.try_reserve(block.size()));
    log.append(record, block.size());
  };
  log::Record r;
  {
    UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    r.file = a.index->fresh();
    ASSERT_TRUE(a.index->bind(fd.get(), 1, r.file));
  }
  r.kind = log::Kind::create;
  r.parent = FileId::root(1);
  r.name = "doomed";
  r.mode = S_IFREG | 0600;
  append(r);
  for (std::uint64_t i = 0; i < 32; ++i) {
    log::Record write;
    write.kind = log::Kind::write;
    write.file = r.file;
    write.offset = i * block.size();
    write.payload = block;
    append(write);
  }
  r.kind = log::Kind::unlink;
  std::filesystem::remove(path);
  append(r);
  ASSERT_TRUE(equal(a, b));
  b.stop();
  ASSERT_TRUE(b.start(true, 0));  // a checkpoint after each batch of the redo
  ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
  RandomApplication(a, seeded(36)).run(50);
  EXPECT_TRUE(equal(a, b));
}

// The same in the middle of a copy onto an older tree, with the application going on.
TEST_F(MirrorPair, APassiveThatIsKilledWhileItIsCopiedTo) {
  ASSERT_TRUE(a.start() && b.start(true, 5));
  lead(a, b, 1);
  RandomApplication application(a, seeded(35));
  application.run(1500);
  ASSERT_TRUE(synchronized(a));
  std::mt19937 random(seeded(6));
  for (std::uint64_t round = 0; round < 3; ++round) {
    a.log->abort();        // the peer must be copied anew
    application.run(150);  // stragglers: in no log
    ASSERT_TRUE(a.log->promote(Epoch(round + 2)));
    ASSERT_TRUE(b.log->follow(Epoch(round + 2), a.id()));
    application.run(50);
    const auto until = random() % 700;
    wait(
        a, [&] { return peer_of(a).resync.done >= until || peer_of(a).state == PeerState::synchronized; }, 1);
    b.stop();
    application.run(50);
    ASSERT_TRUE(b.start(true, random() % 2 ? 5 : 100'000));
    ASSERT_TRUE(b.log->follow(Epoch(round + 2), a.id()));
    application.run(100);
    ASSERT_TRUE(synchronized(a));
    ASSERT_TRUE(equal(a, b)) << "round " << round;
  }
}

TEST_F(MirrorPair, SwitchoversAndBack) {
  ASSERT_TRUE(a.start() && b.start());
  lead(a, b, 1);
  TestNode* active = &a;
  TestNode* passive = &b;
  for (std::uint64_t epoch = 2; epoch < 6; ++epoch) {
    ASSERT_TRUE(synchronized(*active));
    RandomApplication(*active, seeded(static_cast<unsigned>(epoch))).run(500);
    const auto end = active->log->end_epoch();
    ASSERT_TRUE(end);
    ASSERT_TRUE(active->log->wait_handed_over(passive->id(), *end, 10'000).value());
    ASSERT_EQ(passive->log->seal(Epoch(epoch)).value().position, *end);
    ASSERT_TRUE(active->log->step_down(*end));
    ASSERT_EQ(difference(TreeDigest::of(a.tree_path()), TreeDigest::of(b.tree_path())), "");
    std::swap(active, passive);
    lead(*active, *passive, epoch);
    ASSERT_TRUE(synchronized(*active));
    EXPECT_TRUE(passive->log->status().receive.complete);
  }
  RandomApplication(*active, seeded(99)).run(500);
  EXPECT_TRUE(equal(*active, *passive));
}

// The active is fenced or dies with changes that nobody else has; it returns as passive and is made equal, by hashes.
TEST_F(MirrorPair, AnActiveThatLostItsEpochReturnsAsACopy) {
  ASSERT_TRUE(a.start() && b.start());
  lead(a, b, 1);
  ASSERT_TRUE(synchronized(a));
  RandomApplication(a, seeded(41)).run(1500);
  ASSERT_TRUE(equal(a, b));
  a.runtime->set_peers({});
  RandomApplication(a, seeded(42)).run(300);  // nobody hears of these
  a.log->abort();
  RandomApplication(a, seeded(43)).run(50);  // stragglers of a fenced epoch
  ASSERT_TRUE(b.log->seal(Epoch(2)));
  ASSERT_TRUE(b.log->promote(Epoch(2)));
  RandomApplication(b, seeded(44)).run(500);
  EXPECT_FALSE(a.log->status().receive.clean);
  ASSERT_TRUE(a.log->follow(Epoch(2), b.id()));
  std::thread writer([&] { RandomApplication(b, seeded(45)).run(1500); });
  connect(b, a);
  EXPECT_TRUE(synchronized(b));
  writer.join();
  EXPECT_TRUE(equal(b, a));
  EXPECT_TRUE(a.log->status().receive.clean);
}

// What a straggler did to the tree after the fence is in no log: the peer must not go on as if it had everything.
TEST_F(MirrorPair, AFencedActiveThatWinsAgainResynchronizesItsPeer) {
  ASSERT_TRUE(a.start() && b.start());
  lead(a, b, 1);
  ASSERT_TRUE(synchronized(a));
  RandomApplication(a, seeded(46)).run(300);
  ASSERT_TRUE(equal(a, b));
  a.log->abort();
  RandomApplication(a, seeded(47)).run(50);
  ASSERT_TRUE(b.log->seal(Epoch(2)));
  lead(a, b, 2);
  ASSERT_TRUE(synchronized(a));
  EXPECT_TRUE(equal(a, b));
}

// The index is a cache of what the tree says: lost, it is made anew, and nothing has to be copied.
// Nobody holds what it goes on from, so each peer's copy is begun anew: not while the cluster still counts on that copy.
TEST_F(MirrorPair, PeersKeepTheirCopiesUntilOnlyTheNewActiveCounts) {
  ASSERT_TRUE(a.start() && b.start());
  lead(a, b, 1);
  ASSERT_TRUE(synchronized(a));
  a.log->abort();
  mirror::PromoteOptions options;
  options.hold_peers = true;
  ASSERT_TRUE(a.log->promote(Epoch(2), options));
  ASSERT_TRUE(b.log->follow(Epoch(2), a.id()));
  EXPECT_EQ(a.log->dial_epoch(), Epoch(0));
  a.log->let_peers_in(Epoch(1));  // said of another epoch
  EXPECT_FALSE(wait(
      b, [&] { return b.log->status().receive.from == a.id() || !b.log->status().receive.complete; }, 1));
  a.log->let_peers_in(Epoch(2));
  ASSERT_TRUE(synchronized(a));
  EXPECT_EQ(peer_of(a).resyncs, 2U) << "the first copy, and this one begun anew";
  EXPECT_TRUE(equal(a, b));
}

TEST_F(MirrorPair, ALostIndexIsMadeAnew) {
  ASSERT_TRUE(a.start() && b.start());
  lead(a, b, 1);
  ASSERT_TRUE(synchronized(a));
  RandomApplication(a, seeded(55)).run(400);
  ASSERT_TRUE(equal(a, b));
  b.stop();
  std::filesystem::remove_all(folder / "b/index");
  ASSERT_TRUE(b.start());
  ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
  RandomApplication(a, seeded(56)).run(200);
  EXPECT_TRUE(equal(a, b));
  EXPECT_TRUE(b.log->status().receive.complete);
}

TEST_F(MirrorPair, AnEpochEndedButNotHandedOverIsFollowedByOnesOwn) {
  ASSERT_TRUE(a.start() && b.start());
  lead(a, b, 1);
  ASSERT_TRUE(synchronized(a));
  RandomApplication(a, seeded(48)).run(100);
  ASSERT_TRUE(equal(a, b));
  b.stop();
  const auto end = a.log->end_epoch();
  ASSERT_TRUE(end);
  EXPECT_FALSE(a.log->wait_handed_over(b.id(), *end, 50).value());
  EXPECT_FALSE(a.log->promote(Epoch(1))) << "that epoch has been";
  const auto sealed = a.log->seal(Epoch(2));
  ASSERT_TRUE(sealed);
  EXPECT_TRUE(sealed->clean);
  EXPECT_EQ(sealed->position, *end);
  ASSERT_TRUE(b.start());
  lead(a, b, 2);
  RandomApplication(a, seeded(49)).run(100);
  ASSERT_TRUE(synchronized(a));
  EXPECT_TRUE(equal(a, b));
}

// A folder and its descendant have changed places: in the peer's old tree the one lies below the other.
TEST_F(MirrorPair, FoldersTurnedInsideOut) {
  ASSERT_TRUE(a.start() && b.start());
  std::filesystem::create_directories(a.tree_path() + "/p/one/two/three");
  std::ofstream(a.tree_path() + "/p/one/two/three/file") << "deep";
  lead(a, b, 1);
  ASSERT_TRUE(synchronized(a));
  b.stop();
  a.log->abort();
  const auto rename = [&](const char* from, const char* to) {
    std::filesystem::rename(a.tree_path() + from, a.tree_path() + to);
  };
  rename("/p/one/two/three", "/p/three");
  rename("/p/one/two", "/p/three/two");
  rename("/p/one", "/p/three/two/one");
  ASSERT_TRUE(b.start());
  lead(a, b, 2);
  ASSERT_TRUE(synchronized(a));
  EXPECT_TRUE(equal(a, b));
}

// What an incomplete peer acknowledges protects nothing: an fsync that waits for it goes on waiting until it is whole.
TEST_F(MirrorPair, AnIncompletePeerDoesNotReleaseAnFsync) {
  ASSERT_TRUE(a.start() && b.start(false));
  ASSERT_TRUE(a.log->promote(Epoch(1), true));
  RandomApplication(a, seeded(91)).run(200);
  a.log->set_wait_set({b.id()});
  std::atomic<bool> released{false};
  a.log->capture_log().when_durable(a.log->capture_log().last_sequence(), [&] {
    released = true;
    EXPECT_TRUE(b.log->status().receive.complete);
  });
  EXPECT_FALSE(released);
  ASSERT_TRUE(b.add_set());
  ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
  connect(a, b);
  ASSERT_TRUE(synchronized(a));
  EXPECT_TRUE(wait(a, [&] { return released.load(); }));
}

TEST_F(MirrorPair, AnActiveThatDiedGoesOnInALaterEpoch) {
  ASSERT_TRUE(a.start() && b.start());
  lead(a, b, 1);
  ASSERT_TRUE(synchronized(a));
  RandomApplication(a, seeded(51)).run(500);
  a.stop();
  ASSERT_TRUE(a.start());
  const auto sealed = a.log->seal(Epoch(2)).value();
  EXPECT_FALSE(sealed.clean);
  EXPECT_EQ(sealed.position.epoch, Epoch(1));
  lead(a, b, 2);
  RandomApplication(a, seeded(52)).run(500);
  EXPECT_TRUE(synchronized(a));
  EXPECT_TRUE(equal(a, b));
}

TEST_F(MirrorPair, APromiseToALaterEpochShutsTheOldActiveOut) {
  ASSERT_TRUE(a.start() && b.start());
  lead(a, b, 1);
  ASSERT_TRUE(synchronized(a));
  const auto sealed = b.log->seal(Epoch(5));
  ASSERT_TRUE(sealed);
  RandomApplication(a, seeded(61)).run(200);
  ASSERT_TRUE(wait(a, [&] { return peer_of(a).state != PeerState::synchronized; }));
  EXPECT_EQ(b.log->status().position, sealed->position) << "nothing was appended after the promise";
  EXPECT_FALSE(b.log->seal(Epoch(4)));
  EXPECT_FALSE(b.log->follow(Epoch(4), a.id()));
  EXPECT_GT(peer_of(a).recovery_point_ns, 0);
}

TEST_F(MirrorPair, AnotherClustersNodeIsRefused) {
  ASSERT_TRUE(a.start() && b.start());
  ASSERT_TRUE(a.log->promote(Epoch(1), true));
  connect(a, b);  // b follows nobody
  EXPECT_FALSE(wait(
      a, [&] { return peer_of(a).state == PeerState::synchronized; }, 1));
}

TEST_F(MirrorPair, ASecondSetIsCopiedWhileTheFirstIsFollowed) {
  ASSERT_TRUE(a.start() && b.start());
  lead(a, b, 1);
  ASSERT_TRUE(synchronized(a));
  std::filesystem::create_directories(folder / "a2/x/y");
  std::filesystem::create_directories(folder / "b2");
  std::ofstream(folder / "a2/x/y/file") << "content";
  for (auto* node : {&b, &a}) {  // passives first
    const std::string path = node == &a ? folder / "a2" : folder / "b2";
    const auto root = [&] { return UniqueFd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)); };
    auto tree = PosixTree::open(root(), 2, *node->index);
    ASSERT_TRUE(tree);
    node->live->add(2, root());
    ASSERT_TRUE(node->log->add_set(std::move(*tree)));
  }
  RandomApplication(a, seeded(71)).run(500);
  ASSERT_TRUE(synchronized(a));
  EXPECT_TRUE(equal(a, b));
  EXPECT_EQ(difference(TreeDigest::of(folder / "a2"), TreeDigest::of(folder / "b2")), "");
}

TEST_F(MirrorPair, ADamagedSegmentStopsThePassiveWithAClearMessage) {
  ASSERT_TRUE(a.start() && b.start(true, 100'000));
  lead(a, b, 1);
  RandomApplication(a, seeded(81)).run(1000);
  ASSERT_TRUE(synchronized(a));
  ASSERT_TRUE(equal(a, b));
  b.stop();
  {
    std::fstream segment(b.log_path() + "/seg-000000000001", std::ios::in | std::ios::out | std::ios::binary);
    segment.seekp(20'000);
    segment.put('\x5a');
  }
  const auto started = b.start();
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().code, ErrorCode::corrupt);
  EXPECT_NE(started.error().message.find("segment 1 of the receive log is damaged"), std::string::npos)
      << started.error().message;
}

TEST_F(MirrorPair, SparseFilesStaySparse) {
  ASSERT_TRUE(a.start() && b.start(false));
  ASSERT_TRUE(a.log->promote(Epoch(1), true));
  const std::string path = a.tree_path() + "/sparse";
  {
    UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_EQ(::pwrite(fd.get(), "x", 1, 1LL << 40), 1);
    ASSERT_EQ(::pwrite(fd.get(), "y", 1, 1LL << 30), 1);
    ASSERT_EQ(::ftruncate(fd.get(), (1LL << 40) + 123'456), 0);
  }
  std::ofstream(b.tree_path() + "/sparse") << std::string(3'000'000, 'z');  // an older, dense one is in the way
  ASSERT_TRUE(b.add_set());
  ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
  connect(a, b);
  ASSERT_TRUE(synchronized(a));
  struct stat here {
  }, there{};
  ASSERT_EQ(::stat(path.c_str(), &here), 0);
  ASSERT_EQ(::stat((b.tree_path() + "/sparse").c_str(), &there), 0);
  EXPECT_EQ(here.st_size, there.st_size);
  EXPECT_LE(there.st_blocks, here.st_blocks + 64);
}

// Zero is a time, not the lack of one: whoever unpacks reproducible archives has whole trees of it.
TEST_F(MirrorPair, ModificationTimesOf1970AreKept) {
  ASSERT_TRUE(a.start() && b.start(false));
  ASSERT_TRUE(a.log->promote(Epoch(1), true));
  std::filesystem::create_directories(a.tree_path() + "/d");
  std::ofstream(a.tree_path() + "/d/file") << "x";
  const timespec times[2] = {{0, 0}, {0, 0}};
  for (const char* name : {"/d/file", "/d"})
    ASSERT_EQ(::utimensat(AT_FDCWD, (a.tree_path() + name).c_str(), times, 0), 0);
  ASSERT_TRUE(b.add_set());
  ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
  connect(a, b);
  ASSERT_TRUE(synchronized(a));
  EXPECT_TRUE(equal(a, b));
}

}  // namespace
}  // namespace holdfast::platform
