// SPDX-License-Identifier: Apache-2.0
// For tests only: one sender, and peers that are only what they say.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "mirror/passive_test_support.h"
#include "mirror/sender.h"
#include "mirror/test_change_store.h"
#include "mirror/test_live_tree.h"

namespace holdfast::mirror::testing {

inline constexpr NodeId me{1}, peer{2};
// The map begins at the first, the queue at the second.
inline const Position noted_from{Epoch(1), Sequence(5)}, queued_from{Epoch(1), Sequence(10)};

// Plays the peer: says welcome, and hears what it is told.
class Answers final : public ports::ByteStream {
 public:
  explicit Answers(const Welcome& welcome) : Answers(encode_frame(welcome)) {}
  explicit Answers(Bytes says) : says_(std::move(says)) {}
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
    std::optional<Start> start;
    heard([&](FrameType type, ByteView payload) {
      if (type == FrameType::start) start = decode_start(payload).value();
    });
    if (!start) ADD_FAILURE() << "it was told nothing";
    return start.value_or(Start{});
  }
  int heartbeats() const {
    int count = 0;
    heard([&](FrameType type, ByteView) { count += type == FrameType::heartbeat; });
    return count;
  }

 private:
  template <class F>
  void heard(F&& frame) const {
    for (ByteView rest = hears_; rest.size() >= frame_head_bytes;) {
      const auto head = decode_frame_head(rest.first(frame_head_bytes)).value();
      frame(head.type, rest.subspan(frame_head_bytes, head.length));
      rest = rest.subspan(frame_head_bytes + head.length);
    }
  }

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

class SenderTest : public ::testing::Test {
 protected:
  SenderTest() {
    set_log_level(LogLevel::error);
    log_.begin_epoch();
    log_.ring().open(Epoch(2), queued_from);
    sender_ = std::make_unique<Sender>(shared(), peer, "peer");
    sender_->epoch_began();
    sender_->queue().begin(queued_from, noted_from);
  }
  ~SenderTest() override {
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
            .features = feature_partial_resync | feature_hot_return,
            .led_from = [this] { return led_from_; },
            .ids_of_block = [this](const IdBlock& block, const auto& found) -> Status {
              if (block_asked_) block_asked_();
              FileId id = block.base();
              id.bytes[7] = 1;
              found(set, id, false);
              return {};
            }};
  }
  // A session that breaks at once.
  struct Peer {
    bool empty = false, doubted = false;
    std::uint64_t life = 7;
  };
  Start session(Position position, bool complete, Peer what = {false, false, 7}) {
    Welcome welcome;
    welcome.highest_kind = log::highest_kind;
    welcome.node = peer;
    welcome.position = position;
    welcome.life = what.life;
    welcome.features = feature_partial_resync;
    welcome.sets = {{.set = set, .complete = complete, .empty = what.empty, .doubted = what.doubted}};
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

  TestTimes times_;
  ModelTree model_{set};
  ModelLiveTree live_{model_};  // an empty folder
  NoIds ids_;
  ActiveLog log_{least_ring_bytes, times_};
  std::shared_ptr<ChangeMap> map_ = std::make_shared<ChangeMap>(std::make_unique<MemoryChangeStore>(), "peer");
  std::set<SetNumber> protected_{set};
  std::optional<LedFrom> led_from_;
  std::function<void()> block_asked_;
  VerifyStore compared_{nullptr};
  std::unique_ptr<Sender> sender_;
  std::thread loop_;
};

}  // namespace holdfast::mirror::testing
