// SPDX-License-Identifier: Apache-2.0
// Random changes of a file over its past, compared with plain bytes.
#include "mirror/scratch_data.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "mirror/test_scratch.h"

namespace holdfast::mirror {
namespace {

using testing::MemoryScratch;

struct File {
  explicit File(unsigned seed) : random(seed), past(random() % 40'000), now(), data(0) {
    for (auto& b : past) b = static_cast<std::uint8_t>(random());
    now = past;
    data = ScratchData(past.size());
  }
  ScratchData::Where where() { return {space, store}; }
  PastPages told(std::uint64_t begin, std::uint64_t end) {
    PastPages pages;
    for (const std::uint64_t page : data.partial(begin, end)) {
      const std::uint64_t from = page * scratch_page, to = std::min(from + scratch_page, data.past_end());
      EXPECT_LT(from, to) << "a page without a past was asked for";
      pages[page] = Bytes(past.begin() + static_cast<long>(from), past.begin() + static_cast<long>(to));
    }
    return pages;
  }
  void resize(std::size_t size) { now.resize(size); }
  Bytes seen() {
    Bytes out(now.size(), 0xAA);
    for (std::size_t at = 0; at < out.size();) {  // in pieces of any size
      const std::size_t n = std::min<std::size_t>(out.size() - at, 1 + random() % 9000);
      const auto part = std::span(out).subspan(at, n);
      if (data.shows_past(at, at + n) && at < past.size())
        std::copy_n(past.begin() + static_cast<long>(at), std::min(n, past.size() - at), part.begin());
      EXPECT_TRUE(data.lay_over(store, at, part));
      at += n;
    }
    return out;
  }

  std::mt19937 random;
  Bytes past, now;
  MemoryScratch store;
  ScratchSpace space{40};
  ScratchData data;
};

TEST(ScratchData, IsWhatPlainBytesAre) {
  constexpr int last_step = 60;
  unsigned refused = 0;
  for (unsigned seed = 1; seed <= 300; ++seed) {
    File f(seed);
    for (int step = 0; step < last_step; ++step) {
      const std::uint64_t offset = f.random() % 60'000, length = 1 + f.random() % (f.random() % 4 == 0 ? 20'000 : 300);
      switch (f.random() % 4) {
        case 0:
        case 1: {
          Bytes bytes(length);
          for (auto& b : bytes) b = static_cast<std::uint8_t>(f.random());
          const bool breaks = f.random() % 10 == 0;
          if (breaks) f.store.fail_after = f.random() % 3;
          const Status done = f.data.write(f.where(), offset, bytes, f.told(offset, offset + length));
          f.store.fail_after = UINT64_MAX;
          refused += done ? 0 : 1;
          if (!done && breaks) step = last_step;  // what was in the store already may be written in part
          if (!done) break;
          if (f.now.size() < offset + length) f.resize(offset + length);
          std::copy(bytes.begin(), bytes.end(), f.now.begin() + static_cast<long>(offset));
          break;
        }
        case 2: {
          if (!f.data.clear(f.where(), offset, offset + length, f.told(offset, offset + length))) break;
          const auto from = std::min<std::size_t>(offset, f.now.size()),
                     to = std::min<std::size_t>(offset + length, f.now.size());
          std::fill(f.now.begin() + static_cast<long>(from), f.now.begin() + static_cast<long>(to), std::uint8_t{0});
          break;
        }
        default:
          ASSERT_TRUE(f.data.truncate(f.where(), offset));
          f.resize(offset);
      }
      if (step == last_step) break;
      ASSERT_TRUE(f.seen() == f.now) << "seed " << seed << ", step " << step;
      ASSERT_EQ(f.space.used(), f.data.stored_pages());
      ASSERT_LE(f.store.pages(), f.space.used()) << "what is not used is discarded";
    }
    f.data.drop(f.where());
    ASSERT_EQ(f.space.used(), 0U);
    ASSERT_EQ(f.store.pages(), 0U);
  }
  EXPECT_GT(refused, 100U);
}

TEST(ScratchData, ShowsItsHoles) {
  MemoryScratch store;
  ScratchSpace space(100);
  const ScratchData::Where where{space, store};
  ScratchData data(5 * scratch_page + 7);  // five pages and a bit are the past's
  const std::uint64_t size = 20 * scratch_page;
  EXPECT_EQ(data.next_data(0, size), 0U);
  EXPECT_EQ(data.next_hole(0, size), 6 * scratch_page);
  EXPECT_EQ(data.next_data(6 * scratch_page, size), size);
  const Bytes bytes(100, 1);
  ASSERT_TRUE(data.write(where, 9 * scratch_page + 10, bytes, {}));
  EXPECT_EQ(data.next_data(6 * scratch_page, size), 9 * scratch_page);
  EXPECT_EQ(data.next_hole(9 * scratch_page, size), 10 * scratch_page);
  ASSERT_TRUE(data.clear(where, scratch_page, 3 * scratch_page, {}));
  EXPECT_EQ(data.next_hole(0, size), scratch_page);
  EXPECT_EQ(data.next_data(scratch_page, size), 3 * scratch_page);
  EXPECT_EQ(space.used(), 1U);
}

TEST(ScratchSpace, CountsWhatIsKeptElsewhere) {
  ScratchSpace space(3);
  EXPECT_TRUE(space.set_aside(10));
  EXPECT_TRUE(space.set_aside(4000));
  EXPECT_EQ(space.left(), 2U);
  ASSERT_TRUE(space.take(2));
  EXPECT_FALSE(space.set_aside(1000));
  EXPECT_FALSE(space.take(1));
  space.give_aside(4010);
  EXPECT_TRUE(space.take(1));
  space.give({0, 1});
  space.give({2, 1});
  space.give({1, 1});
  const auto all = space.take(3);
  ASSERT_TRUE(all);
  EXPECT_EQ(all->size(), 1U) << "neighbours are joined";
}

}  // namespace
}  // namespace holdfast::mirror
