// SPDX-License-Identifier: Apache-2.0
// For tests only: crash, sync, objects and their making in MemoryTree. Included by mirror/test_tree.h.
#pragma once

#include "mirror/test_tree.h"

namespace holdfast::mirror::testing {

// --- crash and sync

inline void MemoryTree::crash(std::mt19937& random) {
  digests_.clear();
  const std::uint64_t since = op_ - synced_op_;
  std::uint64_t keep = synced_op_;
  switch (random() % 4) {
    case 0:
      break;
    case 1:
      keep = op_;
      break;
    case 2:
      keep = since == 0 ? op_ : op_ - random() % std::min<std::uint64_t>(since, 4);
      break;
    default:
      keep += random() % (since + 1);
  }
  const ports::NamesMark mark_now = mark_;
  while (!journal_.empty() && journal_.back().first > keep) {
    journal_.back().second();
    journal_.pop_back();
  }
  if (flaw_ == Flaw::mark_runs_ahead) mark_ = mark_now;
  if (flaw_ == Flaw::mark_is_lost) mark_ = {};
  journal_.clear();
  const unsigned percent[] = {0, 10, 50, 90, 100};
  const unsigned kept_percent = percent[random() % 5];
  for (const Ino ino : dirty_) {
    Inode& node = inodes_[ino];
    SparseBytes after = *node.synced;
    for (const DataChange& c : node.changes) {
      if (c.kind == DataChange::truncate) {
        if (c.op <= keep) after.resize(c.length);
      } else if (c.kind == DataChange::allocate) {
        if (c.op <= keep) allocate(after, c.mode_flags, c.offset, c.length);
      } else {
        for (std::uint64_t at = 0; at < c.bytes.size();) {
          const std::uint64_t n =
              std::min<std::uint64_t>(c.bytes.size() - at, sector_bytes - (c.offset + at) % sector_bytes);
          if (random() % 100 < kept_percent) after.write(c.offset + at, ByteView(c.bytes).subspan(at, n));
          at += n;
        }
      }
    }
    node.data = std::move(after);
    node.synced.reset();
    node.changes.clear();
  }
  dirty_.clear();
  if (flaw_ != Flaw::staged_survives) staged_.clear();
  index_ = durable_index_;
  pending_ids_.clear();
  synced_op_ = op_;
}

inline Status MemoryTree::sync() {
  HF_STEP(fuse_);
  if (flaw_ == Flaw::sync_lies) return {};
  if (std::exchange(fail_next_sync, false)) return fail(ErrorCode::io, "the disk lost something");
  for (const Ino ino : dirty_) {
    inodes_[ino].synced.reset();
    inodes_[ino].changes.clear();
  }
  dirty_.clear();
  journal_.clear();
  synced_op_ = op_;
  return {};
}

inline Status MemoryTree::commit_ids() {
  HF_STEP(fuse_);
  if (flaw_ == Flaw::ids_not_durable) return {};
  for (const auto& [id, ino] : pending_ids_)
    if (ino == 0)
      durable_index_.erase(id);
    else
      durable_index_[id] = ino;
  pending_ids_.clear();
  return {};
}

inline void MemoryTree::forget_ids() {
  for (auto& [ino, node] : inodes_)
    if (ino != root_ino) node.meta.id = {};
  while (!grave().names.empty()) CHECK(remove_below(grave_ino, std::string(grave().names.begin()->first)), "no grave");
  index_ = durable_index_ = {{FileId::root(set_), root_ino}};
  pending_ids_.clear();
  journal_.clear();
  synced_op_ = op_;
}

inline void MemoryTree::entry(Ino dir, std::string_view name, Ino to) {
  Inode& folder = inodes_[dir];
  const auto it = folder.names.find(name);
  const Ino old = it == folder.names.end() ? 0 : it->second;
  const Ino old_parent = to != 0 ? inodes_[to].parent : 0;
  journal([this, dir, key = std::string(name), old, to, old_parent] {
    if (to != 0) {
      --inodes_[to].links;
      inodes_[to].parent = old_parent;
    }
    if (old != 0) {
      ++inodes_[old].links;
      inodes_[dir].names[key] = old;
    } else {
      inodes_[dir].names.erase(key);
    }
  });
  if (old != 0) --inodes_[old].links;
  if (to != 0) {
    ++inodes_[to].links;
    inodes_[to].parent = dir;
    folder.names.insert_or_assign(std::string(name), to);
  } else {
    folder.names.erase(it);
  }
  folder.meta.mtime_ns = now();
}

inline SparseBytes& MemoryTree::data(Ino ino, DataChange c) {
  Inode& node = inodes_[ino];
  if (!node.synced) {
    node.synced = std::make_unique<SparseBytes>(node.data);
    dirty_.insert(ino);
  }
  c.op = op_;
  node.changes.push_back(std::move(c));
  node.meta.mtime_ns = now();
  return node.data;
}

inline void MemoryTree::lose_privileges(Ino ino, bool owner_changes) {
  Inode& node = inodes_[ino];
  const std::uint32_t mode = owner_changes && is_regular(node.meta.mode) ? node.meta.mode & ~06000U : node.meta.mode;
  if (mode == node.meta.mode && !node.meta.xattrs.contains(capability_attribute)) return;
  Meta& meta = change(ino);
  meta.mode = mode;
  meta.xattrs.erase(capability_attribute);
}

// --- objects

inline Result<std::optional<ports::NodeAttributes>> MemoryTree::attributes(const FileId& id) {
  const Ino ino = find(id);
  if (ino == 0) return std::optional<ports::NodeAttributes>{};
  const Inode& node = inodes_[ino];
  ports::NodeAttributes a;
  a.mode = node.meta.mode;
  a.uid = node.meta.uid;
  a.gid = node.meta.gid;
  a.rdev = node.rdev;
  a.size = node.data.size();
  a.links = node.links;
  a.atime_ns = node.meta.atime_ns;
  a.mtime_ns = node.meta.mtime_ns;
  a.allocated_bytes = node.data.sectors() * sector_bytes;
  return std::optional(a);
}

inline Result<std::size_t> MemoryTree::read(const FileId& id, std::uint64_t offset, std::span<std::uint8_t> into) {
  HF_ASSIGN(const Ino ino, need(id));
  return inodes_[ino].data.read(offset, into);
}

inline Result<std::string> MemoryTree::read_target(const FileId& id) {
  HF_ASSIGN(const Ino ino, need(id));
  return inodes_[ino].target;
}

inline Status MemoryTree::write(const FileId& id, std::uint64_t offset, std::span<const ByteView> pieces) {
  HF_STEP(fuse_);
  forget_digests_of(id);
  HF_ASSIGN(const Ino ino, need(id));
  if (!is_regular(inodes_[ino].meta.mode)) return fail(ErrorCode::io, "no file");
  if (allocated_sectors() >= sectors_at_most) return fail(ErrorCode::no_space, "the tree is full");
  begin();
  lose_privileges(ino, false);
  for (const ByteView p : pieces) {
    data(ino, {0, DataChange::write, 0, offset, p.size(), Bytes(p.begin(), p.end())}).write(offset, p);
    offset += p.size();
  }
  return {};
}

inline Status MemoryTree::truncate(const FileId& id, std::uint64_t size) {
  HF_STEP(fuse_);
  forget_digests_of(id);
  HF_ASSIGN(const Ino ino, need(id));
  if (!is_regular(inodes_[ino].meta.mode)) return fail(ErrorCode::io, "no file");
  begin();
  lose_privileges(ino, false);
  data(ino, {0, DataChange::truncate, 0, 0, size, {}}).resize(size);
  return {};
}

inline Status MemoryTree::fallocate(const FileId& id, std::uint32_t mode_flags, std::uint64_t offset,
                                    std::uint64_t length) {
  HF_STEP(fuse_);
  forget_digests_of(id);
  HF_ASSIGN(const Ino ino, need(id));
  if (!is_regular(inodes_[ino].meta.mode)) return fail(ErrorCode::io, "no file");
  begin();
  if (!allocate(data(ino, {0, DataChange::allocate, mode_flags, offset, length, {}}), mode_flags, offset, length))
    return fail(ErrorCode::io, "cannot allocate with mode {:#x}", mode_flags);
  return {};
}

inline Status MemoryTree::set_attributes(const FileId& id, std::uint32_t valid, const ports::NodeAttributes& to) {
  HF_STEP(fuse_);
  HF_ASSIGN(const Ino ino, need(id));
  begin();
  if (valid & log::valid_owner) {
    lose_privileges(ino, true);
    Meta& meta = change(ino);
    meta.uid = to.uid;
    meta.gid = to.gid;
  }
  if ((valid & log::valid_mode) && !is_symlink(inodes_[ino].meta.mode)) {
    Meta& meta = change(ino);
    meta.mode = (meta.mode & type_mask) | (to.mode & 07777);
    if (const auto acl = meta.xattrs.find(acl_attribute); acl != meta.xattrs.end())
      acl->second = {static_cast<std::uint8_t>(to.mode & 0377)};
  }
  if (valid & (log::valid_atime | log::valid_mtime)) {
    Meta& meta = change(ino);
    if (valid & log::valid_atime) meta.atime_ns = to.atime_ns;
    if (valid & log::valid_mtime) meta.mtime_ns = to.mtime_ns;
  }
  return {};
}

inline void MemoryTree::set_xattrs(Meta& meta, std::string_view name, ByteView value) {
  meta.xattrs.insert_or_assign(std::string(name), Bytes(value.begin(), value.end()));
  if (name == acl_attribute && !value.empty()) meta.mode = (meta.mode & ~0377U) | value[0];
}

inline Status MemoryTree::set_xattr(const FileId& id, std::string_view name, ByteView value) {
  HF_STEP(fuse_);
  HF_ASSIGN(const Ino ino, need(id));
  begin();
  set_xattrs(change(ino), name, value);
  return {};
}

inline Status MemoryTree::remove_xattr(const FileId& id, std::string_view name) {
  HF_STEP(fuse_);
  HF_ASSIGN(const Ino ino, need(id));
  begin();
  Meta& meta = change(ino);
  if (const auto it = meta.xattrs.find(name); it != meta.xattrs.end()) meta.xattrs.erase(it);
  return {};
}

inline Status MemoryTree::replace_xattrs(const FileId& id, ByteView list) {
  HF_ASSIGN(const auto wanted, log::decode_xattrs(list));
  HF_ASSIGN(const Ino ino, need(id));
  std::vector<std::string> gone;
  for (const auto& [name, value] : inodes_[ino].meta.xattrs)
    if (std::none_of(wanted.begin(), wanted.end(), [&name = name](const auto& x) { return x.name == name; }))
      gone.push_back(name);
  for (const auto& name : gone) HF_TRY(remove_xattr(id, name));
  for (const auto& x : wanted) HF_TRY(set_xattr(id, x.name, x.value));
  return {};
}

// --- making objects

inline Status MemoryTree::stage(const FileId& id, const ports::NewNode& node) {
  HF_STEP(fuse_);
  HF_ASSIGN(const auto xattrs, log::decode_xattrs(node.xattrs));
  if (find(id) != 0) return fail(ErrorCode::internal, "{} is staged a second time", id.to_hex());
  const Ino ino = ++last_ino_;
  Inode& made = inodes_[ino];
  made.meta.id = id;
  made.meta.mode = node.mode;
  made.meta.uid = node.uid;
  made.meta.gid = node.gid;
  made.rdev = node.rdev;
  made.target = node.target;
  for (const auto& x : xattrs) set_xattrs(made.meta, x.name, x.value);
  const bool now_times = node.mtime_ns == 0 && node.atime_ns == 0;
  made.meta.mtime_ns = now_times ? now() : node.mtime_ns;
  made.meta.atime_ns = node.atime_ns ? node.atime_ns : now();
  staged_.insert(ino);
  put_index(id, ino);
  return {};
}

inline Status MemoryTree::place(const FileId& id, const FileId& dir, std::string_view name) {
  HF_STEP(fuse_);
  HF_ASSIGN(const Ino folder, need(dir));
  HF_ASSIGN(const Ino ino, need(id));
  if (!staged_.contains(ino)) return fail(ErrorCode::internal, "{} is placed and was not staged", id.to_hex());
  if (staged_.contains(folder)) return fail(ErrorCode::internal, "placed into a folder without a place");
  if (!is_folder(inodes_[folder].meta.mode)) return fail(ErrorCode::io, "no folder");
  if (inodes_[folder].names.contains(name)) return fail(ErrorCode::exists, "\"{}\" is taken", name);
  begin();
  entry(folder, name, ino);
  staged_.erase(ino);
  return {};
}

inline Status MemoryTree::place_in_grave(const FileId& id, ports::Grave why) {
  HF_STEP(fuse_);
  HF_ASSIGN(const Ino ino, need(id));
  if (!staged_.contains(ino)) return fail(ErrorCode::internal, "{} is placed and was not staged", id.to_hex());
  if (grave().names.contains(grave_name(id, why))) return fail(ErrorCode::exists, "the grave is taken");
  begin();
  entry(grave_ino, grave_name(id, why), ino);
  staged_.erase(ino);
  return {};
}

}  // namespace holdfast::mirror::testing
