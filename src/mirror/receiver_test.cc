// SPDX-License-Identifier: Apache-2.0
// The passive's side of a connection alone: a full disk under its log, and what it asked for when the connection breaks.
#include "mirror/receiver.h"

#include <gtest/gtest.h>

#include <condition_variable>
#include <thread>

#include "log/record_codec.h"
#include "log/record_fields.h"
#include "log/test_segments.h"

namespace holdfast::mirror {
namespace {

constexpr NodeId active{1}, self{2};
constexpr SetNumber set = 1;

// Segments that find no room `short_of_room` times.
class FullSegments final : public ports::SegmentStore {
 public:
  std::atomic<int> short_of_room{0};
  Result<std::vector<std::uint64_t>> list() override { return inner_.list(); }
  Result<std::unique_ptr<ports::SegmentFile>> create(std::uint64_t number, std::uint64_t bytes) override {
    if (short_of_room > 0) {
      --short_of_room;
      return fail(ErrorCode::no_space, "cannot make room for /receive/seg-{}", number);
    }
    return inner_.create(number, bytes);
  }
  Result<std::unique_ptr<ports::SegmentFile>> open(std::uint64_t number) override { return inner_.open(number); }
  Status remove(std::uint64_t number) override { return inner_.remove(number); }
  Status remove_all() override { return inner_.remove_all(); }

 private:
  log::testing::MemorySegments inner_;
};

// The active's end: frames are fed in, answers are waited for.
class Wire final : public ports::ByteStream {
 public:
  void feed(const Bytes& frame) {
    const std::lock_guard lock(mutex_);
    in_.insert(in_.end(), frame.begin(), frame.end());
    changed_.notify_all();
  }
  Result<std::size_t> read_some(std::span<std::uint8_t> into) override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return ended_ || at_ < in_.size(); });
    if (ended_) return std::size_t{0};
    const std::size_t n = std::min(into.size(), in_.size() - at_);
    std::copy_n(in_.begin() + static_cast<long>(at_), n, into.begin());
    at_ += n;
    return n;
  }
  bool readable_now() override {
    const std::lock_guard lock(mutex_);
    return at_ < in_.size();
  }
  Status write_pieces(std::span<const ByteView> pieces) override {
    const std::lock_guard lock(mutex_);
    if (ended_) return fail(ErrorCode::unavailable, "hung up");
    for (const ByteView p : pieces) out_.insert(out_.end(), p.begin(), p.end());
    while (out_.size() >= frame_head_bytes) {
      const auto head = decode_frame_head(ByteView(out_).first(frame_head_bytes));
      if (!head || out_.size() < frame_head_bytes + head->length) break;
      const ByteView payload = ByteView(out_).subspan(frame_head_bytes, head->length);
      if (head->type == FrameType::ack) {
        acks.push_back(*decode_ack(payload));
        naks_before_first_ack = acks.size() == 1 ? naks.size() : naks_before_first_ack;
      }
      if (head->type == FrameType::nak) naks.push_back(*decode_nak(payload));
      if (head->type == FrameType::refuse) refused = decode_refuse(payload)->reason;
      out_.erase(out_.begin(), out_.begin() + static_cast<long>(frame_head_bytes + head->length));
    }
    changed_.notify_all();
    return {};
  }
  void shutdown() override {
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }
  template <class F>
  bool wait(F&& condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), condition);
  }
  // Under the lock of wait(), or when the session has ended.
  std::vector<Ack> acks;
  std::vector<Nak> naks;
  std::size_t naks_before_first_ack = 0;
  std::string refused;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  Bytes in_, out_;
  std::size_t at_ = 0;
  bool ended_ = false;
};

class ReceiverTest : public ::testing::Test {
 protected:
  static constexpr std::uint64_t segment_bytes =
      log::segment_header_bytes + log::group_head_bytes + log::max_group_bytes;
  ReceiverTest()
      : log(segments, segment_bytes),
        receiver(log, {[](const Hello&) {
                         Welcome w;
                         w.node = self;
                         return Result<Welcome>(w);
                       },
                       [](const Start&, Epoch, const Welcome&) { return Status{}; }, [] {},
                       [this] { return Sequence(applied); }, [] { return std::uint64_t{0}; },
                       [this](const Error& why) { fault = why.to_string(); },
                       [this](const std::string& full) {
                         const std::lock_guard lock(mutex);
                         told.push_back(full);
                         told_changed.notify_all();
                       }}) {
    EXPECT_TRUE(log.reset({}));
  }
  ~ReceiverTest() override { hang_up(); }

