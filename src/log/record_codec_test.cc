// SPDX-License-Identifier: Apache-2.0
#include "log/record_codec.h"

#include <gtest/gtest.h>

#include <random>

#include "log/record_fields.h"
#include "log/ship.h"

namespace holdfast::log {
namespace {

FileId id(std::uint8_t n) {
  FileId f;
  f.bytes.fill(n);
  return f;
}

Record full_record(Kind kind) {
  static const Bytes payload(1000, 0x5a);
  Record r;
  r.kind = kind;
  r.epoch = Epoch(7);
  r.sequence = Sequence(1'000'000'007);
  r.time_ns = 1'700'000'000'000'000'001;
  r.set = 3;
  r.file = id(1);
  r.parent = id(2);
  r.parent2 = id(3);
  r.replaced = id(4);
  r.name = "na me\n\xff";
  r.name2 = "other";
  r.offset = 1ULL << 40;
  r.length = 77;
  r.size = 1ULL << 50;
  r.flags = flag_first_chunk;
  r.valid = valid_mode | valid_mtime;
  r.mode_flags = 3;
  r.mode = 0100644;
  r.uid = 0xffffffff;
  r.gid = 12;
  r.rdev = 0x1234567890;
  r.mtime_ns = -5;
  r.atime_ns = 1;
  r.parent_mtime_ns = 2;
  r.parent2_mtime_ns = 3;
  r.payload = payload;
  return r;
}

TEST(RecordCodec, EachKindKeepsTheFieldsOfItsRow) {
  for (const auto& row : kind_rows) {
    for (const NodeId addressed : {NodeId(0), NodeId(99)}) {
      Record r = full_record(row.kind);
      r.addressed_to = addressed;
      const Bytes bytes = encode(r);
      RecordHead head;
      ASSERT_EQ(inspect(bytes, head), Found::record) << row.name;
      EXPECT_EQ(head.length, bytes.size());
      EXPECT_EQ(head.sequence, r.sequence);
      EXPECT_EQ(head.addressed_to, addressed);
      const Record back = decode(bytes).value();
      const auto has = [&](Field f) { return (row.fields & bit(f)) != 0; };
      EXPECT_EQ(back.kind, row.kind);
      EXPECT_EQ(back.epoch, r.epoch);
      EXPECT_EQ(back.time_ns, r.time_ns);
      EXPECT_EQ(back.set, r.set);
      EXPECT_EQ(back.file, has(Field::file) ? r.file : FileId{}) << row.name;
      EXPECT_EQ(back.replaced, has(Field::replaced) ? r.replaced : FileId{}) << row.name;
      EXPECT_EQ(back.name, has(Field::name) ? r.name : "") << row.name;
      EXPECT_EQ(back.name2, has(Field::name2) ? r.name2 : "") << row.name;
      EXPECT_EQ(back.offset, has(Field::offset) ? r.offset : 0) << row.name;
      EXPECT_EQ(back.size, has(Field::size) ? r.size : 0) << row.name;
      EXPECT_EQ(back.uid, has(Field::uid) ? r.uid : 0) << row.name;
      EXPECT_EQ(back.rdev, has(Field::rdev) ? r.rdev : 0) << row.name;
      EXPECT_EQ(back.mtime_ns, has(Field::mtime) ? r.mtime_ns : 0) << row.name;
      EXPECT_EQ(back.parent2_mtime_ns, has(Field::parent2_mtime) ? r.parent2_mtime_ns : 0) << row.name;
      EXPECT_EQ(back.payload.size(), has(Field::payload) ? r.payload.size() : 0) << row.name;
    }
  }
}

TEST(RecordCodec, LimitsHold) {
  const Bytes payload(max_payload_bytes, 1);
  Record r = full_record(Kind::rename);
  const std::string name(max_name_bytes, 'n');
  r.name = r.name2 = name;
  EXPECT_LE(encode(r).size(), max_head_bytes + 8);
  EXPECT_LE(encode(r).size(), name.size() * 2 + record_overhead_bytes) << "a reservation covers names and overhead";
  r = full_record(Kind::write);
  r.payload = payload;
  EXPECT_LE(encode(r).size(), max_record_bytes);
  EXPECT_LE(encode(r).size(), payload.size() + record_overhead_bytes);
  r = full_record(Kind::ship_node);
  const std::string target(max_target_bytes, 't');
  r.name2 = target;
  r.payload = payload;
  EXPECT_LE(encode(r).size(), max_record_bytes);
  EXPECT_LE(encode(r).size(), target.size() + payload.size() + record_overhead_bytes);
}

TEST(RecordCodec, ACutRecordAndNothingAreToldApart) {
  const Bytes bytes = encode(full_record(Kind::write));
  RecordHead head;
  for (std::size_t n = record_header_bytes; n < bytes.size(); n += 7)
    EXPECT_EQ(inspect(ByteView(bytes).first(n), head), Found::cut);
  EXPECT_EQ(inspect({}, head), Found::nothing);
  EXPECT_EQ(inspect(Bytes(100), head), Found::nothing);
  Bytes damaged = bytes;
  damaged[200] ^= 1;
  EXPECT_EQ(inspect(damaged, head), Found::damaged);
}

TEST(RecordCodec, NamesThatAreNoNamesGoNoFurther) {
  for (const std::string& name :
       {std::string(), std::string("."), std::string(".."), std::string("a/b"), std::string("a\0b", 3)}) {
    Record r = full_record(Kind::unlink);
    r.name = name;
    EXPECT_FALSE(decode(encode(r))) << name;
  }
  Record r = full_record(Kind::rename);
  r.name2 = "../x";
  EXPECT_FALSE(decode(encode(r)));
}

// No input makes the reader crash, hang or read beyond; a right checksum over unsound fields is an error value.
TEST(RecordCodec, AHundredThousandMutatedRecords) {
  std::mt19937 random(1);
  std::vector<Bytes> seeds;
  for (const auto& row : kind_rows) seeds.push_back(encode(full_record(row.kind)));
  int accepted = 0;
  for (int i = 0; i < 100'000; ++i) {
    Bytes bytes = seeds[random() % seeds.size()];
    for (unsigned n = random() % 4; n-- > 0;)
      bytes[random() % std::min<std::size_t>(bytes.size(), i % 2 ? bytes.size() : 160)] =
          static_cast<std::uint8_t>(random());
    bytes.resize(random() % 8 ? bytes.size() : random() % bytes.size());
    RecordHead head;
    const Found found = inspect(bytes, head);
    if (found == Found::record) ++accepted;
    if (bytes.size() < record_header_bytes) continue;
    // Past the checksum, as if somebody had made it right: give decode the bytes whose lengths add up.
    std::uint32_t length = 0;
    std::memcpy(&length, bytes.data(), 4);
    if (found == Found::damaged && length == bytes.size()) {
      std::uint32_t crc = crc32c(ByteView(bytes).subspan(record_header_bytes));
      crc = crc32c(ByteView(bytes).subspan(8, record_header_bytes - 8), crc);
      std::memcpy(bytes.data() + 4, &crc, 4);
      if (inspect(bytes, head) == Found::record) (void)decode(bytes);
    }
  }
  EXPECT_GT(accepted, 1000);
}

TEST(ShipEntries, RoundTripAndGarbage) {
  Bytes payload;
  append_ship_entry(payload, {id(9), 0100000, "file"});
  append_ship_entry(payload, {id(8), 0040000, "folder"});
  ShipEntryReader reader(payload);
  EXPECT_EQ(reader.next().value()->name, "file");
  EXPECT_EQ(reader.next().value()->mode, 0040000U);
  EXPECT_FALSE(reader.next().value().has_value());
  std::mt19937 random(2);
  for (int i = 0; i < 20'000; ++i) {
    Bytes bad = payload;
    bad[random() % bad.size()] = static_cast<std::uint8_t>(random());
    bad.resize(random() % (bad.size() + 1));
    ShipEntryReader garbage(bad);
    for (auto e = garbage.next(); e && *e; e = garbage.next()) EXPECT_FALSE((*e)->name.empty());
  }
}

}  // namespace
}  // namespace holdfast::log
