// SPDX-License-Identifier: Apache-2.0
// For tests only: random changes of a tree through UndoTree, in batches, and the tree as text.
#pragma once

#include <gtest/gtest.h>

#include <random>

#include "log/test_segments.h"
#include "mirror/test_tree.h"
#include "mirror/undo_tree.h"

namespace holdfast::mirror::testing {

constexpr std::uint64_t small_segment_bytes =
    log::segment_header_bytes + log::group_head_bytes + log::max_group_bytes + 4096;
constexpr SetNumber set = 1;

struct FixedTimes final : ports::Times {
  std::int64_t realtime_ns() override { return 1; }
  std::int64_t steady_ns() override { return 1; }
};

// All that can be seen below a folder, as text.
inline void describe(const MemoryTree& tree, const MemoryTree::Inode& dir, const std::string& path,
                     std::map<std::string, std::string>& out) {
  for (const auto& [name, ino] : dir.names) {
    const auto& node = tree.inode(ino);
    Bytes content(std::min<std::uint64_t>(node.data.size(), 1 << 16));
    node.data.read(0, content);
    out[path + "/" + name] =
        fmt::format("{} mode {:o} owner {}/{} times {} {} size {} crc {:x} xattrs {:x}", node.meta.id.to_hex(),
                    node.meta.mode, node.meta.uid, node.meta.gid, node.meta.atime_ns, node.meta.mtime_ns,
                    node.data.size(), crc32c(content), crc32c(encode_xattr_map(node.meta.xattrs)));
    if (is_folder(node.meta.mode)) describe(tree, node, path + "/" + name, out);
  }
}

class Machine {
 public:
  explicit Machine(unsigned seed) : random(seed), tree(std::make_shared<MemoryTree>(set, fuse)) {
    store_journal();
    undo = std::make_unique<UndoTree>(tree, *journal, covered);
    undo->set_capturing(true);
    FileId root = FileId::root(set);
    dirs.push_back(root);
  }
  void store_journal() {
    journal = UndoJournal::open(store, times, {256ULL << 20, 0, default_undo_age_ns}, small_segment_bytes).value();
  }
  std::map<std::string, std::string> snapshot() {
    std::map<std::string, std::string> out;
    const auto& root = *tree->look(FileId::root(set));
    describe(*tree, root, "", out);
    out["/"] = fmt::format("mode {:o} mtime {}", root.meta.mode, root.meta.mtime_ns);
    return out;
  }
  void begin_batch() {
    UndoHead head;
    head.life = 1;
    head.before = {Epoch(1), Sequence(position)};
    head.after = {Epoch(1), Sequence(++position)};
    head.sets = {set};
    covered.clear();
    ASSERT_TRUE(journal->begin(head));
    ASSERT_TRUE(journal->seal());
    tree->burial_stamp(journal->current_batch());
  }
  FileId fresh() {
    FileId id;
    id.bytes[0] = 1;
    std::memcpy(id.bytes.data() + 4, &++last_id, 8);
    return id;
  }
  unsigned pick(std::size_t n) { return static_cast<unsigned>(random() % n); }

