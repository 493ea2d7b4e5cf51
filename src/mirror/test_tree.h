// SPDX-License-Identifier: Apache-2.0
// For tests only: ports::Tree in memory, with the crash semantics of a journalling file system:
//   - names, attributes, xattrs, sizes cut by truncate, the names mark: one ordered list of changes; a crash keeps a prefix of what came since sync();
//   - written bytes: each 512-byte sector that was not synced is kept or lost at random, whatever became of the changes around it; the size
//     grows with the sectors that were kept;
//   - the index of ids: what commit_ids() wrote;
//   - staged objects are gone.
// It is as strict as the real one (platform/posix_tree.h) about what is an error, and drops capabilities and set-id bits where a kernel does.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/check.h"
#include "log/hash.h"
#include "log/record.h"
#include "log/xattrs.h"
#include "mirror/file_type.h"
#include "mirror/test_sparse.h"
#include "ports/tree.h"

namespace holdfast::mirror::testing {

constexpr const char* capability_attribute = "security.capability";
constexpr const char* acl_attribute =
    "system.posix_acl_access";  // here: first byte = the permission bits it stands for
constexpr std::uint32_t allocate_keep_size = 1, allocate_punch = 2, allocate_zero = 0x10;

constexpr std::int64_t first_mtime_ns = 1'699'000'000'000'000'000;  // of an empty tree's root

using XattrMap = std::map<std::string, Bytes, std::less<>>;

inline Bytes encode_xattr_map(const XattrMap& map) {
  std::vector<log::Xattr> list;
  for (const auto& [name, value] : map) list.push_back({name, value});
  Bytes out;
  log::encode_xattrs(list, out);
  return out;
}

// What a kernel does to the content of a file, the mode's flags apart. False: EINVAL.
inline bool allocate(SparseBytes& data, std::uint32_t mode_flags, std::uint64_t offset, std::uint64_t length) {
  if (shifts_range(mode_flags)) {
    const bool collapse = (mode_flags & fallocate_collapse) != 0;
    if ((offset | length) % sector_bytes != 0 || (collapse ? offset + length : offset) >= data.size()) return false;
    collapse ? data.collapse(offset, length) : data.insert(offset, length);
    return true;
  }
  if (mode_flags & (allocate_punch | allocate_zero)) data.clear(offset, length);
  if (!(mode_flags & allocate_keep_size) && offset + length > data.size()) data.resize(offset + length);
  return true;
}

// Counts down with each step of whatever part of the machine; at zero the power is gone and nothing has an effect any more.
struct Fuse {
  std::uint64_t left = UINT64_MAX, steps = 0;
  bool burnt = false;
  bool burn() {
    ++steps;
    if (left == 0) burnt = true;
    if (!burnt) --left;
    return burnt;
  }
};
#define HF_STEP(fuse) \
  if ((fuse).burn()) return ::holdfast::fail(::holdfast::ErrorCode::io, "the power is gone")

class MemoryTree : public ports::Tree {
 public:
  using Ino = std::uint64_t;
  struct Meta {
    FileId id;  // as the inode carries it
    std::uint32_t mode = 0, uid = 0, gid = 0;
    std::int64_t atime_ns = 0, mtime_ns = 0;
    std::uint64_t buried = 0;  // stamp
    XattrMap xattrs;
  };
  struct DataChange {
    std::uint64_t op = 0;
    enum Kind { write, truncate, allocate } kind = write;
    std::uint32_t mode_flags = 0;
    std::uint64_t offset = 0, length = 0;
    Bytes bytes;
  };
  struct Inode {
    Meta meta;
    std::uint64_t rdev = 0, links = 0;
    std::string target;
    SparseBytes data;
    std::map<std::string, Ino, std::less<>> names;  // of a folder
    Ino parent = 0;                                 // of a folder
    std::unique_ptr<SparseBytes> synced;            // content at the last sync, when it was changed since
    std::vector<DataChange> changes;
  };
  // Bugs of a tree, planted to see that the model test finds them.
  enum class Flaw {
    none,
    ids_not_durable,
    sync_lies,
    mark_runs_ahead,
    mark_is_lost,
    staged_survives,
    index_is_believed
  };

