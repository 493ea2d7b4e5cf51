// SPDX-License-Identifier: Apache-2.0
#include "cluster/codec.h"

#include <gtest/gtest.h>

namespace holdfast::cluster {
namespace {

ValuePtr sample(std::size_t config_bytes = 10) {
  Value v;
  v.revision = {Epoch(7), 3};
  v.active = NodeId(1);
  v.in_sync_version = 9;
  v.in_sync = {NodeId(1), NodeId(2)};
  v.members = {Member{NodeId(1), "a", "x", 1, MemberKind::data, true, Incarnation(5)},
               Member{NodeId(3), "w", "", 0, MemberKind::witness, true, Incarnation(6)}};
  v.old_voters = {{NodeId(1), Incarnation(5)}};
  v.config_version = 4;
  v.config = std::string(config_bytes, 'c');
  v.settings = {700, false};
  return std::make_shared<const Value>(v);
}

std::vector<Envelope> one_of_each() {
  std::vector<Body> bodies = {
      Canvass{1},
      CanvassReply{1, true, 20, Epoch(3), Incarnation(4), {Epoch(2), Sequence(9)}, true, sample()},
      VoteRequest{1, Epoch(8)},
      Vote{1, Epoch(8), Incarnation(4), {Epoch(2), Sequence(9)}, true, nullptr},
      Accept{sample()},
      Accepted{{Epoch(7), 3}, Incarnation(4)},
      Renew{{Epoch(7), 3}, 99, 2000},
      Renewed{Epoch(7), 99, Incarnation(4), {Epoch(7), 2}, true},
      Nack{Epoch(7), Epoch(8), 1, 30, sample()},
      Resign{Epoch(7), NodeId(2)},
      Resign{Epoch(7), NodeId(2), 0xfeedfacecafebeef}};
  std::vector<Envelope> all;
  for (Body& b : bodies) all.push_back({ClusterId(11), NodeId(1), NodeId(2), std::move(b)});
  return all;
}

TEST(Codec, EveryMessageComesBackAsItWas) {
  for (const Envelope& e : one_of_each()) {
    const Bytes bytes = encode(e);
    const auto back = decode_envelope(bytes);
    ASSERT_TRUE(back) << back.error().message;
    EXPECT_EQ(back->body.index(), e.body.index());
    EXPECT_EQ(encode(*back), bytes);
  }
}

TEST(Codec, ValuesComeBackWhole) {
  const auto back = decode_envelope(encode(one_of_each()[4]));
  ASSERT_TRUE(back);
  EXPECT_EQ(*std::get<Accept>(back->body).value, *sample());
}

TEST(Codec, ShortAndLongMessagesAreRefused) {
  for (const Envelope& e : one_of_each()) {
    Bytes bytes = encode(e);
    for (std::size_t n = 0; n < bytes.size(); ++n) EXPECT_FALSE(decode_envelope(ByteView(bytes).first(n))) << n;
    bytes.push_back(0);
    EXPECT_FALSE(decode_envelope(bytes));
  }
}

TEST(Codec, DamagedMessagesNeverCrash) {
  for (const Envelope& e : one_of_each()) {
    const Bytes good = encode(e);
    for (std::size_t i = 0; i < good.size(); ++i)
      for (const int bit : {0, 3, 7}) {
        Bytes bad = good;
        bad[i] = static_cast<std::uint8_t>(bad[i] ^ (1 << bit));
        const auto r = decode_envelope(bad);  // may be another valid message; must not crash, and re-encodes
        if (r) {
          EXPECT_LE(encode(*r).size(), max_message_bytes);
        }
      }
  }
}

TEST(Codec, AnotherVersionIsRefusedBySayingSo) {
  Bytes bytes = encode(one_of_each()[0]);
  bytes[0] = 9;
  const auto r = decode_envelope(bytes);
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().message.find("version 9"), std::string::npos);
}

TEST(Codec, TheLargestConfigFitsAndOneMoreByteDoesNot) {
  const Envelope e{ClusterId(1), NodeId(1), NodeId(2), Accept{sample(max_config_bytes)}};
  EXPECT_TRUE(decode_envelope(encode(e)));
  const Envelope more{ClusterId(1), NodeId(1), NodeId(2), Accept{sample(max_config_bytes + 1)}};
  EXPECT_FALSE(decode_envelope(encode(more)));
}

TEST(Codec, VoterStateKeepsAllAndNoticesEveryFlippedBit) {
  const VoterState s{Incarnation(3), Epoch(9), NodeId(2), sample()};
  const Bytes bytes = encode(s);
  const auto back = decode_voter_state(bytes);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->incarnation, s.incarnation);
  EXPECT_EQ(back->promised, s.promised);
  EXPECT_EQ(back->promised_to, s.promised_to);
  EXPECT_EQ(*back->accepted, *s.accepted);
  for (std::size_t i = 0; i < bytes.size() * 8; ++i) {
    Bytes bad = bytes;
    bad[i / 8] = static_cast<std::uint8_t>(bad[i / 8] ^ (1 << (i % 8)));
    EXPECT_FALSE(decode_voter_state(bad));
  }
  EXPECT_FALSE(decode_voter_state({}));
}

}  // namespace
}  // namespace holdfast::cluster
