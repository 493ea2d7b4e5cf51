// SPDX-License-Identifier: Apache-2.0
#include "mirror/stage_ahead.h"

#include <gtest/gtest.h>

#include <deque>

#include "log/ship.h"
#include "mirror/apply_resync.h"
#include "mirror/test_ids.h"
#include "mirror/test_tree.h"
#include "mirror/test_tree_names.h"
#include "mirror/test_tree_parts.h"

namespace holdfast::mirror::testing {
namespace {

using log::Kind;
using log::Record;
constexpr SetNumber set = 1;
const FileId root = FileId::root(set);

class CountingTree : public MemoryTree {
 public:
  using MemoryTree::MemoryTree;
  Status commit_ids() override {
    ++commits;
    return MemoryTree::commit_ids();
  }
  Result<std::optional<ports::TreeEntry>> lookup(const FileId& dir, std::string_view name) override {
    ++lookups;
    return MemoryTree::lookup(dir, name);
  }
  int commits = 0, lookups = 0;
};

// One batch of a first copy.
class StageAhead : public ::testing::Test {
 protected:
  struct Entry {
    FileId id;
    std::string_view name;
    std::uint32_t type = type_regular;
  };
  Record& add(Kind kind, const FileId& file) {
    Record r;
    r.set = set;
    r.kind = kind;
    r.file = file;
    r.sequence = last_ = last_.next();
    return batch_.emplace_back(r);
  }
  void listing(const FileId& dir, std::initializer_list<Entry> entries,
               std::uint32_t flags = log::flag_first_chunk | log::flag_last_chunk) {
    Bytes& payload = bytes_.emplace_back();
    for (const auto& e : entries) log::append_ship_entry(payload, {e.id, e.type, e.name});
    Record& r = add(Kind::ship_dir, dir);
    r.flags = flags;
    r.payload = payload;
  }
  void node(const FileId& id, std::uint32_t mode, std::uint64_t length = 0) {
    Record& r = add(Kind::ship_node, id);
    r.mode = mode;
    r.uid = 7;
    r.length = length;
  }
  void data(const FileId& id, std::uint64_t offset, std::size_t length) {
    Bytes& payload = bytes_.emplace_back(length, std::uint8_t{0x5a});
    Record& r = add(Kind::ship_data, id);
    r.offset = offset;
    r.length = length;
    r.payload = payload;
  }
  void apply() {
    TreeBatch batch(tree_, names_);
    Staged staged;
    staged.ids_later = ids_later_;
    for (std::size_t at = 0; at < batch_.size(); ++at) {
      if (batch_[at].kind == Kind::ship_dir) {
        const Status made = stage_ahead(std::span(batch_).subspan(at), tree_, memory_, staged);
        ASSERT_TRUE(made) << made.error().to_string();
      }
      const Status done = ResyncApply(batch, memory_, staged, [](const Nak&) {}).apply(batch_[at]);
      ASSERT_TRUE(done) << batch_[at].sequence.value << ": " << done.error().to_string();
    }
    ASSERT_TRUE(batch.flush());
    EXPECT_TRUE(staged.ahead.empty());
    EXPECT_EQ(tree_.staged(), 0U);
    EXPECT_FALSE(memory_.broken);
    batch_.clear();
  }
  FileId named(const FileId& dir, std::string_view name) {
    const auto found = tree_.lookup(dir, name);
    return found && *found ? (*found)->id : FileId{};
  }

