// SPDX-License-Identifier: Apache-2.0
// Each case makes the same calls on a bare folder and on a mount and writes down what came back. The two must not differ, the tree below must
// be what the mount showed, and the recorded log, replayed onto an empty folder, must make that tree once more.
#include <filesystem>

#include "capture/differential_cases.h"
#include "capture/test_mount.h"

namespace holdfast::capture {
namespace {

using Parameter = std::tuple<Flavour, Case>;

class Differential : public testing::TestWithParam<Parameter> {};

TEST_P(Differential, MountBehavesLikeTheFileSystemBelow) {
  if (!can_mount()) GTEST_SKIP() << "needs root and /dev/fuse";
  const auto& [flavour, one] = GetParam();
  TestMount mounted(flavour);
  ASSERT_TRUE(mounted.session);
  const std::string bare = mounted.base + "/bare", replica = mounted.base + "/replica";
  std::filesystem::create_directories(bare);
  std::filesystem::create_directories(replica);
  Trace expected(bare), got(mounted.mount);
  one.run(expected);
  one.run(got);
  EXPECT_EQ(expected.lines(), got.lines());
  const auto shown = describe_tree(mounted.mount, false);
  EXPECT_EQ(describe_tree(bare, false), shown);
  mounted.unmount();
  EXPECT_EQ(describe_tree(mounted.below, false), [&] {
    auto below = describe_tree(bare, false);
    // The hidden folder counts as a link of the root below.
    for (auto& line : below)
      if (line.starts_with("/ ")) {
        const auto at = line.find("links ") + 6;
        line.replace(at, line.find_first_not_of("0123456789", at) - at,
                     std::to_string(std::stoul(line.substr(at)) + 1));
      }
    return below;
  }());
  EXPECT_EQ(mounted.faults, 0U);

  const auto records = mounted.log.take();
  EXPECT_EQ(replay(records, replica, 7), "");
  auto wanted = describe_tree(mounted.below, true), made = describe_tree(replica, true);
  std::erase_if(wanted, [](const auto& line) {
    return line.starts_with("/ ");
  });  // the root's own links and times are not comparable
  std::erase_if(made, [](const auto& line) { return line.starts_with("/ "); });
  EXPECT_EQ(wanted, made);
}

INSTANTIATE_TEST_SUITE_P(Cases, Differential,
                         testing::Combine(testing::ValuesIn(flavours()), testing::ValuesIn(differential_cases())),
                         [](const auto& one) {
                           return std::get<0>(one.param).name() + "_" + std::get<1>(one.param).name;
                         });

}  // namespace
}  // namespace holdfast::capture