  MemoryTree(SetNumber set, Fuse& fuse, Flaw flaw = Flaw::none) : set_(set), fuse_(fuse), flaw_(flaw) {
    inodes_[root_ino].meta.mode = type_folder | 0755;
    inodes_[root_ino].meta.id = FileId::root(set);
    inodes_[root_ino].meta.mtime_ns = first_mtime_ns;
    inodes_[root_ino].links = 1;
    inodes_[grave_ino].meta.mode = type_folder | 0700;
    inodes_[grave_ino].links = 1;
    inodes_[root_ino].parent = inodes_[grave_ino].parent = root_ino;
    index_[FileId::root(set)] = durable_index_[FileId::root(set)] = root_ino;
  }

  // --- for tests
  void crash(std::mt19937& random);
  const Inode* look(const FileId& id) const {
    const Ino ino = find(id);
    return ino == 0 ? nullptr : &inodes_.at(ino);
  }
  const Inode& inode(Ino ino) const { return inodes_.at(ino); }
  // A disk that changes by itself: no journal, no strictness.
  Inode& spoil(const FileId& id) { return inodes_.at(find(id)); }
  Ino spoil_with_new(const Inode& like) {
    Inode& made = inodes_[++last_ino_];
    made.meta = like.meta;
    made.meta.id = {};
    made.data = like.data;
    made.links = 1;
    return last_ino_;
  }
  const Inode& grave() const { return inodes_.at(grave_ino); }
  std::size_t staged() const { return staged_.size(); }
  std::size_t in_grave_count(ports::Grave why) const {
    return static_cast<std::size_t>(std::count_if(grave().names.begin(), grave().names.end(),
                                                  [&](const auto& e) { return e.first[0] == corner(why); }));
  }
  bool no_space_once_at_unstage = false;
  std::size_t sectors_at_most = SIZE_MAX;  // no write begins when there are so many
  std::size_t allocated_sectors() const {
    std::size_t all = 0;
    if (sectors_at_most != SIZE_MAX)
      for (const auto& [ino, node] : inodes_)
        if (exists(ino)) all += node.data.sectors();
    return all;
  }
  // Another life of the node: the same objects, none of them known by id (a copy made by other means), and no graveyard.
  void forget_ids();
  Fuse& fuse() { return fuse_; }
  bool fail_next_sync = false;  // a disk complains once