  Fuse fuse_;
  CountingTree tree_{set, fuse_};
  bool ids_later_ = false;
  Sequence last_;
  NamesProgress names_;
  ResyncMemory memory_;
  std::vector<Record> batch_;
  std::deque<Bytes> bytes_;
};

TEST_F(StageAhead, TheFilesOfManyFoldersCostOneCommitAndNoLookUp) {
  const FileId a = id_of(10), b = id_of(20);
  listing(root, {{a, "a", type_folder}, {b, "b", type_folder}});
  for (const FileId& dir : {a, b}) {
    const FileId file = id_of(static_cast<std::uint8_t>(dir.bytes[0] + 1));
    node(dir, type_folder | 0755);
    listing(dir, {{file, "file"}});
    node(file, type_regular | 04750, 100);
    data(file, 0, 100);
  }
  apply();
  EXPECT_EQ(tree_.commits, 2);  // what the root holds, whose names are looked up; and all below it
  EXPECT_EQ(tree_.lookups, 2);
  for (const FileId& dir : {a, b}) {
    const FileId file = named(dir, "file");
    const auto attributes = tree_.attributes(file);
    ASSERT_TRUE(attributes && *attributes);
    EXPECT_EQ((*attributes)->mode, type_regular | 04750U);
    EXPECT_EQ((*attributes)->uid, 7U);
    EXPECT_EQ((*attributes)->size, 100U);
  }
}

// Whoever copies all of it looks at its names again after a crash, and makes the ids durable at the end.
TEST_F(StageAhead, InAWholeCopyNoIdIsWaitedFor) {
  const FileId a = id_of(10), file = id_of(11);
  ids_later_ = true;
  listing(root, {{a, "a", type_folder}});
  listing(a, {{file, "file"}});
  node(file, type_regular | 0644);
  apply();
  EXPECT_EQ(tree_.commits, 0);
  EXPECT_EQ(named(a, "file"), file);
}

TEST_F(StageAhead, AFileWhoseBytesDoNotReachItsEndHasItsSize) {
  const FileId dir = id_of(10), file = id_of(11);
  listing(root, {{dir, "d", type_folder}});
  listing(dir, {{file, "sparse"}});
  node(file, type_regular | 0644, 5000);
  data(file, 0, 100);
  apply();
  EXPECT_EQ((*tree_.attributes(file))->size, 5000U);
}

TEST_F(StageAhead, AFileWithTwoNamesIsMadeOnce) {
  const FileId a = id_of(10), b = id_of(20), file = id_of(1);
  listing(root, {{a, "a", type_folder}, {b, "b", type_folder}});
  listing(a, {{file, "one"}, {file, "two"}});
  listing(b, {{file, "three"}});
  node(file, type_regular | 0644);
  apply();
  EXPECT_EQ(named(a, "two"), file);
  EXPECT_EQ(named(b, "three"), file);
  EXPECT_EQ((*tree_.attributes(file))->links, 3U);
}

// The application names in one folder what another folder's listing will name later: it is not here yet when that is done.
TEST_F(StageAhead, NothingIsMadeAheadOfAChangeOfNames) {
  const FileId a = id_of(10), b = id_of(20), file = id_of(1), other = id_of(2);
  listing(root, {{a, "a", type_folder}, {b, "b", type_folder}});
  listing(a, {{other, "other"}});
  Record& moved = add(Kind::link, file);
  moved.parent = a;
  moved.name = "moved";
  moved.mode = type_regular;
  listing(b, {{file, "file"}});
  node(file, type_regular | 0644);
  apply();
  EXPECT_EQ(named(a, "moved"), file);
  EXPECT_EQ(named(b, "file"), file);
}

TEST_F(StageAhead, AFolderThatIsListedBeforeItIsNamedIsNotMadeAhead) {
  const FileId a = id_of(10), b = id_of(20), moved = id_of(30);
  listing(root, {{a, "a", type_folder}, {b, "b", type_folder}});
  listing(a, {{id_of(11), "file"}});
  node(moved, type_folder | 0755);
  listing(moved, {{id_of(31), "below"}});
  listing(b, {{moved, "moved", type_folder}});
  apply();
  EXPECT_EQ(named(b, "moved"), moved);
  EXPECT_EQ(named(moved, "below"), id_of(31));
}

TEST_F(StageAhead, AFolderThatIsListedOnceMoreIsLookedAt) {
  const FileId dir = id_of(10), file = id_of(11), later = id_of(12);
  listing(root, {{dir, "d", type_folder}});
  listing(dir, {{file, "file"}}, log::flag_first_chunk);
  apply();
  listing(dir, {{file, "file"}, {later, "later"}}, log::flag_first_chunk);
  listing(dir, {{id_of(13), "last"}}, log::flag_last_chunk);
  apply();
  listing(dir, {{file, "file"}});  // and after it was listed to its end
  apply();
  EXPECT_EQ(named(dir, "file"), file);
  EXPECT_TRUE(named(dir, "later").is_none());
}

TEST_F(StageAhead, AFolderThatTheApplicationPutsSomethingIntoIsLookedAt) {
  const FileId dir = id_of(10), first = id_of(11), second = id_of(12);
  listing(root, {{dir, "d", type_folder}});
  apply();
  Record& made = add(Kind::create, first);
  made.parent = dir;
  made.name = "name";
  made.mode = type_regular | 0600;
  apply();
  listing(dir, {{second, "name"}});
  apply();
  EXPECT_EQ(named(dir, "name"), second);
}

}  // namespace
}  // namespace holdfast::mirror::testing
