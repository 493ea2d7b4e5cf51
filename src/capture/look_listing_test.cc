// SPDX-License-Identifier: Apache-2.0
#include "capture/look_listing.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "capture/look_server.h"

namespace holdfast::capture {
namespace {

TEST(LookListing, KeepsNamesAsTheyAreAndIsCounted) {
  std::atomic<std::uint64_t> in_use{0};
  {
    LookListing one;
    one.add("first", 1, S_IFREG);
    one.add(std::string(255, 'x'), 2, S_IFDIR);
    one.add("", 3, S_IFLNK);
    ASSERT_EQ(one.size(), 3U);
    EXPECT_EQ(one.at(0).name, "first");
    EXPECT_EQ(one.at(1).name, std::string(255, 'x'));
    EXPECT_EQ(one.at(1).ino, 2U);
    EXPECT_EQ(one.at(2).name, "");
    EXPECT_EQ(one.at(2).type, static_cast<std::uint32_t>(S_IFLNK));
    ASSERT_TRUE(one.count_in(in_use, 1 << 20));
    EXPECT_EQ(in_use, one.bytes());
    LookListing two;
    two.add("first", 1, S_IFREG);
    EXPECT_FALSE(two.count_in(in_use, one.bytes() + 1));
    EXPECT_EQ(in_use, one.bytes()) << "what has no room is not counted";
  }
  EXPECT_EQ(in_use, 0U);
}

// One folder with a hundred thousand names of 200 bytes.
class BigFolder final : public ports::PastTree {
 public:
  Result<std::optional<ports::TreeEntry>> lookup(SetNumber, const FileId&, std::string_view) override {
    return std::optional<ports::TreeEntry>();
  }
  Result<std::vector<ports::TreeEntry>> list(SetNumber, const FileId&) override {
    std::vector<ports::TreeEntry> all(100'000);
    for (auto& e : all) e = {std::string(200, 'n'), FileId::root(1), S_IFREG};
    return all;
  }
  Result<ports::PastAttributes> attributes(SetNumber, const FileId&) override {
    ports::PastAttributes a;
    a.mode = S_IFDIR | 0755;
    return a;
  }
  Result<Bytes> xattrs(SetNumber, const FileId&) override { return Bytes(); }
  Result<std::string> target(SetNumber, const FileId&) override { return std::string(); }
  Result<std::size_t> read(SetNumber, const FileId&, std::uint64_t, std::span<std::uint8_t>) override {
    return std::size_t{0};
  }
};

// Everybody who may read a folder may open it a thousand times, and all of that is in memory that can't be swapped out.
TEST(LookListing, AViewKeepsSoManyOfThemAndNoMore) {
  LookServer server({{1, ""}}, std::make_shared<BigFolder>());
  Bytes reply(1 << 16);
  alignas(8) std::uint8_t fixed[128] = {};
  const auto ask = [&](fuse::Op op) {
    Request r{};
    r.head.opcode = static_cast<std::uint32_t>(op);
    r.head.nodeid = fuse::root_node;
    r.fixed = fixed;
    r.reply = reply;
    return server.handle(r);
  };
  std::vector<std::uint64_t> open;
  Answer answer = 0;
  while (answer >= 0 && open.size() < 1000) {
    answer = ask(fuse::Op::opendir);
    if (answer >= 0) open.push_back(reinterpret_cast<const fuse::OpenOut*>(reply.data())->fh);
  }
  EXPECT_EQ(answer, -ENOMEM);
  EXPECT_GE(open.size(), 10U);
  EXPECT_LE(open.size(), most_listing_bytes / (100'000 * 200));
  reinterpret_cast<fuse::ReleaseIn*>(fixed)->fh = open.back();
  EXPECT_EQ(ask(fuse::Op::releasedir), 0);
  EXPECT_GT(ask(fuse::Op::opendir), 0) << "there is room for one again";
  reinterpret_cast<fuse::ReadIn*>(fixed)->fh = open.front();
  reinterpret_cast<fuse::ReadIn*>(fixed)->offset = 0;
  reinterpret_cast<fuse::ReadIn*>(fixed)->size = 4096;
  EXPECT_GT(ask(fuse::Op::readdir), 0) << "those that are open go on";
}

}  // namespace
}  // namespace holdfast::capture
