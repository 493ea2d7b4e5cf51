// SPDX-License-Identifier: Apache-2.0
#include "mirror/channel.h"

#include <gtest/gtest.h>

#include <random>

namespace holdfast::mirror {
namespace {

class BytesStream final : public ports::ByteStream {
 public:
  explicit BytesStream(Bytes bytes) : bytes_(std::move(bytes)) {}
  Result<std::size_t> read_some(std::span<std::uint8_t> into) override {
    const std::size_t n = std::min(into.size(), bytes_.size() - at_);
    std::copy_n(bytes_.begin() + static_cast<long>(at_), n, into.begin());
    at_ += n;
    return n;
  }
  bool readable_now() override { return at_ < bytes_.size(); }
  Status write_pieces(std::span<const ByteView>) override { return {}; }
  void shutdown() override {}

 private:
  Bytes bytes_;
  std::size_t at_ = 0;
};

Welcome some_welcome() {
  Welcome w;
  w.node = NodeId(5);
  w.position = {Epoch(3), Sequence(99)};
  w.clean = false;
  w.life = 12345;
  w.sets = {{1, true, false}, {7, false, true}};
  w.features = feature_hot_return;
  w.led = Epoch(6);
  w.covered = {Epoch(6), Sequence(77)};
  w.listed = 3;
  return w;
}

Bytes some_list() {
  std::size_t from = 0;
  return encode_changed({{{1, 2, 3}, {4}}, {{5}, {}}}, from);
}

TEST(Channel, MessagesRoundTrip) {
  FrameReader::Frame frame{};
  const auto read = [&](const Bytes& bytes) {
    static std::unique_ptr<BytesStream> stream;
    static std::unique_ptr<FrameReader> reader;
    stream = std::make_unique<BytesStream>(bytes);
    reader = std::make_unique<FrameReader>(*stream);
    frame = reader->next().value();
    return frame.payload;
  };
  Hello hello;
  hello.cluster_id = "cluster";
  hello.node = NodeId(4);
  hello.epoch = Epoch(8);
  hello.highest_kind = 99;
  hello.features = feature_partial_resync;
  const Hello hello_back = decode_hello(read(encode_frame(hello))).value();
  EXPECT_EQ(hello_back.cluster_id, "cluster");
  EXPECT_EQ(hello_back.epoch, Epoch(8));
  EXPECT_EQ(hello_back.features, feature_partial_resync);
  const Welcome welcome = decode_welcome(read(encode_frame(some_welcome()))).value();
  EXPECT_EQ(welcome.position, (Position{Epoch(3), Sequence(99)}));
  ASSERT_EQ(welcome.sets.size(), 2U);
  EXPECT_TRUE(welcome.sets[0].complete && welcome.sets[1].empty && !welcome.clean);
  EXPECT_EQ(welcome.features, feature_hot_return);
  EXPECT_EQ(welcome.led, Epoch(6));
  EXPECT_EQ(welcome.covered, (Position{Epoch(6), Sequence(77)}));
  EXPECT_EQ(welcome.listed, 3U);
  EXPECT_TRUE(decode_start(read(encode_frame(Start{true, {Epoch(1), Sequence(2)}, false})))->restart);
  EXPECT_EQ(decode_ack(read(encode_frame(Ack{Sequence(10), Sequence(9)})))->applied, Sequence(9));
  const Nak nak = decode_nak(read(encode_frame(Nak{3, FileId::root(3), 4096, 100}))).value();
  EXPECT_EQ(nak.file, FileId::root(3));
  const Differs differs =
      decode_differs(read(encode_frame(Differs{Sequence(9), 3, FileId::root(3), differs_contents, 1, 2, "name"})))
          .value();
  EXPECT_EQ(differs.file, FileId::root(3));
  EXPECT_EQ(differs.what, differs_contents);
  EXPECT_EQ(differs.name, "name");
  EXPECT_EQ(decode_heartbeat(read(encode_frame(Heartbeat{-1})))->time_ns, -1);
  ports::TreeLimits limits;
  limits.set(ports::Limit::links, 65000);
  const std::vector<ToldLimits> told = {{NodeId(9), 4, limits}, {NodeId(8), 1, {}}};
  EXPECT_EQ(decode_ack(read(encode_frame(Ack{Sequence(10), Sequence(9), told})))->limits, told);
  EXPECT_EQ(decode_heartbeat(read(encode_frame(Heartbeat{7, told})))->limits, told);
  EXPECT_TRUE(decode_heartbeat(read(encode_frame(Heartbeat{7})))->limits.empty()) << "as an older node says it";
  Bytes torn = encode_frame(Ack{Sequence(10), Sequence(9), told});
  EXPECT_FALSE(decode_ack(ByteView(torn).subspan(frame_head_bytes, torn.size() - frame_head_bytes - 1)));
  EXPECT_EQ(decode_refuse(read(encode_frame(Refuse{"no\nway"})))->reason, "no?way") << "it ends in a log line";
  EXPECT_EQ(frame.type, FrameType::refuse);
}

TEST(Channel, AStartGoesOnBeginsAnewOrKeepsATreeThatIsDrained) {
  for (const auto& [restart, drained] : {std::pair{false, false}, {true, false}, {true, true}}) {
    const Bytes frame = encode_frame(Start{restart, {Epoch(1), Sequence(2)}, drained});
    const auto back = decode_start(ByteView(frame).subspan(frame_head_bytes));
    ASSERT_TRUE(back);
    EXPECT_EQ(back->restart, restart);
    EXPECT_EQ(back->drained, drained);
    Bytes later = frame;
    later[frame_head_bytes] = 3;  // something of a later version: never guessed at
    EXPECT_FALSE(decode_start(ByteView(later).subspan(frame_head_bytes)));
  }
}

TEST(Channel, AnOlderNodeHasNoFeatures) {
  Hello hello;
  hello.features = ~0U;
  const Bytes said = encode_frame(hello);
  EXPECT_EQ(decode_hello(ByteView(said).subspan(frame_head_bytes))->features, ~0U);
  EXPECT_EQ(decode_hello(ByteView(said).subspan(frame_head_bytes, said.size() - frame_head_bytes - 4))->features, 0U);
  Welcome welcome = some_welcome();
  const Bytes answer = encode_frame(welcome);
  const auto without = [&](std::size_t tail) {
    return decode_welcome(ByteView(answer).subspan(frame_head_bytes, answer.size() - frame_head_bytes - tail));
  };
  constexpr std::size_t hot_tail = 28;
  ASSERT_TRUE(without(hot_tail) && without(hot_tail + 4));
  EXPECT_EQ(without(hot_tail)->features, feature_hot_return);
  EXPECT_EQ(without(hot_tail)->led, Epoch(0));
  EXPECT_EQ(without(hot_tail)->listed, 0U);
  EXPECT_EQ(without(hot_tail + 4)->features, 0U);
  welcome.listed = max_listed + 1;
  EXPECT_FALSE(decode_welcome(ByteView(encode_frame(welcome)).subspan(frame_head_bytes)));
}

TEST(Channel, AListOfChangesTakesAsManyFramesAsItNeeds) {
  std::vector<ports::ChangeEntry> all;
  for (unsigned i = 0; i < 20'000; ++i) all.push_back({Bytes(19, static_cast<std::uint8_t>(i)), Bytes(i % 30, 7)});
  std::vector<ports::ChangeEntry> back;
  std::size_t from = 0;
  for (int frames = 0; from < all.size(); ++frames) {
    const Bytes frame = encode_changed(all, from);
    BytesStream stream(frame);
    FrameReader reader(stream);
    const auto read = reader.next();
    ASSERT_TRUE(read && read->type == FrameType::changed);
    ASSERT_TRUE(decode_changed(read->payload, back));
    EXPECT_EQ(back.size(), from);
    EXPECT_LT(frames, 20);
  }
  EXPECT_EQ(back, all);
  Bytes lies{255, 255, 255, 255, 1};
  EXPECT_FALSE(decode_changed(lies, back));
}

TEST(Channel, ALengthFromOutsideIsBounded) {
  Bytes frame = encode_frame(Heartbeat{1});
  const std::uint32_t huge = 0x7fffffff;
  std::memcpy(frame.data() + 4, &huge, 4);
  EXPECT_FALSE(decode_frame_head(frame));
  BytesStream stream(frame);
  EXPECT_FALSE(FrameReader(stream).next());
}

TEST(Channel, BatchesOfTheBiggestRecordFit) {
  EXPECT_LE(max_batch_bytes + batch_head_bytes, max_frame_bytes);
  EXPECT_LE(log::default_segment_bytes, 64U << 20);
  const Bytes head = encode_batch_head({3, Sequence(5), Sequence(7)}, 1000);
  EXPECT_EQ(decode_frame_head(head)->length, batch_head_bytes + 1000);
  EXPECT_EQ(decode_batch_head(ByteView(head).subspan(frame_head_bytes))->last, Sequence(7));
  EXPECT_FALSE(
      decode_batch_head(ByteView(encode_batch_head({2, Sequence(5), Sequence(7)}, 0)).subspan(frame_head_bytes)));
}

TEST(Channel, AHundredThousandMutatedFrames) {
  std::mt19937 random(4);
  Hello hello;
  hello.cluster_id = "some cluster";
  const std::vector<Bytes> seeds = {encode_frame(hello),
                                    encode_frame(some_welcome()),
                                    encode_frame(Start{}),
                                    some_list(),
                                    encode_frame(Ack{}),
                                    encode_frame(Nak{}),
                                    encode_frame(Differs{}),
                                    encode_frame(Heartbeat{}),
                                    encode_frame(Refuse{"reason"}),
                                    encode_batch_head({1, Sequence(1), Sequence(1)}, 0)};
  int whole = 0;
  for (int i = 0; i < 100'000; ++i) {
    Bytes bytes = seeds[random() % seeds.size()];
    for (unsigned n = random() % 3; n-- > 0;) bytes[random() % bytes.size()] = static_cast<std::uint8_t>(random());
    if (random() % 4 == 0) bytes.resize(random() % bytes.size());
    BytesStream stream(bytes);
    FrameReader reader(stream);
    if (reader.next()) ++whole;
    // The decoders, as if the checksum had been made right.
    const ByteView payload = ByteView(bytes).subspan(std::min(bytes.size(), frame_head_bytes));
    (void)decode_hello(payload);
    (void)decode_welcome(payload);
    (void)decode_start(payload);
    std::vector<ports::ChangeEntry> entries;
    (void)decode_changed(payload, entries);
    (void)decode_batch_head(payload);
    (void)decode_ack(payload);
    (void)decode_nak(payload);
    (void)decode_differs(payload);
    (void)decode_heartbeat(payload);
    (void)decode_refuse(payload);
  }
  EXPECT_GT(whole, 1000);
}

}  // namespace
}  // namespace holdfast::mirror
