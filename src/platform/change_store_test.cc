// SPDX-License-Identifier: Apache-2.0
#include "platform/change_store.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "mirror/change_set.h"

namespace holdfast::platform {
namespace {

class ChangeStoreTest : public ::testing::Test {
 protected:
  ChangeStoreTest() : dir_(std::filesystem::temp_directory_path() / ("hf-changes-" + std::to_string(::getpid()))) {
    std::filesystem::remove_all(dir_);
    open();
  }
  ~ChangeStoreTest() override {
    store_.reset();
    stores_.reset();
    std::filesystem::remove_all(dir_);
  }
  void open() {
    store_.reset();
    stores_.reset();
    stores_ = LmdbChangeStores::open(dir_).value();
    store_ = stores_->of_peer(NodeId(7)).value();
  }
  static FileId id_of(std::uint8_t n) {
    FileId id;
    id.bytes.fill(n);
    return id;
  }
  Status merge(const mirror::ChangeSet& set, std::string_view header) {
    return store_->merge(set.encode(), mirror::ChangeSet::combine, as_bytes(header));
  }

  std::string dir_;
  std::unique_ptr<LmdbChangeStores> stores_;
  std::unique_ptr<ports::ChangeStore> store_;
};

TEST_F(ChangeStoreTest, KeepsWhatWasMergedOverALife) {
  EXPECT_TRUE(store_->header()->empty());
  mirror::ChangeSet a, b;
  a.object(1, id_of(1)).add(0, 10);
  a.name(1, id_of(2), std::string(255, 'x'));
  ASSERT_TRUE(merge(a, "one"));
  open();
  EXPECT_EQ(as_text(*store_->header()), "one");
  b.object(1, id_of(1)).add(20, 30);
  b.note_folder(1, id_of(1));
  ASSERT_TRUE(merge(b, "two"));
  open();
  a.merge(b);
  EXPECT_EQ(*store_->scan({}, 100), a.encode());
  EXPECT_EQ(*store_->size(), 2U);
  EXPECT_EQ(as_text(*store_->header()), "two");
}

TEST_F(ChangeStoreTest, ScansOnFromAKey) {
  mirror::ChangeSet set;
  for (std::uint8_t i = 1; i <= 100; ++i) set.object(1, id_of(i));
  ASSERT_TRUE(merge(set, ""));
  const auto all = set.encode();
  std::vector<ports::ChangeEntry> seen;
  for (Bytes after = mirror::change_key_prefix(mirror::ChangeKind::object, 1);;) {
    const auto some = store_->scan(after, 7).value();
    if (some.empty()) break;
    ASSERT_LE(some.size(), 7U);
    seen.insert(seen.end(), some.begin(), some.end());
    after = some.back().key;
  }
  EXPECT_EQ(seen, all);
  EXPECT_TRUE(*store_->contains(all[5].key));
  Bytes other = all[5].key;
  other.back() = 99;
  EXPECT_FALSE(*store_->contains(other));
}

TEST_F(ChangeStoreTest, PeersAreApartAndClearedApart) {
  auto other = stores_->of_peer(NodeId(8)).value();
  mirror::ChangeSet set;
  set.note_set(3);
  ASSERT_TRUE(merge(set, "mine"));
  ASSERT_TRUE(other->merge(set.encode(), mirror::ChangeSet::combine, as_bytes("theirs")));
  ASSERT_TRUE(store_->clear(as_bytes("cleared")));
  EXPECT_EQ(*store_->size(), 0U);
  EXPECT_EQ(as_text(*store_->header()), "cleared");
  EXPECT_EQ(*other->size(), 1U);
  EXPECT_EQ(as_text(*other->header()), "theirs");
}

TEST_F(ChangeStoreTest, AMergeThatFailsChangesNothing) {
  mirror::ChangeSet set;
  set.object(1, id_of(1)).add(0, 10);
  ASSERT_TRUE(merge(set, "good"));
  set.object(1, id_of(0)).add(0, 1);
  const auto broken = [](ByteView, ByteView) -> Result<Bytes> { return fail(ErrorCode::corrupt, "no"); };
  EXPECT_FALSE(store_->merge(set.encode(), broken, as_bytes("bad")));
  EXPECT_EQ(*store_->size(), 1U);
  EXPECT_EQ(as_text(*store_->header()), "good");
}

TEST_F(ChangeStoreTest, NobodyElseMayRead) {
  struct stat st {};
  ASSERT_EQ(::stat((dir_ + "/data.mdb").c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 077, 0U);
  ASSERT_EQ(::stat(dir_.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 077, 0U);
}

}  // namespace
}  // namespace holdfast::platform
