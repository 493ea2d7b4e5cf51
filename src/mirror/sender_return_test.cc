// SPDX-License-Identifier: Apache-2.0
// A peer that led, or this node after it died: what is noted of them, and when it must not be.
#include "mirror/sender_test_support.h"

namespace holdfast::mirror {
namespace {

using testing::Answers;
using testing::me;
using testing::noted_from;
using testing::peer;
using testing::queued_from;
using testing::set;

// It hears nothing: the connection breaks.
class Deaf final : public ports::ByteStream {
 public:
  explicit Deaf(Answers& says) : says_(says) {}
  Result<std::size_t> read_some(std::span<std::uint8_t> into) override { return says_.read_some(into); }
  bool readable_now() override { return false; }
  Status write_pieces(std::span<const ByteView> pieces) override {
    if (decode_frame_head(pieces.front().first(frame_head_bytes)).value().type == FrameType::hello) return {};
    return fail(ErrorCode::unavailable, "the connection broke");
  }
  void shutdown() override {}

 private:
  Answers& says_;
};

class SenderReturn : public testing::SenderTest {
 protected:
  SenderReturn() {
    FileId base;
    base.bytes.fill(3);
    base.bytes[6] = base.bytes[7] = 0;
    changes_.note_block(0, IdBlock::of(base));
  }
  // Of a peer that led epoch 1 and says what it changed in it; or of one that followed.
  Bytes says(Position position, bool led) {
    Welcome welcome;
    welcome.highest_kind = log::highest_kind;
    welcome.node = peer;
    welcome.position = position;
    welcome.life = 7;
    welcome.features = feature_partial_resync | feature_hot_return;
    welcome.sets = {{.set = set, .complete = true, .empty = false}};
    if (!led) return encode_frame(welcome);
    welcome.clean = false;
    welcome.led = Epoch(1);
    welcome.covered = noted_from;
    const auto entries = changes_.encode();
    welcome.listed = static_cast<std::uint32_t>(entries.size());
    Bytes all = encode_frame(welcome);
    for (std::size_t from = 0; from < entries.size();) {
      const Bytes frame = encode_changed(entries, from);
      all.insert(all.end(), frame.begin(), frame.end());
    }
    return all;
  }
  std::shared_ptr<const HotLeft> left() {
    return std::make_shared<HotLeft>(HotLeft{Epoch(1), noted_from, changes_.encode()});
  }
  void next_epoch(Epoch epoch, std::shared_ptr<const HotLeft> left = nullptr) {
    sender_->end_epoch();
    log_.ring().close();
    log_.begin_epoch();
    sender_->epoch_began(std::move(left));
    log_.ring().open(epoch, queued_from);
    sender_->begin_queue(queued_from);
  }

  void break_and_return(bool led) {
    Answers first(says(noted_from, led));
    Deaf deaf(first);
    block_asked_ = [this] { times_.now += 60'000'000'000; };
    EXPECT_EQ(sender_->open(deaf, Epoch(2)).error().code, ErrorCode::unavailable);
    sender_->close();
    Answers second(says(noted_from, led));
    ASSERT_TRUE(sender_->open(second, Epoch(2)));
    EXPECT_TRUE(second.told().drained);
    EXPECT_EQ(second.told().base, queued_from);
    sender_->close();
  }

  ChangeSet changes_;
};

TEST_F(SenderReturn, OneThatSaysWhatItChangedGetsThat) {
  led_from_ = LedFrom{queued_from, {set}};
  Answers stream(says(noted_from, true));
  ASSERT_TRUE(sender_->open(stream, Epoch(2)));
  EXPECT_TRUE(stream.told().restart && stream.told().drained);
  EXPECT_EQ(stream.told().base, queued_from);
}

// A connection that breaks while the list is noted costs nothing but the time: the next one finds what this one would have.
TEST_F(SenderReturn, AConnectionThatBreaksInItIsNoReasonToCompareEverything) {
  for (const Position& began : {queued_from, noted_from}) {
    led_from_ = LedFrom{began, {set}};
    break_and_return(true);
  }
}

// The same of a peer that followed, when this node led before and died.
TEST_F(SenderReturn, NorWhereThisNodeHasSomethingToTell) {
  next_epoch(Epoch(2), left());
  break_and_return(false);
}

TEST_F(SenderReturn, ALongListIsNotedWithSignsOfLife) {
  led_from_ = LedFrom{queued_from, {set}};
  block_asked_ = [this] { times_.now += 60'000'000'000; };
  Answers stream(says(noted_from, true));
  ASSERT_TRUE(sender_->open(stream, Epoch(2)));
  EXPECT_EQ(stream.heartbeats(), 1);
  EXPECT_TRUE(stream.told().drained);
}

// It comes late: what changed in the new epoch has been folded into its map already.
TEST_F(SenderReturn, WhoComesLateGetsOnlyWhatChangedToo) {
  next_epoch(Epoch(3), left());
  log::Record mark;
  mark.kind = log::Kind::consistent;
  for (int i = 0; i < 1'000'000 && sender_->queue().covered()->to.epoch != Epoch(3); ++i) {
    ASSERT_TRUE(log_.try_reserve(0));
    log_.append(mark, 0);
    sender_->queue().spool();
  }
  ASSERT_EQ(sender_->queue().covered()->to.epoch, Epoch(3));
  Answers stream(says({Epoch(1), Sequence(7)}, false));
  ASSERT_TRUE(sender_->open(stream, Epoch(3)));
  EXPECT_TRUE(stream.told().drained);
}

// The dial began in an epoch that ended while it noted what this node had left; the one that began since knows nothing of it.
TEST_F(SenderReturn, ADialThatOutlivesItsEpochLeavesNothingInTheNext) {
  next_epoch(Epoch(3), left());
  std::thread plan;
  const std::uint64_t before = sender_->epochs();
  block_asked_ = [&] {
    plan = std::thread([&] { next_epoch(Epoch(4)); });  // it waits until nobody finds a place in what was before
    while (sender_->epochs() == before) std::this_thread::yield();
  };
  Answers late(says(noted_from, false));
  const Status opened = sender_->open(late, Epoch(3));
  plan.join();
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::stale);
  // What was left of epoch 1 is in no map of this epoch: a peer that stands there lacks it.
  Answers again(says(noted_from, false));
  ASSERT_TRUE(sender_->open(again, Epoch(4)));
  EXPECT_TRUE(again.told().restart);
  EXPECT_FALSE(again.told().drained);
}

}  // namespace
}  // namespace holdfast::mirror
