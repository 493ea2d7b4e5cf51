// SPDX-License-Identifier: Apache-2.0
// What is kept for a peer that is away, between two whole nodes.
#include <gtest/gtest.h>

#include <fstream>

#include "platform/test_mirror_pair.h"

namespace holdfast::platform {
namespace {

using mirror::PeerQueue;
using mirror::PeerState;
using testing::RandomApplication;
using testing::seeded;
using testing::TestNode;

class MirrorQueue : public testing::MirrorPair {
 protected:
  // Writes of a MiB each, all over a file of 16.
  static void bulk(TestNode& node, int writes) {
    const UniqueFd fd(::open((node.tree_path() + "/bulk").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    struct stat root {};
    ASSERT_EQ(::stat(node.tree_path().c_str(), &root), 0);
    log::Record create;
    create.set = 1;
    create.kind = log::Kind::create;
    create.parent = FileId::root(1);
    create.name = "bulk";
    create.mode = S_IFREG | 0600;
    create.file = node.index->fresh();
    create.parent_mtime_ns = root.st_mtim.tv_sec * 1'000'000'000LL + root.st_mtim.tv_nsec;
    ASSERT_TRUE(node.index->bind(fd.get(), 1, create.file));
    node.reserve(1000);
    node.log->capture_log().append(create, 1000);
    Bytes data(1U << 20);
    for (int i = 0; i < writes; ++i) {
      std::memset(data.data(), i, data.size());
      node.reserve(data.size());
      log::Record write;
      write.set = 1;
      write.kind = log::Kind::write;
      write.file = create.file;
      write.offset = static_cast<std::uint64_t>(i * 7 % 16) << 20;
      ASSERT_EQ(::pwrite(fd.get(), data.data(), data.size(), static_cast<off_t>(write.offset)),
                static_cast<ssize_t>(data.size()));
      struct stat st {};
      ASSERT_EQ(::fstat(fd.get(), &st), 0);
      write.mtime_ns = st.st_mtim.tv_sec * 1'000'000'000LL + st.st_mtim.tv_nsec;
      write.payload = data;
      node.log->capture_log().append(write, data.size());
    }
  }
};

// It was away for much more than the ring holds: what it has not received waits on the active's disk, in a folder that an earlier life left full.
TEST_F(MirrorQueue, APeerThatWasAwayForLongReturnsWithoutAResync) {
  a.ring_bytes = mirror::least_ring_bytes;
  std::filesystem::create_directories(a.send_path(b.id()));
  std::ofstream(a.send_path(b.id()) + "/seg-000000000001") << "of an earlier life";
  ASSERT_TRUE(a.start() && b.start());
  lead(a, b, 1);
  ASSERT_TRUE(synchronized(a));
  b.stop();
  RandomApplication application(a, seeded(37));
  application.run(200);
  bulk(a, 200);
  application.run(200);
  EXPECT_EQ(peer_of(a).queue.mode, PeerQueue::Mode::disk);
  EXPECT_GT(peer_of(a).queue.disk_bytes, 190U << 20);
  EXPECT_GT(peer_of(a).oldest_ns, 0);
  a.take_peer_states();
  ASSERT_TRUE(b.start());
  ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
  application.run(200);
  ASSERT_TRUE(synchronized(a));
  EXPECT_TRUE(equal(a, b));
  EXPECT_FALSE(a.take_peer_states().contains(PeerState::resync));
  ASSERT_TRUE(wait(a, [&] { return std::filesystem::is_empty(a.send_path(b.id())); })) << "nothing is left of it";
  EXPECT_EQ(peer_of(a).queue.mode, PeerQueue::Mode::ring);
}

TEST_F(MirrorQueue, ADiskThatIsFullCostsThePeerItsPlaceAndNobodyElseAnything) {
  a.ring_bytes = mirror::least_ring_bytes;
  a.send_keep_free_bytes = 1ULL << 60;
  ASSERT_TRUE(a.start() && b.start());
  lead(a, b, 1);
  ASSERT_TRUE(synchronized(a));
  b.stop();
  bulk(a, 50);
  EXPECT_EQ(peer_of(a).queue.mode, PeerQueue::Mode::lost);
  EXPECT_NE(peer_of(a).queue.given_up.find("are kept"), std::string::npos) << peer_of(a).queue.given_up;
  EXPECT_TRUE(wait(a, [&] {
    const auto shortages = a.log->status().shortages;
    return shortages.size() == 1 && shortages[0].where == mirror::Shortage::Where::send && shortages[0].peer == b.id();
  })) << "it is told";
  ASSERT_TRUE(b.start());
  ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
  ASSERT_TRUE(synchronized(a));
  EXPECT_TRUE(equal(a, b));
  EXPECT_TRUE(wait(a, [&] { return a.log->status().shortages.empty(); })) << "and is over";
}

// The connection breaks again and again while an older copy is compared: what was shipped is shipped once, what was asked for is answered, and
// nobody calls the copy whole before it is.
TEST_F(MirrorQueue, AResynchronizationOutlivesItsConnections) {
  ASSERT_TRUE(a.start() && b.start(false));
  ASSERT_TRUE(a.log->promote(Epoch(1), true));
  RandomApplication application(a, seeded(61));
  application.run(2500);
  b.stop();
  ASSERT_EQ(std::system(("cp -a --sparse=always " + a.tree_path() + "/. " + b.tree_path() + " && rm -rf " +
                         b.tree_path() + "/.holdfast")
                            .c_str()),
            0);
  application.run(1500);  // much of it differs now
  bulk(a, 200);
  ASSERT_TRUE(b.start());
  ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
  a.log->set_wait_set({b.id()});
  std::atomic<bool> released{false};
  a.log->capture_log().when_durable(a.log->capture_log().last_sequence(), [&] {
    released = true;
    EXPECT_TRUE(b.log->status().receive.complete);
  });
  connect(a, b);
  int breaks = 0;
  std::uint64_t next = 3;
  std::mt19937 random(seeded(62));
  for (;;) {
    ASSERT_TRUE(wait(a, [&] {
      const auto p = peer_of(a);
      return p.state == PeerState::synchronized || (p.state == PeerState::resync && p.resync.done >= next);
    }));
    if (peer_of(a).state == PeerState::synchronized) break;
    ++breaks;
    b.log->receiver().disconnect();
    next += 1 + random() % 25;
    application.run(10);
    if (breaks > 40) next = ~0ULL;
  }
  EXPECT_GE(breaks, 1);
  EXPECT_TRUE(equal(a, b));
  EXPECT_TRUE(wait(a, [&] { return released.load(); }));
  EXPECT_EQ(peer_of(a).resyncs, 1U);
}

}  // namespace
}  // namespace holdfast::platform
