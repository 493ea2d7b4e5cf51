// SPDX-License-Identifier: Apache-2.0
// Each differential case on a bare folder and in a writable view: of nothing, and of a folder in which the same case was played before. The two must
// not differ, and what is below the view must be what it was. Needs root and /dev/fuse.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <thread>

#include "capture/differential_cases.h"
#include "capture/look_mount.h"
#include "capture/lower_xattrs.h"
#include "capture/test_mount.h"
#include "mirror/scratch_view.h"
#include "mirror/test_scratch.h"

namespace holdfast::capture {
namespace {

struct WallTimes final : ports::Times {
  std::int64_t realtime_ns() override { return std::time(nullptr) * 1'000'000'000; }
  std::int64_t steady_ns() override { return realtime_ns(); }
};

// A folder that nobody changes any more, as a past.
class FolderPast final : public ports::PastTree {
 public:
  explicit FolderPast(const std::string& root) { walk(FileId::root(1), root); }
  Result<std::optional<ports::TreeEntry>> lookup(SetNumber set, const FileId& dir, std::string_view name) override {
    HF_ASSIGN(const auto all, list(set, dir));
    for (const auto& e : all)
      if (e.name == name) return std::optional(e);
    return std::optional<ports::TreeEntry>();
  }
  Result<std::vector<ports::TreeEntry>> list(SetNumber, const FileId& dir) override {
    if (over) return fail(ErrorCode::stale, "over");
    return objects_.at(dir).names;
  }
  Result<ports::PastAttributes> attributes(SetNumber, const FileId& id) override {
    if (over) return fail(ErrorCode::stale, "over");
    if (!objects_.contains(id)) return fail(ErrorCode::not_found, "no such object");
    return objects_.at(id).attributes;
  }
  Result<Bytes> xattrs(SetNumber, const FileId& id) override {
    Bytes all;
    const Descriptor fd(::open(objects_.at(id).path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (const int error = read_xattrs(fd.get(), all)) return fail_errno(error, "no xattrs");
    return all;
  }
  Result<std::string> target(SetNumber, const FileId& id) override {
    return std::filesystem::read_symlink(objects_.at(id).path).string();
  }
  Result<std::size_t> read(SetNumber, const FileId& id, std::uint64_t offset, std::span<std::uint8_t> into) override {
    if (over) return fail(ErrorCode::stale, "over");
    const Descriptor fd(::open(objects_.at(id).path.c_str(), O_RDONLY | O_CLOEXEC));
    const ssize_t n = ::pread(fd.get(), into.data(), into.size(), static_cast<off_t>(offset));
    if (n < 0) return fail_errno(errno, "no data");
    return static_cast<std::size_t>(n);
  }
  std::atomic<bool> over{false};

 private:
  struct Object {
    std::string path;
    ports::PastAttributes attributes;
    std::vector<ports::TreeEntry> names;
  };
  void walk(const FileId& id, const std::string& path) {
    struct stat st {};
    ASSERT_EQ(::lstat(path.c_str(), &st), 0);
    Object& object = objects_[id];
    object.path = path;
    auto& a = object.attributes;
    a.mode = st.st_mode, a.uid = st.st_uid, a.gid = st.st_gid, a.rdev = st.st_rdev;
    a.size = static_cast<std::uint64_t>(st.st_size), a.links = st.st_nlink;
    a.mtime_ns = st.st_mtim.tv_sec * 1'000'000'000 + st.st_mtim.tv_nsec;
    a.atime_ns = st.st_atim.tv_sec * 1'000'000'000 + st.st_atim.tv_nsec;
    if (!S_ISDIR(st.st_mode)) return;
    for (const auto& e : std::filesystem::directory_iterator(path)) {
      struct stat child {};
      ASSERT_EQ(::lstat(e.path().c_str(), &child), 0);
      FileId child_id;
      child_id.bytes[15] = 1;
      std::memcpy(child_id.bytes.data(), &child.st_ino, sizeof child.st_ino);
      objects_[id].names.push_back({e.path().filename().string(), child_id, child.st_mode & S_IFMT});
      if (!objects_.contains(child_id)) walk(child_id, e.path().string());
    }
  }
  std::map<FileId, Object> objects_;
};

// A past, a view of it that can be written to, and a bare folder that held the same.
class LookWrite : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!can_mount()) GTEST_SKIP() << "needs root and /dev/fuse";
    std::string name = (std::filesystem::temp_directory_path() / "holdfast-look-XXXXXX").string();
    base = mkdtemp(name.data());
    for (const char* d : {"/old", "/bare", "/mount"}) std::filesystem::create_directories(base + d);
  }
  ~LookWrite() override {
    mounted.reset();
    if (!base.empty()) std::filesystem::remove_all(base);
  }
  void mount(std::uint64_t bytes = 64ULL << 20) {
    past = std::make_shared<FolderPast>(base + "/old");
    view = std::make_shared<mirror::ScratchView>(past, std::make_unique<mirror::testing::MemoryScratch>(), times,
                                                 mirror::ScratchView::Limits{bytes, 100'000});
    auto made = LookMount::mount(base + "/mount", {{1, ""}}, std::shared_ptr<ports::ScratchTree>(view),
                                 [this](const Error& why) { trouble.push_back(why.code); });
    ASSERT_TRUE(made) << made.error().to_string();
    mounted = std::move(*made);
  }
  std::string at(const std::string& name) const { return base + "/mount/" + name; }

  std::string base;
  WallTimes times;
  std::shared_ptr<FolderPast> past;
  std::shared_ptr<mirror::ScratchView> view;
  std::vector<ErrorCode> trouble;
  std::unique_ptr<LookMount> mounted;
};

// A view lets nobody open a device.
std::vector<std::string> without_devices(std::vector<std::string> lines) {
  std::erase_if(lines, [](const auto& l) { return l.starts_with("open null") || l.starts_with("write null"); });
  return lines;
}

class LookWriteCase : public LookWrite, public ::testing::WithParamInterface<std::tuple<bool, Case>> {};

TEST_P(LookWriteCase, BehavesLikeAFileSystem) {
  const auto& [played, one] = GetParam();
  if (played) {
    Trace a(base + "/old"), b(base + "/bare");
    one.run(a);
    one.run(b);
  }
  const auto old = describe_tree(base + "/old", true);
  mount();
  if (HasFatalFailure()) return;
  Trace expected(base + "/bare"), got(base + "/mount");
  one.run(expected);
  one.run(got);
  EXPECT_EQ(without_devices(expected.lines()), without_devices(got.lines()));
  EXPECT_EQ(describe_tree(base + "/bare", false), describe_tree(base + "/mount", false));
  EXPECT_EQ(describe_tree(base + "/old", true), old);
  ASSERT_TRUE(mounted->end());
}

// Not: statvfs, birth times and flags, which are the view's own; holes of the past, which are data in it.
std::vector<std::tuple<bool, Case>> cases() {
  std::vector<std::tuple<bool, Case>> all;
  for (const bool played : {false, true})
    for (const Case& one : basic_cases())
      if (one.name != "queries" && !(played && one.name == "holes")) all.emplace_back(played, one);
  return all;
}

INSTANTIATE_TEST_SUITE_P(Cases, LookWriteCase, ::testing::ValuesIn(cases()), [](const auto& one) {
  return std::get<1>(one.param).name + (std::get<0>(one.param) ? "_again" : "");
});

TEST_F(LookWrite, IsFullAtItsLimitAndSaysSo) {
  mount(1 << 20);
  struct statvfs fs {};
  ASSERT_EQ(::statvfs(at("").c_str(), &fs), 0);
  EXPECT_EQ(fs.f_blocks * fs.f_frsize, 1U << 20);
  const Descriptor fd(::open(at("big").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  const std::string part(256 << 10, 'x');
  int written = 0;
  while (::write(fd.get(), part.data(), part.size()) == static_cast<ssize_t>(part.size())) ++written;
  EXPECT_EQ(errno, ENOSPC);
  EXPECT_EQ(::write(fd.get(), part.data(), part.size()), -1);
  EXPECT_EQ(trouble, std::vector{ErrorCode::no_space}) << "once";
  EXPECT_GE(written, 3);
  EXPECT_LE(view->use().bytes, 1U << 20);
  ASSERT_EQ(::ftruncate(fd.get(), 0), 0);
  EXPECT_EQ(::pwrite(fd.get(), part.data(), part.size(), 0), static_cast<ssize_t>(part.size()))
      << "there is room again";
}

TEST_F(LookWrite, GivesBackTheRoomOfWhatIsGoneWhenNobodyHasItOpen) {
  std::ofstream(base + "/old/file") << std::string(50'000, 'o');
  mount();
  {
    const Descriptor fd(::open(at("file").c_str(), O_RDWR | O_CLOEXEC));
    const std::string part(40'000, 'n');
    ASSERT_EQ(::pwrite(fd.get(), part.data(), part.size(), 5000), 40'000);
    ASSERT_EQ(::unlink(at("file").c_str()), 0);
    char seen[2] = {};
    ASSERT_EQ(::pread(fd.get(), seen, 2, 4999), 2);
    EXPECT_EQ(std::string(seen, 2), "on");
    EXPECT_GE(view->use().bytes, 40'000U);
  }
  // The kernel says so in its own time.
  for (int i = 0; i < 1000 && view->use().bytes > 4096; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_LE(view->use().bytes, 4096U);
}

TEST_F(LookWrite, IsOverWithItsPast) {
  std::ofstream(base + "/old/file") << "content";
  std::ofstream(base + "/old/other") << "content";
  mount();
  const Descriptor fd(::open(at("file").c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_GE(fd.get(), 0);
  past->over = true;
  EXPECT_EQ(::pwrite(fd.get(), "x", 1, 0), -1);
  EXPECT_EQ(errno, ESTALE);
  EXPECT_EQ(::open(at("other").c_str(), O_RDONLY), -1);
  EXPECT_EQ(errno, ESTALE);
  EXPECT_EQ(trouble, std::vector{ErrorCode::stale}) << "once";
}

TEST_F(LookWrite, SeveralUseItAtOnce) {
  std::ofstream(base + "/old/shared") << std::string(100'000, '-');
  mount();
  std::vector<std::thread> users;
  for (int user = 0; user < 4; ++user)
    users.emplace_back([this, user] {
      const Descriptor shared(::open(at("shared").c_str(), O_RDWR | O_CLOEXEC));
      for (int i = 0; i < 300; ++i) {
        const char mine = static_cast<char>('a' + user);
        EXPECT_EQ(::pwrite(shared.get(), &mine, 1, i * 300 + user), 1);
        const std::string name = at(fmt::format("{}-{}", user, i % 7));
        std::ofstream(name) << name;
        if (i % 3 == 0) {
          EXPECT_EQ(::rename(name.c_str(), (name + "-moved").c_str()), 0);
        }
        if (i % 5 == 0) ::unlink((name + "-moved").c_str());
      }
    });
  for (auto& user : users) user.join();
  std::string content(100'000, ' ');
  std::ifstream(at("shared")).read(content.data(), 100'000);
  for (int user = 0; user < 4; ++user)
    for (int i = 0; i < 300; ++i) ASSERT_EQ(content[static_cast<std::size_t>(i * 300 + user)], 'a' + user);
  EXPECT_EQ(std::count(content.begin(), content.end(), '-'), 100'000 - 1200);
}

}  // namespace
}  // namespace holdfast::capture
