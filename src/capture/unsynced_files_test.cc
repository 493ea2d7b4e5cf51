// SPDX-License-Identifier: Apache-2.0
#include "capture/unsynced_files.h"

#include <gtest/gtest.h>

#include <future>

namespace holdfast::capture {
namespace {

using What = UnsyncedFiles::What;

FileId id(std::uint8_t n) {
  FileId made;
  made.bytes[0] = n;
  return made;
}

// Whether there was something to do.
bool sync(UnsyncedFiles& files, const FileId& id, bool data_only) {
  const auto ticket = files.begin(id, data_only);
  if (ticket) files.ended(id, *ticket);
  return ticket.has_value();
}

TEST(UnsyncedFiles, WhatWasNotChangedIsDurable) {
  UnsyncedFiles files;
  EXPECT_FALSE(sync(files, id(1), false));
  files.changed(id(1), What::data);
  EXPECT_TRUE(sync(files, id(1), false));
  EXPECT_FALSE(sync(files, id(1), false));
  EXPECT_FALSE(sync(files, id(2), false));
}

TEST(UnsyncedFiles, AttributesAreLeftToTheWholeFsync) {
  UnsyncedFiles files;
  files.changed(id(1), What::attributes);
  EXPECT_FALSE(sync(files, id(1), true));
  files.changed(id(1), What::data);
  EXPECT_TRUE(sync(files, id(1), true));
  EXPECT_FALSE(sync(files, id(1), true));
  EXPECT_TRUE(sync(files, id(1), false)) << "an fdatasync does not make the attributes durable";
  EXPECT_FALSE(sync(files, id(1), false));
}

TEST(UnsyncedFiles, ASecondFsyncDoesNotOvertakeTheFirst) {
  UnsyncedFiles files;
  files.changed(id(1), What::data);
  const auto first = files.begin(id(1), false), second = files.begin(id(1), false);
  ASSERT_TRUE(first && second) << "the first has not ended";
  files.changed(id(1), What::data);  // while both are under way
  auto ends = std::async(std::launch::async, [&] { files.ended(id(1), *second); });
  EXPECT_EQ(ends.wait_for(std::chrono::milliseconds(30)), std::future_status::timeout)
      << "the first may have been told of an error that the second was not";
  files.ended(id(1), *first);
  ends.get();
  EXPECT_TRUE(sync(files, id(1), false));
  EXPECT_FALSE(sync(files, id(1), false));
}

TEST(UnsyncedFiles, TooManyMakeEveryFsyncReal) {
  UnsyncedFiles files(64);
  for (unsigned n = 0; n < 256; ++n) {
    FileId one = id(static_cast<std::uint8_t>(n));
    one.bytes[9] = static_cast<std::uint8_t>(n * 7);
    files.changed(one, What::data);
  }
  FileId never = id(3);
  never.bytes[15] = 99;
  EXPECT_TRUE(sync(files, never, true));
  EXPECT_TRUE(sync(files, never, true));
}

}  // namespace
}  // namespace holdfast::capture
