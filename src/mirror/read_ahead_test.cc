// SPDX-License-Identifier: Apache-2.0
#include "mirror/read_ahead.h"

#include <gtest/gtest.h>

#include <vector>

namespace holdfast::mirror {
namespace {

TEST(ReadAhead, AsksForEachHashOnceBeforeItsTurnAndNeverForTooMuch) {
  std::vector<log::Record> batch;
  for (std::uint64_t i = 0; i < 100; ++i) {
    log::Record r;
    r.kind = i % 3 == 0 ? log::Kind::ship_node : log::Kind::ship_hash;
    r.offset = i;
    r.length = i % 7 == 0 ? read_ahead_bytes * 2 : read_ahead_bytes / 8;
    batch.push_back(r);
  }
  std::vector<bool> asked(batch.size()), compared(batch.size());
  std::size_t now = 0;
  ReadAhead ahead(batch, [&](const log::Record& r) {
    EXPECT_EQ(r.kind, log::Kind::ship_hash);
    EXPECT_GT(r.offset, now) << "what is compared now needs no hint";
    EXPECT_FALSE(asked[r.offset]) << r.offset << " twice";
    std::uint64_t open = 0;
    for (std::size_t i = 0; i < batch.size(); ++i)
      if (asked[i] && !compared[i] && i != now) open += batch[i].length;
    EXPECT_LT(open, read_ahead_bytes);
    asked[r.offset] = true;
  });
  std::size_t missed = 0;
  for (now = 0; now < batch.size(); ++now) {
    ahead.before(now);
    if (batch[now].kind != log::Kind::ship_hash) continue;
    missed += !asked[now];
    compared[now] = true;
  }
  // Only what follows something bigger than the whole bound comes too soon to be asked for.
  EXPECT_LE(missed, 15U);
}

TEST(ReadAhead, WhatAListingNamesIsAskedForWhenItIsKnown) {
  using log::Kind;
  std::vector<log::Record> batch(6);
  const Kind kinds[] = {Kind::ship_dir, Kind::ship_hash, Kind::ship_hash,
                        Kind::ship_dir, Kind::ship_node, Kind::ship_hash};
  for (std::size_t i = 0; i < batch.size(); ++i) {
    batch[i].kind = kinds[i];
    batch[i].offset = i;
    batch[i].length = 10;
  }
  std::vector<std::pair<std::size_t, std::uint64_t>> asked;  // before which, for which
  std::size_t now = 0;
  ReadAhead ahead(batch, [&](const log::Record& r) { asked.emplace_back(now, r.offset); });
  for (now = 0; now < batch.size(); ++now) ahead.before(now);
  EXPECT_EQ(asked, (std::vector<std::pair<std::size_t, std::uint64_t>>{{1, 2}, {4, 5}}));
}

}  // namespace
}  // namespace holdfast::mirror
