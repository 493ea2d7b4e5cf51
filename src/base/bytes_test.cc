// SPDX-License-Identifier: Apache-2.0
#include "base/bytes.h"

#include <gtest/gtest.h>

#include "base/types.h"

namespace holdfast {
namespace {

TEST(Crc32c, MatchesTheCheckValueOfTheStandard) {
  EXPECT_EQ(crc32c(as_bytes("123456789")), 0xE3069283U);  // RFC 3720's polynomial, the usual check string
  EXPECT_EQ(crc32c(as_bytes("6789"), crc32c(as_bytes("12345"))), 0xE3069283U);
}

TEST(Bytes, WhatIsWrittenIsRead) {
  Bytes buffer;
  ByteWriter w(buffer);
  w.u8(7);
  w.u32(0xdeadbeef);
  w.varint(0);
  w.varint(~0ULL);
  w.zigzag(-5);
  w.text("name");
  ByteReader r(buffer);
  EXPECT_EQ(r.u8(), 7);
  EXPECT_EQ(r.u32(), 0xdeadbeefU);
  EXPECT_EQ(r.varint(), 0U);
  EXPECT_EQ(r.varint(), ~0ULL);
  EXPECT_EQ(r.zigzag(), -5);
  EXPECT_EQ(r.text(), "name");
  EXPECT_TRUE(r.ok());
  EXPECT_EQ(r.left(), 0U);
}

TEST(Bytes, ALengthFromOutsideIsNeverTrusted) {
  Bytes buffer;
  ByteWriter(buffer).varint(~0ULL);
  ByteReader r(buffer);
  EXPECT_TRUE(r.bytes().empty());
  EXPECT_FALSE(r.ok());
  const Bytes endless(11, 0xff);
  ByteReader overlong(endless);
  overlong.varint();
  EXPECT_FALSE(overlong.ok());
}

TEST(FileId, HexRoundTripAndRoots) {
  const FileId root = FileId::root(258);
  EXPECT_TRUE(root.is_root());
  EXPECT_NE(root, FileId::root(1));
  EXPECT_EQ(FileId::from_hex(root.to_hex()).value(), root);
  EXPECT_FALSE(FileId::from_hex("xyz"));
}

}  // namespace
}  // namespace holdfast
