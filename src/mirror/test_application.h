// SPDX-License-Identifier: Apache-2.0
// For tests only: the active's tree as a naive model, and an application that changes it at random. Each change gives the record that capture
// would log. Copies are cheap, so that what the tree was after any record can be kept and compared with.
#pragma once

#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "log/record.h"
#include "mirror/file_type.h"
#include "mirror/test_tree.h"

namespace holdfast::mirror::testing {

struct ModelNode {
  std::uint32_t mode = 0, uid = 0, gid = 0;
  std::uint64_t rdev = 0;
  std::int64_t atime_ns = 0, mtime_ns = 0;
  XattrMap xattrs;
  std::string target;
  SparseBytes data;
  std::map<std::string, FileId> names;
  std::uint64_t links = 0;
};

// What the application sees at one moment.
class ModelTree {
 public:
  explicit ModelTree(SetNumber of) : root_(FileId::root(of)) {
    ModelNode& root = edit(root_);
    root.mode = type_folder | 0755;
    root.links = 1;
    root.mtime_ns = first_mtime_ns;
  }
  const FileId& root() const { return root_; }
  const ModelNode* find(const FileId& id) const {
    const auto it = nodes_.find(id);
    return it == nodes_.end() ? nullptr : it->second.get();
  }
  ModelNode& edit(const FileId& id) {
    auto& node = nodes_[id];
    if (!node)
      node = std::make_shared<ModelNode>();
    else if (node.use_count() > 1)
      node = std::make_shared<ModelNode>(*node);
    return *node;
  }
  void erase(const FileId& id) { nodes_.erase(id); }
  FileId parent_of(const FileId& folder) const;
  std::size_t size() const { return nodes_.size(); }

  // The first few differences; empty: equal. Link counts of what stands below the root count too.
  std::string difference(const MemoryTree& tree) const;

 private:
  FileId root_;
  std::map<FileId, std::shared_ptr<ModelNode>> nodes_;
};

inline std::string difference_of(const ModelNode& here, const MemoryTree::Inode& there) {
  std::string out;
  const auto differ = [&](const char* what, auto a, auto b) {
    if (a != b) out += fmt::format(" {} {} instead of {}", what, b, a);
  };
  differ("mode", here.mode, there.meta.mode);
  differ("uid", here.uid, there.meta.uid);
  differ("gid", here.gid, there.meta.gid);
  differ("rdev", here.rdev, there.rdev);
  differ("mtime", here.mtime_ns, there.meta.mtime_ns);
  if (!is_folder(here.mode)) differ("links", here.links, there.links);
  differ("size", here.data.size(), there.data.size());
  differ("target", here.target, there.target);
  if (!(here.data == there.data)) out += " contents";
  if (here.xattrs != there.meta.xattrs) {
    out += " xattrs:";
    for (const auto& [name, value] : here.xattrs) out += " " + name;
    out += " instead has:";
    for (const auto& [name, value] : there.meta.xattrs) out += " " + name;
  }
  return out;
}

inline std::string ModelTree::difference(const MemoryTree& tree) const {
  std::string out;
  std::vector<std::pair<std::string, FileId>> folders{{"", root_}};
  while (!folders.empty() && out.size() < 1000) {
    const auto [path, id] = folders.back();
    folders.pop_back();
    const ModelNode& here = *find(id);
    const MemoryTree::Inode* there = tree.look(id);
    if (!there) return out + path + "/ is not known by its id; ";
    if (const std::string d = difference_of(here, *there); !d.empty()) out += path + "/:" + d + "; ";
    for (const auto& [name, ino] : there->names)
      if (!here.names.contains(name)) out += path + "/" + name + " should not be there; ";
    for (const auto& [name, child] : here.names) {
      const auto it = there->names.find(name);
      const std::string full = path + "/" + name;
      if (it == there->names.end()) {
        out += full + " is missing; ";
        continue;
      }
      const MemoryTree::Inode* known = tree.look(child);
      if (known != &tree.inode(it->second)) {
        out += full + " is another object than " + child.to_hex() + "; ";
        continue;
      }
      const ModelNode& node = *find(child);
      if (is_folder(node.mode))
        folders.emplace_back(full, child);
      else if (const std::string d = difference_of(node, *known); !d.empty())
        out += full + ":" + d + "; ";
    }
  }
  return out;
}

inline FileId ModelTree::parent_of(const FileId& folder) const {
  for (const auto& [id, node] : nodes_)
    for (const auto& [name, child] : node->names)
      if (child == folder) return id;
  return {};
}

// Owns what a record's views point to.
struct OwnedRecord {
  log::Record record;
  std::string name, name2;
  Bytes payload;
  log::Record view() const {
    log::Record r = record;
    r.name = name;
    r.name2 = name2;
    r.payload = payload;
    return r;
  }
};

class RandomModelApplication {
 public:
  RandomModelApplication(ModelTree& tree, std::mt19937& random, SetNumber of)
      : tree_(tree), random_(random), set_(of) {}
  // Mostly folders that move about.
  void prefer_folders(bool so) { folders_ = so; }
  // Many files that are made without a name, and get one later.
  void prefer_nameless(bool so) { many_nameless_ = so; }
  // One change, most of the time. False: what it would have done was refused.
  bool step(OwnedRecord& out);
  // Collapsing and inserting ranges. The kernel's FUSE passes neither on, so they reach a log only from other tests.
  void allow_shifts(bool allowed) { shifts_ = allowed; }
  void prefer_shifts(bool so) { many_shifts_ = so; }
  // Ids whose objects got a name they did not have: what capture tells a running resync.
  std::vector<FileId> take_moved() { return std::exchange(moved_, {}); }
  // One of the files without a name gets one. False: there is none, or the name is taken.
  bool name_nameless(OwnedRecord& r) {
    r = {};
    r.record.set = set_;
    return link(r, true);
  }
  // Files that are open and have no name are closed, and gone.
  void close_all();