  // One random primitive; those that the tree refuses are no matter.
  void change() {
    const FileId dir = dirs[pick(dirs.size())], dir2 = dirs[pick(dirs.size())];
    const std::string name(1, static_cast<char>('a' + pick(6))), name2(1, static_cast<char>('a' + pick(6)));
    const FileId file = files.empty() ? FileId{} : files[pick(files.size())];
    if (!tree->look(dir) || !tree->look(dir2)) return;
    const auto there = tree->lookup(dir, name).value();
    const Bytes bytes(1 + pick(3000), static_cast<std::uint8_t>(random()));
    const ByteView piece(bytes);
    ports::NodeAttributes a;
    a.mode = type_regular | pick(01000), a.uid = pick(5), a.gid = pick(5), a.mtime_ns = pick(1000),
    a.atime_ns = pick(1000);
    switch (pick(17)) {
      case 0:
      case 1: {
        if (there) return;
        const bool folder = pick(3) == 0;
        ports::NewNode node;
        node.mode = (folder ? type_folder : type_regular) | 0644;
        const FileId id = fresh();
        ASSERT_TRUE(undo->stage(id, node));
        ASSERT_TRUE(undo->commit_ids());
        ASSERT_TRUE(undo->place(id, dir, name));
        (folder ? dirs : files).push_back(id);
        return;
      }
      case 2:
      case 3:
      case 4:
        if (!tree->look(file)) return;
        ASSERT_TRUE(undo->write(file, pick(8000), {&piece, 1}));
        return;
      case 5:
        if (!tree->look(file)) return;
        ASSERT_TRUE(undo->truncate(file, pick(12000)));
        return;
      case 6:
        if (!tree->look(file)) return;
        ASSERT_TRUE(undo->punch(file, pick(8000), 1 + pick(4000)));
        return;
      case 7:
        if (!tree->look(file)) return;
        (void)undo->fallocate(file, pick(2) ? fallocate_collapse : fallocate_insert, pick(8) * 512, 512);
        return;
      case 8:
        if (!tree->look(file)) return;
        ASSERT_TRUE(undo->set_attributes(file, 1 + pick(15), a));
        return;
      case 9:
        if (!tree->look(file)) return;
        ASSERT_TRUE(undo->set_xattr(file, pick(2) ? "user.x" : capability_attribute, bytes));
        return;
      case 10:
        if (!tree->look(file)) return;
        ASSERT_TRUE(undo->set_xattr(file, acl_attribute, piece.first(1)));
        return;
      case 11:
        if (!tree->look(file)) return;
        ASSERT_TRUE(undo->replace_xattrs(file, {}));
        return;
      case 12:
        if (there || !tree->look(file) || tree->in_grave(file).value()) return;
        ASSERT_TRUE(undo->link(file, dir, name));
        return;
      case 13:
      case 14: {
        if (!there) return;
        const auto attributes = tree->attributes(there->id).value();
        if (!is_folder(attributes->mode) && attributes->links > 1)
          (void)undo->unlink(dir, name);
        else
          (void)undo->bury(dir, name, there->id, pick(3) ? ports::Grave::deleted : ports::Grave::limbo);
        return;
      }
      case 15: {
        const auto there2 = tree->lookup(dir2, name2).value();
        if (there && !there2) (void)undo->rename(dir, name, dir2, name2, 0);
        if (there && there2) (void)undo->rename(dir, name, dir2, name2, log::flag_rename_exchange);
        return;
      }
      default: {
        if (there) return;
        const FileId moved = pick(2) ? file : dir2;
        if (!moved.is_none() && !moved.is_root() && tree->look(moved)) (void)undo->bring(moved, dir, name);
        return;
      }
    }
  }
  // Power cut and start; redo is not this test's matter, so everything before was synced.
  void crash() {
    tree->crash(random);
    store.power_cut(pick(1000), 50);
    fuse = {};
    store_journal();
    undo = std::make_unique<UndoTree>(tree, *journal, covered);
    undo->set_capturing(true);
  }

  Fuse fuse;
  std::mt19937 random;
  log::testing::MemorySegments store;
  FixedTimes times;
  std::shared_ptr<MemoryTree> tree;
  std::unique_ptr<UndoJournal> journal;
  Covered covered;
  std::unique_ptr<UndoTree> undo;
  std::vector<FileId> dirs, files;
  std::uint64_t last_id = 0, position = 0;
};

inline void expect_same(const std::map<std::string, std::string>& is, const std::map<std::string, std::string>& should,
                        const std::string& what) {
  for (const auto& [path, text] : should) {
    const auto it = is.find(path);
    ASSERT_NE(it, is.end()) << what << ": missing " << path << " " << text;
    ASSERT_EQ(it->second, text) << what << ": " << path;
  }
  for (const auto& [path, text] : is)
    ASSERT_TRUE(should.contains(path)) << what << ": too much: " << path << " " << text;
}

}  // namespace holdfast::mirror::testing
