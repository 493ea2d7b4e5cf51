// SPDX-License-Identifier: Apache-2.0
#include "platform/read_once.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <vector>

namespace holdfast::platform {
namespace {

constexpr std::size_t mib = 1 << 20, size = 90 * mib + 4321;

class ReadOnceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "read-once-XXXXXX";
    file = UniqueFd(::mkstemp(name.data()));
    ASSERT_TRUE(file);
    ::unlink(name.c_str());
    content.resize(size);
    for (std::size_t i = 0; i < size; ++i) content[i] = static_cast<std::uint8_t>(i * 2654435761U >> 13);
    ASSERT_EQ(::pwrite(file.get(), content.data(), size, 0), static_cast<ssize_t>(size));
    ASSERT_EQ(::fsync(file.get()), 0);
    ::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
    if (cached(0, size) != 0) GTEST_SKIP() << "this file system keeps everything in memory";
  }
  UniqueFd again() const { return UniqueFd(::fcntl(file.get(), F_DUPFD_CLOEXEC, 0)); }
  // Pages of the range, which begins with one.
  std::size_t cached(std::size_t from, std::size_t to) const {
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    std::vector<unsigned char> there((to - from + page - 1) / page);
    void* seen = ::mmap(nullptr, to - from, PROT_READ, MAP_SHARED, file.get(), static_cast<off_t>(from));
    EXPECT_NE(seen, MAP_FAILED);
    EXPECT_EQ(::mincore(seen, to - from, there.data()), 0);
    ::munmap(seen, to - from);
    return static_cast<std::size_t>(std::count_if(there.begin(), there.end(), [](auto one) { return one & 1; }));
  }
  bool equals(ReadOnce& once, std::size_t offset, std::size_t length) const {
    std::vector<std::uint8_t> into(length);
    const std::int64_t n = once.read(offset, into);
    return n == static_cast<std::int64_t>(std::min(length, size - offset)) &&
           std::equal(into.begin(), into.begin() + n, content.begin() + static_cast<std::ptrdiff_t>(offset));
  }

  UniqueFd file;
  std::vector<std::uint8_t> content;
};

TEST_F(ReadOnceTest, WhatWasNotCachedBeforeIsNotCachedAfterwardsAndTheRestIs) {
  constexpr std::size_t others_from = 40 * mib, others_to = 44 * mib;
  std::vector<std::uint8_t> others(others_to - others_from);
  const UniqueFd other(::open(("/proc/self/fd/" + std::to_string(file.get())).c_str(), O_RDONLY | O_CLOEXEC));
  ::posix_fadvise(other.get(), 0, 0, POSIX_FADV_RANDOM);
  ASSERT_EQ(::pread(other.get(), others.data(), others.size(), others_from), static_cast<ssize_t>(others.size()));
  const std::size_t before = cached(0, size);
  ASSERT_EQ(cached(others_from, others_to), before) << "nothing was read ahead";
  {
    ReadOnce once(again(), size);
    for (std::size_t at = 0; at < size; at += mib / 4) ASSERT_TRUE(equals(once, at, mib / 4)) << at;
    EXPECT_LT(cached(0, 40 * mib), 40 * mib / 4096 / 2) << "gone as it is passed";
  }
  EXPECT_EQ(cached(others_from, others_to), before);
  EXPECT_EQ(cached(0, size), before);
}

TEST_F(ReadOnceTest, SeveralThreadsAndJumpsReadTheSame) {
  ReadOnce once(again(), size);
  std::atomic<std::size_t> next{0};
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (std::size_t at = 0; (at = next.fetch_add(mib / 4)) < size;) wrong += !equals(once, at, mib / 4);
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  for (const std::size_t at : {std::size_t{3}, 70 * mib + 1, 5 * mib, size - 1, size - 100})
    EXPECT_TRUE(equals(once, at, 5000));
  std::vector<std::uint8_t> into(10);
  EXPECT_EQ(once.read(size + mib, into), 0);
}

}  // namespace
}  // namespace holdfast::platform
