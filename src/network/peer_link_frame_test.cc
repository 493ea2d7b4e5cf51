// SPDX-License-Identifier: Apache-2.0
#include "network/peer_link_frame.h"

#include <gtest/gtest.h>

#include <random>

namespace holdfast::network {
namespace {

TEST(FrameReader, CutsWhatComesInPieces) {
  Bytes wire;
  append_frame(wire, FrameType::message, Bytes{1, 2, 3});
  append_frame(wire, FrameType::summary, {});
  FrameReader reader;
  std::vector<Frame> frames;
  for (const std::uint8_t byte : wire) {
    reader.feed(ByteView(&byte, 1));
    auto next = reader.next();
    ASSERT_TRUE(next);
    if (*next) frames.push_back(**next);
  }
  ASSERT_EQ(frames.size(), 2u);
  EXPECT_EQ(frames[0].type, FrameType::message);
  EXPECT_EQ(frames[0].payload, (Bytes{1, 2, 3}));
  EXPECT_TRUE(frames[1].payload.empty());
}

TEST(FrameReader, RefusesImpossibleLengthsAndTypes) {
  for (const Bytes& wire :
       {Bytes{0, 0, 0, 0, 5}, Bytes{0xff, 0xff, 0xff, 0xff, 5}, Bytes{2, 0, 0, 0, 0}, Bytes{2, 0, 0, 0, 99}}) {
    FrameReader reader;
    reader.feed(wire);
    EXPECT_FALSE(reader.next());
  }
}

TEST(FrameReader, RandomBytesAreErrorsOrFramesNeverMore) {
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    Bytes noise(random() % 64);
    for (auto& b : noise) b = static_cast<std::uint8_t>(random() % 9);
    FrameReader reader;
    reader.feed(noise);
    for (int i = 0; i < 64; ++i) {
      auto frame = reader.next();
      if (!frame || !*frame) break;
      (void)decode_hello((*frame)->payload);
      (void)decode_request((*frame)->payload);
      (void)decode_response((*frame)->payload);
    }
  }
}

TEST(Hello, ComesBackAndIsChecked) {
  Hello h;
  h.cluster = "00000000000000aa";
  h.id = NodeId(7);
  h.kind = PeerKind::witness;
  h.name = "w1";
  h.incarnation = 99;
  const auto back = decode_hello(encode_hello(h));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->cluster, h.cluster);
  EXPECT_EQ(back->id, h.id);
  EXPECT_EQ(back->incarnation, 99u);
  Bytes cut = encode_hello(h);
  cut.resize(cut.size() - 3);
  EXPECT_FALSE(decode_hello(cut));
  h.id = NodeId(0);
  EXPECT_FALSE(decode_hello(encode_hello(h)));
}

TEST(Hello, VersionsThatDoNotMeetAreSaidSo) {
  Hello mine, theirs;
  EXPECT_FALSE(version_conflict(mine, theirs));
  theirs.version_min = theirs.version_max = 900;
  const auto conflict = version_conflict(mine, theirs);
  ASSERT_TRUE(conflict);
  EXPECT_NE(conflict->find("900"), std::string::npos);
  EXPECT_TRUE(decode_hello(encode_hello(theirs)))
      << "a far newer hello must still be understood well enough to refuse it";
}

TEST(Response, ErrorsTravelWithCodeAndHint) {
  const auto back = decode_response(encode_response({3, tl::unexpected(Error{ErrorCode::refused, "no", "wait", 0})}));
  ASSERT_TRUE(back);
  ASSERT_FALSE(back->result);
  EXPECT_EQ(back->result.error().code, ErrorCode::refused);
  EXPECT_EQ(back->result.error().hint, "wait");
}

}  // namespace
}  // namespace holdfast::network
