// SPDX-License-Identifier: Apache-2.0
#include "daemon/mirror/covers.h"

#include <gtest/gtest.h>

namespace holdfast::mirror_process {
namespace {

MirrorConfig config_of(std::vector<Cover> sets, SetNumber next) {
  MirrorConfig config;
  for (const Cover& each : sets) {
    SetConfig set;
    set.set = each.set;
    set.path = each.path;
    config.sets.push_back(set);
  }
  config.next_set = next;
  return config;
}

const std::vector<Cover> before = {{1, "/srv/a"}, {2, "/srv/b"}};

TEST(Covers, WhatWasUnprotectedGoes) {
  const CoversNow now = covers_now(before, config_of({{1, "/srv/a"}}, 3));
  EXPECT_EQ(now.stay, (std::vector<Cover>{{1, "/srv/a"}}));
  EXPECT_EQ(now.gone, (std::vector<Cover>{{2, "/srv/b"}}));
}

// holdfastd configures its mirror before it has heard what the cluster protects.
TEST(Covers, WhatIsNotKnownYetStays) {
  const CoversNow now = covers_now(before, config_of({}, 1));
  EXPECT_EQ(now.stay, before);
  EXPECT_TRUE(now.gone.empty());
}

TEST(Covers, AFolderThatIsProtectedAnewHasItsNewNumber) {
  const CoversNow now = covers_now(before, config_of({{1, "/srv/a"}, {3, "/srv/b"}}, 4));
  EXPECT_EQ(now.stay, (std::vector<Cover>{{1, "/srv/a"}, {3, "/srv/b"}}));
  EXPECT_TRUE(now.gone.empty());
}

TEST(Covers, PathsOfAnOlderProgramStay) {
  const auto read = decode_covers(R"(["/srv/a","/srv/b"])");
  ASSERT_TRUE(read);
  EXPECT_EQ(*read, (std::vector<Cover>{{0, "/srv/a"}, {0, "/srv/b"}}));
  EXPECT_EQ(covers_now(*read, config_of({{1, "/srv/a"}}, 3)).stay, (std::vector<Cover>{{1, "/srv/a"}, {0, "/srv/b"}}));
}

TEST(Covers, AreReadAsTheyWereWritten) {
  EXPECT_EQ(decode_covers(encode_covers(before)), before);
  EXPECT_FALSE(decode_covers("[\"/srv/a\""));
  EXPECT_FALSE(decode_covers("{}"));
  EXPECT_FALSE(decode_covers(R"([{"set":"1","path":"/srv/a"}])"));
}

}  // namespace
}  // namespace holdfast::mirror_process
