// SPDX-License-Identifier: Apache-2.0
// Which sets of a peer that fell behind its queue get only what changed.
#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "mirror/passive_test_support.h"
#include "mirror/sender.h"
#include "mirror/test_change_store.h"

namespace holdfast::mirror {
namespace {

using testing::MemoryChangeStore;
using testing::NoIds;
using testing::NoLiveTree;
using testing::set;

constexpr NodeId me{1}, peer{2};
// The map begins at the first, the queue at the second.
const Position noted_from{Epoch(1), Sequence(5)}, queued_from{Epoch(1), Sequence(10)};

// Plays the peer: says welcome, and hears what it is told.
class Answers final : public ports::ByteStream {
 public:
  explicit Answers(const Welcome& welcome) : says_(encode_frame(welcome)) {}
  Result<std::size_t> read_some(std::span<std::uint8_t> into) override {
    const std::size_t n = std::min(into.size(), says_.size() - at_);
    std::copy_n(says_.begin() + static_cast<long>(at_), n, into.begin());
    at_ += n;
    return n;
  }
  bool readable_now() override { return false; }
  Status write_pieces(std::span<const ByteView> pieces) override {
    for (const ByteView p : pieces) hears_.insert(hears_.end(), p.begin(), p.end());
    return {};
  }
  void shutdown() override {}
  Start told() const {
    for (ByteView rest = hears_; rest.size() >= frame_head_bytes;) {
      const auto head = decode_frame_head(rest.first(frame_head_bytes)).value();
      if (head.type == FrameType::start) return decode_start(rest.subspan(frame_head_bytes, head.length)).value();
      rest = rest.subspan(frame_head_bytes + head.length);
    }
    ADD_FAILURE() << "it was told nothing";
    return {};
  }

 private:
  Bytes says_, hears_;
  std::size_t at_ = 0;
};

// Takes what it is sent, and says at once that it has applied it.
class Applies final : public ports::ByteStream {
 public:
  Result<std::size_t> read_some(std::span<std::uint8_t> into) override {
    std::unique_lock lock(mutex_);
    said_.wait(lock, [&] { return ended_ || !says_.empty(); });
    const std::size_t n = std::min(into.size(), says_.size());
    std::copy_n(says_.begin(), n, into.begin());
    says_.erase(says_.begin(), says_.begin() + static_cast<long>(n));
    return n;
  }
  bool readable_now() override { return false; }
  Status write_pieces(std::span<const ByteView> pieces) override {
    const std::lock_guard lock(mutex_);
    const auto head = decode_frame_head(pieces.front().first(frame_head_bytes)).value();
    if (head.type != FrameType::batch) return {};
    const Sequence last = decode_batch_head(pieces.front().subspan(frame_head_bytes)).value().last;
    const Bytes ack = encode_frame(Ack{last, last});
    says_.insert(says_.end(), ack.begin(), ack.end());
    said_.notify_all();
    return {};
  }
  void shutdown() override {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    said_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable said_;
  bool ended_ = false;
  Bytes says_;
};

class SenderMap : public ::testing::Test {
 protected:
  SenderMap() {
    set_log_level(LogLevel::error);
    log_.begin_epoch();
    log_.ring().open(Epoch(2), queued_from);
    sender_ = std::make_unique<Sender>(shared(), peer, "peer");
    sender_->epoch_began();
    sender_->queue().begin(queued_from, noted_from);
  }
  ~SenderMap() override {
    sender_->stop();
    if (loop_.joinable()) loop_.join();
  }
  Sender::Shared shared() {
    return {.log = log_,
            .live = live_,
            .ids = ids_,
            .times = times_,
            .cluster_id = "c",
            .self = me,
            .sets = [this] { return protected_; },
            .state_changed = [](NodeId, PeerState) {},
            .may_hold_dirty = [] { return false; },
            .progress = [] {},
            .fault = [](const Error& why) { ADD_FAILURE() << why.to_string(); },
            .open_spill = {},
            .compared = &compared_,
            .verified = [](const VerifyStatus&) {},
            .change_map = [this](NodeId) { return map_; },
            .features = feature_partial_resync};
  }
  // A session that breaks at once.
  Start session(Position position, bool complete) {
    Welcome welcome;
    welcome.highest_kind = log::highest_kind;
    welcome.node = peer;
    welcome.position = position;
    welcome.life = 7;
    welcome.features = feature_partial_resync;
    welcome.sets = {{.set = set, .complete = complete, .empty = false}};
    sender_->close();
    Answers stream(welcome);
    EXPECT_TRUE(sender_->open(stream, Epoch(2)));
    return stream.told();
  }
  bool gets_only_what_changed() {
    loop_ = std::thread([this] { sender_->resync_loop(); });
    while (sender_->status().resyncs == 0) std::this_thread::yield();
    return sender_->status().resync.partial;
  }

