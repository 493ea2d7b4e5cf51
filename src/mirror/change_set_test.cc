// SPDX-License-Identifier: Apache-2.0
#include "mirror/change_set.h"

#include <gtest/gtest.h>

#include <random>

#include "mirror/file_type.h"
#include "mirror/test_ids.h"

namespace holdfast::mirror {
namespace {

using testing::id_of;

using log::Kind;

constexpr SetNumber set = 3;

log::Record record(Kind kind, std::uint8_t file = 1) {
  log::Record r;
  r.kind = kind;
  r.set = set;
  r.file = id_of(file);
  r.parent = id_of(100);
  r.parent2 = id_of(101);
  r.name = "a";
  r.name2 = "b";
  return r;
}

std::vector<Extent> extents_after(const log::Record& r) {
  ChangeSet changes;
  changes.fold(r);
  const ObjectChange* change = changes.find(set, r.file);
  return change ? change->extents : std::vector<Extent>{{7, 7}};
}

const std::vector<Extent> whole{{0, end_of_file}}, nothing_of_it{};

TEST(ChangeSet, MemoryCountsExtents) {
  const Bytes payload(10);
  ChangeSet changes, half;
  for (std::uint8_t file = 1; file <= 100; ++file)
    for (std::uint64_t i = 0; i < max_extents; ++i) {
      log::Record r = record(Kind::write, file);
      r.offset = i * 8192;
      r.payload = payload;
      changes.fold(r);
      if (i % 2 == 0) half.fold(r);
    }
  EXPECT_GE(changes.memory_bytes(), 100 * max_extents * sizeof(Extent));
  EXPECT_LT(changes.memory_bytes(), 4 * 100 * max_extents * sizeof(Extent));
  const std::size_t alone = half.memory_bytes();
  half.merge(changes);
  EXPECT_GE(half.memory_bytes(), 100 * max_extents * sizeof(Extent));
  EXPECT_GT(half.memory_bytes(), alone);
  changes.clear();
  EXPECT_EQ(changes.memory_bytes(), 0U);
}

TEST(ChangeSet, EachKindOfRecordNamesWhatItChanges) {
  const Bytes payload(10);
  log::Record r = record(Kind::write);
  r.offset = 100;
  r.payload = payload;
  EXPECT_EQ(extents_after(r), (std::vector<Extent>{{100, 110}}));
  r = record(Kind::truncate);
  r.length = 50;
  EXPECT_EQ(extents_after(r), (std::vector<Extent>{{50, end_of_file}}));
  r = record(Kind::fallocate);
  r.offset = 4096;
  r.length = 100;
  EXPECT_EQ(extents_after(r), nothing_of_it) << "only room was made";
  r.mode_flags = fallocate_punch;
  EXPECT_EQ(extents_after(r), (std::vector<Extent>{{4096, 4196}}));
  r.mode_flags = fallocate_zero;
  EXPECT_EQ(extents_after(r), (std::vector<Extent>{{4096, 4196}}));
  for (const auto shift : {fallocate_collapse, fallocate_insert}) {
    r.mode_flags = shift;
    EXPECT_EQ(extents_after(r), (std::vector<Extent>{{4096, end_of_file}}));
  }
  for (const Kind kind : {Kind::create, Kind::mkdir, Kind::symlink, Kind::mknod}) {
    ChangeSet changes;
    changes.fold(record(kind));
    EXPECT_EQ(changes.find(set, id_of(1))->extents, whole);
    EXPECT_TRUE(changes.contains_name(set, id_of(100), "a"));
    EXPECT_EQ(changes.size(), 2U);
  }
  r = record(Kind::create);
  r.flags = log::flag_orphan;
  r.name = {};
  ChangeSet orphan;
  orphan.fold(r);
  EXPECT_EQ(orphan.size(), 1U);
  EXPECT_EQ(orphan.find(set, id_of(1))->extents, whole);
  for (const Kind kind : {Kind::set_attributes, Kind::set_xattr, Kind::remove_xattr})
    EXPECT_EQ(extents_after(record(kind)), nothing_of_it);
}

TEST(ChangeSet, NamesAreKeysOfTheirOwn) {
  ChangeSet changes;
  changes.fold(record(Kind::unlink));
  EXPECT_EQ(changes.size(), 1U);
  EXPECT_TRUE(changes.contains_name(set, id_of(100), "a"));
  EXPECT_EQ(changes.find(set, id_of(1)), nullptr);
  changes.fold(record(Kind::rename));
  EXPECT_EQ(changes.size(), 2U);
  EXPECT_TRUE(changes.contains_name(set, id_of(101), "b"));
  changes.fold(record(Kind::rmdir));
  changes.fold(record(Kind::rename));
  EXPECT_EQ(changes.size(), 2U) << "the same names again";
  changes.fold(record(Kind::link));
  EXPECT_NE(changes.find(set, id_of(1)), nullptr);
}

TEST(ChangeSet, WhatAPeerMayNeverHaveHadIsNotedAsAWhole) {
  ChangeSet changes;
  log::Record r = record(Kind::rename, 1);
  r.replaced = id_of(2);
  changes.fold(r, true);
  EXPECT_EQ(*changes.find(set, id_of(1)), (ObjectChange{true, true, false, whole}));
  EXPECT_TRUE(changes.find(set, id_of(101))->place) << "it may be taken from its place, to come into what is below it";
  EXPECT_EQ(changes.find(set, id_of(2)), nullptr) << "what a rename replaced has no name any more";
  r.flags = log::flag_rename_exchange;
  changes.fold(r, true);
  EXPECT_NE(changes.find(set, id_of(2)), nullptr);
}

TEST(ChangeSet, MarksAndWhatIsAddressedChangeNothing) {
  ChangeSet changes;
  for (const Kind kind : {Kind::epoch_begin, Kind::epoch_end, Kind::consistent, Kind::noop, Kind::shadow})
    changes.fold(record(kind));
  for (const Kind kind :
       {Kind::resync_begin, Kind::ship_node, Kind::ship_data, Kind::link, Kind::unlink, Kind::set_xattr}) {
    log::Record r = record(kind);
    r.addressed_to = NodeId(4);
    changes.fold(r);
  }
  EXPECT_TRUE(changes.empty());
}

TEST(ChangeSet, ExtentsJoinAndNeverLoseAByte) {
  std::mt19937 random(1);
  for (int run = 0; run < 300; ++run) {
    ObjectChange change;
    std::vector<bool> bytes(400);
    for (int i = 0; i < 60; ++i) {
      const std::size_t begin = random() % bytes.size(), end = begin + random() % (bytes.size() - begin) / 8;
      change.add(begin, end);
      for (std::size_t b = begin; b < end; ++b) bytes[b] = true;
    }
    std::vector<bool> seen(bytes.size());
    std::uint64_t before = 0;
    bool first = true;
    for (const Extent& e : change.extents) {
      ASSERT_LT(e.begin, e.end);
      ASSERT_TRUE(first || e.begin > before) << "neighbours are one";
      first = false;
      before = e.end;
      for (std::size_t b = e.begin; b < e.end; ++b) seen[b] = true;
    }
    ASSERT_EQ(seen, bytes) << "run " << run;
  }
}

TEST(ChangeSet, TooManyExtentsCoverMoreNeverLess) {
  ObjectChange change;
  for (std::uint64_t i = 0; i < 3 * max_extents; ++i) change.add(i * 1000 + i % 7, i * 1000 + 100);
  EXPECT_EQ(change.extents.size(), max_extents);
  std::size_t at = 0;
  for (std::uint64_t i = 0; i < 3 * max_extents; ++i) {
    while (at < change.extents.size() && change.extents[at].end < i * 1000 + 100) ++at;
    ASSERT_LT(at, change.extents.size());
    ASSERT_LE(change.extents[at].begin, i * 1000 + i % 7);
  }
  EXPECT_LT(change.extents.back().end, end_of_file);
}

TEST(ChangeSet, WritesAtTheEndOfTheWorldDoNotWrap) {
  const Bytes payload(10);
  log::Record r = record(Kind::write);
  r.offset = end_of_file - 3;
  r.payload = payload;
  EXPECT_EQ(extents_after(r), (std::vector<Extent>{{end_of_file - 3, end_of_file}}));
}

TEST(ChangeSet, HotNotesCompareWhatTheyName) {
  ChangeSet changes;
  FileId id = id_of(9);
  id.bytes[6] = 1;
  const IdBlock block = IdBlock::of(id);
  id.bytes[7] = 2;
  EXPECT_TRUE(block.contains(id));
  id.bytes[15] = 0;
  EXPECT_FALSE(block.contains(id));
  changes.note_file(set, id_of(1));
  changes.note_folder(set, id_of(2));
  changes.note_block(set, block);
  changes.note_block(set, block);
  changes.note_set(4);
  EXPECT_EQ(changes.size(), 4U);
  EXPECT_EQ(*changes.find(set, id_of(1)), (ObjectChange{false, true, false, whole}));
  EXPECT_EQ(*changes.find(set, id_of(2)), (ObjectChange{true, false, false, {}}));
  EXPECT_TRUE(changes.contains_set(4));
}

TEST(ChangeSet, EncodesSortedAndReadsBack) {
  ChangeSet changes;
  const Bytes payload(10);
  for (std::uint8_t i = 1; i < 50; ++i) {
    log::Record r = record(static_cast<Kind>(1 + i % 14), i);
    r.payload = payload;
    r.offset = i * 100U;
    r.length = 5;
    changes.fold(r);
  }
  changes.note_folder(set, id_of(77));
  changes.note_block(set, IdBlock::of(id_of(5)));
  changes.note_set(9);
  const auto entries = changes.encode();
  EXPECT_EQ(entries.size(), changes.size());
  ChangeSet back, merged;
  for (std::size_t i = 0; i < entries.size(); ++i) {
    EXPECT_TRUE(i == 0 || entries[i - 1].key < entries[i].key);
    ASSERT_TRUE(back.add(entries[i].key, entries[i].value));
  }
  EXPECT_EQ(back.encode(), entries);
  merged.merge(changes);
  merged.merge(back);
  EXPECT_EQ(merged.encode(), entries) << "the same twice adds nothing";
  EXPECT_EQ(decode_change_key(entries.front().key)->kind, ChangeKind::block);
}

TEST(ChangeSet, ValuesOfOneKeyCombine) {
  ChangeSet a, b, both;
  a.object(set, id_of(1)).add(0, 10);
  b.object(set, id_of(1)).add(5, 20);
  b.note_folder(set, id_of(1));
  both.merge(a);
  both.merge(b);
  const auto combined = ChangeSet::combine(a.encode()[0].value, b.encode()[0].value);
  ASSERT_TRUE(combined);
  EXPECT_EQ(*combined, both.encode()[0].value);
  EXPECT_TRUE(ChangeSet::combine({}, {})->empty()) << "a name";
}

TEST(ChangeSet, NothingReadIsTrusted) {
  ChangeSet changes;
  ChangeSet source;
  source.object(set, id_of(1)).add(10, 20);
  source.name(set, id_of(2), "name");
  const auto entries = source.encode();
  for (const auto& e : entries) {
    for (std::size_t n = 0; n < 18; ++n) EXPECT_FALSE(changes.add(ByteView(e.key).first(n), e.value)) << n;
    Bytes key = e.key;
    key[0] = 'X';
    EXPECT_FALSE(changes.add(key, e.value));
  }
  const ChangeEntry& object = entries[1];
  EXPECT_FALSE(changes.add(object.key, {}));
  EXPECT_FALSE(changes.add(object.key, ByteView(object.value).first(2)));
  Bytes longer = object.value;
  longer.push_back(0);
  EXPECT_FALSE(changes.add(object.key, longer));
  EXPECT_FALSE(changes.add(entries[0].key, object.value)) << "a name has no value";
  const Bytes unordered{0, 2, 10, 5, 12, 5};
  EXPECT_FALSE(changes.add(object.key, unordered));
  Bytes slash = entries[0].key;
  slash.back() = '/';
  EXPECT_FALSE(changes.add(slash, {}));
  EXPECT_TRUE(changes.empty());
}

}  // namespace
}  // namespace holdfast::mirror
