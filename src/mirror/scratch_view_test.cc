// SPDX-License-Identifier: Apache-2.0
// Random changes of a view of the past, and of a copy of what stood then, while changes go on below.
#include "mirror/scratch_view.h"

#include <gtest/gtest.h>

#include "mirror/past_view.h"
#include "mirror/test_scratch.h"
#include "mirror/test_scratch_model.h"

namespace holdfast::mirror {
namespace {

using namespace testing;

struct OwnTimes final : ports::Times {
  std::int64_t realtime_ns() override { return now_ns; }
  std::int64_t steady_ns() override { return now_ns; }
  std::int64_t now_ns = 5'000'000'000;
};

// A tree with a past, at the start of a batch.
struct Ground {
  explicit Ground(unsigned seed, std::uint64_t pages = 400) : m(seed) {
    m.begin_batch();
    for (unsigned n = 5 + m.pick(40); n-- > 0;) m.change();
    m.begin_batch();
    batch = m.journal->current_batch();
    model.copy(*m.tree, *m.tree->look(FileId::root(set)));
    open(pages);
  }
  void open(std::uint64_t pages) {
    auto past = PastView::open(
        *m.journal, {{set, m.tree}}, [this] { return WorkMutex::Look(mutex); }, batch);
    ASSERT_TRUE(past) << past.error().to_string();
    auto memory = std::make_unique<MemoryScratch>();
    store = memory.get();
    view = std::make_unique<ScratchView>(std::shared_ptr<ports::PastTree>(std::move(*past)), std::move(memory), times,
                                         ScratchView::Limits{pages * scratch_page, 10'000});
  }
  void go_on() {
    if (m.pick(6) == 0) m.begin_batch();
    for (unsigned n = m.pick(4); n-- > 0;) m.change();
  }

  Machine m;
  WorkMutex mutex;
  std::uint64_t batch = 0;
  OwnTimes times;
  ScratchModel model;
  MemoryScratch* store = nullptr;
  std::unique_ptr<ScratchView> view;
};

TEST(ScratchView, IsAFileSystemOverThePast) {
  unsigned done = 0, refused = 0;
  for (unsigned seed = 1; seed <= 150; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    Ground g(seed, seed % 5 == 0 ? 8 : 400);
    ScratchPair pair(*g.view, g.model, g.m.random, g.times.now_ns);
    for (int step = 0; step < 120 && !HasFailure(); ++step) {
      pair.change();
      g.go_on();
      if (step % 8 == 0) pair.compare();
    }
    pair.compare();
    if (HasFailure()) return;
    EXPECT_LE(g.view->use().bytes, g.view->use().limit_bytes);
    EXPECT_LE(g.store->pages() * scratch_page, g.view->use().bytes);
    done += pair.done, refused += pair.refused_for_room;
  }
  EXPECT_GT(done, 7'500U);
  EXPECT_GT(refused, 50U);
}

TEST(ScratchView, GivesBackWhatIsRemoved) {
  for (unsigned seed = 1; seed <= 50; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    Ground g(seed);
    ports::ScratchNode file, folder;
    file.mode = type_regular | 0644, folder.mode = type_folder | 0755;
    const FileId root = FileId::root(set);
    const auto before = g.view->use().bytes;
    const auto dir = g.view->make(set, root, "new folder", folder);
    ASSERT_TRUE(dir);
    const auto made = g.view->make(set, *dir, "file", file);
    ASSERT_TRUE(made);
    ASSERT_TRUE(g.view->set_xattr(set, *made, "user.x", Bytes(100), ports::XattrHow::any, false));
    ASSERT_TRUE(g.view->write(set, *made, 100'000, Bytes(10'000, 1), false));
    ASSERT_TRUE(g.view->link(set, *made, root, "second name"));
    ASSERT_TRUE(g.view->remove(set, *dir, "file", false));
    g.view->forgotten(set, *made);
    EXPECT_TRUE(g.view->attributes(set, *made)) << "it has another name";
    ASSERT_TRUE(g.view->remove(set, root, "second name", false));
    EXPECT_TRUE(g.view->attributes(set, *made)) << "somebody has it open";
    g.view->forgotten(set, *made);
    EXPECT_EQ(g.view->attributes(set, *made).error().code, ErrorCode::not_found);
    ASSERT_TRUE(g.view->remove(set, root, "new folder", true));
    EXPECT_EQ(g.view->make(set, *dir, "late", file).error().code, ErrorCode::not_found) << "the folder is gone";
    g.view->forgotten(set, *dir);
    EXPECT_LE(g.view->use().bytes, before + 2000) << "the root's xattrs are all that is left";
    EXPECT_EQ(g.store->pages(), 0U);
  }
}

TEST(ScratchView, IsOverWithItsPast) {
  Ground g(7);
  ASSERT_TRUE(g.m.journal->gap(0, "test"));
  ports::ScratchNode file;
  file.mode = type_regular | 0644;
  EXPECT_EQ(g.view->make(set, FileId::root(set), "new", file).error().code, ErrorCode::stale);
  EXPECT_EQ(g.view->list(set, FileId::root(set)).error().code, ErrorCode::stale);
}

TEST(ScratchView, KeepsOurNamesAndOddAttributesOut) {
  Ground g(9);
  const FileId root = FileId::root(set);
  ports::ScratchNode file;
  file.mode = type_regular | 0644;
  EXPECT_EQ(g.view->make(set, root, ports::hidden_name, file).error().code, ErrorCode::denied);
  const auto made = g.view->make(set, root, "new", file);
  ASSERT_TRUE(made);
  EXPECT_EQ(g.view->link(set, *made, root, ports::hidden_name).error().code, ErrorCode::denied);
  EXPECT_EQ(g.view->rename(set, root, "new", root, ports::hidden_name, 0, nullptr).error().code, ErrorCode::denied);
  const auto put = [&](const char* name) {
    return g.view->set_xattr(set, *made, name, as_bytes("x"), ports::XattrHow::any, false).error().code;
  };
  EXPECT_EQ(put("trusted.holdfast.id"), ErrorCode::denied);
  EXPECT_EQ(put("system.nonsense"), ErrorCode::refused);
  EXPECT_EQ(put("system.posix_acl_access"), ErrorCode::invalid);
}

TEST(ScratchView, RemembersNoMoreThanItMay) {
  Ground g(11);
  ports::ScratchNode file;
  file.mode = type_regular | 0644;
  Status last;
  int made = 0;
  for (; made < 20'000 && last; ++made)
    if (auto id = g.view->make(set, FileId::root(set), fmt::format("file-{}", made), file); !id)
      last = tl::unexpected(id.error());
  ASSERT_FALSE(last);
  EXPECT_EQ(last.error().code, ErrorCode::no_space);
  EXPECT_LE(g.view->use().objects, 10'000U);
  EXPECT_GT(made, 4'000);
}

}  // namespace
}  // namespace holdfast::mirror