  void connect() {
    hang_up();
    wire = std::make_shared<Wire>();
    Hello hello;
    hello.node = active;
    hello.epoch = Epoch(1);
    hello.highest_kind = log::highest_kind;
    wire->feed(encode_frame(hello));
    Start start;
    start.base = log.end();
    wire->feed(encode_frame(start));
    session = std::thread([this, w = wire] { ended = receiver.serve(w, to_hex(active)); });
  }
  // Its session waits for room from here on.
  void connect_and_fill_the_disk() {
    connect();
    const Bytes payload(900'000, 7);
    log::Record big;
    big.payload = payload;
    segments.short_of_room = 1 << 30;
    for (std::uint64_t i = 1; i <= 6; ++i) wire->feed(batch(i, {big}));
    std::unique_lock lock(mutex);
    ASSERT_TRUE(told_changed.wait_for(lock, std::chrono::seconds(10), [&] { return !told.empty(); }));
  }
  void hang_up() {
    if (wire) wire->shutdown();
    if (session.joinable()) session.join();
  }
  Bytes batch(std::uint64_t first, std::vector<log::Record> records) {
    Bytes bytes;
    std::uint64_t sequence = first;
    for (auto& r : records) {
      r.epoch = Epoch(1);
      r.sequence = Sequence(sequence++);
      r.set = set;
      const Bytes encoded = log::encode(r);
      bytes.insert(bytes.end(), encoded.begin(), encoded.end());
    }
    Bytes frame = encode_batch_head(
        {static_cast<std::uint32_t>(records.size()), Sequence(first), Sequence(sequence - 1)}, bytes.size());
    frame.insert(frame.end(), bytes.begin(), bytes.end());
    return frame;
  }
  static FileId id(std::uint8_t n) {
    FileId i;
    i.bytes[0] = n;
    return i;
  }

  FullSegments segments;
  log::SegmentLog log;
  std::atomic<std::uint64_t> applied{0};
  std::mutex mutex;
  std::condition_variable told_changed;
  std::vector<std::string> told;
  std::string fault;
  Receiver receiver;
  std::shared_ptr<Wire> wire;
  std::thread session;
  Status ended;
};

TEST_F(ReceiverTest, AFullDiskHoldsTheActiveUpUntilThereIsRoom) {
  connect();
  const Bytes payload(900'000, 7);
  log::Record big;
  big.payload = payload;
  for (std::uint64_t i = 1; i <= 4; ++i) wire->feed(batch(i, {big}));
  ASSERT_TRUE(wire->wait([&] { return !wire->acks.empty() && wire->acks.back().durable == Sequence(4); }));
  segments.short_of_room = 3;
  for (std::uint64_t i = 5; i <= 6; ++i) wire->feed(batch(i, {big}));
  ASSERT_TRUE(wire->wait([&] { return wire->acks.back().durable == Sequence(6); }));
  EXPECT_EQ(segments.short_of_room, 0);
  const std::lock_guard lock(mutex);
  ASSERT_EQ(told.size(), 2U) << "when it begins, and when it ends";
  EXPECT_NE(told[0].find("/receive/seg-"), std::string::npos);
  EXPECT_EQ(told[1], "");
  EXPECT_EQ(fault, "");
}

TEST_F(ReceiverTest, AFullDiskHoldsUpNeitherVotesNorANewSession) {
  ASSERT_NO_FATAL_FAILURE(connect_and_fill_the_disk());
  std::thread older = std::move(session);
  const auto older_wire = std::exchange(wire, nullptr);
  connect();
  ASSERT_TRUE(wire->wait([&] { return !wire->acks.empty(); })) << "the session that waits for room gives way";
  older.join();
  const auto sealed = receiver.seal(Epoch(2), [] { return Status{}; });
  ASSERT_TRUE(sealed);
  EXPECT_EQ(sealed->sequence, log.durable());
  EXPECT_EQ(fault, "");
}

TEST_F(ReceiverTest, ASessionThatWaitsForRoomEndsWithItsConnection) {
  ASSERT_NO_FATAL_FAILURE(connect_and_fill_the_disk());
  wire->shutdown();
  receiver.send_ack();
  session.join();
  EXPECT_FALSE(ended);
  EXPECT_EQ(told.back(), "");
}

// Applied while nobody was connected, or lost on the way: asked for again first of all, until an answer was received.
TEST_F(ReceiverTest, WhatWasAskedForIsAskedForAgainUntilItIsAnswered) {
  receiver.nak({set, id(1), 0, 4096});
  connect();
  ASSERT_TRUE(wire->wait([&] { return !wire->acks.empty(); }));
  EXPECT_EQ(wire->naks_before_first_ack, 1U);
  receiver.nak({set, id(2), 0, 0});
  receiver.nak({set, id(3), 8192, 4096});
  receiver.send_ack();
  ASSERT_TRUE(wire->wait([&] { return wire->naks.size() == 3; }));
  connect();
  ASSERT_TRUE(wire->wait([&] { return !wire->acks.empty(); }));
  EXPECT_EQ(wire->naks_before_first_ack, 3U);
  const Bytes payload(4096, 1), less(2000, 1);
  log::Record data, part, node;
  data.kind = part.kind = log::Kind::ship_data;
  data.file = id(1);
  data.length = 4096;
  data.payload = payload;
  part.file = id(3);
  part.offset = 8192;
  part.length = 2000;
  part.payload = less;
  node.kind = log::Kind::ship_node;
  node.file = id(2);
  for (auto* r : {&data, &part, &node}) r->addressed_to = self;
  wire->feed(batch(1, {data, part, node}));
  ASSERT_TRUE(wire->wait([&] { return wire->acks.back().durable == Sequence(3); }));
  connect();
  ASSERT_TRUE(wire->wait([&] { return !wire->acks.empty(); }));
  ASSERT_EQ(wire->naks.size(), 1U) << "only the one that had less than it asked for";
  EXPECT_EQ(wire->naks[0].file, id(3));
  log::Record begin;
  begin.kind = log::Kind::resync_begin;
  begin.addressed_to = self;
  wire->feed(batch(4, {begin}));
  ASSERT_TRUE(wire->wait([&] { return wire->acks.back().durable == Sequence(4); }));
  connect();
  ASSERT_TRUE(wire->wait([&] { return !wire->acks.empty(); }));
  EXPECT_TRUE(wire->naks.empty()) << "all of the set comes anew";
}

}  // namespace
}  // namespace holdfast::mirror
