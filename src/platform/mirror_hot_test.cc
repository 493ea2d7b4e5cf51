// SPDX-License-Identifier: Apache-2.0
// The hot set of a leading node over real folders and a real peer: its generations come to an end while the peer follows, and when the node is
// gone in the middle of everything, what differs between the two trees is noted.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <thread>

#include "platform/test_mirror_node.h"

namespace holdfast::platform {
namespace {

using mirror::HotKind;
using mirror::PeerState;
using testing::RandomApplication;
using testing::TemporaryFolder;
using testing::TestAuthority;
using testing::TestNode;
using testing::TreeDigest;

struct Object {
  std::string line;
  bool folder = false;
  std::map<std::string, FileId> listing;
};

// By id: where an object stands is its folder's business, and so is its number of links.
std::map<FileId, Object> objects_of(const std::string& root) {
  const auto lines = TreeDigest::of(root);
  std::map<std::string, FileId> ids;
  for (const auto& [path, line] : lines) {
    FileId id = FileId::root(1);
    if (path != ".")
      CHECK(::lgetxattr((root + "/" + path).c_str(), id_attribute, id.bytes.data(), id.bytes.size()) == 16, "{}", path);
    ids[path] = id;
  }
  std::map<FileId, Object> all;
  for (const auto& [path, line] : lines) {
    Object& object = all[ids[path]];
    object.line = line;
    if (const auto at = line.find(" links="); at != std::string::npos)
      object.line.erase(at, line.find(' ', at + 1) - at);
    object.folder = std::filesystem::is_directory(std::filesystem::symlink_status(root + "/" + path));
    if (path != ".") all[ids[path.substr(0, path.rfind('/'))]].listing[path.substr(path.rfind('/') + 1)] = ids[path];
  }
  return all;
}

bool noted(const std::vector<mirror::HotNote>& notes, const FileId& id, bool folder) {
  return std::any_of(notes.begin(), notes.end(), [&](const mirror::HotNote& note) {
    FileId base = id;
    if (note.kind == HotKind::block) base.bytes[6] = base.bytes[7] = 0;
    return note.kind == HotKind::set ||
           (note.id == base && (note.kind == HotKind::block || folder == (note.kind == HotKind::folder)));
  });
}

class MirrorHot : public ::testing::Test {
 protected:
  MirrorHot() : a(authority, folder / "a", NodeId(0xa)), b(authority, folder / "b", NodeId(0xb)) {}
  ~MirrorHot() override {
    if (HasFailure()) ADD_FAILURE() << "faults: a: " << a.fault_text() << " b: " << b.fault_text();
  }

  void lead() {
    ASSERT_TRUE(a.start() && b.start());
    ASSERT_TRUE(a.log->promote(Epoch(1), true));
    ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
    a.runtime->set_peers({{b.id(), "peer", {b.address()}}});
    ASSERT_TRUE(wait([&] { return a.log->status().peers.front().state == PeerState::synchronized; }));
  }
  template <class F>
  bool wait(F&& condition, int seconds = 60) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    std::uint64_t seen = 0;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > until || !a.fault_text().empty() || !b.fault_text().empty()) return false;
      a.log->wait_for_change(20, seen);
    }
    return true;
  }
  std::uint32_t generation() { return a.log->status().hot->generation; }
  // What a later life finds.
  std::unique_ptr<mirror::HotSet> left_by_a() {
    EXPECT_TRUE(a.open_hot());
    mirror::HotSetOptions options;
    options.slots = 4096;
    options.kept_slots = 256;
    auto found = mirror::HotSet::open({*a.hot_file, a.times, {}}, options);
    EXPECT_TRUE(found);
    return std::move(*found);
  }
  // The first objects that differ and are not noted; empty: none.
  std::string missed(const std::vector<mirror::HotNote>& notes) {
    const auto here = objects_of(a.tree_path()), there = objects_of(b.tree_path());
    std::string out;
    for (const auto& [id, object] : here) {
      const auto other = there.find(id);
      if (other == there.end()) continue;  // then some folder above differs
      const bool differs = object.line != other->second.line || object.listing != other->second.listing;
      different += differs;
      if (differs && !noted(notes, id, object.folder))
        out += fmt::format("\n{}\n  here  {}\n  there {}", id.to_hex(), object.line, other->second.line);
    }
    return out;
  }

  TemporaryFolder folder;
  TestAuthority authority;
  TestNode a, b;
  int different = 0;
};

