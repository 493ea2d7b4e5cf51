// SPDX-License-Identifier: Apache-2.0
// Every change is noted as hot before anything else happens (R5): each record is about what was noted in the present generation, while a guard is
// held; and when noting fails, nothing below has changed.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <set>

#include "capture/test_mount.h"

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE 2
#endif
#ifndef RENAME_WHITEOUT
#define RENAME_WHITEOUT 4
#endif

namespace holdfast::capture {
namespace {

class TestGate final : public mirror::HotGate {
 public:
  TestGate() { set_generation(1); }
  void turn() { set_generation(generation() + 1); }
  bool guarded() const { return has_guards(0) || has_guards(1); }
  bool noted(const FileId& id, bool folder) {
    const std::lock_guard lock(mutex_);
    return notes_.contains({generation(), id, folder});
  }
  void made(const FileId& id) {
    const std::lock_guard lock(mutex_);
    notes_.insert({generation(), id, false});
    notes_.insert({generation(), id, true});
  }
  Result<FileId> fresh(SetNumber) override { return fail(ErrorCode::internal, "ids come from elsewhere here"); }
  Status with_whole_set(SetNumber, const std::function<Status()>& body) override { return body(); }

  std::atomic<bool> fails{false};
  std::atomic<unsigned> asked{0};

 protected:
  Status note(SetNumber set, Objects objects) override {
    EXPECT_EQ(set, 7);
    EXPECT_FALSE(guarded()) << "a guard that waits for a note holds up the next generation";
    ++asked;
    if (fails) return fail(ErrorCode::io, "the disk says no");
    const std::lock_guard lock(mutex_);
    for (const Object& object : objects) {
      notes_.insert({generation(), object.id, object.folder});
      object.cell = generation();
    }
    return {};
  }

