// SPDX-License-Identifier: Apache-2.0
#include "mirror/change_set.h"

#include <algorithm>

#include "mirror/file_type.h"

namespace holdfast::mirror {

using log::Kind;

namespace {

constexpr std::uint8_t flag_listing = 1, flag_by_hash = 2, flag_place = 4, all_flags = 7;
// What a node of a hash table, its bucket and the allocator take.
constexpr std::size_t object_memory = sizeof(ObjectKey) + sizeof(ObjectChange) + 32;
constexpr std::size_t name_memory = sizeof(NameKey) + 48;

std::uint64_t end_of(std::uint64_t offset, std::uint64_t length) {
  return length > end_of_file - offset ? end_of_file : offset + length;
}

void join_closest(std::vector<Extent>& list) {
  std::size_t best = 0;
  for (std::size_t i = 1; i + 1 < list.size(); ++i)
    if (list[i + 1].begin - list[i].end < list[best + 1].begin - list[best].end) best = i;
  list[best].end = list[best + 1].end;
  list.erase(list.begin() + static_cast<std::ptrdiff_t>(best) + 1);
}

Bytes encode_object(const ObjectChange& change) {
  Bytes out;
  ByteWriter w(out);
  w.u8((change.listing ? flag_listing : 0) | (change.by_hash ? flag_by_hash : 0) | (change.place ? flag_place : 0));
  w.varint(change.extents.size());
  for (const Extent& e : change.extents) {
    w.varint(e.begin);
    w.varint(e.end - e.begin);
  }
  return out;
}

void put_set(Bytes& out, SetNumber set) {  // big-endian: sorts
  out.push_back(static_cast<std::uint8_t>(set >> 8));
  out.push_back(static_cast<std::uint8_t>(set));
}

}  // namespace

void ObjectChange::add(std::uint64_t begin, std::uint64_t end) {
  if (begin >= end) return;
  auto first = std::lower_bound(extents.begin(), extents.end(), begin,
                                [](const Extent& e, std::uint64_t at) { return e.end < at; });
  auto last = first;
  for (; last != extents.end() && last->begin <= end; ++last) {
    begin = std::min(begin, last->begin);
    end = std::max(end, last->end);
  }
  if (first == last) {
    extents.insert(first, {begin, end});
    if (extents.size() > max_extents) join_closest(extents);
    return;
  }
  *first = {begin, end};
  extents.erase(first + 1, last);
}

void ObjectChange::add_flags(const ObjectChange& other) {
  listing |= other.listing;
  by_hash |= other.by_hash;
  place |= other.place;
}

void ObjectChange::add(const ObjectChange& other) {
  add_flags(other);
  for (const Extent& e : other.extents) add(e.begin, e.end);
}

IdBlock IdBlock::of(const FileId& id) {
  IdBlock block;
  std::copy_n(id.bytes.begin(), 6, block.bytes.begin());
  std::copy_n(id.bytes.begin() + 8, 8, block.bytes.begin() + 6);
  return block;
}

FileId IdBlock::base() const {
  FileId id;
  std::copy_n(bytes.begin(), 6, id.bytes.begin());
  std::copy_n(bytes.begin() + 6, 8, id.bytes.begin() + 8);
  return id;
}

void ChangeSet::content(const log::Record& r, std::uint64_t begin, std::uint64_t end) {
  add_extent(object(r.set, r.file), {begin, end});
}

void ChangeSet::add_extent(ObjectChange& to, const Extent& extent) {
  const std::size_t before = to.extents.capacity();
  to.add(extent.begin, extent.end);
  extra_bytes_ += (to.extents.capacity() - before) * sizeof(Extent);
}

// What is made is new to everybody: all of it, under its name (a file of O_TMPFILE has none yet).
void ChangeSet::created(const log::Record& r) {
  content(r, 0, end_of_file);
  if ((r.flags & log::flag_orphan) == 0) name(r.set, r.parent, r.name);
}

// The peer may not have it, or may have had to take the folder away from below it.
void ChangeSet::named(SetNumber set, const FileId& id, const FileId& folder) {
  note_file(set, id);
  note_folder(set, id);
  object(set, folder).place = true;
}

void ChangeSet::fold(const log::Record& r, bool may_be_unknown) {
  if (r.addressed_to != NodeId(0)) return;
  if (may_be_unknown && (r.kind == Kind::link || r.kind == Kind::rename)) {
    named(r.set, r.file, r.kind == Kind::link ? r.parent : r.parent2);
    if (r.flags & log::flag_rename_exchange) named(r.set, r.replaced, r.parent);
  }
  switch (r.kind) {
    case Kind::write:
      return content(r, r.offset, end_of(r.offset, r.payload.size()));
    // Bytes that were cut off must not be there when the file grows again.
    case Kind::truncate:
      return content(r, r.length, end_of_file);
    case Kind::fallocate:
      if (shifts_range(r.mode_flags)) return content(r, r.offset, end_of_file);
      if (clears_range(r.mode_flags)) return content(r, r.offset, end_of(r.offset, r.length));
      object(r.set, r.file);
      return;
    case Kind::create:
    case Kind::mkdir:
    case Kind::symlink:
    case Kind::mknod:
      return created(r);
    case Kind::link:
      object(r.set, r.file);
      return name(r.set, r.parent, r.name);
    case Kind::unlink:
    case Kind::rmdir:
      return name(r.set, r.parent, r.name);
    case Kind::rename:
      name(r.set, r.parent, r.name);
      return name(r.set, r.parent2, r.name2);
    case Kind::set_attributes:
    case Kind::set_xattr:
    case Kind::remove_xattr:
      object(r.set, r.file);
      return;
    default:
      return;  // marks
  }
}

void ChangeSet::note_file(SetNumber set, const FileId& id) {
  ObjectChange& change = object(set, id);
  change.by_hash = true;
  add_extent(change, {0, end_of_file});
}

void ChangeSet::note_folder(SetNumber set, const FileId& id) { object(set, id).listing = true; }

void ChangeSet::note_block(SetNumber set, const IdBlock& block) {
  const std::pair entry(set, block);
  if (std::find(blocks_.begin(), blocks_.end(), entry) == blocks_.end()) blocks_.push_back(entry);
}

void ChangeSet::note_set(SetNumber set) {
  if (!contains_set(set)) sets_.push_back(set);
}

void ChangeSet::name(SetNumber set, const FileId& folder, std::string_view name) {
  if (names_.insert({set, folder, std::string(name)}).second) extra_bytes_ += name.size();
}

void ChangeSet::add_object(const ObjectKey& key, const ObjectChange& change) {
  ObjectChange& own = objects_[key];
  own.add_flags(change);
  for (const Extent& e : change.extents) add_extent(own, e);
}

void ChangeSet::merge(const ChangeSet& other) {
  for (const auto& [key, change] : other.objects_) add_object(key, change);
  for (const NameKey& key : other.names_) name(key.set, key.folder, key.name);
  for (const auto& [set, block] : other.blocks_) note_block(set, block);
  for (const SetNumber set : other.sets_) note_set(set);
}

std::size_t ChangeSet::memory_bytes() const {
  return objects_.size() * object_memory + names_.size() * name_memory + extra_bytes_;
}

void ChangeSet::clear() { *this = {}; }

const ObjectChange* ChangeSet::find(SetNumber set, const FileId& id) const {
  const auto it = objects_.find({set, id});
  return it == objects_.end() ? nullptr : &it->second;
}

bool ChangeSet::contains_name(SetNumber set, const FileId& folder, std::string_view name) const {
  return names_.contains({set, folder, std::string(name)});
}

void ChangeSet::for_each_object(const std::function<void(SetNumber, const FileId&, const ObjectChange&)>& f) const {
  for (const auto& [key, change] : objects_) f(key.set, key.id, change);
}

bool ChangeSet::contains_set(SetNumber set) const { return std::find(sets_.begin(), sets_.end(), set) != sets_.end(); }

Bytes change_key_prefix(ChangeKind kind, SetNumber set) {
  Bytes key{static_cast<std::uint8_t>(kind)};
  put_set(key, set);
  return key;
}

Bytes change_object_key(SetNumber set, const FileId& id) {
  Bytes key = change_key_prefix(ChangeKind::object, set);
  key.insert(key.end(), id.bytes.begin(), id.bytes.end());
  return key;
}

std::vector<ChangeEntry> ChangeSet::encode() const {
  std::vector<ChangeEntry> all;
  all.reserve(size());
  for (const auto& [set, block] : blocks_) {
    Bytes key = change_key_prefix(ChangeKind::block, set);
    key.insert(key.end(), block.bytes.begin(), block.bytes.end());
    all.push_back({std::move(key), {}});
  }
  for (const NameKey& n : names_) {
    Bytes key = change_key_prefix(ChangeKind::name, n.set);
    key.insert(key.end(), n.folder.bytes.begin(), n.folder.bytes.end());
    key.insert(key.end(), n.name.begin(), n.name.end());
    all.push_back({std::move(key), {}});
  }
  for (const auto& [k, change] : objects_) all.push_back({change_object_key(k.set, k.id), encode_object(change)});
  for (const SetNumber set : sets_) all.push_back({change_key_prefix(ChangeKind::set, set), {}});
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.key < b.key; });
  return all;
}

