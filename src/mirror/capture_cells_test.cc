// SPDX-License-Identifier: Apache-2.0
#include "mirror/capture_cells.h"

#include <gtest/gtest.h>

#include "mirror/file_type.h"
#include "mirror/test_machine.h"
#include "mirror/test_tree.h"

namespace holdfast::mirror {
namespace {

using namespace testing;

// A guest's trim names what is a hole already; a file's size is often set on what was allocated ahead.
TEST(CellCapture, AnEstimateCountsNoHoles) {
  constexpr std::uint64_t mib = std::uint64_t{1} << 20;
  Fuse fuse;
  MemoryTree tree(1, fuse);
  FileId file;
  file.bytes[0] = 7;
  ports::NewNode node;
  node.mode = type_regular | 0644;
  ASSERT_TRUE(tree.stage(file, node));
  ASSERT_TRUE(tree.place(file, FileId::root(1), "image"));
  const Bytes bytes(3 * mib, 1);
  const ByteView piece(bytes);
  ASSERT_TRUE(tree.write(file, 0, std::span(&piece, 1)));
  ASSERT_TRUE(tree.truncate(file, 12 * mib));
  NoUndo undo;
  Covered covered;
  CellCapture capture(tree, undo, covered);
  const auto estimate = [&](std::uint64_t offset, std::uint64_t length) {
    ports::Touches touches;
    touches.data.push_back({file, offset, length});
    return capture.estimate(touches).value();
  };
  EXPECT_EQ(estimate(4 * mib, 4 * mib), 0U);
  EXPECT_EQ(estimate(2 * mib, ports::to_end), mib);
  EXPECT_EQ(estimate(0, ports::to_end), 3 * mib);
  ASSERT_TRUE(capture.data(file, 0, 2 * mib));
  EXPECT_EQ(estimate(0, ports::to_end), mib) << "the rest is covered";
}

}  // namespace
}  // namespace holdfast::mirror
