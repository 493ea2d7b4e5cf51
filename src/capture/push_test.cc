// SPDX-License-Identifier: Apache-2.0
#include "capture/push.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "capture/test_mount.h"

namespace holdfast::capture {
namespace {

using namespace std::chrono_literals;

class Helper {
 public:
  Helper() {
    int ends[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    child_ = fork();
    if (child_ == 0) {
      close(ends[0]);
      _exit(serve_push_rounds(ends[1]));
    }
    close(ends[1]);
    client = std::make_unique<PushClient>(ends[0]);
  }
  ~Helper() {
    client.reset();
    int status = -1;
    waitpid(child_, &status, 0);
    EXPECT_EQ(status, 0);
  }
  std::unique_ptr<PushClient> client;

 private:
  pid_t child_;
};

std::size_t written_bytes(KeepingLog& log) {
  std::size_t bytes = 0;
  for (const auto& kept : log.take())
    if (kept->fields.kind == log::Kind::write) bytes += kept->payload.size();
  return bytes;
}

TEST(Push, BringsWhatTheKernelStillHolds) {
  if (!can_mount()) GTEST_SKIP() << "needs root and /dev/fuse";
  Helper helper;  // before the mount's threads
  for (const Flavour& flavour : flavours()) {
    if (flavour.policy != WritePolicy::write_back) continue;
    TestMount m(flavour);
    ASSERT_TRUE(m.session);
    const int fd = open(m.at("f").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    ASSERT_EQ(ftruncate(fd, 1 << 20), 0);
    EXPECT_EQ(pwrite(fd, "dirty", 5, 0), 5);
    const int mapped = open(m.at("mapped").c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    ASSERT_EQ(ftruncate(mapped, 8192), 0);
    auto* map = static_cast<char*>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, mapped, 0));
    ASSERT_NE(map, MAP_FAILED);
    close(mapped);
    map[5000] = 'm';
    EXPECT_EQ(written_bytes(m.log), 0U);
    const auto files = m.session->open_for_write();
    EXPECT_EQ(files.size(), 2U);
    const auto pushed = helper.client->round(m.mount, files, 10s);
    ASSERT_TRUE(pushed) << pushed.error().to_string();
    EXPECT_EQ(pushed->pushed, 2U);
    EXPECT_EQ(pushed->failed, 0U);
    EXPECT_GE(written_bytes(m.log), 4096U + 5U);
    munmap(map, 8192);
    close(fd);
    m.unmount();  // the helper holds nothing
  }
}

TEST(Push, SaysWhenAFileIsGoneOrTheMountIs) {
  if (!can_mount()) GTEST_SKIP() << "needs root and /dev/fuse";
  Helper helper;
  TestMount m(flavours()[0]);
  ASSERT_TRUE(m.session);
  const OpenFile unknown{{}, 0x123456789abcULL, 7};
  const auto round = helper.client->round(m.mount, {&unknown, 1}, 10s);
  ASSERT_TRUE(round);
  EXPECT_EQ(round->gone, 1U);
  m.unmount();
  const auto after = helper.client->round(m.mount + "/missing", {&unknown, 1}, 10s);
  ASSERT_TRUE(after);
  EXPECT_EQ(after->failed, 1U);
  EXPECT_EQ(after->sys_errno, ENOENT);
}

}  // namespace
}  // namespace holdfast::capture
