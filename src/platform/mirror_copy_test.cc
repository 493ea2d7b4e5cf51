// SPDX-License-Identifier: Apache-2.0
// What a first copy sends, as it stands in the receive log of the peer.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <thread>

#include "log/record_codec.h"
#include "platform/test_mirror_pair.h"

namespace holdfast::platform {
namespace {

using mirror::PeerState;
using testing::TestNode;

class MirrorCopy : public testing::MirrorPair {
 protected:
  void begin() {
    ASSERT_TRUE(a.start() && b.start());
    lead(a, b, 1);
    ASSERT_TRUE(synchronized());
  }
  ::testing::AssertionResult synchronized() { return MirrorPair::synchronized(a); }
  std::string second(TestNode& node) { return folder / (&node == &a ? "a2" : "b2"); }
  void protect_second() {
    for (auto* node : {&b, &a}) protect_second(*node);  // passives first
    ASSERT_TRUE(synchronized());
  }
  void protect_second(TestNode& node) {
    const auto root = [&] { return UniqueFd(::open(second(node).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)); };
    auto tree = PosixTree::open(root(), 2, *node.index);
    ASSERT_TRUE(tree);
    node.live->add(2, root());
    ASSERT_TRUE(node.log->add_set(std::move(*tree)));
  }
  // Records of the second set that b received.
  std::map<log::Kind, int> received() {
    b.stop();
    auto store = FolderSegmentStore::open(b.log_path(), log::default_segment_bytes);
    EXPECT_TRUE(store);
    log::SegmentLog log(**store);
    EXPECT_TRUE(log.recover(Sequence(0)));
    std::map<log::Kind, int> counts;
    for (Sequence last = log.first_kept() ? Sequence(log.first_kept() - 1) : Sequence(0);;) {
      const auto bytes = log.read(last, 1 << 20);
      EXPECT_TRUE(bytes);
      if (!bytes || bytes->empty()) return counts;
      for (ByteView rest = *bytes; !rest.empty(); rest = rest.subspan(log::head_of(rest.data()).length)) {
        const auto record = log::decode(rest.first(log::head_of(rest.data()).length));
        EXPECT_TRUE(record);
        last = record->sequence;
        if (record->set == 2) ++counts[record->kind];
      }
    }
  }
};

// A folder that is protected while the peer is connected: whether the peer holds anything is not in the welcome of its session.
TEST_F(MirrorCopy, AnEmptyPeerIsSentBytesAtOnce) {
  begin();
  for (const auto* name : {"a2", "b2"}) std::filesystem::create_directories(folder / name);
  for (int i = 0; i < 20; ++i) std::ofstream(folder / "a2/" + std::to_string(i)) << std::string(5000, 'x');
  protect_second();
  const auto counts = received();
  EXPECT_EQ(counts.at(log::Kind::ship_data), 20);
  EXPECT_FALSE(counts.contains(log::Kind::ship_hash));
}

TEST_F(MirrorCopy, APeerThatHoldsSomethingIsComparedFirst) {
  begin();
  for (const auto* name : {"a2", "b2"}) {
    std::filesystem::create_directories(folder / name);
    for (int i = 0; i < 20; ++i) std::ofstream(folder / name + "/" + std::to_string(i)) << std::string(5000, 'x');
  }
  protect_second();
  const auto counts = received();
  EXPECT_EQ(counts.at(log::Kind::ship_hash), 20);
  EXPECT_FALSE(counts.contains(log::Kind::ship_data));
}

// The configuration reaches the passive after the records about the set: they wait for it, and the copy is made once. Nobody calls the peer
// whole before it is (I4).
TEST_F(MirrorCopy, APeerThatHearsOfTheSetLaterIsCopiedOnce) {
  begin();
  for (const auto* name : {"a2", "b2"}) std::filesystem::create_directories(folder / name);
  for (int i = 0; i < 20; ++i) std::ofstream(folder / "a2/" + std::to_string(i)) << std::string(5000, 'x');
  protect_second(a);
  for (std::uint64_t seen = 0; a.log->status().peers.front().sent == b.log->status().receive.applied;)
    a.log->wait_for_change(20, seen);
  std::this_thread::sleep_for(std::chrono::milliseconds(300));  // what should not happen would happen in this time
  EXPECT_NE(a.log->status().peers.front().state, PeerState::synchronized);
  protect_second(b);
  ASSERT_TRUE(synchronized());
  EXPECT_TRUE(b.log->status().receive.complete);
  const auto counts = received();
  EXPECT_EQ(counts.at(log::Kind::resync_begin), 1);
  EXPECT_EQ(counts.at(log::Kind::ship_data), 20);
  EXPECT_FALSE(counts.contains(log::Kind::ship_hash));
}

}  // namespace
}  // namespace holdfast::platform
