// SPDX-License-Identifier: Apache-2.0
// For tests only: a file system in memory, simple enough to be believed, and random changes made to it and to a scratch view alike.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "mirror/scratch_view.h"
#include "mirror/test_undo_machine.h"

namespace holdfast::mirror::testing {

struct ScratchModel {
  struct Node {
    std::uint32_t mode = 0, uid = 0, gid = 0;
    std::uint64_t links = 0;
    bool links_known = true;
    std::int64_t atime_ns = 0, mtime_ns = 0;
    Bytes data;
    std::string target;
    XattrMap xattrs;
    std::map<std::string, FileId> names;
  };
  std::map<FileId, Node> nodes;

  // What stands in the tree now.
  void copy(const MemoryTree& tree, const MemoryTree::Inode& from) {
    Node& node = nodes[from.meta.id];
    node.mode = from.meta.mode, node.uid = from.meta.uid, node.gid = from.meta.gid;
    node.atime_ns = from.meta.atime_ns, node.mtime_ns = from.meta.mtime_ns;
    node.xattrs = from.meta.xattrs;
    node.target = from.target;
    node.data.resize(from.data.size());
    from.data.read(0, node.data);
    for (const auto& [name, ino] : from.names) {
      const auto& child = tree.inode(ino);
      nodes[from.meta.id].names[name] = child.meta.id;
      copy(tree, child);
      if (!is_folder(child.meta.mode)) ++nodes[child.meta.id].links;
    }
  }
  bool below(const FileId& dir, const FileId& folder) const {  // dir is folder, or in it
    if (dir == folder) return true;
    const Node& node = nodes.at(folder);
    return std::any_of(node.names.begin(), node.names.end(),
                       [&](const auto& n) { return is_folder(nodes.at(n.second).mode) && below(dir, n.second); });
  }
};

// The same changes to both, one after the other.
class ScratchPair {
 public:
  ScratchPair(ScratchView& view, ScratchModel model, std::mt19937& random, std::int64_t& now_ns)
      : view_(view), model_(std::move(model)), random_(random), now_ns_(now_ns) {}

  void change() {
    ++now_ns_;
    const FileId dir = a_folder(), dir2 = a_folder(), node = pick(3) == 0 && !open_.empty() ? an_open() : a_node();
    const std::string name(1, static_cast<char>('a' + pick(6))), name2(1, static_cast<char>('a' + pick(6)));
    switch (pick(12)) {
      case 0:
      case 1:
        return make(dir, name);
      case 2:
      case 3:
        return write(node);
      case 4:
        return pick(2) ? resize(node) : allocate(node);
      case 5:
        return attributes(node);
      case 6:
        return xattr(node);
      case 7:
        return link(node, dir, name);
      case 8:
        return remove(dir, name);
      case 9:
      case 10:
        return rename(dir, name, dir2, name2);
      default:
        return forget();
    }
  }
  void compare() {
    for (const auto& [id, node] : model_.nodes) {
      compare_one(id, node);
      if (::testing::Test::HasFailure()) return;
    }
  }
  unsigned done = 0, refused_for_room = 0;