Result<ChangeKey> decode_change_key(ByteView bytes) {
  ByteReader r(bytes);
  ChangeKey key;
  key.kind = static_cast<ChangeKind>(r.u8());
  key.set = static_cast<SetNumber>(r.u8() << 8);
  key.set = static_cast<SetNumber>(key.set | r.u8());
  if (key.kind == ChangeKind::object || key.kind == ChangeKind::name) {
    const ByteView id = r.raw(key.id.bytes.size());
    std::copy(id.begin(), id.end(), key.id.bytes.begin());
  }
  if (key.kind == ChangeKind::name) key.name = as_text(r.raw(r.left()));
  if (key.kind == ChangeKind::block) {
    const ByteView block = r.raw(key.block.bytes.size());
    std::copy(block.begin(), block.end(), key.block.bytes.begin());
  }
  const bool known = key.kind == ChangeKind::object || key.kind == ChangeKind::name || key.kind == ChangeKind::block ||
                     key.kind == ChangeKind::set;
  if (!known || !r.ok() || r.left() != 0 || (key.set == 0 && key.kind != ChangeKind::block) ||
      (key.kind == ChangeKind::name && (key.name.empty() || key.name.size() > 255 ||
                                        key.name.find_first_of(std::string_view("/\0", 2)) != std::string::npos)))
    return fail(ErrorCode::corrupt, "a change set's key of {} bytes makes no sense", bytes.size());
  return key;
}

