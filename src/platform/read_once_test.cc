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
    for (UniqueFd* one : {&file, &witness}) {
      std::string name = ::testing::TempDir() + "read-once-XXXXXX";
      *one = UniqueFd(::mkstemp(name.data()));
      ASSERT_TRUE(*one);
      ::unlink(name.c_str());
    }
    content.resize(size);
    for (std::size_t i = 0; i < size; ++i) content[i] = static_cast<std::uint8_t>(i * 2654435761U >> 13);
    ASSERT_EQ(::pwrite(file.get(), content.data(), size, 0), static_cast<ssize_t>(size));
    ASSERT_EQ(::fsync(file.get()), 0);
    ::posix_fadvise(file.get(), 0, 0, POSIX_FADV_DONTNEED);
    if (cached(file, 0, size) != 0) GTEST_SKIP() << "this file system keeps everything in memory";
  }
  UniqueFd again() const { return UniqueFd(::fcntl(file.get(), F_DUPFD_CLOEXEC, 0)); }
  // Pages of the range, which begins with one.
  static std::size_t pages(std::size_t bytes) {
    const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
    return (bytes + page - 1) / page;
  }
  static std::size_t cached(const UniqueFd& of, std::size_t from, std::size_t to) {
    std::vector<unsigned char> there(pages(to - from));
    void* seen = ::mmap(nullptr, to - from, PROT_READ, MAP_SHARED, of.get(), static_cast<off_t>(from));
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

  UniqueFd file, witness;
  std::vector<std::uint8_t> content;
};

// Whoever empties the machine's caches meanwhile takes the pages of both: then it is done again.
TEST_F(ReadOnceTest, WhatWasNotCachedBeforeIsNotCachedAfterwardsAndTheRestIs) {
  constexpr std::size_t others_from = 40 * mib, others_to = 44 * mib;
  const UniqueFd other(::open(("/proc/self/fd/" + std::to_string(file.get())).c_str(), O_RDONLY | O_CLOEXEC));
  ::posix_fadvise(other.get(), 0, 0, POSIX_FADV_RANDOM);
  std::vector<std::uint8_t> others(others_to - others_from);
  const std::size_t all = pages(others.size());
  for (bool undisturbed = false; !undisturbed;) {
    ASSERT_EQ(::pread(other.get(), others.data(), others.size(), others_from), static_cast<ssize_t>(others.size()));
    ASSERT_EQ(::pwrite(witness.get(), others.data(), others.size(), 0), static_cast<ssize_t>(others.size()));
    ASSERT_EQ(::fsync(witness.get()), 0);
    const std::size_t before = cached(file, 0, size);
    {
      ReadOnce once(again(), size);
      for (std::size_t at = 0; at < size; at += mib / 4) ASSERT_TRUE(equals(once, at, mib / 4)) << at;
      EXPECT_LT(cached(file, 0, others_from), pages(others_from) / 2) << "gone as it is passed";
    }
    undisturbed = cached(witness, 0, others.size()) == all && before == all;
    EXPECT_EQ(cached(file, 0, others_from) + cached(file, others_to, size), 0U);
    if (undisturbed) {
      EXPECT_EQ(cached(file, others_from, others_to), all);
    }
  }
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
