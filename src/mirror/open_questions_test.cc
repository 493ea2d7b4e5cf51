// SPDX-License-Identifier: Apache-2.0
#include "mirror/open_questions.h"

#include <gtest/gtest.h>

#include "log/record_codec.h"
#include "log/ship.h"

#include "mirror/test_ids.h"

namespace holdfast::mirror {
namespace {

using testing::id_of;

using log::Kind;

constexpr SetNumber set = 1, other_set = 2;
constexpr std::uint32_t regular = 0100644, folder = 0040755;

log::Record shipped(Kind kind, std::uint32_t mode = 0) {
  log::Record r;
  r.sequence = Sequence(1);
  r.epoch = Epoch(1);
  r.kind = kind;
  r.set = set;
  r.file = id_of(1);
  r.mode = mode;
  r.addressed_to = NodeId(2);
  return r;
}

bool answers(const Nak& question, const log::Record& r) {
  OpenQuestions questions;
  questions.ask(question);
  questions.answered_by(log::encode(r));
  return questions.all().empty();
}

const Nak all_of_it{set, id_of(1), 0, 0}, contents{set, id_of(1), nak_contents, 0},
    place{set, id_of(1), nak_with_parent, 0};

// A partial resynchronization ships a folder's attributes without its names.
TEST(OpenQuestions, AFolderIsAnsweredByTheBeginningOfItsListing) {
  EXPECT_FALSE(answers(all_of_it, shipped(Kind::ship_node, folder)));
  log::Record listing = shipped(Kind::ship_dir);
  EXPECT_FALSE(answers(all_of_it, listing)) << "a later chunk";
  listing.flags = log::flag_first_chunk;
  EXPECT_TRUE(answers(all_of_it, listing));
}

TEST(OpenQuestions, AFileIsAnsweredByItsNodeWhenAllOfItFollows) {
  log::Record node = shipped(Kind::ship_node, regular);
  EXPECT_FALSE(answers(all_of_it, node));
  EXPECT_FALSE(answers(contents, node));
  node.rdev = log::rdev_all_follows;
  EXPECT_TRUE(answers(all_of_it, node));
  EXPECT_TRUE(answers(contents, node));
  EXPECT_TRUE(answers(all_of_it, shipped(Kind::ship_node, 0120777))) << "a symlink has no more";
  node.set = other_set;
  EXPECT_FALSE(answers(all_of_it, node));
}

TEST(OpenQuestions, NoRecordTellsThatAFolderStandsInItsPlace) {
  log::Record listing = shipped(Kind::ship_dir);
  listing.flags = log::flag_first_chunk;
  EXPECT_FALSE(answers(place, listing));
  EXPECT_FALSE(answers(place, shipped(Kind::ship_node, folder)));
  EXPECT_TRUE(answers(place, shipped(Kind::resync_begin)));
}

TEST(OpenQuestions, BytesAreAnsweredByAllOfThem) {
  const Nak bytes{set, id_of(1), 4096, 100};
  log::Record data = shipped(Kind::ship_data);
  data.offset = 4096;
  data.length = 99;
  EXPECT_FALSE(answers(bytes, data));
  data.length = 100;
  EXPECT_TRUE(answers(bytes, data));
}

TEST(OpenQuestions, AWholeSetHasNone) {
  OpenQuestions questions;
  questions.ask(all_of_it);
  questions.ask(place);
  const Nak elsewhere{other_set, id_of(1), 0, 0};
  questions.ask(elsewhere);
  questions.settled(set);
  EXPECT_EQ(questions.all(), std::set<Nak>{elsewhere});
}

}  // namespace
}  // namespace holdfast::mirror
