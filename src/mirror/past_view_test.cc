// SPDX-License-Identifier: Apache-2.0
// Looks at the starts of batches while changes go on: what is seen is what was there.
#include "mirror/past_view.h"

#include <gtest/gtest.h>

#include "mirror/rewind.h"
#include "mirror/test_undo_machine.h"

namespace holdfast::mirror {
namespace {

using namespace testing;

struct Viewer {
  WorkMutex mutex;
  PastView::Hold hold = [this] { return WorkMutex::Look(mutex); };
};

XattrMap as_map(const Bytes& list) {
  XattrMap map;
  const auto decoded = log::decode_xattrs(list);
  EXPECT_TRUE(decoded);
  for (const auto& x : *decoded) map[std::string(x.name)] = Bytes(x.value.begin(), x.value.end());
  return map;
}

// As describe() of the machine's tree, through the view.
void describe(PastView& view, std::mt19937& random, const FileId& dir, const std::string& path,
              std::map<std::string, std::string>& out) {
  const auto entries = view.list(set, dir);
  ASSERT_TRUE(entries) << entries.error().to_string();
  for (const auto& e : *entries) {
    const auto found = view.lookup(set, dir, e.name);
    ASSERT_TRUE(found && *found) << path << "/" << e.name;
    EXPECT_EQ((*found)->id, e.id);
    EXPECT_EQ(is_folder((*found)->mode), is_folder(e.mode));
    const auto a = view.attributes(set, e.id);
    ASSERT_TRUE(a) << path << "/" << e.name << ": " << a.error().to_string();
    Bytes content(std::min<std::uint64_t>(is_folder(a->mode) ? 0 : a->size, 1 << 16));
    for (std::size_t at = 0; at < content.size();) {  // in pieces of any size
      const std::size_t n = std::min<std::size_t>(content.size() - at, 1 + random() % 5000);
      const auto got = view.read(set, e.id, at, std::span(content).subspan(at, n));
      ASSERT_TRUE(got && *got == n) << path << "/" << e.name;
      at += n;
    }
    const auto xattrs = view.xattrs(set, e.id);
    ASSERT_TRUE(xattrs);
    out[path + "/" + e.name] =
        fmt::format("{} mode {:o} owner {}/{} times {} {} size {} crc {:x} xattrs {:x}", e.id.to_hex(), a->mode, a->uid,
                    a->gid, a->atime_ns, a->mtime_ns, is_folder(a->mode) ? 0 : a->size, crc32c(content),
                    crc32c(encode_xattr_map(as_map(*xattrs))));
    if (is_folder(a->mode)) describe(view, random, e.id, path + "/" + e.name, out);
  }
}

std::map<std::string, std::string> seen(PastView& view, std::mt19937& random) {
  std::map<std::string, std::string> out;
  const FileId root = FileId::root(set);
  describe(view, random, root, "", out);
  const auto a = view.attributes(set, root);
  EXPECT_TRUE(a);
  if (a) out["/"] = fmt::format("mode {:o} mtime {}", a->mode, a->mtime_ns);
  return out;
}

TEST(PastView, ShowsTheStartOfAnyBatchWhileChangesGoOn) {
  for (unsigned seed = 1; seed <= 200; ++seed) {
    Machine m(seed);
    Viewer viewer;
    std::map<std::uint64_t, std::map<std::string, std::string>> points;
    std::vector<std::pair<std::uint64_t, std::unique_ptr<PastView>>> views;
    for (unsigned batches = 6 + m.pick(10); batches-- > 0;) {
      m.begin_batch();
      points[m.journal->current_batch()] = m.snapshot();
      for (unsigned n = 1 + m.pick(15); n-- > 0;) {
        m.change();
        if (m.pick(12) != 0) continue;
        auto point = points.begin();
        std::advance(point, m.pick(points.size()));
        auto view = PastView::open(*m.journal, {{set, m.tree}}, viewer.hold, point->first);
        ASSERT_TRUE(view) << view.error().to_string();
        views.emplace_back(point->first, std::move(*view));
      }
      for (const auto& [number, view] : views) {
        expect_same(seen(*view, m.random), points[number], fmt::format("seed {}, batch {}", seed, number));
        if (HasFatalFailure() || HasNonfatalFailure()) return;
      }
    }
    // Going back is one more change.
    auto target = points.begin();
    std::advance(target, m.pick(points.size()));
    ASSERT_TRUE(m.tree->sync());
    Rewind rewind(*m.journal, {{set, m.tree.get()}});
    ASSERT_TRUE(rewind.look(target->first));
    ASSERT_TRUE(rewind.reverse({Epoch(1), Sequence(m.position)}, 1, 0));
    ASSERT_TRUE(rewind.execute());
    for (const auto& [number, view] : views) {
      expect_same(seen(*view, m.random), points[number], fmt::format("seed {}, batch {}, gone back", seed, number));
      if (HasFatalFailure() || HasNonfatalFailure()) return;
    }
  }
}

TEST(PastView, EndsWithItsHistory) {
  Machine m(3);
  Viewer viewer;
  m.begin_batch();
  for (int i = 0; i < 30; ++i) m.change();
  m.begin_batch();
  const std::uint64_t batch = m.journal->current_batch();
  for (int i = 0; i < 30; ++i) m.change();
  EXPECT_EQ(PastView::open(*m.journal, {{set, m.tree}}, viewer.hold, batch, 3).error().code, ErrorCode::refused)
      << "more than it may hold";
  auto view = PastView::open(*m.journal, {{set, m.tree}}, viewer.hold, batch);
  ASSERT_TRUE(view);
  EXPECT_TRUE((*view)->list(set, FileId::root(set)));
  EXPECT_EQ((*view)->attributes(2, FileId::root(2)).error().code, ErrorCode::not_found)
      << "a set of which it has nothing";
  ASSERT_TRUE(m.journal->gap(0, "test"));
  EXPECT_EQ((*view)->list(set, FileId::root(set)).error().code, ErrorCode::stale);
  EXPECT_EQ((*view)->attributes(set, FileId::root(set)).error().code, ErrorCode::stale) << "for good";
  EXPECT_EQ(PastView::open(*m.journal, {{set, m.tree}}, viewer.hold, batch).error().code, ErrorCode::not_found);
}

}  // namespace
}  // namespace holdfast::mirror
