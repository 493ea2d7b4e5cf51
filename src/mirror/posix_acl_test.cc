// SPDX-License-Identifier: Apache-2.0
#include "mirror/posix_acl.h"

#include <gtest/gtest.h>

namespace holdfast::mirror {
namespace {

constexpr std::uint16_t owner = 1, user = 2, group = 4, mask = 0x10, other = 0x20;

Bytes list(std::initializer_list<std::array<std::uint16_t, 2>> entries) {
  Bytes out;
  ByteWriter writer(out);
  writer.u32(2);
  for (const auto& [tag, rights] : entries) writer.u16(tag), writer.u16(rights), writer.u32(tag == user ? 1000 : ~0U);
  return out;
}

TEST(PosixAcl, StandsForAMode) {
  const auto acl = PosixAcl::decode(list({{owner, 7}, {user, 6}, {group, 4}, {mask, 5}, {other, 1}}));
  ASSERT_TRUE(acl);
  EXPECT_EQ(acl->permissions(), 0751U) << "the mask is the group's part";
  EXPECT_FALSE(acl->only_permissions());
  const auto plain = PosixAcl::decode(list({{owner, 6}, {group, 4}, {other, 0}}));
  ASSERT_TRUE(plain);
  EXPECT_EQ(plain->permissions(), 0640U);
  EXPECT_TRUE(plain->only_permissions());
}

TEST(PosixAcl, FollowsAMode) {
  auto acl = PosixAcl::decode(list({{owner, 7}, {user, 6}, {group, 4}, {mask, 5}, {other, 1}}));
  acl->change_permissions(0100620);
  EXPECT_EQ(acl->encode(), list({{owner, 6}, {user, 6}, {group, 4}, {mask, 2}, {other, 0}}));
}

TEST(PosixAcl, IsInherited) {
  auto acl = PosixAcl::decode(list({{owner, 7}, {user, 7}, {group, 5}, {mask, 6}, {other, 0}}));
  std::uint32_t mode = 0102666;
  acl->inherit(mode);
  EXPECT_EQ(mode, 0102660U);
  EXPECT_EQ(acl->encode(), list({{owner, 6}, {user, 7}, {group, 5}, {mask, 6}, {other, 0}}));
}

TEST(PosixAcl, RefusesWhatIsNone) {
  const Bytes good = list({{owner, 6}, {group, 4}, {other, 0}});
  for (std::size_t n = 0; n < good.size(); ++n) EXPECT_FALSE(PosixAcl::decode(ByteView(good).first(n))) << n;
  EXPECT_FALSE(PosixAcl::decode(list({{owner, 6}, {group, 4}})));
  EXPECT_FALSE(PosixAcl::decode(list({{owner, 9}, {group, 4}, {other, 0}})));
}

}  // namespace
}  // namespace holdfast::mirror