 private:
  using Node = ScratchModel::Node;
  unsigned pick(std::size_t n) { return static_cast<unsigned>(random_() % n); }
  FileId any(const std::function<bool(const FileId&, const Node&)>& good) {
    std::vector<FileId> all;
    for (const auto& [id, node] : model_.nodes)
      if (good(id, node)) all.push_back(id);
    return all[pick(all.size())];
  }
  bool is_open(const FileId& id) const { return open_.contains(id); }
  FileId a_folder() {
    return any([&](const FileId& id, const Node& n) { return is_folder(n.mode) && !is_open(id); });
  }
  FileId a_node() {
    return any([&](const FileId& id, const Node&) { return !is_open(id); });
  }
  FileId an_open() {
    auto it = open_.begin();
    std::advance(it, pick(open_.size()));
    return *it;
  }
  Bytes some_bytes() { return Bytes(1 + pick(pick(3) ? 3000 : 12'000), static_cast<std::uint8_t>(1 + pick(255))); }

  // True: it worked on both sides. What failed for want of room changed nothing.
  bool agree(const Status& is, std::optional<ErrorCode> expected, const std::string& what) {
    if (!is && is.error().code == ErrorCode::no_space) {
      ++refused_for_room;
      return false;
    }
    EXPECT_EQ(!is, expected.has_value()) << what << (is ? "" : ": " + is.error().to_string());
    if (!is && expected) {
      EXPECT_EQ(is.error().code, *expected) << what << ": " << is.error().to_string();
    }
    done += is ? 1 : 0;
    return is && !expected;
  }
  void touched(const FileId& dir) { model_.nodes[dir].mtime_ns = now_ns_; }
  void lose_privileges(Node& node, bool drop) {
    if (!is_regular(node.mode)) return;
    if (drop) node.mode &= (node.mode & 010) ? ~06000U : ~04000U;
    node.xattrs.erase(capability_attribute);
  }
  // The object at this name loses it.
  void unname(const FileId& id) {
    Node& node = model_.nodes[id];
    if (is_folder(node.mode))
      node.links = 0;
    else
      --node.links;
    if (node.links == 0) open_.insert(id);
  }

  void make(const FileId& dir, const std::string& name) {
    ports::ScratchNode node;
    const unsigned kind = pick(6);
    node.mode = kind == 0 ? type_folder | 0755 : kind == 1 ? type_symlink | 0777 : type_regular | 0664;
    node.umask = 022, node.uid = pick(5), node.gid = pick(5);
    if (kind == 1) node.target = "somewhere";
    const bool nameless = kind == 2 && pick(2) == 0;
    const auto id = view_.make(set, dir, nameless ? "" : name, node);
    const bool taken = !nameless && model_.nodes[dir].names.contains(name);
    const Status is = id ? Status{} : Status(tl::unexpected(id.error()));
    if (!agree(is, taken ? std::optional(ErrorCode::exists) : std::nullopt, "make " + name)) return;
    Node& made = model_.nodes[*id];
    made.mode = kind == 1 ? node.mode : node.mode & ~node.umask;
    made.uid = node.uid, made.gid = node.gid, made.target = node.target;
    if (const Node& parent = model_.nodes[dir]; parent.mode & 02000) {
      made.gid = parent.gid;
      if (kind == 0) made.mode |= 02000;
    }
    made.atime_ns = made.mtime_ns = now_ns_;
    if (nameless) {
      open_.insert(*id);
      return;
    }
    if (kind != 0) made.links = 1;
    model_.nodes[dir].names[name] = *id;
    touched(dir);
  }
  void write(const FileId& id) {
    Node& node = model_.nodes[id];
    const Bytes bytes = some_bytes();
    const std::uint64_t offset = pick(16'000);
    const bool drop = pick(2) == 0;
    const bool wrong = !is_regular(node.mode);
    if (!agree(view_.write(set, id, offset, bytes, drop), wrong ? std::optional(ErrorCode::invalid) : std::nullopt,
               "write"))
      return;
    if (node.data.size() < offset + bytes.size()) node.data.resize(offset + bytes.size());
    std::copy(bytes.begin(), bytes.end(), node.data.begin() + static_cast<long>(offset));
    node.mtime_ns = now_ns_;
    lose_privileges(node, drop);
  }
  void resize(const FileId& id) {
    Node& node = model_.nodes[id];
    ports::ScratchChange to;
    to.size = pick(20'000);
    to.drop_set_id = pick(2) == 0;
    const bool wrong = !is_regular(node.mode);
    if (!agree(view_.change(set, id, to), wrong ? std::optional(ErrorCode::invalid) : std::nullopt, "resize")) return;
    node.data.resize(*to.size);
    node.mtime_ns = now_ns_;
    lose_privileges(node, to.drop_set_id);
  }
  void allocate(const FileId& id) {
    Node& node = model_.nodes[id];
    const std::array<std::uint32_t, 5> modes = {0, 1, 3, 0x10, 0x11};
    const std::uint32_t mode = modes[pick(modes.size())];
    const std::uint64_t offset = pick(20'000), length = 1 + pick(9000);
    const bool wrong = !is_regular(node.mode);
    if (!agree(view_.fallocate(set, id, mode, offset, length, false),
               wrong ? std::optional(ErrorCode::invalid) : std::nullopt, "fallocate"))
      return;
    const std::size_t end = offset + length;
    if (!(mode & 1) && node.data.size() < end) node.data.resize(end);
    if (mode & 0x12)
      std::fill(node.data.begin() + static_cast<long>(std::min<std::size_t>(offset, node.data.size())),
                node.data.begin() + static_cast<long>(std::min(end, node.data.size())), std::uint8_t{0});
    node.mtime_ns = now_ns_;
    lose_privileges(node, false);
  }
  void attributes(const FileId& id) {
    Node& node = model_.nodes[id];
    ports::ScratchChange to;
    if (pick(2)) to.mode = pick(010000);
    if (pick(2)) to.uid = pick(9);
    if (pick(2)) to.gid = pick(9);
    if (pick(2)) to.atime_ns = pick(1000);
    if (pick(2)) to.mtime_ns = pick(1000);
    if (!agree(view_.change(set, id, to), std::nullopt, "attributes")) return;
    node.uid = to.uid.value_or(node.uid), node.gid = to.gid.value_or(node.gid);
    if (to.uid || to.gid) lose_privileges(node, true);
    if (to.mode) node.mode = (node.mode & type_mask) | *to.mode;
    node.atime_ns = to.atime_ns.value_or(node.atime_ns), node.mtime_ns = to.mtime_ns.value_or(node.mtime_ns);
  }
  void xattr(const FileId& id) {
    Node& node = model_.nodes[id];
    const std::string name = pick(3) ? "user.x" : pick(2) ? capability_attribute : "user.other";
    const bool there = node.xattrs.contains(name);
    if (pick(3) == 0) {
      const auto expected = there ? std::nullopt : std::optional(ErrorCode::not_found);
      if (agree(view_.remove_xattr(set, id, name), expected, "remove " + name)) node.xattrs.erase(name);
      return;
    }
    const auto how = static_cast<ports::XattrHow>(pick(3));
    std::optional<ErrorCode> expected;
    if (there && how == ports::XattrHow::create) expected = ErrorCode::exists;
    if (!there && how == ports::XattrHow::replace) expected = ErrorCode::not_found;
    const Bytes value(pick(300), static_cast<std::uint8_t>(pick(256)));
    if (agree(view_.set_xattr(set, id, name, value, how, false), expected, "set " + name)) node.xattrs[name] = value;
  }
  void link(const FileId& id, const FileId& dir, const std::string& name) {
    Node& node = model_.nodes[id];
    std::optional<ErrorCode> expected;
    if (is_folder(node.mode))
      expected = ErrorCode::invalid;
    else if (model_.nodes[dir].names.contains(name))
      expected = ErrorCode::exists;
    if (!agree(view_.link(set, id, dir, name), expected, "link " + name)) return;
    ++node.links;
    open_.erase(id);
    model_.nodes[dir].names[name] = id;
    touched(dir);
  }
  void remove(const FileId& dir, const std::string& name) {
    const auto it = model_.nodes[dir].names.find(name);
    const bool folder = pick(2) == 0;
    std::optional<ErrorCode> expected;
    if (it == model_.nodes[dir].names.end())
      expected = ErrorCode::not_found;
    else if (is_folder(model_.nodes[it->second].mode) != folder)
      expected = ErrorCode::invalid;
    else if (folder && !model_.nodes[it->second].names.empty())
      expected = ErrorCode::busy;
    if (!agree(view_.remove(set, dir, name, folder), expected, "remove " + name)) return;
    unname(it->second);
    model_.nodes[dir].names.erase(it);
    touched(dir);
  }
  void rename(const FileId& dir, const std::string& name, const FileId& dir2, const std::string& name2) {
    auto& from = model_.nodes[dir].names;
    auto& to = model_.nodes[dir2].names;
    const auto moved = from.find(name), other = to.find(name2);
    const std::array<std::uint32_t, 3> all_flags = {0, log::flag_rename_exchange, log::flag_rename_noreplace};
    const std::uint32_t flags = all_flags[pick(3)];
    const bool exchange = flags == log::flag_rename_exchange;
    // A kernel lets no folder come to lie in itself.
    const auto is_dir = [&](const FileId& id) { return is_folder(model_.nodes[id].mode); };
    if (moved != from.end() && is_dir(moved->second) && model_.below(dir2, moved->second)) return;
    if (other != to.end() && is_dir(other->second) && model_.below(dir, other->second)) return;
    std::optional<ErrorCode> expected;
    if (moved == from.end())
      expected = ErrorCode::not_found;
    else if (other != to.end() && other->second == moved->second && !exchange)
      return (void)agree(view_.rename(set, dir, name, dir2, name2, flags, nullptr), std::nullopt, "rename to itself");
    else if (exchange && other == to.end())
      expected = ErrorCode::not_found;
    else if (!exchange && other != to.end() && flags == log::flag_rename_noreplace)
      expected = ErrorCode::exists;
    else if (!exchange && other != to.end() && is_dir(other->second) != is_dir(moved->second))
      expected = ErrorCode::invalid;
    else if (!exchange && other != to.end() && !model_.nodes[other->second].names.empty())
      expected = ErrorCode::busy;
    if (!agree(view_.rename(set, dir, name, dir2, name2, flags, nullptr), expected, "rename " + name + " " + name2))
      return;
    const FileId object = moved->second, replaced = other == to.end() ? FileId{} : other->second;
    from.erase(name);
    if (exchange)
      from[name] = replaced;
    else if (!replaced.is_none())
      unname(replaced);
    to[name2] = object;
    touched(dir);
    touched(dir2);
  }
  void forget() {
    if (pick(2)) return view_.forgotten(set, a_node());  // it has a name, so nothing comes of it
    if (open_.empty()) return;
    const FileId id = an_open();
    view_.forgotten(set, id);
    open_.erase(id);
    model_.nodes.erase(id);
  }
  void compare_one(const FileId& id, const Node& node);

  ScratchView& view_;
  ScratchModel model_;
  std::mt19937& random_;
  std::int64_t& now_ns_;
  std::set<FileId> open_;  // without a name
};

inline void ScratchPair::compare_one(const FileId& id, const Node& node) {
  const auto a = view_.attributes(set, id);
  ASSERT_TRUE(a) << id.to_hex() << ": " << a.error().to_string();
  EXPECT_EQ(a->mode, node.mode) << id.to_hex();
  EXPECT_EQ(a->uid, node.uid);
  EXPECT_EQ(a->gid, node.gid);
  EXPECT_EQ(a->atime_ns, node.atime_ns) << id.to_hex();
  EXPECT_EQ(a->mtime_ns, node.mtime_ns) << id.to_hex();
  if (!is_folder(node.mode) && a->links_known) {
    EXPECT_EQ(a->links, node.links) << id.to_hex();
  }
  const auto xattrs = view_.xattrs(set, id);
  ASSERT_TRUE(xattrs);
  EXPECT_EQ(*xattrs, encode_xattr_map(node.xattrs)) << id.to_hex();
  if (is_symlink(node.mode)) {
    EXPECT_EQ(*view_.target(set, id), node.target);
  }
  if (is_regular(node.mode)) {
    ASSERT_EQ(a->size, node.data.size()) << id.to_hex();
    Bytes seen(node.data.size(), 0xAA);
    for (std::size_t at = 0; at < seen.size();) {  // in pieces of any size
      const std::size_t n = std::min<std::size_t>(seen.size() - at, 1 + pick(9000));
      const auto got = view_.read(set, id, at, std::span(seen).subspan(at, n));
      ASSERT_TRUE(got && *got == n) << id.to_hex();
      at += n;
    }
    EXPECT_TRUE(seen == node.data) << "content of " << id.to_hex();
  }
  if (!is_folder(node.mode) || (node.links == 0 && is_open(id))) return;
  const auto listed = view_.list(set, id);
  ASSERT_TRUE(listed);
  std::map<std::string, FileId> names;
  for (const auto& e : *listed) {
    EXPECT_TRUE(names.emplace(e.name, e.id).second) << e.name << " is listed twice";
    const auto found = view_.lookup(set, id, e.name);
    ASSERT_TRUE(found && *found) << e.name;
    EXPECT_EQ((*found)->id, e.id);
    EXPECT_EQ(is_folder(e.mode), is_folder(model_.nodes.at(e.id).mode)) << e.name;
  }
  EXPECT_TRUE(names == node.names) << "names in " << id.to_hex();
}

}  // namespace holdfast::mirror::testing
