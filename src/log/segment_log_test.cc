// SPDX-License-Identifier: Apache-2.0
#include "log/segment_log.h"

#include <gtest/gtest.h>

#include <random>

#include "log/record_codec.h"
#include "log/test_segments.h"

namespace holdfast::log {
namespace {

using testing::MemorySegments;

constexpr std::uint64_t small_segment_bytes = segment_header_bytes + group_head_bytes + max_group_bytes + 4096;

Bytes write_record(std::uint64_t sequence, std::size_t payload_bytes, std::uint64_t epoch = 1) {
  Bytes payload(payload_bytes);
  for (std::size_t i = 0; i < payload.size(); ++i) payload[i] = static_cast<std::uint8_t>(sequence * 31 + i);
  Record r;
  r.kind = Kind::write;
  r.epoch = Epoch(epoch);
  r.sequence = Sequence(sequence);
  r.file.bytes[0] = 1;
  r.payload = payload;
  return encode(r);
}

Position at(std::uint64_t sequence, std::uint64_t epoch = 1) { return {Epoch(epoch), Sequence(sequence)}; }

void append(SegmentLog& log, std::uint64_t sequence, std::size_t payload_bytes = 100) {
  ASSERT_TRUE(log.append(write_record(sequence, payload_bytes), 1, at(sequence)));
}

std::vector<std::uint64_t> read_all(SegmentLog& log, std::uint64_t after) {
  std::vector<std::uint64_t> sequences;
  for (;;) {
    const Bytes bytes = log.read(Sequence(after), 1 << 20).value();
    if (bytes.empty()) return sequences;
    for (ByteView rest = bytes; !rest.empty();) {
      const RecordHead head = head_of(rest.data());
      if (head.sequence.value > after) sequences.push_back(after = head.sequence.value);
      rest = rest.subspan(head.length);
    }
  }
}

TEST(SegmentLog, WhatIsDurableIsReadInOrderOverManySegments) {
  MemorySegments store;
  SegmentLog log(store, small_segment_bytes);
  ASSERT_FALSE(log.recover(Sequence(0))->found);
  ASSERT_TRUE(log.reset(at(10)));
  for (std::uint64_t s = 11; s <= 60; ++s) append(log, s, 500'000);
  EXPECT_EQ(read_all(log, 10).size(), log.durable().value - 10) << "rotation made a part durable";
  ASSERT_TRUE(log.sync());
  EXPECT_EQ(read_all(log, 10).size(), 50U);
  EXPECT_EQ(read_all(log, 37).front(), 38U);
  EXPECT_GT(store.files.size(), 3U);
  EXPECT_EQ(read_all(log, 59).back(), 60U);
  ASSERT_TRUE(log.trim(Sequence(55)));
  EXPECT_LE(store.files.size(), 2U);
  EXPECT_FALSE(log.read(Sequence(10), 1000)) << "given up";
  // Recycled segments hold older bytes: they never come back.
  for (std::uint64_t s = 61; s <= 75; ++s) append(log, s, 500'000);
  append(log, 76, 10);
  ASSERT_TRUE(log.sync());
  SegmentLog again(store, small_segment_bytes);
  const auto recovery = again.recover(Sequence(76));
  ASSERT_TRUE(recovery) << recovery.error().message;
  EXPECT_EQ(recovery->end, at(76));
  EXPECT_EQ(recovery->cut_bytes, 0U);
}

TEST(SegmentLog, ATornTailIsCutAndNeverComesBack) {
  for (unsigned seed = 0; seed < 25; ++seed) {
    std::mt19937 random(seed);
    MemorySegments store;
    SegmentLog log(store, small_segment_bytes);
    ASSERT_TRUE(log.reset(at(0)));
    std::uint64_t next = 1;
    for (int life = 0; life < 3; ++life) {
      SegmentLog recovered(store, small_segment_bytes);
      const auto recovery = recovered.recover(Sequence(0));
      ASSERT_TRUE(recovery) << seed << " " << recovery.error().message;
      EXPECT_LE(recovery->end.sequence.value, next - 1);
      next = recovery->end.sequence.value + 1;
      for (unsigned n = random() % 20; n-- > 0;) append(recovered, next++, random() % 3000);
      ASSERT_TRUE(recovered.sync());
      const std::uint64_t durable = next - 1;
      for (unsigned n = random() % 20; n-- > 0;) append(recovered, next++, random() % 3000);
      store.power_cut(seed * 7 + static_cast<unsigned>(life), random() % 101);
      SegmentLog check(store, small_segment_bytes);
      const auto after = check.recover(Sequence(durable));
      ASSERT_TRUE(after) << seed << " " << after.error().message;
      EXPECT_GE(after->end.sequence.value, durable) << seed;
      EXPECT_EQ(read_all(check, 0).size(), after->end.sequence.value) << seed;
      next = after->end.sequence.value + 1;
    }
  }
}

TEST(SegmentLog, DamageInTheMiddleStopsAndSaysWhere) {
  MemorySegments store;
  SegmentLog log(store, small_segment_bytes);
  ASSERT_TRUE(log.reset(at(0)));
  for (std::uint64_t s = 1; s <= 10; ++s) {
    append(log, s);
    ASSERT_TRUE(log.sync());
  }
  auto& bytes = store.files.at(1)->now;
  for (const std::size_t where : {segment_header_bytes + 20, segment_header_bytes + 100, segment_header_bytes + 900}) {
    Bytes& content = bytes;
    content[where] ^= 0x40;
    SegmentLog damaged(store, small_segment_bytes);
    const auto recovery = damaged.recover(Sequence(0));
    ASSERT_FALSE(recovery) << where;
    EXPECT_EQ(recovery.error().code, ErrorCode::corrupt);
    EXPECT_NE(recovery.error().message.find("segment 1"), std::string::npos);
    content[where] ^= 0x40;
  }
  // The very last group: nothing after it proves that it was durable, but the checkpoint does.
  SegmentLog whole(store, small_segment_bytes);
  ASSERT_TRUE(whole.recover(Sequence(10)));
  std::size_t last = bytes.size();
  while (bytes[last - 1] == 0) --last;
  bytes[last - 40] ^= 1;
  SegmentLog known(store, small_segment_bytes);
  EXPECT_FALSE(known.recover(Sequence(10)));
  SegmentLog unknown(store, small_segment_bytes);
  EXPECT_EQ(unknown.recover(Sequence(9))->end, at(9));
}

TEST(SegmentLog, ADamagedHeaderOrAMissingSegmentStops) {
  MemorySegments store;
  SegmentLog log(store, small_segment_bytes);
  ASSERT_TRUE(log.reset(at(0)));
  for (std::uint64_t s = 1; s <= 30; ++s) append(log, s, 500'000);
  ASSERT_TRUE(log.sync());
  ASSERT_GE(store.files.size(), 3U);
  const auto second = store.files.at(2);
  store.files.erase(2);
  EXPECT_FALSE(SegmentLog(store, small_segment_bytes).recover(Sequence(0)));
  store.files[2] = second;
  second->now[9] = 77;
  const auto versioned = SegmentLog(store, small_segment_bytes).recover(Sequence(0));
  ASSERT_FALSE(versioned);
  EXPECT_NE(versioned.error().message.find("version"), std::string::npos);
}

TEST(SegmentLog, AFailedSyncIsAnError) {
  MemorySegments store;
  SegmentLog log(store, small_segment_bytes);
  ASSERT_TRUE(log.reset(at(0)));
  append(log, 1);
  store.fail_sync = true;
  EXPECT_FALSE(log.sync());
  EXPECT_EQ(log.durable(), Sequence(0));
}

// Whatever a segment holds, recovery ends with a position or an error, never with a crash or with records that are not records.
TEST(SegmentLog, MutatedSegments) {
  MemorySegments pristine;
  SegmentLog log(pristine, small_segment_bytes);
  ASSERT_TRUE(log.reset(at(0)));
  for (std::uint64_t s = 1; s <= 20; ++s) {
    append(log, s, 50);
    if (s % 5 == 0) {
      ASSERT_TRUE(log.sync());
    }
  }
  std::mt19937 random(3);
  for (int i = 0; i < 60; ++i) {
    MemorySegments store;
    store.files[1] = std::make_shared<MemorySegments::Content>(*pristine.files.at(1));
    auto& bytes = store.files[1]->now;
    for (unsigned n = 1 + random() % 3; n-- > 0;) bytes[random() % 10'000] = static_cast<std::uint8_t>(random());
    SegmentLog mutated(store, small_segment_bytes);
    const auto recovery = mutated.recover(Sequence(0));
    if (recovery) {
      EXPECT_EQ(read_all(mutated, 0).size(), recovery->end.sequence.value);
    } else {
      EXPECT_TRUE(recovery.error().code == ErrorCode::corrupt || recovery.error().code == ErrorCode::refused);
    }
  }
}

// A log that is kept for long: closed segments are trusted at the start, and judged by whoever reads them.
TEST(SegmentLog, ClosedSegmentsAreNotReadAtTheStart) {
  MemorySegments store;
  SegmentLog log(store, small_segment_bytes);
  ASSERT_TRUE(log.reset(at(0)));
  for (std::uint64_t s = 1; s <= 60; ++s) append(log, s, 500'000);
  ASSERT_TRUE(log.sync());
  ASSERT_GE(store.files.size(), 6U);
  // A recycled segment: bytes of an earlier life behind its last group.
  ASSERT_TRUE(log.trim(Sequence(20)));
  for (std::uint64_t s = 61; s <= 75; ++s) append(log, s, s % 2 ? 500'000 : 100);
  ASSERT_TRUE(log.sync());
  const std::uint64_t first = log.first_kept();

  SegmentLog again(store, small_segment_bytes);
  ASSERT_EQ(again.recover(Sequence(70))->end, at(75));
  EXPECT_EQ(read_all(again, first - 1).size(), 75 - first + 1);
  std::vector<std::uint64_t> firsts;
  Place place;
  ASSERT_TRUE(again.for_each_group(64, [&](Place where, const GroupHead& head, ByteView start) -> Status {
    if (firsts.empty()) place = where;
    firsts.push_back(head.first.value);
    EXPECT_EQ(head_of(start.data()).sequence, head.first);
    return {};
  }));
  EXPECT_EQ(firsts.size(), 75 - first + 1);
  for (const std::uint64_t expected : firsts) EXPECT_EQ(again.read_group(place).value()->head.first.value, expected);
  EXPECT_FALSE(again.read_group(place).value());
  append(again, 76);
  EXPECT_EQ(again.read_group(place).value()->head.first.value, 76U) << "not yet durable, and readable";

  auto& bytes = store.files.begin()->second->now;
  bytes[segment_header_bytes + group_head_bytes + 200] ^= 1;
  EXPECT_FALSE(SegmentLog(store, small_segment_bytes).recover(Sequence(0)));
  SegmentLog damaged(store, small_segment_bytes, {"undo history", "it begins anew"});
  ASSERT_TRUE(damaged.recover(Sequence(0), true)) << "closed segments are trusted";
  place = {store.files.begin()->first, segment_header_bytes};
  const auto group = damaged.read_group(place);
  ASSERT_FALSE(group);
  EXPECT_NE(group.error().message.find("undo history is damaged"), std::string::npos) << group.error().message;
  EXPECT_FALSE(damaged.read(Sequence(first - 1), 1 << 20));
}

// The power goes when a segment has its name and not yet its header: zeros, or that of an earlier life.
TEST(SegmentLog, ASegmentThatWasNeverBegunIsNoSegment) {
  for (const bool recycled : {false, true})
    for (const bool alone : {false, true}) {
      MemorySegments store;
      SegmentLog log(store, small_segment_bytes);
      ASSERT_TRUE(log.reset(at(0)));
      append(log, 1);
      ASSERT_TRUE(log.sync());
      const auto first = store.files.at(1);
      const auto content = std::make_shared<MemorySegments::Content>(
          MemorySegments::Content{Bytes(small_segment_bytes), Bytes(small_segment_bytes)});
      if (recycled) *content = *first;
      store.files[7] = content;
      if (alone) store.files.erase(1);
      SegmentLog again(store, small_segment_bytes);
      const auto recovery = again.recover(Sequence(alone ? 0 : 1));
      ASSERT_TRUE(recovery) << recovery.error().message;
      EXPECT_EQ(recovery->found, !alone);
      EXPECT_FALSE(store.files.contains(7));
      store.files[7] = content;
      EXPECT_FALSE(SegmentLog(store, small_segment_bytes).recover(Sequence(5))) << "something durable is missing";
    }
}

TEST(SegmentLog, RotateLetsGoOfWhatIsBefore) {
  MemorySegments store;
  SegmentLog log(store, small_segment_bytes);
  ASSERT_TRUE(log.reset(at(0)));
  ASSERT_TRUE(log.rotate());
  EXPECT_EQ(store.files.size(), 1U) << "nothing to rotate";
  append(log, 1);
  EXPECT_FALSE(log.oldest_segment_end());
  ASSERT_TRUE(log.rotate());
  EXPECT_EQ(log.durable(), Sequence(1));
  ASSERT_EQ(log.oldest_segment_end(), Sequence(1));
  EXPECT_EQ(log.size_bytes_below(Sequence(1)), small_segment_bytes);
  ASSERT_TRUE(log.trim(Sequence(1)));
  EXPECT_EQ(log.size_bytes(), small_segment_bytes);
  append(log, 2);
  ASSERT_TRUE(log.sync());
  SegmentLog again(store, small_segment_bytes);
  EXPECT_EQ(again.recover(Sequence(2))->end, at(2));
}

}  // namespace
}  // namespace holdfast::log
