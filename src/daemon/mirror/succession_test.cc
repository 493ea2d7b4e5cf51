// SPDX-License-Identifier: Apache-2.0
#include "daemon/mirror/succession.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace holdfast::mirror_process {
namespace {

TEST(Succession, TheNextProcessReadsWhatWasLeft) {
  const mirror::NodeLog::Handed handed{Epoch(7), {Epoch(7), Sequence(1234)}, {NodeId(0xb), NodeId(0xc)}};
  const auto read = decode_handed(encode_handed(handed, 42));
  ASSERT_TRUE(read) << read.error().to_string();
  EXPECT_EQ(read->handed.epoch, handed.epoch);
  EXPECT_EQ(read->handed.end, handed.end);
  EXPECT_EQ(read->handed.waits, handed.waits);
  EXPECT_EQ(read->began_ns, 42);
}

TEST(Succession, WhatIsMissingOrOddOrOfAnotherFormIsRefused) {
  const auto whole = nlohmann::json::parse(encode_handed({Epoch(7), {Epoch(7), Sequence(1234)}, {NodeId(0xb)}}, 42));
  for (const auto& [name, value] : whole.items()) {
    auto without = whole;
    without.erase(name);
    EXPECT_FALSE(decode_handed(without.dump())) << name;
    auto odd = whole;
    odd[name] = "odd";
    EXPECT_FALSE(decode_handed(odd.dump())) << name;
  }
  auto later = whole;
  later["version"] = 2;
  EXPECT_EQ(decode_handed(later.dump()).error().code, ErrorCode::unavailable);
  for (const char* text : {"", "[]", "{}", "{\"version\":1", "\xff"}) EXPECT_FALSE(decode_handed(text)) << text;
}

}  // namespace
}  // namespace holdfast::mirror_process