  // --- ports::Tree
  SetNumber set() const override { return set_; }
  Result<std::optional<ports::NodeAttributes>> attributes(const FileId& id) override;
  Result<std::size_t> read(const FileId& id, std::uint64_t offset, std::span<std::uint8_t> into) override;
  // What was computed ahead is believed, as the real one does.
  Result<ports::Digest> digest(const FileId& id, std::uint64_t offset, std::uint64_t length) override {
    if (const auto ahead = digests_.find({id, offset, length}); ahead != digests_.end()) return ahead->second;
    Bytes bytes(length);
    HF_ASSIGN(const std::size_t n, read(id, offset, bytes));
    return ports::Digest{log::content_hash(ByteView(bytes).first(n)), n};
  }
  void will_digest(const FileId& id, std::uint64_t offset, std::uint64_t length) override {
    if (find(id) == 0) return;
    if (const auto made = digest(id, offset, length)) digests_[{id, offset, length}] = *made;
  }
  void forget_digests() override { digests_.clear(); }
  Result<std::string> read_target(const FileId& id) override;
  Status write(const FileId& id, std::uint64_t offset, std::span<const ByteView> pieces) override;
  Status truncate(const FileId& id, std::uint64_t size) override;
  Status fallocate(const FileId& id, std::uint32_t mode_flags, std::uint64_t offset, std::uint64_t length) override;
  Status punch(const FileId& id, std::uint64_t offset, std::uint64_t length) override {
    return fallocate(id, allocate_punch | allocate_keep_size, offset, length);
  }
  Status set_attributes(const FileId& id, std::uint32_t valid, const ports::NodeAttributes& to) override;
  Status set_xattr(const FileId& id, std::string_view name, ByteView value) override;
  Status remove_xattr(const FileId& id, std::string_view name) override;
  Status replace_xattrs(const FileId& id, ByteView list) override;
  Status stage(const FileId& id, const ports::NewNode& node) override;
  Status commit_ids() override;
  Status unstage() override {
    if (std::exchange(no_space_once_at_unstage, false)) return fail(ErrorCode::no_space, "the index is full");
    for (const Ino ino : staged_) forget(inodes_[ino].meta.id);
    staged_.clear();
    return {};
  }
  Status place(const FileId& id, const FileId& dir, std::string_view name) override;
  Status place_in_grave(const FileId& id, ports::Grave why) override;
  Result<ports::Standing> at(const FileId& dir, std::string_view name, const FileId& expected) override;
  Result<std::optional<ports::TreeEntry>> lookup(const FileId& dir, std::string_view name) override;
  Result<ports::TreeListing> list(const FileId& dir, std::uint64_t cookie, std::size_t max_entries) override;
  Status for_each_name(const FileId& dir, const std::function<void(std::string_view)>& see) override;
  Status link(const FileId& id, const FileId& dir, std::string_view name) override;
  Status unlink(const FileId& dir, std::string_view name) override;
  Status rename(const FileId& dir, std::string_view name, const FileId& dir2, std::string_view name2,
                std::uint32_t flags) override;
  Result<std::optional<ports::Grave>> in_grave(const FileId& id) override;
  Status bury(const FileId& dir, std::string_view name, const FileId& id, ports::Grave why) override;
  Status exhume(const FileId& id, ports::Grave from, const FileId& dir, std::string_view name) override;
  Status purge(ports::Grave what) override;
  Status adopt(const FileId& dir, std::string_view name, const FileId& id) override;
  Status bring(const FileId& id, const FileId& dir, std::string_view name) override;
  Status set_aside(const FileId& folder) override;
  Result<bool> is_empty() override { return inodes_[root_ino].names.empty() && grave().names.empty(); }
  Result<Bytes> read_xattrs(const FileId& id) override;
  Result<std::uint64_t> next_data(const FileId& id, std::uint64_t offset) override;
  Result<std::uint64_t> next_hole(const FileId& id, std::uint64_t offset) override;
  Status revive(const FileId& id, const ports::NewNode& node) override;
  void burial_stamp(std::uint64_t stamp) override { burial_stamp_ = stamp; }
  Result<std::vector<ports::GraveEntry>> graves(ports::Grave what) override;
  Result<bool> purge_one(ports::Grave what, const FileId& id, std::uint64_t stamp, std::size_t& most) override;
  std::function<void()> on_purge;       // before each object that purge_one() takes away
  std::map<FileId, ErrorCode> cant_go;  // by purge_one() and purge()
  std::uint64_t free_now = ~std::uint64_t{0};
  Result<std::uint64_t> free_bytes() override { return free_now; }
  Status settle_limbo(std::uint64_t stamp) override;
  Result<std::optional<std::pair<FileId, std::string>>> place_of(const FileId& folder) override;
  Result<FileId> identify(const FileId& dir, std::string_view name) override;
  Result<ports::NamesMark> names_mark() override { return mark_; }
  Status set_names_mark(ports::NamesMark mark) override;
  Result<Bytes> mark(ports::Mark which) override { return marks_[which]; }
  Status set_mark(ports::Mark which, ByteView value) override;
  Status sync() override;

