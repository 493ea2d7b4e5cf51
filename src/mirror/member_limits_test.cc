// SPDX-License-Identifier: Apache-2.0
#include "mirror/member_limits.h"

#include <gtest/gtest.h>

namespace holdfast::mirror {
namespace {

using ports::Limit;
using ports::TreeLimits;

class Cell final : public ports::DurableCell {
 public:
  Result<Bytes> load() override { return value; }
  Status store(ByteView next) override {
    ++stores;
    if (broken) return fail(ErrorCode::io, "the disk is gone");
    if (full) return fail(ErrorCode::no_space, "no space");
    value.assign(next.begin(), next.end());
    return {};
  }
  Bytes value;
  int stores = 0;
  bool broken = false, full = false;
};

TreeLimits limits(std::initializer_list<std::pair<Limit, std::uint64_t>> all) {
  TreeLimits out;
  for (const auto& [what, most] : all) out.set(what, most);
  return out;
}
const TreeLimits like_xfs = limits({{Limit::link_target_bytes, 1023}, {Limit::links, 0x7fffffff}});
const TreeLimits like_ext4 =
    limits({{Limit::link_target_bytes, 4095}, {Limit::xattrs_bytes, 4000}, {Limit::links, 65000}});
constexpr NodeId self(1), other(2), third(3);

TEST(MemberLimits, OnlyWhatThisNodeHoldsAndAnotherDoesNotIsRefused) {
  MemberLimits all(nullptr, self);
  all.set_own(1, like_xfs);
  all.set_members({other});
  const auto live = all.of(1);
  ASSERT_TRUE(all.told_by(other, {{other, 1, like_ext4}}));
  EXPECT_EQ(live->most(Limit::xattrs_bytes), 4000U);
  EXPECT_EQ(live->most(Limit::links), 65000U);
  EXPECT_EQ(live->most(Limit::link_target_bytes), ports::no_limit) << "its own file system refuses that sooner";
  EXPECT_EQ(all.of(2)->most(Limit::links), ports::no_limit) << "another set";
  all.set_own(1, like_ext4);
  EXPECT_EQ(live->most(Limit::xattrs_bytes), ports::no_limit) << "of one kind: exactly as below";
}

TEST(MemberLimits, TheLeastOfThoseThatAreMembersCounts) {
  MemberLimits all(nullptr, self);
  all.set_own(1, {});
  all.set_members({other, third});
  const auto live = all.of(1);
  ASSERT_TRUE(all.told({{other, 1, like_ext4}, {third, 1, like_xfs}}));
  EXPECT_EQ(live->most(Limit::link_target_bytes), 1023U);
  EXPECT_EQ(live->most(Limit::links), 65000U);
  all.set_members({other});
  EXPECT_EQ(live->most(Limit::link_target_bytes), 4095U);
  ASSERT_TRUE(all.forget(1));
  EXPECT_FALSE(all.others(1).any());
}

TEST(MemberLimits, WhoIsAwayCountsAfterARestartToo) {
  Cell cell;
  {
    MemberLimits all(&cell, self);
    ASSERT_TRUE(all.load());
    ASSERT_TRUE(all.told({{other, 1, like_xfs}, {self, 1, like_ext4}, {third, 9, like_ext4}}));
    ASSERT_TRUE(all.told({{other, 1, like_xfs}}));
    EXPECT_EQ(cell.stores, 1) << "nothing new";
    ASSERT_TRUE(all.forget(9));
    ASSERT_TRUE(all.forget(9));
    EXPECT_EQ(cell.stores, 2);
  }
  MemberLimits again(&cell, self);
  ASSERT_TRUE(again.load());
  again.set_members({other, third});
  EXPECT_EQ(again.others(1), like_xfs) << "and not what it was told of itself";
  EXPECT_FALSE(again.others(9).any());
  const auto known = again.known();
  ASSERT_EQ(known.size(), 1U);
  EXPECT_EQ(known[0], (ToldLimits{other, 1, like_xfs}));
}

TEST(MemberLimits, WhatAPeerSaysIsOfItself) {
  MemberLimits all(nullptr, self);
  all.set_members({other, third});
  const std::uint64_t before = all.version();
  ASSERT_TRUE(all.told_by(other, {{third, 1, like_xfs}}));
  EXPECT_NE(all.version(), before);
  const auto known = all.known();
  ASSERT_EQ(known.size(), 1U);
  EXPECT_EQ(known[0].node, other);
}

TEST(MemberLimits, ADamagedValueIsSaidAgainAndADiskThatFailsIsToldOf) {
  Cell cell;
  MemberLimits all(&cell, self);
  all.set_members({other});
  ASSERT_TRUE(all.told({{other, 1, like_xfs}}));
  for (std::size_t i = 0; i < cell.value.size(); ++i) {
    Cell damaged = cell;
    damaged.value[i] ^= 0x20;
    MemberLimits again(&damaged, self);
    ASSERT_FALSE(again.load()) << i;
    EXPECT_TRUE(again.known().empty());
  }
  cell.full = true;
  EXPECT_TRUE(all.told({{other, 1, {}}})) << "no reason to end a session";
  cell.full = false;
  cell.broken = true;
  EXPECT_FALSE(all.told({{other, 1, like_ext4}}));
  EXPECT_EQ(all.others(1), like_ext4) << "it counts all the same";
  cell.broken = false;
  ASSERT_TRUE(all.told({{other, 1, like_ext4}}));
  MemberLimits again(&cell, self);
  again.set_members({other});
  ASSERT_TRUE(again.load());
  EXPECT_EQ(again.others(1), like_ext4) << "stored when it is said the next time, though it is nothing new";
}

TEST(MemberLimits, LimitsOfALaterVersionAreLeftOutAndLengthsAreChecked) {
  Bytes said;
  ByteWriter w(said);
  w.varint(1);
  w.u64(2);
  w.u16(1);
  w.varint(2);
  w.u8(200);
  w.varint(5);
  w.u8(1);
  w.varint(77);
  ByteReader r(said);
  const auto all = read_limits(r);
  ASSERT_TRUE(r.ok());
  ASSERT_EQ(all.size(), 1U);
  EXPECT_EQ(all[0].limits, limits({{Limit::link_target_bytes, 77}}));
  for (std::size_t cut = 0; cut < said.size(); ++cut) {
    ByteReader torn(ByteView(said).first(cut));
    EXPECT_TRUE(read_limits(torn).empty());
    EXPECT_FALSE(torn.ok());
  }
  Bytes many;
  ByteWriter(many).varint(max_told_limits + 1);
  ByteReader much(many);
  EXPECT_TRUE(read_limits(much).empty());
  EXPECT_FALSE(much.ok());
}

}  // namespace
}  // namespace holdfast::mirror