Result<ObjectChange> decode_object_change(ByteView value) {
  ByteReader r(value);
  const std::uint8_t flags = r.u8();
  const std::uint64_t count = r.varint();
  ObjectChange change{(flags & flag_listing) != 0, (flags & flag_by_hash) != 0, (flags & flag_place) != 0, {}};
  bool sound = r.ok() && (flags & ~all_flags) == 0 && count <= max_extents;
  for (std::uint64_t i = 0; sound && i < count; ++i) {
    const std::uint64_t begin = r.varint(), length = r.varint();
    sound = r.ok() && length > 0 && length <= end_of_file - begin &&
            (change.extents.empty() || begin > change.extents.back().end);
    if (sound) change.extents.push_back({begin, begin + length});
  }
  if (!sound || r.left() != 0)
    return fail(ErrorCode::corrupt, "a change set's value of {} bytes makes no sense", value.size());
  return change;
}

Status ChangeSet::add(ByteView key, ByteView value) {
  HF_ASSIGN(const ChangeKey k, decode_change_key(key));
  if (k.kind == ChangeKind::object) {
    HF_ASSIGN(const ObjectChange change, decode_object_change(value));
    add_object({k.set, k.id}, change);
    return {};
  }
  if (!value.empty()) return fail(ErrorCode::corrupt, "a change set's key of {} bytes has a value", key.size());
  if (k.kind == ChangeKind::name)
    name(k.set, k.id, k.name);
  else if (k.kind == ChangeKind::block)
    note_block(k.set, k.block);
  else
    note_set(k.set);
  return {};
}

Result<Bytes> ChangeSet::combine(ByteView a, ByteView b) {
  if (a.empty() && b.empty()) return Bytes{};
  HF_ASSIGN(ObjectChange both, decode_object_change(a));
  HF_ASSIGN(const ObjectChange other, decode_object_change(b));
  both.add(other);
  return encode_object(both);
}

}  // namespace holdfast::mirror
