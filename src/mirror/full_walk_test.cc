// SPDX-License-Identifier: Apache-2.0
#include "mirror/full_walk.h"

#include <gtest/gtest.h>

#include <map>

namespace holdfast::mirror {
namespace {

constexpr SetNumber set = 1;

FileId id_of(unsigned n) {
  FileId id;
  id.bytes[0] = 1;
  id.bytes[1] = static_cast<std::uint8_t>(n >> 8);
  id.bytes[2] = static_cast<std::uint8_t>(n);
  return id;
}
std::vector<ports::TreeEntry> files(unsigned from, unsigned count) {
  std::vector<ports::TreeEntry> all;
  for (unsigned n = from; n < from + count; ++n) all.push_back({std::to_string(n), id_of(n), 0100000});
  return all;
}

// Folders of a few files each: they are few, and lie on what waits already.
TEST(FullWalk, EachFileIsToldOnceShortlyBeforeItsTurn) {
  FullWalk walk(set, false);
  std::map<FileId, unsigned> told;
  unsigned taken = 0, unforeseen = 0;
  for (unsigned folders = 0;; ++taken) {
    const auto job = walk.next();
    ASSERT_TRUE(job);
    if (!*job) break;
    if (!(*job)->id.is_root() && told[(*job)->id] == 0) ++unforeseen;
    for (const FileId& id : walk.take_soon()) {
      EXPECT_EQ(++told[id], 1U);
      EXPECT_NE(id, (*job)->id) << "its turn is now";
    }
    if (taken % 5 == 0 && folders < 50) walk.listed(files(1 + 5 * folders++, 5));
  }
  EXPECT_EQ(taken, 251U);
  EXPECT_LE(unforeseen, 50U) << "only the first of a folder: it is taken as soon as the folder is listed";
}

// A folder of very many is listed in pieces, and what was listed first is shipped last.
TEST(FullWalk, AGreatFolderIsNoReasonToReadItAllAtOnce) {
  FullWalk walk(set, false);
  ASSERT_TRUE(walk.next());
  for (unsigned chunk = 0; chunk < 100; ++chunk) walk.listed(files(1 + chunk * 100, 100));
  ASSERT_TRUE(walk.next());
  EXPECT_LE(walk.take_soon().size(), 96U);
  ASSERT_TRUE(walk.next());
  EXPECT_EQ(walk.take_soon().size(), 1U);
}

}  // namespace
}  // namespace holdfast::mirror
