// SPDX-License-Identifier: Apache-2.0
#include "platform/live_tree.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "platform/read_once.h"

namespace holdfast::platform {
namespace {

constexpr SetNumber set = 1;

std::size_t open_files() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

// Files that are kept open from a hint, or from one piece to the next, are what their id says now, and nothing else.
class LiveTreeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = ::testing::TempDir() + "live-tree-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    top = name;
    std::filesystem::create_directory(top + "/tree");
    auto opened = FileIndex::open(top + "/index");
    ASSERT_TRUE(opened);
    index = std::move(*opened);
    live = std::make_unique<PosixLiveTree>(*index,
                                           [](SetNumber, const FileId&, const std::function<void()>& body) { body(); });
    UniqueFd root(::open((top + "/tree").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    ASSERT_TRUE(index->bind(root.get(), set, FileId::root(set)));
    live->add(set, std::move(root));
  }
  void TearDown() override {
    live.reset();
    index.reset();
    std::filesystem::remove_all(top);
  }
  std::string path(const std::string& name) const { return top + "/tree/" + name; }
  FileId make(const std::string& name, const std::string& content) {
    std::ofstream(path(name)) << content;
    return id_of(name);
  }
  FileId id_of(const std::string& name) {
    const UniqueFd fd(::open(path(name).c_str(), O_RDONLY | O_CLOEXEC));
    auto id = index->identify(fd.get(), set);
    EXPECT_TRUE(id) << (id ? "" : id.error().to_string() + " (not root?)");
    return id ? *id : FileId{};
  }
  // "": it is gone.
  std::string read(const FileId& id, std::uint64_t offset, std::size_t length) {
    std::string got(length, '\0');
    const Status done = live->with_object(set, id, [&](ports::LiveObject& object) -> Status {
      HF_ASSIGN(const std::size_t n, object.read(offset, {reinterpret_cast<std::uint8_t*>(got.data()), got.size()}));
      got.resize(n);
      return {};
    });
    EXPECT_TRUE(done || done.error().code == ErrorCode::not_found) << done.error().to_string();
    return done ? got : "";
  }

  std::string top;
  std::unique_ptr<FileIndex> index;
  std::unique_ptr<PosixLiveTree> live;
};

// So that what is given together lies together in the index. Another process has others.
TEST_F(LiveTreeTest, IdsAreGivenOneAfterTheOther) {
  FileId last = make("0", "");
  for (int i = 1; i < 300; ++i) {
    const FileId next = make(std::to_string(i), "");
    FileId expected = last;
    if (++expected.bytes[7] == 0) ++expected.bytes[6];
    ASSERT_EQ(next, expected);
    last = next;
  }
  EXPECT_EQ(id_of("299"), last);
  live.reset();
  index.reset();
  auto again = FileIndex::open(top + "/index");
  ASSERT_TRUE(again);
  index = std::move(*again);
  std::ofstream(path("other")) << "";
  const FileId other = id_of("other");
  EXPECT_FALSE(std::equal(other.bytes.begin(), other.bytes.begin() + 6, last.bytes.begin()));
}

TEST_F(LiveTreeTest, AFileThatWasListedIsNotOpenedAgain) {
  const FileId file = make("file", "text"), other = make("other", "x");
  const auto list = [&] {
    ASSERT_TRUE(live->with_object(set, FileId::root(set), [](ports::LiveObject& object) -> Status {
      HF_ASSIGN(const auto listing, object.list(0, 100, 100'000));
      EXPECT_EQ(listing.entries.size(), 2U);
      return {};
    }));
  };
  const std::size_t before = open_files();
  list();
  EXPECT_EQ(open_files(), before) << "nothing is said to be read soon";
  live->will_read(set, other);
  list();
  const std::uint64_t opened = objects_opened();
  live->will_read(set, file);
  EXPECT_EQ(objects_opened(), opened);
  EXPECT_EQ(read(file, 0, 10), "text");
  std::filesystem::remove(path("file"));
  EXPECT_EQ(read(file, 0, 10), "");
  live->reads_end(set);
  EXPECT_EQ(open_files(), before);
}

TEST_F(LiveTreeTest, AHintIsNoPromise) {
  const FileId written = make("written", "old"), removed = make("removed", "x"), replaced = make("replaced", "old");
  for (const FileId& id : {written, removed, replaced}) live->will_read(set, id);
  std::ofstream(path("written")) << "new";
  std::filesystem::remove(path("removed"));
  std::ofstream(path("other")) << "another";
  const UniqueFd other(::open(path("other").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(index->bind(other.get(), set, replaced));  // the id means another file from now on
  EXPECT_EQ(read(written, 0, 100), "new");
  EXPECT_EQ(read(removed, 0, 100), "");
  EXPECT_EQ(read(replaced, 0, 100), "another");
}

TEST_F(LiveTreeTest, ABigFileIsReadInPiecesAsItIsThen) {
  const std::string big(read_once_least_bytes + 100, 'a');
  const FileId id = make("big", big);
  EXPECT_EQ(read(id, 0, 3), "aaa");
  {
    std::fstream file(path("big"));
    file.seekp(3);
    file << "bcd";
  }
  EXPECT_EQ(read(id, 3, 4), "bcda");
  std::filesystem::resize_file(path("big"), 5);
  EXPECT_EQ(read(id, 4, 100), "c");
  std::filesystem::remove(path("big"));
  EXPECT_EQ(read(id, 0, 3), "");
}

TEST_F(LiveTreeTest, NothingStaysOpenWhenTheReadsEndOrTheSetGoes) {
  const std::string big(read_once_least_bytes, 'a');
  std::vector<FileId> ids;
  for (int i = 0; i < 400; ++i) ids.push_back(make("small" + std::to_string(i), "x"));
  const FileId one = make("one", big), two = make("two", big);
  const std::size_t before = open_files();
  const auto begin_all = [&] {
    for (const FileId& id : ids) live->will_read(set, id);
    EXPECT_LE(open_files(), before + 256);
    EXPECT_EQ(read(one, 0, 1), "a");
    EXPECT_EQ(read(two, 0, 1), "a");
    EXPECT_GT(open_files(), before + 2);
  };
  begin_all();
  live->reads_end(set);
  EXPECT_EQ(open_files(), before);
  begin_all();
  live->remove(set);
  EXPECT_EQ(open_files(), before - 1) << "the root";
  live->will_read(set, one);
  EXPECT_EQ(open_files(), before - 1);
}

// Its space would not come back for as long as the peer that it was read for is away.
TEST_F(LiveTreeTest, OfWhatIsGoneNothingStaysOpen) {
  const FileId one = make("one", std::string(read_once_least_bytes, 'a')), two = make("two", "x");
  const std::size_t before = open_files();
  EXPECT_EQ(read(one, 0, 1), "a");
  live->will_read(set, two);
  EXPECT_GT(open_files(), before);
  for (const FileId& id : {one, two}) index->forget(id);
  std::filesystem::remove(path("one"));
  std::filesystem::remove(path("two"));
  EXPECT_EQ(read(one, 1, 1), "");
  EXPECT_EQ(read(two, 0, 1), "");
  EXPECT_EQ(open_files(), before);
}

}  // namespace
}  // namespace holdfast::platform
