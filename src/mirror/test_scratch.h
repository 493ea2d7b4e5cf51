// SPDX-License-Identifier: Apache-2.0
// For tests only: a scratch store in memory, as strict as one can be about what it is asked.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "mirror/scratch_space.h"
#include "ports/scratch_store.h"

namespace holdfast::mirror::testing {

class MemoryScratch final : public ports::ScratchStore {
 public:
  Status read(std::uint64_t offset, std::span<std::uint8_t> into) override {
    each_page(offset, into.size(), [&](std::uint64_t page, std::size_t in, std::size_t at, std::size_t n) {
      const auto it = pages_.find(page);
      if (it == pages_.end())
        std::fill_n(into.begin() + static_cast<long>(at), n, std::uint8_t{0});
      else
        std::copy_n(it->second.begin() + static_cast<long>(in), n, into.begin() + static_cast<long>(at));
    });
    return {};
  }
  Status write(std::uint64_t offset, ByteView bytes) override {
    if (fail_after == 0) return fail(ErrorCode::no_space, "the disk is full");
    --fail_after;
    each_page(offset, bytes.size(), [&](std::uint64_t page, std::size_t in, std::size_t at, std::size_t n) {
      Bytes& kept = pages_[page];
      kept.resize(scratch_page);
      std::copy_n(bytes.begin() + static_cast<long>(at), n, kept.begin() + static_cast<long>(in));
    });
    return {};
  }
  Status discard(std::uint64_t offset, std::uint64_t length) override {
    EXPECT_EQ(offset % scratch_page, 0U);
    EXPECT_EQ(length % scratch_page, 0U);
    for (std::uint64_t page = offset / scratch_page; page < (offset + length) / scratch_page; ++page)
      pages_.erase(page);
    return {};
  }
  std::size_t pages() const { return pages_.size(); }

  std::uint64_t fail_after = UINT64_MAX;  // so many writes

 private:
  // f(page, first byte in it, first byte of the range, how many)
  template <class F>
  static void each_page(std::uint64_t offset, std::size_t length, const F& f) {
    for (std::size_t at = 0; at < length;) {
      const std::size_t in = (offset + at) % scratch_page, n = std::min<std::size_t>(length - at, scratch_page - in);
      f((offset + at) / scratch_page, in, at, n);
      at += n;
    }
  }
  std::map<std::uint64_t, Bytes> pages_;
};

}  // namespace holdfast::mirror::testing
