// SPDX-License-Identifier: Apache-2.0
// Each case makes the same calls on a bare folder and on a mount, on a disk of each kind, and writes down what came back. The two must not
// differ but in what differences() names, the tree below must be what the mount showed, and the recorded log, replayed onto an empty folder,
// must make that tree once more.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "capture/differential_cases.h"
#include "capture/test_disk.h"
#include "capture/test_mount.h"

namespace holdfast::capture {
namespace {

using Parameter = std::tuple<DiskKind, Flavour, Case>;

// What is allowed to differ here.
std::vector<const Difference*> allowed(const Parameter& parameter) {
  const auto& [disk, flavour, one] = parameter;
  std::vector<const Difference*> out;
  for (const Difference& d : differences()) {
    if (d.one != one.name || (!d.disk.empty() && d.disk != to_string(disk))) continue;
    if (d.policy == Difference::Policy::write_back && flavour.policy != WritePolicy::write_back) continue;
    out.push_back(&d);
  }
  return out;
}

void compare(const std::vector<std::string>& expected, const std::vector<std::string>& got,
             const std::vector<const Difference*>& may_differ) {
  std::set<const Difference*> met;
  for (std::size_t i = 0; i < std::max(expected.size(), got.size()); ++i) {
    const std::string below = i < expected.size() ? expected[i] : "nothing",
                      mount = i < got.size() ? got[i] : "nothing";
    if (below == mount) continue;
    const auto known = std::find_if(may_differ.begin(), may_differ.end(),
                                    [&](const Difference* d) { return d->below == below && d->mount == mount; });
    if (known == may_differ.end())
      ADD_FAILURE() << "line " << i << "\n  below: " << below << "\n  mount: " << mount;
    else
      met.insert(*known);
  }
  for (const Difference* d : may_differ)
    if (!met.contains(d)) ADD_FAILURE() << "no difference any more (" << d->row << ")\n  was: " << d->mount;
}

// The hidden folder counts as a link of the root below.
std::vector<std::string> with_hidden_folder(std::vector<std::string> tree) {
  for (auto& line : tree)
    if (line.starts_with("/ ")) {
      const auto at = line.find("links ") + 6;
      line.replace(at, line.find_first_not_of("0123456789", at) - at, std::to_string(std::stoul(line.substr(at)) + 1));
    }
  return tree;
}

// The root's own links and times are not comparable.
std::vector<std::string> without_root(std::vector<std::string> tree) {
  std::erase_if(tree, [](const auto& line) { return line.starts_with("/ "); });
  return tree;
}

// A case need not close what it opened.
void close_leftovers(const std::string& root) {
  for (int fd = 3; fd < 1024; ++fd) {
    char target[4096] = {};
    const ssize_t n = readlink(fmt::format("/proc/self/fd/{}", fd).c_str(), target, sizeof target - 1);
    if (n > 0 && std::string(target).starts_with(root)) close(fd);
  }
}

class Differential : public testing::TestWithParam<Parameter> {};

TEST_P(Differential, MountBehavesLikeTheFileSystemBelow) {
  if (!can_mount()) GTEST_SKIP() << "needs root and /dev/fuse";
  const auto& [disk, flavour, one] = GetParam();
  ASSERT_NE(test_disk(disk), "");
  TestMount mounted(flavour, 0, {}, nullptr, test_disk(disk));
  ASSERT_TRUE(mounted.session);
  const std::string bare = mounted.base + "/bare", replica = mounted.base + "/replica";
  for (const auto& folder : {bare, bare + "-beside", mounted.mount + "-beside", replica})
    std::filesystem::create_directories(folder);
  Trace expected(bare), got(mounted.mount);
  one.run(expected);
  close_leftovers(bare);
  one.run(got);
  close_leftovers(mounted.mount);
  compare(expected.lines(), got.lines(), allowed(GetParam()));
  EXPECT_EQ(describe_tree(bare, false), describe_tree(mounted.mount, false));
  mounted.unmount();
  EXPECT_EQ(describe_tree(mounted.below, false), with_hidden_folder(describe_tree(bare, false)));
  EXPECT_EQ(mounted.faults, 0U);

  const auto records = mounted.log.take();
  EXPECT_EQ(replay(records, replica, 7), "");
  EXPECT_EQ(without_root(describe_tree(mounted.below, true)), without_root(describe_tree(replica, true)));
}

std::string name_of(const testing::TestParamInfo<Parameter>& one) {
  return std::string(to_string(std::get<0>(one.param))) + "_" + std::get<1>(one.param).name() + "_" +
         std::get<2>(one.param).name;
}

INSTANTIATE_TEST_SUITE_P(Cases, Differential,
                         testing::Combine(testing::Values(DiskKind::ext4, DiskKind::xfs), testing::ValuesIn(flavours()),
                                          testing::ValuesIn(differential_cases())),
                         name_of);
INSTANTIATE_TEST_SUITE_P(MountOptions, Differential,
                         testing::Combine(testing::Values(DiskKind::strict), testing::ValuesIn(flavours()),
                                          testing::ValuesIn(mount_option_cases())),
                         name_of);

// What may differ is what the administrator is told, and nothing else.
TEST(Differences, StandInTheGuarantees) {
  std::set<std::string> rows, told;
  for (const Difference& d : differences()) rows.insert(d.row);
  std::ifstream in(HF_GUARANTEES);
  ASSERT_TRUE(in) << HF_GUARANTEES;
  bool inside = false;
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("## ")) inside = line == "## Differences from the file system below";
    if (!inside || !line.starts_with("| ") || line.starts_with("| call ") || line.starts_with("|--")) continue;
    told.insert(line.substr(2, line.find(" |", 2) - 2));
  }
  EXPECT_EQ(rows, told);
}

}  // namespace
}  // namespace holdfast::capture
