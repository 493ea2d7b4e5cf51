// SPDX-License-Identifier: Apache-2.0
#include "log/record_codec.h"

#include <algorithm>
#include <bit>

#include "base/check.h"
#include "log/record_fields.h"

namespace holdfast::log {
namespace {

constexpr std::size_t align8(std::size_t n) { return (n + 7) / 8 * 8; }

template <class T>
T load(const std::uint8_t* p) {
  T v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
void store(std::uint8_t* p, T v) {
  std::memcpy(p, &v, sizeof v);
}

// Writes into the encoder's fixed array; the limits above make it fit, and the encoder CHECKs them.
struct Cursor {
  std::uint8_t* p;
  void raw(const void* from, std::size_t n) {
    std::memcpy(p, from, n);
    p += n;
  }
  void varint(std::uint64_t v) {
    for (; v >= 0x80; v >>= 7) *p++ = static_cast<std::uint8_t>(v | 0x80);
    *p++ = static_cast<std::uint8_t>(v);
  }
  void zigzag(std::int64_t v) { varint((static_cast<std::uint64_t>(v) << 1) ^ static_cast<std::uint64_t>(v >> 63)); }
  void text(std::string_view s) {
    varint(s.size());
    raw(s.data(), s.size());
  }
  void id(const FileId& f) { raw(f.bytes.data(), f.bytes.size()); }
};

void write_field(Cursor& out, Field field, const Record& r) {
  switch (field) {
    case Field::file:
      return out.id(r.file);
    case Field::parent:
      return out.id(r.parent);
    case Field::parent2:
      return out.id(r.parent2);
    case Field::replaced:
      return out.id(r.replaced);
    case Field::name:
      return out.text(r.name);
    case Field::name2:
      return out.text(r.name2);
    case Field::offset:
      return out.varint(r.offset);
    case Field::length:
      return out.varint(r.length);
    case Field::size:
      return out.varint(r.size);
    case Field::flags:
      return out.varint(r.flags);
    case Field::valid:
      return out.varint(r.valid);
    case Field::mode_flags:
      return out.varint(r.mode_flags);
    case Field::mode:
      return out.varint(r.mode);
    case Field::uid:
      return out.varint(r.uid);
    case Field::gid:
      return out.varint(r.gid);
    case Field::rdev:
      return out.varint(r.rdev);
    case Field::mtime:
      return out.zigzag(r.mtime_ns);
    case Field::atime:
      return out.zigzag(r.atime_ns);
    case Field::parent_mtime:
      return out.zigzag(r.parent_mtime_ns);
    case Field::parent2_mtime:
      return out.zigzag(r.parent2_mtime_ns);
    case Field::payload:
      return;
  }
}

std::uint32_t read_u32(ByteReader& in) {
  const std::uint64_t v = in.varint();
  if (v > 0xffffffffU) in.fail();
  return static_cast<std::uint32_t>(v);
}
FileId read_id(ByteReader& in) {
  FileId id;
  const ByteView b = in.raw(id.bytes.size());
  if (b.size() == id.bytes.size()) std::copy(b.begin(), b.end(), id.bytes.begin());
  return id;
}
std::string_view read_name(ByteReader& in, std::size_t limit) {
  const std::string_view name = in.text();
  if (name.size() > limit) in.fail();
  return name;
}

void read_field(ByteReader& in, Field field, Record& r) {
  switch (field) {
    case Field::file:
      r.file = read_id(in);
      return;
    case Field::parent:
      r.parent = read_id(in);
      return;
    case Field::parent2:
      r.parent2 = read_id(in);
      return;
    case Field::replaced:
      r.replaced = read_id(in);
      return;
    case Field::name:
      r.name = read_name(in, max_name_bytes);
      return;
    case Field::name2:
      r.name2 = read_name(in, max_target_bytes);
      return;
    case Field::offset:
      r.offset = in.varint();
      return;
    case Field::length:
      r.length = in.varint();
      return;
    case Field::size:
      r.size = in.varint();
      return;
    case Field::flags:
      r.flags = read_u32(in);
      return;
    case Field::valid:
      r.valid = read_u32(in);
      return;
    case Field::mode_flags:
      r.mode_flags = read_u32(in);
      return;
    case Field::mode:
      r.mode = read_u32(in);
      return;
    case Field::uid:
      r.uid = read_u32(in);
      return;
    case Field::gid:
      r.gid = read_u32(in);
      return;
    case Field::rdev:
      r.rdev = in.varint();
      return;
    case Field::mtime:
      r.mtime_ns = in.zigzag();
      return;
    case Field::atime:
      r.atime_ns = in.zigzag();
      return;
    case Field::parent_mtime:
      r.parent_mtime_ns = in.zigzag();
      return;
    case Field::parent2_mtime:
      r.parent2_mtime_ns = in.zigzag();
      return;
    case Field::payload:
      return;
  }
}

// A name that reaches the tree must be one: no '/', no NUL, not "." or "..". Checked here so that no damaged or hostile record gets further.
bool is_file_name(std::string_view name) {
  return !name.empty() && name != "." && name != ".." && name.find('/') == std::string_view::npos &&
         name.find('\0') == std::string_view::npos;
}

bool names_are_sound(const Record& r) {
  switch (r.kind) {
    case Kind::create:
    case Kind::mkdir:
    case Kind::symlink:
    case Kind::mknod:
      return (r.kind == Kind::create && (r.flags & flag_orphan) != 0) || is_file_name(r.name);
    case Kind::link:
    case Kind::unlink:
    case Kind::rmdir:
    case Kind::undo_name:
      return is_file_name(r.name);
    case Kind::rename:
      return is_file_name(r.name) && is_file_name(r.name2);
    case Kind::set_xattr:
    case Kind::remove_xattr:
      return !r.name.empty() && r.name.find('\0') == std::string_view::npos;
    case Kind::ship_node:
      return r.name2.find('\0') == std::string_view::npos;
    default:
      return true;
  }
}

template <class F>
void for_each_field(FieldSet set, F&& f) {
  for (; set != 0; set &= set - 1) f(static_cast<Field>(std::countr_zero(set)));
}

}  // namespace

const KindRow* find_kind(std::uint8_t kind) {
  static const auto table = [] {
    std::array<const KindRow*, 256> made{};
    for (const auto& row : kind_rows) made[static_cast<std::uint8_t>(row.kind)] = &row;
    return made;
  }();
  return table[kind];
}

const char* to_string(Kind kind) {
  const KindRow* row = find_kind(static_cast<std::uint8_t>(kind));
  return row ? row->name : "unknown";
}

EncodedRecord::EncodedRecord(const Record& r) {
  const KindRow* row = find_kind(static_cast<std::uint8_t>(r.kind));
  CHECK(row != nullptr, "record kind {}", static_cast<int>(r.kind));
  CHECK(r.name.size() <= max_name_bytes && r.name2.size() <= max_target_bytes, "name of {} and {} bytes in {}",
        r.name.size(), r.name2.size(), row->name);
  if (row->fields & bit(Field::payload)) payload_ = r.payload;
  CHECK(payload_.size() <= max_payload_bytes, "payload of {} bytes in {}", payload_.size(), row->name);
  Cursor out{head_.data() + record_header_bytes};
  if (r.addressed_to.value != 0) out.raw(&r.addressed_to.value, 8);
  std::uint8_t* const fields_begin = out.p;
  for_each_field(row->fields, [&](Field f) { write_field(out, f, r); });
  head_bytes_ = static_cast<std::size_t>(out.p - head_.data());
  CHECK(head_bytes_ <= head_.size(), "record head of {} bytes", head_bytes_);
  total_bytes_ = align8(head_bytes_ + payload_.size());

  std::uint8_t* h = head_.data();
  std::memset(h, 0, record_header_bytes);
  store(h + 0, static_cast<std::uint32_t>(total_bytes_));
  h[32] = static_cast<std::uint8_t>(r.kind);
  h[33] = r.addressed_to.value != 0 ? header_flag_addressed : 0;
  store(h + 34, r.set);
  store(h + 36, static_cast<std::uint16_t>(out.p - fields_begin));
  store(h + 40, static_cast<std::uint32_t>(payload_.size()));
  constexpr std::uint8_t zeros[8] = {};
  body_crc_ = crc32c({h + record_header_bytes, head_bytes_ - record_header_bytes});
  body_crc_ = crc32c(payload_, body_crc_);
  body_crc_ = crc32c({zeros, total_bytes_ - head_bytes_ - payload_.size()}, body_crc_);
}

void EncodedRecord::finish(Epoch epoch, Sequence sequence, std::int64_t time_ns) {
  std::uint8_t* h = head_.data();
  store(h + 8, epoch.value);
  store(h + 16, sequence.value);
  store(h + 24, time_ns);
  store(h + 4, crc32c({h + 8, record_header_bytes - 8}, body_crc_));
}

void EncodedRecord::copy_to(std::uint8_t* out) const {
  std::memcpy(out, head_.data(), head_bytes_);
  if (!payload_.empty()) std::memcpy(out + head_bytes_, payload_.data(), payload_.size());
  std::memset(out + head_bytes_ + payload_.size(), 0, total_bytes_ - head_bytes_ - payload_.size());
}

Bytes encode(const Record& record) {
  EncodedRecord encoded(record);
  encoded.finish(record.epoch, record.sequence, record.time_ns);
  Bytes out(encoded.total_bytes());
  encoded.copy_to(out.data());
  return out;
}

RecordHead head_of(const std::uint8_t* h) {
  RecordHead head;
  head.length = load<std::uint32_t>(h);
  head.epoch = Epoch(load<std::uint64_t>(h + 8));
  head.sequence = Sequence(load<std::uint64_t>(h + 16));
  head.time_ns = load<std::int64_t>(h + 24);
  head.kind = static_cast<Kind>(h[32]);
  head.set = load<std::uint16_t>(h + 34);
  if (h[33] & header_flag_addressed) head.addressed_to = NodeId(load<std::uint64_t>(h + record_header_bytes));
  return head;
}

Found inspect(ByteView bytes, RecordHead& head) {
  if (bytes.size() < record_header_bytes) {
    return std::all_of(bytes.begin(), bytes.end(), [](std::uint8_t b) { return b == 0; }) ? Found::nothing : Found::cut;
  }
  const std::uint8_t* h = bytes.data();
  const std::size_t length = load<std::uint32_t>(h);
  if (length == 0 && std::all_of(h, h + record_header_bytes, [](std::uint8_t b) { return b == 0; }))
    return Found::nothing;
  if (length < record_header_bytes || length > max_record_bytes || length % 8 != 0) return Found::damaged;
  const std::size_t address = h[33] & header_flag_addressed ? 8 : 0;
  const std::size_t payload = load<std::uint32_t>(h + 40);
  if (payload > max_payload_bytes ||
      length != align8(record_header_bytes + address + load<std::uint16_t>(h + 36) + payload))
    return Found::damaged;
  if (length > bytes.size()) return Found::cut;
  const std::uint32_t body = crc32c(bytes.subspan(record_header_bytes, length - record_header_bytes));
  if (crc32c({h + 8, record_header_bytes - 8}, body) != load<std::uint32_t>(h + 4)) return Found::damaged;
  head = head_of(h);
  return Found::record;
}

Result<Record> decode(ByteView bytes) {
  const std::uint8_t* h = bytes.data();
  const RecordHead head = head_of(h);
  const KindRow* row = find_kind(h[32]);
  if (!row)
    return fail(ErrorCode::corrupt, "record {} of epoch {} is of unknown kind {}", head.sequence.value,
                head.epoch.value, h[32]);
  Record r;
  r.epoch = head.epoch;
  r.sequence = head.sequence;
  r.time_ns = head.time_ns;
  r.kind = head.kind;
  r.set = head.set;
  r.addressed_to = head.addressed_to;
  const std::size_t begin = record_header_bytes + (h[33] & header_flag_addressed ? 8 : 0);
  const std::size_t fields_bytes = load<std::uint16_t>(h + 36);
  ByteReader in(bytes.subspan(begin, fields_bytes));
  for_each_field(row->fields, [&](Field f) { read_field(in, f, r); });
  if (row->fields & bit(Field::payload))
    r.payload = bytes.subspan(begin + fields_bytes, load<std::uint32_t>(h + 40));
  else if (load<std::uint32_t>(h + 40) != 0)
    in.fail();
  if (!in.ok() || in.left() != 0 || !names_are_sound(r))
    return fail(ErrorCode::corrupt, "record {} of epoch {} ({}) has a right checksum but unsound fields",
                head.sequence.value, head.epoch.value, row->name);
  return r;
}

bool makes_ids(Kind kind) {
  switch (kind) {
    case Kind::create:
    case Kind::mkdir:
    case Kind::symlink:
    case Kind::mknod:
    case Kind::ship_dir:
    case Kind::ship_node:
    case Kind::check_dir:
    case Kind::repair_dir:
    case Kind::repair_node:
      return true;
    default:
      return false;
  }
}

}  // namespace holdfast::log
