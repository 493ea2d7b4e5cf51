// SPDX-License-Identifier: Apache-2.0
// What changed, not how: a pure fold of records into keys, far smaller than the records, from which a peer that fell behind can be brought up to
// date (changed_walk.h). A set may name more than what changed (that costs bytes), never less (that costs the copy).
//
//   key (sorted by kind, then set)          value
//   O set object                            attributes (implied); flags: listing, by_hash, place; extents of content, at most max_extents
//   N set folder name                       -         what this name means
//   B set block                             -         every object whose id was taken from this block (hot set: new objects); set 0: of any
//   S set                                   -         everything: the whole tree, by hashes
// A name is a key of its own: a change in a folder of 10^6 entries costs one name, and moving a folder two.
// The encoded form is kept by ports/change_store.h and sent to peers: docs/formats/queues.md. Readers trust nothing in it.
// Threads: none; who owns one locks it.
#pragma once

#include <array>
#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/bytes.h"
#include "base/types.h"
#include "log/record.h"
#include "ports/change_store.h"

namespace holdfast::mirror {

constexpr std::uint64_t end_of_file = ~std::uint64_t{0};  // as the end of an extent: whatever size the file has
constexpr std::size_t max_extents = 1024;  // of one object; more join, the two with the smallest gap first

struct Extent {
  std::uint64_t begin = 0, end = 0;  // bytes, half open
  auto operator<=>(const Extent&) const = default;
};

struct ObjectChange {
  bool listing = false;  // a folder: compare all of its names
  bool by_hash = false;  // the peer may have these contents already: compare before sending
  bool place = false;    // a folder: it may have been taken from its place: compare the names of the one that holds it
  std::vector<Extent> extents;  // ascending, disjoint, not touching

  void add(std::uint64_t begin, std::uint64_t end);
  void add(const ObjectChange& other);
  void add_flags(const ObjectChange& other);
  bool operator==(const ObjectChange&) const = default;
};

// Ids that capture gives to new objects come from blocks: an id belongs to a block when bytes 0..5 and 8..15 are equal (6..7 count within it).
struct IdBlock {
  std::array<std::uint8_t, 14> bytes{};
  static IdBlock of(const FileId& id);
  FileId base() const;  // bytes 6 and 7 zero
  bool contains(const FileId& id) const { return of(id) == *this; }
  auto operator<=>(const IdBlock&) const = default;
};

struct ObjectKey {
  SetNumber set = 0;
  FileId id;
  auto operator<=>(const ObjectKey&) const = default;
};
struct NameKey {
  SetNumber set = 0;
  FileId folder;
  std::string name;
  auto operator<=>(const NameKey&) const = default;
};

using ports::ChangeEntry;  // one key and what is said of it, encoded

class ChangeSet {
 public:
  // The change that a record makes. Nothing for marks, and for records addressed to a peer: what a resync ships is repeated from the set.
  // `may_be_unknown`: the peer may never have had what is named (it is being brought up to date), and make it empty to name it: all of it, then.
  void fold(const log::Record& record, bool may_be_unknown = false);

  // --- what the hot set notes (an active that died may or may not have had these on disk, or sent)
  void note_file(SetNumber set, const FileId& id);    // contents and attributes, by hash
  void note_folder(SetNumber set, const FileId& id);  // attributes and all of its names
  void note_block(SetNumber set, const IdBlock& block);
  void note_set(SetNumber set);

  // --- single keys. Extents are added by the others.
  ObjectChange& object(SetNumber set, const FileId& id) { return objects_[{set, id}]; }
  void name(SetNumber set, const FileId& folder, std::string_view name);
  void merge(const ChangeSet& other);

  std::size_t size() const { return objects_.size() + names_.size() + blocks_.size() + sets_.size(); }
  bool empty() const { return size() == 0; }
  std::size_t memory_bytes() const;  // about
  void clear();
  const ObjectChange* find(SetNumber set, const FileId& id) const;
  bool contains_name(SetNumber set, const FileId& folder, std::string_view name) const;
  bool contains_set(SetNumber set) const;
  const std::vector<SetNumber>& whole_sets() const { return sets_; }
  void for_each_object(const std::function<void(SetNumber, const FileId&, const ObjectChange&)>& f) const;
  std::vector<std::pair<SetNumber, IdBlock>> take_blocks() { return std::exchange(blocks_, {}); }

  // In ascending order of keys.
  std::vector<ChangeEntry> encode() const;
  // Adds what an entry says. ErrorCode::corrupt when it is none.
  Status add(ByteView key, ByteView value);
  // The value of a key that both have. ErrorCode::corrupt when one is no value.
  static Result<Bytes> combine(ByteView a, ByteView b);

 private:
  struct Hash {
    std::size_t operator()(const ObjectKey& k) const noexcept { return FileIdHash{}(k.id) ^ k.set; }
    std::size_t operator()(const NameKey& k) const noexcept {
      return (FileIdHash{}(k.folder) ^ k.set) * 31 + std::hash<std::string>{}(k.name);
    }
  };
  void add_extent(ObjectChange& to, const Extent& extent);
  void add_object(const ObjectKey& key, const ObjectChange& change);
  void content(const log::Record& r, std::uint64_t begin, std::uint64_t end);
  void created(const log::Record& r);
  void named(SetNumber set, const FileId& id, const FileId& folder);

  std::unordered_map<ObjectKey, ObjectChange, Hash> objects_;
  std::unordered_set<NameKey, Hash> names_;
  std::vector<std::pair<SetNumber, IdBlock>> blocks_;  // few
  std::vector<SetNumber> sets_;
  std::size_t extra_bytes_ = 0;  // of names and extents
};

// One encoded key, taken apart. `object` and `name` share the set.
enum class ChangeKind : std::uint8_t { block = 'B', name = 'N', object = 'O', set = 'S' };
struct ChangeKey {
  ChangeKind kind = ChangeKind::set;
  SetNumber set = 0;
  FileId id;         // object, or the name's folder
  std::string name;  // name
  IdBlock block;
};
Result<ChangeKey> decode_change_key(ByteView key);
Result<ObjectChange> decode_object_change(ByteView value);
// What keys of this kind (and set) begin with: where a scan starts.
Bytes change_key_prefix(ChangeKind kind, SetNumber set);
Bytes change_object_key(SetNumber set, const FileId& id);

}  // namespace holdfast::mirror
