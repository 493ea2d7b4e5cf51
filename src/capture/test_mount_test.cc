// SPDX-License-Identifier: Apache-2.0
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

#include <fmt/format.h>

#include "capture/lower_xattrs.h"
#include "capture/test_mount.h"
#include "capture/uring_transport.h"
#include "log/xattrs.h"

namespace holdfast::capture {

bool KeepingLog::try_reserve_all(std::span<const std::size_t> pieces) {
  const std::lock_guard guard(mutex_);
  if (full_) return false;
  for (const std::size_t bytes : pieces) reserved_ += bytes + 1;
  return true;
}

void KeepingLog::give_back(std::size_t bytes) {
  const std::lock_guard guard(mutex_);
  reserved_ -= bytes + 1;
}

void KeepingLog::when_space(std::function<void()> retry) {
  {
    const std::lock_guard guard(mutex_);
    if (full_) {
      want_space_.push_back(std::move(retry));
      return;
    }
  }
  retry();
}

Sequence KeepingLog::append(const log::Record& record, std::size_t reserved_bytes) {
  if (appended) appended(record);
  auto kept = std::make_unique<KeptRecord>();
  kept->name = record.name;
  kept->name2 = record.name2;
  kept->payload.assign(record.payload.begin(), record.payload.end());
  kept->fields = record;
  kept->fields.name = kept->name;
  kept->fields.name2 = kept->name2;
  kept->fields.payload = kept->payload;
  EXPECT_LE(record.name.size() + record.name2.size() + record.payload.size(), reserved_bytes)
      << log::to_string(record.kind);
  const std::lock_guard guard(mutex_);
  reserved_ -= reserved_bytes + 1;
  kept->fields.sequence = Sequence(++sequence_);
  records_.push_back(std::move(kept));
  return Sequence(sequence_);
}

Sequence KeepingLog::last_sequence() const {
  const std::lock_guard guard(mutex_);
  return Sequence(sequence_);
}

void KeepingLog::when_durable(Sequence, std::function<void()> done) {
  {
    const std::lock_guard guard(mutex_);
    if (hold_) {
      want_durable_.push_back(std::move(done));
      return;
    }
  }
  done();
}

void KeepingLog::set_full(bool full) {
  std::vector<std::function<void()>> calls;
  {
    const std::lock_guard guard(mutex_);
    full_ = full;
    if (!full) calls.swap(want_space_);
  }
  for (auto& call : calls) call();
}

void KeepingLog::hold_durable(bool hold) {
  std::vector<std::function<void()>> calls;
  {
    const std::lock_guard guard(mutex_);
    hold_ = hold;
    if (!hold) calls.swap(want_durable_);
  }
  for (auto& call : calls) call();
}

std::size_t KeepingLog::reserved() const {
  const std::lock_guard guard(mutex_);
  return reserved_;
}

std::size_t KeepingLog::durable_waits() const {
  const std::lock_guard guard(mutex_);
  return want_durable_.size();
}

std::deque<std::unique_ptr<KeptRecord>> KeepingLog::take() {
  const std::lock_guard guard(mutex_);
  return std::move(records_);
}

std::vector<Flavour> flavours() {
  std::vector<Flavour> out{{TransportKind::dev, WritePolicy::write_back},
                           {TransportKind::dev, WritePolicy::write_through}};
  if (uring_available()) {
    out.push_back({TransportKind::uring, WritePolicy::write_back});
    out.push_back({TransportKind::uring, WritePolicy::write_through});
  }
  return out;
}

bool can_mount() {
  // A mount namespace of our own: others that copy theirs at the wrong moment would keep our mounts alive.
  static const bool ready = geteuid() == 0 && access("/dev/fuse", R_OK | W_OK) == 0 && unshare(CLONE_NEWNS) == 0 &&
                            ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
  return ready;
}

TestMount::TestMount(Flavour flavour, unsigned threads, const std::function<void(const std::string& below)>& prepare,
                     mirror::HotGate* gate, const std::string& on, std::shared_ptr<const mirror::LiveLimits> limits) {
  log.gate = gate;
  std::string pattern = (on.empty() ? testing::TempDir() : on + "/") + "holdfast-capture-XXXXXX";
  base = mkdtemp(pattern.data());
  chmod(base.c_str(), 0755);
  below = base + "/below";
  mount = base + "/mount";
  std::filesystem::create_directories(below);
  std::filesystem::create_directories(mount);
  if (prepare) prepare(below);
  std::filesystem::create_directories(below + "/.holdfast");
  const Descriptor root(open(below.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  SessionOptions options;
  options.path = mount;
  options.root_fd = root.get();
  options.set = 7;
  options.write_policy = flavour.policy;
  options.transport = flavour.transport;
  options.threads = threads;
  options.limits = std::move(limits);
  auto mounted = Session::mount(options, log, lease, ids, [this](const Error&) { ++faults; });
  if (!mounted) {
    ADD_FAILURE() << mounted.error().to_string();
    return;
  }
  session = std::move(*mounted);
  watchdog_ = std::thread([this] {
    std::unique_lock lock(mutex_);
    if (done_.wait_for(lock, std::chrono::seconds(25), [this] { return finished_; })) return;
    ADD_FAILURE() << "the mount hangs";
    log.set_full(false);
    log.hold_durable(false);
    session->abort();
  });
}

void TestMount::unmount() {
  std::vector<Holder> holders;
  const auto done = session->unmount_and_wait(std::chrono::seconds(10), &holders);
  EXPECT_TRUE(done) << done.error().to_string();
  for (const Holder& h : holders) ADD_FAILURE() << h.pid << " " << h.command << " holds " << h.what;
  EXPECT_EQ(log.reserved(), 0U) << "space was reserved and neither used nor given back";
}

TestMount::~TestMount() {
  {
    const std::lock_guard guard(mutex_);
    finished_ = true;
    done_.notify_all();
  }
  if (watchdog_.joinable()) watchdog_.join();
  session.reset();
  std::error_code ignored;
  std::filesystem::remove_all(base, ignored);
}

namespace {

std::string content_of(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(in)), {});
  return fmt::format("{:08x}", crc32c(as_bytes(text)));
}

void describe(const std::string& path, const std::string& name, bool with_mtime, std::vector<std::string>& out) {
  struct stat st;
  if (lstat(path.c_str(), &st) != 0) return;
  std::string line =
      fmt::format("{} mode {:o} owner {}:{} links {}", name, st.st_mode, st.st_uid, st.st_gid, st.st_nlink);
  if (S_ISREG(st.st_mode)) line += fmt::format(" size {} content {}", st.st_size, content_of(path));
  if (S_ISLNK(st.st_mode)) line += " -> " + std::filesystem::read_symlink(path).string();
  if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) line += fmt::format(" device {:x}", st.st_rdev);
  if (with_mtime) line += fmt::format(" mtime {}.{:09}", st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
  Bytes xattrs;
  const Descriptor fd(open(path.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  read_xattrs(fd.get(), xattrs);
  std::vector<std::string> sorted;
  if (const auto list = log::decode_xattrs(xattrs))
    for (const auto& x : *list) sorted.push_back(fmt::format(" {}={:08x}", x.name, crc32c(x.value)));
  std::sort(sorted.begin(), sorted.end());
  for (const auto& x : sorted) line += x;
  out.push_back(line);
  if (!S_ISDIR(st.st_mode)) return;
  for (const auto& entry : std::filesystem::directory_iterator(path)) {
    const std::string child = entry.path().filename().string();
    if (name == "/" && child == hidden_folder) continue;
    describe(entry.path().string(), (name == "/" ? "" : name) + "/" + child, with_mtime, out);
  }
}

}  // namespace

std::vector<std::string> describe_tree(const std::string& root, bool with_mtime) {
  std::vector<std::string> out;
  describe(root, "/", with_mtime, out);
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace holdfast::capture
