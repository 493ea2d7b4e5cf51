// SPDX-License-Identifier: Apache-2.0
#include "capture/unsynced_files.h"

#include <gtest/gtest.h>

namespace holdfast::capture {
namespace {

using What = UnsyncedFiles::What;

FileId id(std::uint8_t n) {
  FileId made;
  made.bytes[0] = n;
  return made;
}

TEST(UnsyncedFiles, WhatWasNotChangedIsDurable) {
  UnsyncedFiles files;
  EXPECT_FALSE(files.begin(id(1), false));
  files.changed(id(1), What::data);
  EXPECT_TRUE(files.begin(id(1), false));
  files.ended(id(1));
  EXPECT_FALSE(files.begin(id(1), false));
  EXPECT_FALSE(files.begin(id(2), false));
}

TEST(UnsyncedFiles, AttributesAreLeftToTheWholeFsync) {
  UnsyncedFiles files;
  files.changed(id(1), What::attributes);
  EXPECT_FALSE(files.begin(id(1), true));
  files.changed(id(1), What::data);
  EXPECT_TRUE(files.begin(id(1), true));
  files.ended(id(1));
  EXPECT_FALSE(files.begin(id(1), true));
  EXPECT_TRUE(files.begin(id(1), false)) << "an fdatasync does not make the attributes durable";
  files.ended(id(1));
  EXPECT_FALSE(files.begin(id(1), false));
}

TEST(UnsyncedFiles, ASecondFsyncDoesNotOvertakeTheFirst) {
  UnsyncedFiles files;
  files.changed(id(1), What::data);
  EXPECT_TRUE(files.begin(id(1), false));
  EXPECT_TRUE(files.begin(id(1), false)) << "the first has not ended";
  files.changed(id(1), What::data);  // while both are under way
  files.ended(id(1));
  files.ended(id(1));
  EXPECT_TRUE(files.begin(id(1), false));
  files.ended(id(1));
  EXPECT_FALSE(files.begin(id(1), false));
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
  EXPECT_TRUE(files.begin(never, true));
  files.ended(never);
  EXPECT_TRUE(files.begin(never, true));
  files.ended(never);
}

}  // namespace
}  // namespace holdfast::capture
