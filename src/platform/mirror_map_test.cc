// SPDX-License-Identifier: Apache-2.0
// A peer that fell behind further than its queue, between two whole nodes: it gets what changed, and nothing else is looked at.
// HOLDFAST_MAP_FILES=100000 makes the tree that big (default 3000).
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "platform/test_mirror_pair.h"

namespace holdfast::platform {
namespace {

using mirror::PeerQueue;
using mirror::PeerState;
using testing::RandomApplication;
using testing::seeded;
using testing::TestNode;

class MirrorMap : public testing::MirrorPair {
 protected:
  MirrorMap() {
    for (TestNode* node : {&a, &b}) {
      node->ring_bytes = mirror::least_ring_bytes;
      node->send_limit_bytes = 0;
      node->features = mirror::feature_partial_resync;
    }
  }
  // A file that is there already is written to, as capture would log it.
  static void write(TestNode& node, const std::string& name, std::uint64_t offset, const Bytes& data) {
    node.reserve(data.size());
    const std::lock_guard lock(node.object_mutex);
    const UniqueFd fd(::open((node.tree_path() + "/" + name).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    log::Record write;
    write.set = 1;
    write.kind = log::Kind::write;
    write.file = node.index->identify(fd.get(), 1).value();
    write.offset = offset;
    ASSERT_EQ(::pwrite(fd.get(), data.data(), data.size(), static_cast<off_t>(offset)),
              static_cast<ssize_t>(data.size()));
    struct stat st {};
    ASSERT_EQ(::fstat(fd.get(), &st), 0);
    write.mtime_ns = st.st_mtim.tv_sec * 1'000'000'000LL + st.st_mtim.tv_nsec;
    write.payload = data;
    node.log->capture_log().append(write, data.size());
  }
  // More than the ring holds, into one file that is there.
  static void overflow(TestNode& node) {
    Bytes data(1U << 20);
    for (std::size_t i = 0; i < 12; ++i) {
      std::fill(data.begin(), data.end(), static_cast<std::uint8_t>(i));
      write(node, "bulk", 0, data);
    }
  }
  static void make_tree(TestNode& node, int files) {
    std::ofstream(node.tree_path() + "/bulk") << "here";
    const std::string text(200, 'x');
    for (int i = 0; i < files; ++i) {
      const std::string folder = fmt::format("{}/t{}", node.tree_path(), i / 500);
      if (i % 500 == 0) std::filesystem::create_directory(folder);
      std::ofstream(fmt::format("{}/f{}", folder, i)) << text << i;
    }
  }
};

TEST_F(MirrorMap, APeerThatFellBehindGetsWhatChangedAndNothingElseIsOpened) {
  const char* wanted = std::getenv("HOLDFAST_MAP_FILES");
  const int files = wanted ? std::atoi(wanted) : 3000;
  make_tree(a, files);
  ASSERT_TRUE(a.start() && b.start());
  lead(a, b, 1);
  ASSERT_TRUE(wait(
      a, [&] { return peer_of(a).state == PeerState::synchronized; }, 600));
  b.stop();
  constexpr int changed = 100;
  const Bytes data(128 * 1024, 7);
  for (int i = 0; i < changed; ++i) write(a, fmt::format("t{}/f{}", i * 7 % files / 500, i * 7 % files), 0, data);
  ASSERT_TRUE(wait(a, [&] { return peer_of(a).queue.mode == PeerQueue::Mode::map; })) << "the ring was too big";
  ASSERT_TRUE(b.start());
  a.take_peer_states();
  const std::uint64_t opened = objects_opened(), sent = peer_of(a).sent_bytes;
  const auto began = std::chrono::steady_clock::now();
  ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
  ASSERT_TRUE(synchronized(a));
  const auto took = std::chrono::steady_clock::now() - began;
  const std::uint64_t bytes = peer_of(a).sent_bytes - sent, touched = objects_opened() - opened;
  EXPECT_TRUE(a.take_peer_states().contains(PeerState::resync));
  const double ratio = static_cast<double>(bytes) / static_cast<double>(changed * data.size());
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(took).count();
  fmt::print(
      "{} files, {} changed: synchronized {} ms after the return, {} bytes sent ({:.3f} of what changed), {} objects "
      "opened\n",
      files, changed, ms, bytes, ratio, touched);
  const double changed_bytes = changed * static_cast<double>(data.size());
  EXPECT_LT(static_cast<double>(peer_of(a).resync.bytes), 1.05 * changed_bytes);
  EXPECT_LT(static_cast<double>(bytes), 1.05 * changed_bytes + static_cast<double>(a.ring_bytes))
      << "what is left in the ring is sent too";
  EXPECT_LT(touched, 20U * changed) << "on both nodes";
  EXPECT_TRUE(equal(a, b));
}

// What it holds and has not applied yet must not be lost with its log: it is asked to apply it first.
TEST_F(MirrorMap, ItAppliesWhatItHoldsBeforeItsLogBeginsAnew) {
  make_tree(a, 50);
  ASSERT_TRUE(a.start() && b.start());
  lead(a, b, 1);
  ASSERT_TRUE(synchronized(a));
  RandomApplication application(a, seeded(91));
  application.run(400);
  a.log->capture_log().hurry();
  const Sequence end = a.log->capture_log().last_sequence();
  ASSERT_TRUE(wait(a, [&] { return peer_of(a).acked >= end; }));
  b.stop();  // most of it is in its log alone
  overflow(a);
  ASSERT_TRUE(wait(a, [&] { return peer_of(a).queue.mode == PeerQueue::Mode::map; }));
  ASSERT_TRUE(b.start());
  ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
  ASSERT_TRUE(synchronized(a));
  EXPECT_TRUE(equal(a, b));
}

TEST_F(MirrorMap, ItReturnsAgainAndAgainAndIsEqual) {
  make_tree(a, 200);
  ASSERT_TRUE(a.start() && b.start());
  lead(a, b, 1);
  ASSERT_TRUE(synchronized(a));
  const unsigned seed = seeded(17);
  RandomApplication application(a, seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 8; ++round) {
    b.stop();
    application.run(100 + static_cast<int>(random() % 300));
    overflow(a);
    application.run(static_cast<int>(random() % 100));
    ASSERT_TRUE(b.start());
    ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
    for (unsigned breaks = random() % 4; breaks > 0; --breaks) {
      application.run(static_cast<int>(random() % 200));
      b.stop();  // in the middle of whatever it does
      application.run(static_cast<int>(random() % 200));
      if (random() % 2) overflow(a);
      ASSERT_TRUE(b.start());
      ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
    }
    application.run(100);
    ASSERT_TRUE(synchronized(a)) << "round " << round;
    ASSERT_TRUE(equal(a, b)) << "round " << round;
  }
}

// The connection breaks again and again while it is brought up to date: what was shipped is shipped once, and it goes on.
TEST_F(MirrorMap, APartialResynchronizationOutlivesItsConnections) {
  constexpr int changed = 300;
  make_tree(a, changed);
  ASSERT_TRUE(a.start() && b.start());
  lead(a, b, 1);
  ASSERT_TRUE(synchronized(a));
  b.stop();
  for (int i = 0; i < changed; ++i) write(a, fmt::format("t0/f{}", i), 0, Bytes(4096, 9));
  RandomApplication application(a, seeded(63));
  application.run(1000);
  overflow(a);
  ASSERT_TRUE(wait(a, [&] { return peer_of(a).queue.mode == PeerQueue::Mode::map; }));
  const std::uint64_t begun = peer_of(a).resyncs;
  ASSERT_TRUE(b.start());
  ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
  int breaks = 0;
  std::uint64_t next = 3;
  std::mt19937 random(seeded(64));
  for (;;) {
    ASSERT_TRUE(wait(a, [&] {
      const auto p = peer_of(a);
      return p.state == PeerState::synchronized ||
             (p.state == PeerState::resync && p.resyncs > begun && p.resync.done >= next);
    }));
    if (peer_of(a).state == PeerState::synchronized) break;
    ++breaks;
    b.log->receiver().disconnect();
    next += 1 + random() % 60;
    application.run(10);
    if (breaks > 30) next = ~0ULL;
  }
  EXPECT_GE(breaks, 1);
  EXPECT_EQ(peer_of(a).resyncs, begun + 1);
  EXPECT_TRUE(peer_of(a).resync.partial);
  EXPECT_TRUE(equal(a, b));
}

// A walk must not tell a peer that an object is gone because nobody can look at it.
TEST_F(MirrorMap, AnObjectOfASetThatIsNotHereIsNotGone) {
  ASSERT_TRUE(a.start());
  const auto look = [&](SetNumber set, const FileId& id) {
    const Status looked = a.live->with_object(set, id, [](ports::LiveObject&) { return Status{}; });
    return looked ? ErrorCode::internal : looked.error().code;
  };
  FileId unknown;
  unknown.bytes.fill(9);
  EXPECT_EQ(look(1, unknown), ErrorCode::not_found);
  EXPECT_EQ(look(2, unknown), ErrorCode::unavailable);
}

// Older nodes, and those without a map, are resynchronized as before.
TEST_F(MirrorMap, APeerThatDoesNotKnowItIsComparedAsAWhole) {
  b.features = 0;
  make_tree(a, 50);
  ASSERT_TRUE(a.start() && b.start());
  lead(a, b, 1);
  ASSERT_TRUE(synchronized(a));
  b.stop();
  overflow(a);
  ASSERT_TRUE(b.start());
  const std::uint64_t opened = objects_opened();
  ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
  ASSERT_TRUE(synchronized(a));
  EXPECT_GT(objects_opened() - opened, 50U);
  EXPECT_TRUE(equal(a, b));
}

}  // namespace
}  // namespace holdfast::platform