 private:
  std::mutex mutex_;
  std::set<std::tuple<std::uint32_t, FileId, bool>> notes_;
};

void at_file(const std::string& path, int flags, const std::function<void(int)>& use) {
  const int fd = open(path.c_str(), flags | O_CLOEXEC, 0644);
  if (fd < 0) return;
  use(fd);
  fsync(fd);  // what the kernel holds back comes now
  close(fd);
}

using Change = std::pair<std::string, std::function<void(const std::string&)>>;

// In this order each one has something to do.
std::vector<Change> changes() {
  return {
      {"create",
       [](const auto& at) { at_file(at + "/new", O_CREAT | O_RDWR, [](int fd) { (void)!write(fd, "x", 1); }); }},
      {"write", [](const auto& at) { at_file(at + "/old", O_RDWR, [](int fd) { (void)!pwrite(fd, "yy", 2, 1); }); }},
      {"direct",
       [](const auto& at) { at_file(at + "/old", O_RDWR | O_DSYNC, [](int fd) { (void)!write(fd, "z", 1); }); }},
      {"ftruncate", [](const auto& at) { at_file(at + "/old", O_RDWR, [](int fd) { (void)!ftruncate(fd, 5); }); }},
      {"truncate", [](const auto& at) { (void)!truncate((at + "/old").c_str(), 9); }},
      {"o_trunc", [](const auto& at) { at_file(at + "/old", O_RDWR | O_TRUNC, [](int) {}); }},
      {"fallocate",
       [](const auto& at) { at_file(at + "/old", O_RDWR, [](int fd) { (void)!fallocate(fd, 0, 0, 8192); }); }},
      {"punch",
       [](const auto& at) {
         at_file(at + "/old", O_RDWR,
                 [](int fd) { (void)!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096); });
       }},
      {"chmod", [](const auto& at) { (void)!chmod((at + "/old").c_str(), 0600); }},
      {"chmod_folder", [](const auto& at) { (void)!chmod((at + "/d").c_str(), 0700); }},
      {"chown", [](const auto& at) { (void)!chown((at + "/old").c_str(), 3, 4); }},
      {"times",
       [](const auto& at) {
         const timespec times[2] = {{5, 0}, {6, 0}};
         (void)!utimensat(AT_FDCWD, (at + "/old").c_str(), times, 0);
       }},
      {"setxattr", [](const auto& at) { (void)!setxattr((at + "/old").c_str(), "user.a", "1", 1, 0); }},
      {"removexattr", [](const auto& at) { (void)!removexattr((at + "/old").c_str(), "user.a"); }},
      {"mkdir", [](const auto& at) { (void)!mkdir((at + "/d/e").c_str(), 0755); }},
      {"symlink", [](const auto& at) { (void)!symlink("x", (at + "/d/s").c_str()); }},
      {"mknod", [](const auto& at) { (void)!mkfifo((at + "/d/p").c_str(), 0644); }},
      {"link", [](const auto& at) { (void)!link((at + "/old").c_str(), (at + "/d/hard").c_str()); }},
      {"rename", [](const auto& at) { (void)!rename((at + "/new").c_str(), (at + "/newer").c_str()); }},
      {"rename_across", [](const auto& at) { (void)!rename((at + "/newer").c_str(), (at + "/d/new").c_str()); }},
      {"replace", [](const auto& at) { (void)!rename((at + "/d/new").c_str(), (at + "/d/hard").c_str()); }},
      {"exchange",
       [](const auto& at) {
         (void)!renameat2(AT_FDCWD, (at + "/old").c_str(), AT_FDCWD, (at + "/d/hard").c_str(), RENAME_EXCHANGE);
       }},
      {"whiteout",
       [](const auto& at) {
         (void)!renameat2(AT_FDCWD, (at + "/d/s").c_str(), AT_FDCWD, (at + "/s2").c_str(), RENAME_WHITEOUT);
       }},
      {"tmpfile",
       [](const auto& at) {
         at_file(at + "/d", O_TMPFILE | O_RDWR, [&](int fd) {
           (void)!write(fd, "t", 1);
           (void)!linkat(AT_FDCWD, ("/proc/self/fd/" + std::to_string(fd)).c_str(), AT_FDCWD, (at + "/was_tmp").c_str(),
                         AT_SYMLINK_FOLLOW);
         });
       }},
      {"unlink", [](const auto& at) { (void)!unlink((at + "/d/hard").c_str()); }},
      {"rmdir", [](const auto& at) { (void)!rmdir((at + "/d/e").c_str()); }},
  };
}

void prepare(const std::string& below) {
  std::filesystem::create_directories(below + "/d");
  at_file(below + "/old", O_CREAT | O_RDWR, [](int fd) { (void)!write(fd, "0123456789", 10); });
}

class Hot : public testing::TestWithParam<Flavour> {
 protected:
  void SetUp() override {
    if (!can_mount()) GTEST_SKIP() << "needs root and /dev/fuse";
  }
  TestGate gate;
};

TEST_P(Hot, EveryRecordIsAboutWhatWasNotedBefore) {
  TestMount mounted(GetParam(), 0, prepare, &gate);
  ASSERT_TRUE(mounted.session);
  std::string now;
  std::set<log::Kind> seen;
  mounted.log.appended = [&](const log::Record& record) {
    using log::Kind;
    seen.insert(record.kind);
    EXPECT_TRUE(gate.guarded()) << now;
    switch (record.kind) {
      case Kind::create:
      case Kind::mkdir:
      case Kind::symlink:
      case Kind::mknod:
        gate.made(record.file);
        [[fallthrough]];
      case Kind::link:
      case Kind::unlink:
      case Kind::rmdir:
        EXPECT_TRUE(gate.noted(record.parent, true)) << now;
        return;
      case Kind::rename:
        EXPECT_TRUE(gate.noted(record.parent, true) && gate.noted(record.parent2, true)) << now;
        return;
      default:
        EXPECT_TRUE(gate.noted(record.file, false) || gate.noted(record.file, true)) << now;
    }
  };
  for (const auto& [name, change] : changes()) {
    now = name;
    const unsigned before = gate.asked;
    gate.turn();
    change(mounted.mount);
    EXPECT_GT(gate.asked, before) << name;
  }
  EXPECT_GE(seen.size(), 14U) << "all kinds of changes must have happened";
  mounted.unmount();
  EXPECT_EQ(mounted.faults, 0U);
}

TEST_P(Hot, OneNoteAnObjectAndGeneration) {
  TestMount mounted(GetParam(), 0, prepare, &gate);
  ASSERT_TRUE(mounted.session);
  at_file(mounted.at("old"), O_RDWR, [](int fd) { (void)!write(fd, "a", 1); });
  const unsigned asked = gate.asked;
  for (int i = 0; i < 20; ++i) at_file(mounted.at("old"), O_RDWR, [](int fd) { (void)!write(fd, "a", 1); });
  EXPECT_EQ(gate.asked, asked);
  for (int i = 0; i < 20; ++i)
    at_file(mounted.at("d/" + std::to_string(i)), O_CREAT | O_RDWR, [](int fd) { (void)!write(fd, "a", 1); });
  EXPECT_EQ(gate.asked, asked + 1) << "the folder; what is made in it needs none";
  mounted.unmount();
}

TEST_P(Hot, NothingIsChangedWhenItCannotBeNoted) {
  TestMount mounted(GetParam(), 0, prepare, &gate);
  ASSERT_TRUE(mounted.session);
  gate.fails = true;
  const auto before = describe_tree(mounted.below, true);
  for (const auto& [name, change] : changes()) {
    change(mounted.mount);
    ASSERT_EQ(describe_tree(mounted.below, true), before) << name;
  }
  EXPECT_EQ(mounted.log.take().size(), 0U);
  EXPECT_EQ(mounted.faults, 1U);
  EXPECT_FALSE(gate.guarded());
}

INSTANTIATE_TEST_SUITE_P(Flavours, Hot, testing::ValuesIn(flavours()),
                         [](const auto& flavour) { return flavour.param.name(); });

}  // namespace
}  // namespace holdfast::capture