  // Until the peer is whole, and nothing is under way any more.
  void become_whole() {
    Applies stream;
    std::thread sends([&] { (void)sender_->serve(stream); });
    std::thread hears([&] { (void)sender_->serve_acks(stream); });
    while (!sender_->status().complete) std::this_thread::yield();
    sender_->stop();
    stream.shutdown();
    for (std::thread* t : {&loop_, &sends, &hears}) t->join();
  }
  void note_difference() {
    VerifyMemo memo;
    memo.open = 1;
    ASSERT_TRUE(compared_.put(peer, set, memo));
  }

  testing::TestTimes times_;
  NoLiveTree live_;
  NoIds ids_;
  ActiveLog log_{least_ring_bytes, times_};
  std::shared_ptr<ChangeMap> map_ = std::make_shared<ChangeMap>(std::make_unique<MemoryChangeStore>(), "peer");
  std::set<SetNumber> protected_{set};
  VerifyStore compared_{nullptr};
  std::unique_ptr<Sender> sender_;
  std::thread loop_;
};

TEST_F(SenderMap, OneThatBeganItsLogAnewGetsWhatChanged) {
  const Start start = session(noted_from, true);
  EXPECT_TRUE(start.restart && start.drained);
  EXPECT_EQ(start.base, queued_from);
  EXPECT_FALSE(session(queued_from, false).restart);
  EXPECT_TRUE(gets_only_what_changed());
}

// It refused, or never heard it; then it gave the set up by itself.
TEST_F(SenderMap, OneThatIsNotWholeAnyMoreWhereItStoodIsComparedAsAWhole) {
  EXPECT_TRUE(session(noted_from, true).drained);
  EXPECT_TRUE(session(noted_from, false).restart);
  EXPECT_FALSE(session(queued_from, false).restart);
  EXPECT_FALSE(gets_only_what_changed());
}

TEST_F(SenderMap, OneThatIsStillWholeWhereItStoodGetsWhatChanged) {
  EXPECT_TRUE(session(noted_from, true).drained);
  EXPECT_TRUE(session(noted_from, true).drained);
  EXPECT_FALSE(session(queued_from, false).restart);
  EXPECT_TRUE(gets_only_what_changed());
}

// It had begun its log anew before, and is not whole since: it could give nothing up.
TEST_F(SenderMap, OneThatFellBehindAgainBeforeItWasWholeAndIsNotReadyGetsWhatChanged) {
  EXPECT_TRUE(session(noted_from, true).drained);
  const Position behind_again{Epoch(1), Sequence(7)};
  sender_->queue().begin(queued_from, behind_again);
  EXPECT_TRUE(session(behind_again, false).drained);
  EXPECT_TRUE(session(behind_again, false).drained) << "it refused: it has more to apply first";
  EXPECT_FALSE(session(queued_from, false).restart);
  EXPECT_TRUE(gets_only_what_changed());
}

// A comparison found it, and it is in no map.
TEST_F(SenderMap, WhatIsKnownToDifferStillDoesAfterWhatChangedWasShipped) {
  note_difference();
  session(noted_from, true);
  session(queued_from, false);
  EXPECT_TRUE(gets_only_what_changed());
  become_whole();
  EXPECT_EQ(compared_.get(peer, set).open, 1U);
}

TEST_F(SenderMap, WhatIsKnownToDifferIsPastWhenAllIsCopied) {
  note_difference();
  session(queued_from, false);
  EXPECT_FALSE(gets_only_what_changed());
  become_whole();
  EXPECT_EQ(compared_.get(peer, set).open, 0U);
}

TEST_F(SenderMap, TheWalkOfASetThatIsRemovedEndsBeforeItsFolderGoes) {
  session(queued_from, false);
  EXPECT_FALSE(gets_only_what_changed());
  while (log_.last_sequence() == queued_from.sequence) std::this_thread::yield();  // it has said that it begins
  protected_.clear();
  sender_->set_removed(set);
  session(queued_from, false);
  EXPECT_TRUE(sender_->status().complete);
  EXPECT_EQ(sender_->status().resyncs, 1U);
  EXPECT_EQ(log_.last_sequence(), queued_from.sequence.next()) << "only that it begins";
}

TEST_F(SenderMap, ASetThatIsRemovedWhileASessionBeginsIsNotWalked) {
  session(queued_from, false);
  protected_.clear();  // and set_removed() was called before the session noted it
  loop_ = std::thread([this] { sender_->resync_loop(); });
  Applies stream;
  EXPECT_EQ(sender_->serve(stream).error().code, ErrorCode::unavailable) << "the next one finds what it needs";
  EXPECT_EQ(sender_->status().resyncs, 0U);
}

}  // namespace
}  // namespace holdfast::mirror
