// SPDX-License-Identifier: Apache-2.0
#include "platform/digest_ahead.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "log/hash.h"

namespace holdfast::platform {
namespace {

FileId id_of(std::uint8_t n) {
  FileId id;
  id.bytes.fill(n);
  return id;
}

UniqueFd file_with(const std::string& text) {
  UniqueFd fd(::memfd_create("test", MFD_CLOEXEC));
  EXPECT_EQ(::pwrite(fd.get(), text.data(), text.size(), 0), static_cast<ssize_t>(text.size()));
  return fd;
}

log::ContentHash hash_of(std::string_view text) {
  return log::content_hash(ByteView(reinterpret_cast<const std::uint8_t*>(text.data()), text.size()));
}

// What no thread has begun yet is not waited for: so it is asked for until one has.
std::optional<ports::Digest> taken(DigestAhead& ahead, std::uint8_t file, const std::string& text, std::uint64_t offset,
                                   std::uint64_t length) {
  for (;;) {
    ahead.ask(id_of(file), file_with(text), offset, length);
    if (auto digest = ahead.take(id_of(file), offset, length)) return digest;
  }
}

TEST(DigestAhead, SaysWhatThePartHoldsAsFarAsTheFileGoes) {
  DigestAhead ahead;
  const auto middle = taken(ahead, 1, "0123456789", 2, 5);
  EXPECT_EQ(middle->hash, hash_of("23456"));
  EXPECT_EQ(middle->bytes, 5U);
  const auto end = taken(ahead, 2, "0123456789", 8, 100);
  EXPECT_EQ(end->hash, hash_of("89"));
  EXPECT_EQ(end->bytes, 2U);
}

TEST(DigestAhead, WhatChangesIsForgottenAndWhatWasNeverTakenGoes) {
  DigestAhead ahead;
  ahead.ask(id_of(1), file_with("old"), 0, 3);
  ahead.ask(id_of(2), file_with("other"), 0, 5);
  ahead.forget(id_of(1));
  EXPECT_FALSE(ahead.take(id_of(1), 0, 3));
  for (int i = 0; i < 1000; ++i) ahead.ask(id_of(3), file_with("x"), 0, 1);  // no more descriptors than it may hold
  EXPECT_FALSE(ahead.take(id_of(2), 0, 5));
  EXPECT_FALSE(ahead.take(id_of(3), 1, 1)) << "another part";
}

// It may be another inode that has the id next.
TEST(DigestAhead, ABigFileThatChangedIsOpenedAnew) {
  DigestAhead ahead;
  int opened = 0;
  const auto ask = [&](std::uint64_t offset) {
    ahead.ask_big(
        id_of(1),
        [&] {
          ++opened;
          return std::make_shared<ReadOnce>(file_with("0123456789"), 10);
        },
        offset, 2);
  };
  ask(0);
  ask(2);
  EXPECT_EQ(opened, 1);
  ahead.forget(id_of(2));
  ask(4);
  EXPECT_EQ(opened, 1);
  ahead.forget(id_of(1));
  ask(6);
  EXPECT_EQ(opened, 2);
}

TEST(DigestAhead, ManyFilesInOrder) {
  DigestAhead ahead;
  std::size_t ready = 0;
  constexpr int files = 2000, window = 100;
  const auto text = [](int i) {
    return std::string(static_cast<std::size_t>(1 + i % 5000), static_cast<char>('a' + i % 26));
  };
  const auto id = [](int i) {
    FileId made;
    made.bytes[0] = static_cast<std::uint8_t>(i);
    made.bytes[1] = static_cast<std::uint8_t>(i >> 8);
    made.bytes[2] = 1;
    return made;
  };
  for (int i = 0; i < files + window; ++i) {
    if (i < files) ahead.ask(id(i), file_with(text(i)), 0, 5000);
    if (i < window) continue;
    const auto digest = ahead.take(id(i - window), 0, 5000);
    if (!digest) continue;
    ++ready;
    EXPECT_EQ(digest->hash, hash_of(text(i - window)));
  }
  RecordProperty("ready", static_cast<int>(ready));
}

}  // namespace
}  // namespace holdfast::platform