 private:
  void forget_digests_of(const FileId& id) {
    std::erase_if(digests_, [&](const auto& d) { return std::get<0>(d.first) == id; });
  }
  static constexpr Ino root_ino = 1, grave_ino = 2;
  static char corner(ports::Grave why) {
    return why == ports::Grave::deleted ? 'd' : why == ports::Grave::orphan ? 'o' : 'l';
  }
  static std::string grave_name(const FileId& id, ports::Grave why) {
    return std::string{corner(why), '-'} + std::string(as_text(id.bytes));
  }
  bool exists(Ino ino) const { return staged_.contains(ino) || inodes_.at(ino).links > 0; }
  // An index that is ahead of the tree (an adoption that a crash undid) does not count.
  Ino find(const FileId& id) const {
    const auto it = index_.find(id);
    if (it == index_.end() || !exists(it->second)) return 0;
    return inodes_.at(it->second).meta.id == id || flaw_ == Flaw::index_is_believed ? it->second : 0;
  }
  Result<Ino> need(const FileId& id) const {
    if (const Ino ino = find(id); ino != 0) return ino;
    return fail(ErrorCode::corrupt, "the object {} is not in the tree", id.to_hex());
  }
  FileId id_of(Ino ino) const {
    const FileId& id = inodes_.at(ino).meta.id;
    const auto it = index_.find(id);
    return it != index_.end() && it->second == ino ? id : FileId{};
  }
  void put_index(const FileId& id, Ino ino) {
    index_[id] = ino;
    pending_ids_[id] = ino;
  }
  void forget(const FileId& id) {
    index_.erase(id);
    pending_ids_[id] = 0;
  }

  // --- the journal: every change of metadata belongs to an operation, and is undone with it
  void begin() { ++op_; }
  void journal(std::function<void()> undo) { journal_.push_back({op_, std::move(undo)}); }
  Meta& change(Ino ino) {
    journal([this, ino, old = inodes_[ino].meta] { inodes_[ino].meta = old; });
    return inodes_[ino].meta;
  }
  void entry(Ino dir, std::string_view name, Ino to);  // 0: no entry
  void move(Ino dir, std::string_view name, Ino dir2, std::string_view name2);
  std::int64_t now() { return ++clock_ns_; }
  void lose_privileges(Ino ino, bool owner_changes);
  SparseBytes& data(Ino ino, DataChange change);
  bool below(Ino dir, Ino folder) const {
    while (dir != root_ino && dir != folder && dir != grave_ino) dir = inodes_.at(dir).parent;
    return dir == folder;
  }
  Status rename_inos(Ino dir, std::string_view name, Ino dir2, std::string_view name2, std::uint32_t flags);
  Status remove_below(Ino dir, const std::string& name);
  Result<bool> remove_below(Ino dir, const std::string& name, std::size_t& most);
  void sum_below(Ino ino, ports::GraveEntry& sum) const;
  FileId fresh() {
    FileId id;
    ++nameless_;
    std::copy_n(reinterpret_cast<const std::uint8_t*>(&nameless_), sizeof nameless_, id.bytes.begin());
    id.bytes[15] = 0xee;
    return id;
  }
  Result<std::pair<Ino, std::string>> locate(Ino folder) const;
  void set_xattrs(Meta& meta, std::string_view name, ByteView value);

  SetNumber set_;
  Fuse& fuse_;
  Flaw flaw_;
  std::unordered_map<Ino, Inode> inodes_;
  Ino last_ino_ = grave_ino;
  std::unordered_map<FileId, Ino> index_, durable_index_, pending_ids_;
  std::set<Ino> staged_;
  std::map<std::tuple<FileId, std::uint64_t, std::uint64_t>, ports::Digest> digests_;
  ports::NamesMark mark_;
  std::map<ports::Mark, Bytes> marks_;
  std::uint64_t op_ = 0, nameless_ = 0, burial_stamp_ = 0;
  std::deque<std::pair<std::uint64_t, std::function<void()>>> journal_;
  std::uint64_t synced_op_ = 0;
  std::set<Ino> dirty_;
  std::int64_t clock_ns_ = 7'000'000'000'000'000'000;  // no time that an application ever set
};

}  // namespace holdfast::mirror::testing

#include "mirror/test_tree_names.h"
#include "mirror/test_tree_parts.h"
