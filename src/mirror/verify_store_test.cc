// SPDX-License-Identifier: Apache-2.0
#include "mirror/verify_store.h"

#include <gtest/gtest.h>

#include <random>

namespace holdfast::mirror {
namespace {

std::map<std::pair<NodeId, SetNumber>, VerifyMemo> some_memos() {
  VerifyMemo memo;
  memo.place.levels = {{FileId::root(1), "", 5, 6}, {FileId::root(2), "a\nb", 7, 8}};
  memo.place.file = FileId::root(3);
  memo.place.file_name = std::string("\xff", 1);
  memo.place.offset = 1ULL << 40;
  memo.pass_began_ns = -5;
  memo.last_scrub_ns = 6;
  memo.last_full_ns = 7;
  memo.pass_bytes = 8;
  memo.last_bytes = 9;
  memo.open = 2;
  memo.last_result = VerifyResult::differs;
  memo.examples = {{"x/y", "mode", "undecided"}};
  return {{{NodeId(1), 1}, memo}, {{NodeId(1), 2}, {}}};
}

TEST(VerifyStore, WhatWasStoredIsRead) {
  const auto read = decode_verify_memos(encode(some_memos()));
  ASSERT_TRUE(read);
  ASSERT_EQ(read->size(), 2U);
  const VerifyMemo memo = read->at({NodeId(1), 1});
  EXPECT_EQ(memo.place.levels.at(1).name, "a\nb");
  EXPECT_EQ(memo.place.levels.at(1).index, 8U);
  EXPECT_EQ(memo.place.offset, 1ULL << 40);
  EXPECT_EQ(memo.pass_began_ns, -5);
  EXPECT_EQ(memo.open, 2U);
  EXPECT_EQ(memo.last_result, VerifyResult::differs);
  EXPECT_STREQ(memo.examples.at(0).state, "undecided");
  EXPECT_TRUE(decode_verify_memos({})->empty());
}

TEST(VerifyStore, MutatedBytesAreRefusedOrHarmless) {
  const Bytes good = encode(some_memos());
  std::mt19937 random(3);
  for (int i = 0; i < 20'000; ++i) {
    Bytes bytes = good;
    for (unsigned n = 1 + random() % 3; n > 0; --n)
      bytes[random() % bytes.size()] = static_cast<std::uint8_t>(random());
    if (random() % 4 == 0) bytes.resize(random() % bytes.size());
    if (random() % 2 && bytes.size() > 4) {  // as if the checksum had been made right
      bytes.resize(bytes.size() - 4);
      ByteWriter(bytes).u32(crc32c(bytes));
    }
    (void)decode_verify_memos(bytes);
  }
  Bytes flipped = good;
  flipped[20] ^= 1;
  EXPECT_FALSE(decode_verify_memos(flipped));
}

class BrokenCell final : public ports::DurableCell {
 public:
  Result<Bytes> load() override { return Bytes{1, 2, 3}; }
  Status store(ByteView) override { return fail(ErrorCode::no_space, "full"); }
};

TEST(VerifyStore, ADamagedOneIsForgottenAndAFullDiskIsSaid) {
  BrokenCell cell;
  VerifyStore store(&cell);
  EXPECT_EQ(store.get(NodeId(1), 1).open, 0U);
  VerifyMemo memo;
  memo.open = 3;
  EXPECT_FALSE(store.put(NodeId(1), 1, memo));
  EXPECT_EQ(store.get(NodeId(1), 1).open, 3U) << "known for as long as this process lives";
}

}  // namespace
}  // namespace holdfast::mirror