TEST_F(MirrorHot, GenerationsEndWhileThePeerFollows) {
  a.hot_generation_ns = 20'000'000;
  lead();
  RandomApplication application(a, 1);
  const std::uint32_t first = generation();
  ASSERT_TRUE(wait([&] {
    application.run(50);
    return generation() >= first + 4;
  }));
  EXPECT_TRUE(a.log->status().hot->whole.empty());
  // A peer that is gone keeps the older notes; one more generation begins, and waits.
  b.stop();
  application.run(50);
  const std::uint32_t before = generation();
  ASSERT_TRUE(wait([&] { return generation() > before && a.log->status().hot->releasing; }));
  const std::uint32_t last = generation();
  application.run(500);
  EXPECT_EQ(generation(), last);
  ASSERT_TRUE(b.start());
  ASSERT_TRUE(b.log->follow(Epoch(1), a.id()));
  a.runtime->set_peers({{b.id(), "peer", {b.address()}}});
  ASSERT_TRUE(wait([&] { return generation() > last; })) << "it returned, and holds everything";
}

TEST_F(MirrorHot, AnEpochThatWasHandedOverLeavesNoNotes) {
  lead();
  RandomApplication(a, 2).run(100);
  const auto end = a.log->end_epoch();
  ASSERT_TRUE(end);
  ASSERT_TRUE(a.log->wait_handed_over(b.id(), *end, 10'000).value());
  ASSERT_TRUE(a.log->step_down(*end));
  a.stop();
  const auto left = left_by_a();
  EXPECT_EQ(left->header().epoch, Epoch(0));
  EXPECT_EQ(left->header().covered, *end);
  EXPECT_TRUE(left->notes()->empty());
}

// A fence or the end of the process at any moment, with changes on the way to the peer, on the way to the disk and on no way at all.
TEST_F(MirrorHot, WhatDiffersAfterAnUncleanEndIsNoted) {
  const char* other = std::getenv("HOLDFAST_TEST_SEED");
  const unsigned seed = other ? static_cast<unsigned>(std::atoi(other)) : 1;
  a.hot_generation_ns = 15'000'000;
  lead();
  std::mt19937 random(seed);
  std::atomic<bool> stop{false};
  std::thread second([&] {
    RandomApplication application(a, seed * 2 + 1);
    while (!stop) application.step();
  });
  RandomApplication application(a, seed * 2);
  const std::uint32_t first = generation();
  EXPECT_TRUE(wait([&] {
    application.run(20);
    return generation() >= first + 3 + random() % 4;
  }));
  if (random() % 2) b.runtime.reset();  // the peer's connection ends before we do
  application.run(static_cast<int>(random() % 200));
  if (random() % 2) a.log->abort();  // and some stragglers
  stop = true;
  second.join();
  a.stop();
  // What the peer holds it applies.
  b.stop();
  ASSERT_TRUE(b.start());
  const auto sealed = b.log->seal(Epoch(2));
  ASSERT_TRUE(sealed && b.log->promote(Epoch(2)));
  const auto left = left_by_a();
  EXPECT_EQ(left->header().epoch, Epoch(1));
  EXPECT_LE(left->header().covered, sealed->position);
  const auto notes = left->notes();
  ASSERT_TRUE(notes);
  EXPECT_EQ(missed(*notes), "");
  EXPECT_FALSE(std::any_of(notes->begin(), notes->end(), [](const auto& n) { return n.kind == HotKind::set; }));
  RecordProperty("different", different);
}

}  // namespace
}  // namespace holdfast::platform
