// SPDX-License-Identifier: Apache-2.0
// For tests only: names, graveyard and what undo needs of MemoryTree. Included by mirror/test_tree.h.
#pragma once

#include <limits>

#include "mirror/test_tree.h"

namespace holdfast::mirror::testing {

// --- names

inline Result<ports::Standing> MemoryTree::at(const FileId& dir, std::string_view name, const FileId& expected) {
  HF_ASSIGN(const Ino folder, need(dir));
  const auto it = inodes_[folder].names.find(name);
  if (it == inodes_[folder].names.end()) return ports::Standing::absent;
  return !expected.is_none() && find(expected) == it->second ? ports::Standing::expected : ports::Standing::other;
}

inline Result<std::optional<ports::TreeEntry>> MemoryTree::lookup(const FileId& dir, std::string_view name) {
  HF_ASSIGN(const Ino folder, need(dir));
  const auto it = inodes_[folder].names.find(name);
  if (it == inodes_[folder].names.end()) return std::optional<ports::TreeEntry>{};
  return std::optional(
      ports::TreeEntry{std::string(name), id_of(it->second), inodes_[it->second].meta.mode & type_mask});
}

inline Status MemoryTree::for_each_name(const FileId& dir, const std::function<void(std::string_view)>& see) {
  HF_ASSIGN(const auto all, list(dir, 0, std::numeric_limits<std::size_t>::max()));
  for (const auto& entry : all.entries) see(entry.name);
  return {};
}

inline Result<ports::TreeListing> MemoryTree::list(const FileId& dir, std::uint64_t cookie, std::size_t max_entries) {
  HF_ASSIGN(const Ino folder, need(dir));
  ports::TreeListing listing;
  std::uint64_t number = 0;
  listing.end = true;
  for (const auto& [name, ino] : inodes_[folder].names) {
    if (number++ < cookie) continue;
    if (listing.entries.size() == max_entries) {
      listing.end = false;
      break;
    }
    listing.entries.push_back({name, id_of(ino), inodes_[ino].meta.mode & type_mask});
  }
  listing.cookie = cookie + listing.entries.size();
  return listing;
}

inline Status MemoryTree::link(const FileId& id, const FileId& dir, std::string_view name) {
  HF_STEP(fuse_);
  HF_ASSIGN(const Ino folder, need(dir));
  HF_ASSIGN(const Ino ino, need(id));
  if (is_folder(inodes_[ino].meta.mode)) return fail(ErrorCode::io, "a folder has one name");
  if (staged_.contains(ino)) return fail(ErrorCode::internal, "{} is linked before it is placed", id.to_hex());
  if (inodes_[folder].names.contains(name)) return fail(ErrorCode::exists, "\"{}\" is taken", name);
  begin();
  entry(folder, name, ino);
  return {};
}

inline Status MemoryTree::unlink(const FileId& dir, std::string_view name) {
  HF_STEP(fuse_);
  HF_ASSIGN(const Ino folder, need(dir));
  const auto it = inodes_[folder].names.find(name);
  if (it == inodes_[folder].names.end()) return fail(ErrorCode::not_found, "no \"{}\"", name);
  if (is_folder(inodes_[it->second].meta.mode)) return fail(ErrorCode::io, "\"{}\" is a folder", name);
  begin();
  entry(folder, name, 0);
  return {};
}

inline void MemoryTree::move(Ino dir, std::string_view name, Ino dir2, std::string_view name2) {
  const Ino ino = inodes_[dir].names.find(name)->second;
  entry(dir2, name2, ino);
  const Ino parent = inodes_[ino].parent;
  entry(dir, name, 0);
  inodes_[ino].parent = parent;
}

inline Status MemoryTree::rename_inos(Ino dir, std::string_view name, Ino dir2, std::string_view name2,
                                      std::uint32_t flags) {
  const auto& names = inodes_[dir].names;
  const auto from = names.find(name);
  if (from == names.end()) return fail(ErrorCode::not_found, "no \"{}\" to rename", name);
  const Ino ino = from->second;
  const bool folder = is_folder(inodes_[ino].meta.mode);
  if (folder && below(dir2, ino)) return fail(ErrorCode::invalid, "\"{}\" would lie in itself", name);
  const auto there = inodes_[dir2].names.find(name2);
  const Ino other = there == inodes_[dir2].names.end() ? 0 : there->second;
  if (flags & log::flag_rename_exchange) {
    if (other == 0) return fail(ErrorCode::not_found, "no \"{}\" to exchange", name2);
    if (is_folder(inodes_[other].meta.mode) && below(dir, other))
      return fail(ErrorCode::invalid, "\"{}\" would lie in itself", name2);
    begin();
    entry(dir, name, other);
    entry(dir2, name2, ino);
    return {};
  }
  if (other == ino) return {};  // POSIX: two names of one object stay
  if (other != 0) {
    if (flags & log::flag_rename_noreplace) return fail(ErrorCode::exists, "\"{}\" is taken", name2);
    if (is_folder(inodes_[other].meta.mode) != folder) return fail(ErrorCode::io, "\"{}\" is of another type", name2);
    if (folder && !inodes_[other].names.empty()) return fail(ErrorCode::io, "\"{}\" is not empty", name2);
  }
  begin();
  move(dir, name, dir2, name2);
  return {};
}

inline Status MemoryTree::rename(const FileId& dir, std::string_view name, const FileId& dir2, std::string_view name2,
                                 std::uint32_t flags) {
  HF_STEP(fuse_);
  HF_ASSIGN(const Ino from, need(dir));
  HF_ASSIGN(const Ino to, need(dir2));
  return rename_inos(from, name, to, name2, flags);
}

// --- graveyard and resync

inline Result<std::optional<ports::Grave>> MemoryTree::in_grave(const FileId& id) {
  for (const auto why : {ports::Grave::deleted, ports::Grave::orphan, ports::Grave::limbo})
    if (grave().names.contains(grave_name(id, why))) return std::optional(why);
  return std::optional<ports::Grave>{};
}

inline Status MemoryTree::bury(const FileId& dir, std::string_view name, const FileId& id, ports::Grave why) {
  HF_STEP(fuse_);
  HF_ASSIGN(const Ino folder, need(dir));
  if (why == ports::Grave::deleted && burial_stamp_ != 0) {
    const auto it = inodes_[folder].names.find(name);
    if (it == inodes_[folder].names.end()) return fail(ErrorCode::not_found, "no \"{}\" to bury", name);
    begin();
    change(it->second).buried = burial_stamp_;
    HF_STEP(fuse_);
  }
  return rename_inos(folder, name, grave_ino, grave_name(id.is_none() ? fresh() : id, why), 0);
}

inline Status MemoryTree::exhume(const FileId& id, ports::Grave from, const FileId& dir, std::string_view name) {
  HF_STEP(fuse_);
  HF_ASSIGN(const Ino folder, need(dir));
  return rename_inos(grave_ino, grave_name(id, from), folder, name, log::flag_rename_noreplace);
}

inline Result<bool> MemoryTree::remove_below(Ino dir, const std::string& name, std::size_t& most) {
  const Ino ino = inodes_[dir].names.find(name)->second;
  while (!inodes_[ino].names.empty()) {
    const std::string child = inodes_[ino].names.begin()->first;
    HF_ASSIGN(const bool gone, remove_below(ino, child, most));
    if (!gone) return false;
  }
  if (most == 0) return false;
  --most;
  if (const auto it = cant_go.find(inodes_[ino].meta.id); it != cant_go.end()) return fail(it->second, "it can't go");
  if (on_purge) on_purge();
  HF_STEP(fuse_);
  if (const FileId id = id_of(ino); !id.is_none() && inodes_[ino].links == 1) forget(id);
  begin();
  entry(dir, name, 0);
  return true;
}

inline Status MemoryTree::remove_below(Ino dir, const std::string& name) {
  std::size_t all = std::numeric_limits<std::size_t>::max();
  HF_ASSIGN([[maybe_unused]] const bool gone, remove_below(dir, name, all));
  return {};
}

inline Status MemoryTree::purge(ports::Grave what) {
  std::vector<std::string> dead;
  for (const auto& [name, ino] : grave().names)
    if (name[0] == corner(what)) dead.push_back(name);
  for (const auto& name : dead) HF_TRY(remove_below(grave_ino, name));
  return {};
}

inline Status MemoryTree::adopt(const FileId& dir, std::string_view name, const FileId& id) {
  HF_STEP(fuse_);
  HF_ASSIGN(const Ino folder, need(dir));
  const auto it = inodes_[folder].names.find(name);
  if (it == inodes_[folder].names.end()) return fail(ErrorCode::not_found, "no \"{}\" to adopt", name);
  begin();
  change(it->second).id = id;
  put_index(id, it->second);
  return {};
}

inline Result<std::pair<MemoryTree::Ino, std::string>> MemoryTree::locate(Ino folder) const {
  const Ino parent = inodes_.at(folder).parent;
  for (const auto& [name, ino] : inodes_.at(parent).names)
    if (ino == folder) return std::pair{parent, name};
  return fail(ErrorCode::corrupt, "a folder is not in its parent");
}

inline Status MemoryTree::bring(const FileId& id, const FileId& dir, std::string_view name) {
  HF_ASSIGN(const std::optional<ports::Grave> why, in_grave(id));
  if (why) return exhume(id, *why, dir, name);
  HF_ASSIGN(const Ino ino, need(id));
  if (!is_folder(inodes_[ino].meta.mode)) return link(id, dir, name);
  HF_STEP(fuse_);
  HF_ASSIGN(const auto where, locate(ino));
  HF_ASSIGN(const Ino folder, need(dir));
  return rename_inos(where.first, where.second, folder, name, log::flag_rename_noreplace);
}

inline Status MemoryTree::set_aside(const FileId& folder) {
  HF_STEP(fuse_);
  HF_ASSIGN(const Ino ino, need(folder));
  HF_ASSIGN(const auto where, locate(ino));
  return rename_inos(where.first, where.second, grave_ino, grave_name(folder, ports::Grave::limbo), 0);
}

// --- undo

inline Result<Bytes> MemoryTree::read_xattrs(const FileId& id) {
  HF_ASSIGN(const Ino ino, need(id));
  return encode_xattr_map(inodes_[ino].meta.xattrs);
}

inline Result<std::uint64_t> MemoryTree::next_data(const FileId& id, std::uint64_t offset) {
  HF_ASSIGN(const Ino ino, need(id));
  return inodes_[ino].data.next_data(offset);
}

inline Result<std::uint64_t> MemoryTree::next_hole(const FileId& id, std::uint64_t offset) {
  HF_ASSIGN(const Ino ino, need(id));
  return inodes_[ino].data.next_hole(offset);
}

inline Status MemoryTree::revive(const FileId& id, const ports::NewNode& node) {
  HF_ASSIGN(const Ino ino, need(id));
  HF_ASSIGN(const auto why, in_grave(id));
  if (!why) return fail(ErrorCode::internal, "{} is revived and not in the graveyard", id.to_hex());
  if (((inodes_[ino].meta.mode ^ node.mode) & type_mask) != 0)
    return fail(ErrorCode::corrupt, "{} was of another type", id.to_hex());
  if (is_regular(node.mode)) HF_TRY(truncate(id, 0));
  ports::NodeAttributes to;
  to.mode = node.mode;
  to.uid = node.uid;
  to.gid = node.gid;
  to.atime_ns = node.atime_ns;
  to.mtime_ns = node.mtime_ns;
  HF_TRY(set_attributes(id, log::valid_owner, to));
  HF_TRY(replace_xattrs(id, node.xattrs));
  return set_attributes(id, log::valid_mode | (node.mtime_ns != 0 ? log::valid_atime | log::valid_mtime : 0), to);
}

inline void MemoryTree::sum_below(Ino ino, ports::GraveEntry& sum) const {
  const Inode& node = inodes_.at(ino);
  ++sum.objects;
  sum.allocated_bytes += node.data.sectors() * sector_bytes;
  for (const auto& [name, child] : node.names) sum_below(child, sum);
}

inline Result<std::vector<ports::GraveEntry>> MemoryTree::graves(ports::Grave what) {
  std::vector<ports::GraveEntry> all;
  for (const auto& [name, ino] : grave().names) {
    if (name[0] != corner(what)) continue;
    FileId id;
    std::copy_n(name.begin() + 2, id.bytes.size(), id.bytes.begin());
    ports::GraveEntry entry{id, inodes_[ino].meta.buried, 0, 0};
    if (const auto it = cant_go.find(id); it != cant_go.end() && it->second == ErrorCode::corrupt)
      entry.stamp = 0;
    else
      sum_below(ino, entry);
    all.push_back(entry);
  }
  return all;
}

inline Result<bool> MemoryTree::purge_one(ports::Grave what, const FileId& id, std::uint64_t stamp, std::size_t& most) {
  const auto it = grave().names.find(grave_name(id, what));
  if (it == grave().names.end() || (stamp != 0 && inodes_[it->second].meta.buried != stamp)) return true;
  return remove_below(grave_ino, grave_name(id, what), most);
}

inline Status MemoryTree::settle_limbo(std::uint64_t stamp) {
  HF_ASSIGN(const auto all, graves(ports::Grave::limbo));
  for (const auto& grave : all) {
    HF_STEP(fuse_);
    const std::string name = grave_name(grave.id, ports::Grave::limbo);
    begin();
    change(this->grave().names.find(name)->second).buried = stamp;
    HF_STEP(fuse_);
    HF_TRY(rename_inos(grave_ino, name, grave_ino, grave_name(grave.id, ports::Grave::deleted), 0));
  }
  return {};
}

inline Result<std::optional<std::pair<FileId, std::string>>> MemoryTree::place_of(const FileId& folder) {
  using Place = std::optional<std::pair<FileId, std::string>>;
  HF_ASSIGN(const Ino ino, need(folder));
  if (staged_.contains(ino) || inodes_[ino].parent == grave_ino || ino == root_ino) return Place{};
  HF_ASSIGN(auto where, locate(ino));
  const FileId parent = id_of(where.first);
  if (!parent.is_none()) return Place(std::pair{parent, std::move(where.second)});
  const FileId made = fresh();
  begin();
  change(where.first).id = made;
  put_index(made, where.first);
  HF_TRY(commit_ids());
  return Place(std::pair{made, std::move(where.second)});
}

inline Result<FileId> MemoryTree::identify(const FileId& dir, std::string_view name) {
  HF_ASSIGN(const auto found, lookup(dir, name));
  if (!found) return FileId{};
  if (!found->id.is_none()) return found->id;
  const FileId id = fresh();
  HF_TRY(adopt(dir, name, id));
  HF_TRY(commit_ids());
  return id;
}

inline Status MemoryTree::set_names_mark(ports::NamesMark mark) {
  HF_STEP(fuse_);
  begin();
  journal([this, old = mark_] { mark_ = old; });
  mark_ = mark;
  return {};
}

inline Status MemoryTree::set_mark(ports::Mark which, ByteView value) {
  HF_STEP(fuse_);
  begin();
  journal([this, which, old = marks_[which]] { marks_[which] = old; });
  marks_[which] = Bytes(value.begin(), value.end());
  return {};
}

}  // namespace holdfast::mirror::testing
