// SPDX-License-Identifier: Apache-2.0
// Many callers in few folders at the same time: whatever the disk made of it, the log replayed must make the same.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "capture/test_mount.h"

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE 2
#endif

namespace holdfast::capture {
namespace {

constexpr int callers = 6, operations = 250;

class Caller {
 public:
  Caller(const std::string& root, unsigned seed) : root_(root), random_(seed) {}
  void run() {
    for (int i = 0; i < operations; ++i) step();
    for (const int fd : open_) close(fd);
  }

 private:
  int pick(int n) { return static_cast<int>(random_() % static_cast<unsigned>(n)); }
  std::string folder() { return root_ + "/d" + std::to_string(pick(3)); }
  std::string name() { return folder() + "/n" + std::to_string(pick(8)); }
  void step() {
    struct stat st;
    const std::string data(1 + static_cast<std::size_t>(pick(9000)), static_cast<char>('a' + pick(26)));
    switch (pick(14)) {
      case 0:
      case 1:
      case 2:
        keep(open(name().c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600 + pick(64)));
        break;
      case 3:
      case 4:
      case 5:
        if (!open_.empty()) (void)!pwrite(one(), data.data(), data.size(), pick(30'000));
        break;
      case 6:
        rename(name().c_str(), name().c_str());
        break;
      case 7:
        renameat2(AT_FDCWD, name().c_str(), AT_FDCWD, name().c_str(), RENAME_EXCHANGE);
        break;
      case 8:
        link(name().c_str(), name().c_str());
        break;
      case 9:
        unlink(name().c_str());
        break;
      case 10:
        mkdir(name().c_str(), 0755);
        break;
      case 11:
        rmdir(name().c_str());
        break;
      case 12:
        setxattr(name().c_str(), "user.s", data.data(), std::min<std::size_t>(data.size(), 200), 0);
        break;
      default:
        if (open_.empty()) break;
        if (pick(2))
          (void)!ftruncate(one(), pick(20'000));
        else
          fdatasync(one());
        if (fstat(one(), &st) == 0) fchmod(one(), 0600 + static_cast<unsigned>(pick(64)));
    }
  }
  void keep(int fd) {
    if (fd < 0) return;
    open_.push_back(fd);
    if (open_.size() < 6) return;
    close(open_.front());
    open_.erase(open_.begin());
  }
  int one() { return open_[static_cast<std::size_t>(pick(static_cast<int>(open_.size())))]; }

  const std::string root_;
  std::mt19937 random_;
  std::vector<int> open_;
};

class Stress : public testing::TestWithParam<Flavour> {};

TEST_P(Stress, LogReplaysToTheSameTree) {
  if (!can_mount()) GTEST_SKIP() << "needs root and /dev/fuse";
  TestMount m(GetParam());
  ASSERT_TRUE(m.session);
  const std::string replica = m.base + "/replica";
  std::filesystem::create_directories(replica);
  for (int d = 0; d < 3; ++d) ASSERT_EQ(mkdir(m.at("d" + std::to_string(d)).c_str(), 0755), 0);
  std::vector<std::thread> threads;
  for (unsigned c = 0; c < callers; ++c) threads.emplace_back([&m, c] { Caller(m.mount, 1000 + c).run(); });
  for (auto& thread : threads) thread.join();
  m.unmount();
  EXPECT_EQ(m.faults, 0U);
  const auto records = m.log.take();
  EXPECT_GT(records.size(), 500U);
  EXPECT_EQ(replay(records, replica, 7), "");
  auto wanted = describe_tree(m.below, true), made = describe_tree(replica, true);
  std::erase_if(wanted, [](const auto& line) { return line.starts_with("/ "); });
  std::erase_if(made, [](const auto& line) { return line.starts_with("/ "); });
  EXPECT_EQ(wanted, made);
}

INSTANTIATE_TEST_SUITE_P(Flavours, Stress, testing::ValuesIn(flavours()),
                         [](const auto& one) { return one.param.name(); });

}  // namespace
}  // namespace holdfast::capture