 private:
  using Kind = log::Kind;
  unsigned pick(unsigned n) { return static_cast<unsigned>(random_() % n); }
  std::int64_t now() { return clock_ns_ += 1'000'003; }
  FileId fresh() {
    FileId id;
    ++last_id_;
    for (std::size_t i = 0; i < 8; ++i)
      id.bytes[i] = static_cast<std::uint8_t>((last_id_ * 0x9E3779B97F4A7C15ULL) >> (8 * i));
    id.bytes[8] = static_cast<std::uint8_t>(last_id_);
    id.bytes[9] = static_cast<std::uint8_t>(last_id_ >> 8);
    id.bytes[15] = 0x11;
    return id;
  }
  FileId some_folder() {
    FileId at = tree_.root();
    for (int depth = 0; depth < 4 && pick(3) != 0; ++depth) {
      const auto it = tree_.find(at)->names.find(folder_name());
      if (it == tree_.find(at)->names.end() || !is_folder(tree_.find(it->second)->mode)) break;
      at = it->second;
    }
    return at;
  }
  std::string folder_name() { return fmt::format("d{}", pick(3)); }
  std::string file_name() { return fmt::format("f{}", pick(5)); }
  std::string special_name() { return fmt::format("s{}", pick(3)); }
  std::string any_name() {
    return pick(folders_ ? 8 : 6) < (folders_ ? 7U : 2U) ? folder_name() : pick(4) == 0 ? special_name() : file_name();
  }
  std::string same_sort(const std::string& name) {
    return name[0] == 'd' ? folder_name() : name[0] == 's' ? special_name() : file_name();
  }
  FileId at(const FileId& dir, const std::string& name) const {
    const auto& names = tree_.find(dir)->names;
    const auto it = names.find(name);
    return it == names.end() ? FileId{} : it->second;
  }
  std::uint32_t type(const FileId& id) const { return tree_.find(id)->mode & type_mask; }
  FileId some_file() {
    for (const auto* open : {&nameless_, &unlinked_})
      if (!open->empty() && pick(8) == 0) return (*open)[pick(static_cast<unsigned>(open->size()))];
    for (int attempt = 0; attempt < 4; ++attempt) {
      const FileId id = at(some_folder(), file_name());
      if (!id.is_none() && is_regular(type(id))) return id;
    }
    return {};
  }
  // Some object of any type but symlinks (their attributes have rules of their own).
  FileId some_object() {
    if (pick(3) == 0) return some_folder();
    return some_file();
  }
  Bytes some_bytes(std::size_t n) {
    Bytes bytes(n);
    for (auto& b : bytes) b = static_cast<std::uint8_t>(random_());
    return bytes;
  }
  void orphan_flag(OwnedRecord& r, const FileId& id) {
    if (tree_.find(id)->links == 0) r.record.flags |= log::flag_orphan;
  }
  void lose_privileges(ModelNode& node, bool owner_changes) {
    node.xattrs.erase(capability_attribute);
    if (owner_changes && is_regular(node.mode)) node.mode &= ~06000U;
  }
  void put_name(const FileId& dir, const std::string& name, const FileId& id, std::int64_t& mtime_ns);
  void lost_name(const FileId& id);
  bool is_below(const FileId& dir, const FileId& folder) const;

  bool make(OwnedRecord& r, Kind kind);
  bool write(OwnedRecord& r);
  bool truncate(OwnedRecord& r);
  bool fallocate(OwnedRecord& r);
  bool link(OwnedRecord& r, bool only_nameless = false);
  bool remove(OwnedRecord& r);
  bool rename(OwnedRecord& r);
  bool set_attributes(OwnedRecord& r);
  bool xattr(OwnedRecord& r);

  ModelTree& tree_;
  std::mt19937& random_;
  SetNumber set_;
  std::vector<FileId> nameless_;  // made without a name (O_TMPFILE), open
  std::vector<FileId> unlinked_;  // lost their last name, open: can't get another one
  std::vector<FileId> moved_;
  std::uint64_t last_id_ = 0;
  bool shifts_ = false, folders_ = false, many_nameless_ = false, many_shifts_ = false;
  std::int64_t clock_ns_ = 1'700'000'000'000'000'000;
};

inline bool RandomModelApplication::step(OwnedRecord& r) {
  r = {};
  r.record.set = set_;
  if (many_nameless_ && pick(20) == 0) return link(r, true);
  if (many_shifts_ && pick(6) == 0) return fallocate(r);
  const unsigned n = folders_ && pick(2) ? 12 + pick(11) : pick(25);
  if (n < 5) return make(r, Kind::create);
  if (n < 10) return write(r);
  if (n < 11) return truncate(r);
  if (n < 12) return fallocate(r);
  if (n < 14) return make(r, Kind::mkdir);
  if (n < 15) return make(r, pick(2) ? Kind::symlink : Kind::mknod);
  if (n < 16) return link(r);
  if (n < 19) return remove(r);
  if (n < 23) return rename(r);
  return n < 24 ? set_attributes(r) : xattr(r);
}

inline void RandomModelApplication::close_all() {
  for (auto* open : {&nameless_, &unlinked_}) {
    for (const FileId& id : *open)
      if (const ModelNode* node = tree_.find(id); node && node->links == 0) tree_.erase(id);
    open->clear();
  }
}

inline bool RandomModelApplication::make(OwnedRecord& r, Kind kind) {
  const FileId dir = some_folder();
  const bool orphan = kind == Kind::create && pick(many_nameless_ ? 3 : 10) == 0;
  if (!orphan) {
    r.name = kind == Kind::create ? file_name() : kind == Kind::mkdir ? folder_name() : special_name();
    if (!at(dir, r.name).is_none()) return false;
  }
  r.record.kind = kind;
  r.record.file = fresh();
  ModelNode& node = tree_.edit(r.record.file);
  static constexpr std::uint32_t special[] = {0010000, 0140000, 0020000, 0060000};
  const std::uint32_t type_bits = kind == Kind::create    ? type_regular
                                  : kind == Kind::mkdir   ? type_folder
                                  : kind == Kind::symlink ? type_symlink
                                                          : special[pick(4)];
  node.mode = type_bits | (kind == Kind::symlink ? 0777 : 0600 + pick(64));
  node.uid = pick(3);
  node.gid = pick(3);
  node.rdev = kind == Kind::mknod && type_bits != 0010000 && type_bits != 0140000 ? 7 + pick(9) : 0;
  node.mtime_ns = node.atime_ns = now();
  if (kind == Kind::symlink) {
    node.target = fmt::format("to/{}", pick(1000));
    const ByteView target = as_bytes(node.target);
    r.payload.assign(target.begin(), target.end());
  } else if (pick(6) == 0) {
    node.xattrs["user.born"] = some_bytes(pick(20));
    r.payload = encode_xattr_map(node.xattrs);
  }
  if (orphan) {
    r.record.flags = log::flag_orphan;
    nameless_.push_back(r.record.file);
  } else {
    node.links = 1;
    put_name(dir, r.name, r.record.file, r.record.parent_mtime_ns);
    r.record.parent = dir;
  }
  const ModelNode& made = *tree_.find(r.record.file);
  r.record.mode = made.mode;
  r.record.uid = made.uid;
  r.record.gid = made.gid;
  r.record.rdev = made.rdev;
  r.record.mtime_ns = made.mtime_ns;
  r.record.atime_ns = made.atime_ns;
  return true;
}

inline bool RandomModelApplication::write(OwnedRecord& r) {
  const FileId id = some_file();
  if (id.is_none()) return false;
  ModelNode& node = tree_.edit(id);
  r.record.kind = Kind::write;
  r.record.file = id;
  orphan_flag(r, id);
  r.record.offset = pick(2)         ? node.data.size() % (std::uint64_t{1} << 20)
                    : pick(40) == 0 ? (std::uint64_t{1} << 40)
                                    : pick(5000);
  r.payload = some_bytes(1 + pick(pick(4) == 0 ? 1500 : 300));
  node.data.write(r.record.offset, r.payload);
  lose_privileges(node, false);
  r.record.mtime_ns = node.mtime_ns = now();
  return true;
}

inline bool RandomModelApplication::truncate(OwnedRecord& r) {
  const FileId id = some_file();
  if (id.is_none()) return false;
  ModelNode& node = tree_.edit(id);
  r.record.kind = Kind::truncate;
  r.record.file = id;
  orphan_flag(r, id);
  r.record.length = pick(3) == 0 ? 0 : pick(20) == 0 ? (std::uint64_t{1} << 40) + 77 : pick(6000);
  node.data.resize(r.record.length);
  lose_privileges(node, false);
  r.record.mtime_ns = node.mtime_ns = now();
  return true;
}

inline bool RandomModelApplication::fallocate(OwnedRecord& r) {
  const FileId id = some_file();
  if (id.is_none()) return false;
  ModelNode& node = tree_.edit(id);
  static constexpr std::uint32_t modes[] = {0,
                                            allocate_keep_size,
                                            allocate_punch | allocate_keep_size,
                                            allocate_zero,
                                            allocate_zero | allocate_keep_size,
                                            fallocate_collapse,
                                            fallocate_insert};
  r.record.kind = Kind::fallocate;
  r.record.file = id;
  orphan_flag(r, id);
  r.record.mode_flags = many_shifts_ && pick(2) ? modes[5 + pick(2)] : modes[pick(shifts_ ? 7 : 5)];
  const std::uint64_t unit = shifts_range(r.record.mode_flags) ? sector_bytes : 1 + pick(300);
  r.record.offset = pick(8) * unit;
  r.record.length = (1 + pick(5)) * unit;
  if (!allocate(node.data, r.record.mode_flags, r.record.offset, r.record.length)) return false;
  r.record.size = node.data.size();
  r.record.mtime_ns = node.mtime_ns = now();
  return true;
}

inline bool RandomModelApplication::link(OwnedRecord& r, bool only_nameless) {
  const FileId to = some_folder();
  FileId id;
  const bool orphan = !nameless_.empty() && (only_nameless || pick(2) == 0);
  if (only_nameless && !orphan) return false;
  if (orphan) {
    id = nameless_[pick(static_cast<unsigned>(nameless_.size()))];
    r.name = file_name();
  } else {
    const std::string from = any_name();
    id = at(some_folder(), from);
    if (id.is_none() || is_folder(type(id))) return false;
    r.name = same_sort(from);
  }
  if (!at(to, r.name).is_none()) return false;
  r.record.kind = Kind::link;
  r.record.file = id;
  r.record.mode = type(id);
  r.record.parent = to;
  ++tree_.edit(id).links;
  put_name(to, r.name, id, r.record.parent_mtime_ns);
  std::erase(nameless_, id);
  moved_.push_back(id);
  return true;
}

inline void RandomModelApplication::put_name(const FileId& dir, const std::string& name, const FileId& id,
                                             std::int64_t& mtime_ns) {
  ModelNode& folder = tree_.edit(dir);
  if (id.is_none())
    folder.names.erase(name);
  else
    folder.names[name] = id;
  mtime_ns = folder.mtime_ns = now();
}

// A name of the object is gone. Somebody may have it open still.
inline void RandomModelApplication::lost_name(const FileId& id) {
  ModelNode& node = tree_.edit(id);
  if (--node.links > 0) return;
  if (is_regular(node.mode) && pick(3) == 0)
    unlinked_.push_back(id);
  else
    tree_.erase(id);
}

inline bool RandomModelApplication::remove(OwnedRecord& r) {
  const FileId dir = some_folder();
  r.name = any_name();
  const FileId id = at(dir, r.name);
  if (id.is_none() || (is_folder(type(id)) && !tree_.find(id)->names.empty())) return false;
  r.record.kind = is_folder(type(id)) ? Kind::rmdir : Kind::unlink;
  r.record.file = id;
  r.record.parent = dir;
  put_name(dir, r.name, {}, r.record.parent_mtime_ns);
  lost_name(id);
  return true;
}

inline bool RandomModelApplication::is_below(const FileId& dir, const FileId& folder) const {
  if (dir == folder) return true;
  for (const auto& [name, id] : tree_.find(folder)->names)
    if (is_folder(type(id)) && is_below(dir, id)) return true;
  return false;
}

inline bool RandomModelApplication::rename(OwnedRecord& r) {
  const FileId from = some_folder(), to = some_folder();
  r.name = any_name();
  r.name2 = same_sort(r.name);
  const FileId id = at(from, r.name), other = at(to, r.name2);
  if (id.is_none() || id == other) return false;
  const bool exchange = pick(4) == 0 && !other.is_none();
  if (is_folder(type(id)) && is_below(to, id)) return false;
  if (exchange && is_folder(type(other)) && is_below(from, other)) return false;
  if (!exchange && !other.is_none() && is_folder(type(other)) && !tree_.find(other)->names.empty()) return false;
  r.record.kind = Kind::rename;
  r.record.flags = exchange ? log::flag_rename_exchange : 0;
  r.record.file = id;
  r.record.mode = type(id);
  r.record.replaced = other;
  r.record.parent = from;
  r.record.parent2 = to;
  put_name(from, r.name, exchange ? other : FileId{}, r.record.parent_mtime_ns);
  put_name(to, r.name2, id, r.record.parent2_mtime_ns);
  if (from == to) r.record.parent_mtime_ns = r.record.parent2_mtime_ns;
  moved_.push_back(id);
  if (exchange)
    moved_.push_back(other);
  else if (!other.is_none())
    lost_name(other);
  return true;
}

inline bool RandomModelApplication::set_attributes(OwnedRecord& r) {
  const FileId id = some_object();
  if (id.is_none()) return false;
  ModelNode& node = tree_.edit(id);
  r.record.kind = Kind::set_attributes;
  r.record.file = id;
  orphan_flag(r, id);
  r.record.valid = 1 + pick(15);
  if (r.record.valid & log::valid_owner) {
    r.record.uid = node.uid = pick(5);
    r.record.gid = node.gid = pick(5);
    lose_privileges(node, true);
  }
  if (r.record.valid & log::valid_mode) {
    r.record.mode = node.mode = (node.mode & type_mask) | 0600 | pick(64) | (pick(5) == 0 ? 04000U : 0U);
    if (const auto acl = node.xattrs.find(acl_attribute); acl != node.xattrs.end())
      acl->second = {static_cast<std::uint8_t>(node.mode & 0377)};
  }
  if (r.record.valid & log::valid_atime) r.record.atime_ns = node.atime_ns = now();
  if (r.record.valid & log::valid_mtime) r.record.mtime_ns = node.mtime_ns = 1'600'000'000'000'000'000 + pick(1000);
  return true;
}

inline bool RandomModelApplication::xattr(OwnedRecord& r) {
  const FileId id = some_object();
  if (id.is_none()) return false;
  ModelNode& node = tree_.edit(id);
  const unsigned which = pick(6);
  r.name = which == 0 ? acl_attribute : which == 1 ? capability_attribute : fmt::format("user.x{}", pick(3));
  if (which == 1 && !is_regular(node.mode)) return false;
  r.record.file = id;
  orphan_flag(r, id);
  if (pick(3) == 0) {
    if (node.xattrs.erase(r.name) == 0) return false;
    r.record.kind = Kind::remove_xattr;
    return true;
  }
  r.record.kind = Kind::set_xattr;
  r.payload = some_bytes(1 + pick(20));
  if (which == 0) {
    r.payload = {static_cast<std::uint8_t>(0200 + pick(64))};
    node.mode = (node.mode & ~0377U) | r.payload[0];
  }
  node.xattrs[r.name] = r.payload;
  return true;
}

}  // namespace holdfast::mirror::testing
