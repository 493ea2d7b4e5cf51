// SPDX-License-Identifier: Apache-2.0
#include "capture/session.h"

#include <sys/resource.h>

#include <condition_variable>
#include <fstream>
#include <mutex>
#include <thread>

#include "base/log.h"
#include "capture/dev_transport.h"
#include "capture/mount_point.h"
#include "capture/server.h"
#include "capture/uring_transport.h"

namespace holdfast::capture {
namespace {

constexpr unsigned most_threads = 32;  // of one queue, while requests wait for others
constexpr unsigned default_dev_threads = 8, default_uring_threads = 4;
constexpr std::chrono::seconds first_answer{10};

// How many cached descriptors the process can afford: half of its limit, which is raised as far as we may.
std::size_t affordable_descriptors(std::size_t wanted) {
  rlimit limit;
  rlim_t most = 1U << 20;
  if (std::ifstream in("/proc/sys/fs/nr_open"); in >> most) most = std::min<rlim_t>(most, 1U << 20);
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return wanted;
  if (limit.rlim_cur < most) {
    const rlimit before = limit;
    limit.rlim_cur = most;
    limit.rlim_max = std::max<rlim_t>(limit.rlim_max, most);
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
      limit = {before.rlim_max, before.rlim_max};
      if (setrlimit(RLIMIT_NOFILE, &limit) != 0) limit = before;
    }
  }
  return std::min<std::size_t>(wanted, limit.rlim_cur / 2);
}

class MountedSession : public Session {
 public:
  MountedSession(MountPoint mount, Descriptor root, const SessionOptions& options, bool over_uring,
                 mirror::CaptureLog& log, mirror::LeaseGate& lease, FileIds& ids,
                 std::function<void(const Error&)> on_fault)
      : mount_(std::move(mount)),
        root_(std::move(root)),
        server_({root_.get(), options.set, options.write_policy == WritePolicy::write_back, over_uring, mount_.device(),
                 options.cached_descriptors, options.limits},
                log, lease, ids, std::move(on_fault)) {
    server_.on_initialized = [this] { set(initialized_); };
    server_.on_ended = [this](bool aborted) {
      if (aborted) aborted_ = true;
      set(ended_);
    };
  }

  ~MountedSession() override {
    if (!reaped_) {
      abort();
      join();
    }
  }

  Status start(const SessionOptions& options, bool over_uring) {
    HF_TRY(server_.open_root());
    // What was written before us is durable from here on: an fsync of a file that nobody changes any more has nothing to do.
    if (::syncfs(root_.get()) != 0) return fail_errno(errno, "the protected folder could not be synced");
    // FORGETs come over /dev/fuse always, and one may free a file below.
    const unsigned dev_threads = over_uring ? 2 : std::max(2U, options.threads ? options.threads : default_dev_threads);
    dev_ = std::make_unique<DevTransport>(mount_.device(), server_, dev_threads,
                                          std::max(dev_threads, over_uring ? dev_threads : most_threads));
    HF_TRY(dev_->start());
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, first_answer, [this] { return initialized_ || ended_; }) || !initialized_)
      return fail(ErrorCode::io, "the kernel did not accept the FUSE session at {}", mount_.path());
    lock.unlock();
    if (over_uring) {
      uring_ = std::make_unique<UringTransport>(
          mount_.device(), server_, options.threads ? options.threads : default_uring_threads, most_threads,
          [path = mount_.path()] {
            struct statx stx;
            (void)statx(AT_FDCWD, path.c_str(), AT_STATX_FORCE_SYNC | AT_NO_AUTOMOUNT, STATX_MODE, &stx);
          });
      if (auto started = uring_->start(); !started) {
        if (options.transport == TransportKind::uring) return started;
        log_warning("{}; capture goes on over /dev/fuse", started.error().message);
        uring_refused_ = true;
        HF_TRY(dev_->add_threads(default_dev_threads));
      }
    }
    mount_.tune(options.max_dirty_bytes, options.read_ahead_kib);
    return {};
  }

  Status unmount_and_wait(std::chrono::milliseconds patience, std::vector<Holder>* holders) override {
    if (auto foreign = find_foreign_mounts(mount_.number()); !foreign.empty()) return busy(std::move(foreign), holders);
    if (uring_) uring_->bar_nudges(true, patience);
    if (const int error = mount_.unmount()) {
      if (uring_) uring_->bar_nudges(false, {});
      if (error == EBUSY) return busy(find_holders(mount_.number()), holders);
      return fail_errno(error, "cannot unmount {}", mount_.path());
    }
    std::unique_lock lock(mutex_);
    const bool ended = changed_.wait_for(lock, patience, [this] { return ended_; });
    lock.unlock();
    if (!ended) {
      if (holders) *holders = find_holders(mount_.number());
      return fail(ErrorCode::timeout, "{} was unmounted but something keeps its file system alive", mount_.path());
    }
    join();
    if (aborted_) return fail(ErrorCode::io, "the connection of {} was aborted, not unmounted", mount_.path());
    // What the kernel pushed at the end stands in the page cache below: durable before anybody calls this tree clean.
    if (syncfs(root_.get()) != 0) return fail_errno(errno, "cannot sync the tree of {}", mount_.path());
    return {};
  }

  void abort() override {
    server_.stop();
    mount_.abort();
  }

  bool ended() const override {
    const std::lock_guard guard(mutex_);
    return ended_;
  }

  bool wait_reaped(std::chrono::milliseconds patience) override {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, patience, [this] { return ended_; })) return false;
    lock.unlock();
    if ((uring_ && !uring_->wait_idle(patience)) || !dev_->wait_idle(patience)) return false;
    join();
    return true;
  }

  std::vector<OpenFile> open_for_write() const override {
    std::vector<OpenFile> out;
    for (const InodePtr& inode : const_cast<InodeTable&>(server_.inodes()).open_for_write())
      if (S_ISREG(inode->file_type)) out.push_back({inode->id, inode->nodeid, inode->generation()});
    return out;
  }

  SessionStats stats() const override {
    const ServerCounters& c = server_.counters();
    return {c.operations,
            c.bytes_read,
            c.bytes_written,
            c.records,
            c.syncs,
            server_.inodes().size(),
            server_.waiting_for_space(),
            threads()};
  }
  ObjectLocks& locks() override { return server_.locks(); }
  std::string abort_path() const override { return mount_.abort_path(); }
  std::string device() const override { return mount_.number(); }
  TransportKind transport() const override {
    return uring_ && !uring_refused_ ? TransportKind::uring : TransportKind::dev;
  }

 private:
  void set(bool& what) {
    const std::lock_guard guard(mutex_);
    what = true;
    changed_.notify_all();
  }
  unsigned threads() const { return (uring_ ? uring_->thread_count() : 0) + (dev_ ? dev_->thread_count() : 0); }
  static tl::unexpected<Error> busy(std::vector<Holder> found, std::vector<Holder>* out) {
    std::string who;
    for (const Holder& holder : found)
      who += fmt::format("{}{} ({})", who.empty() ? "" : ", ", holder.command, holder.pid);
    if (out) *out = std::move(found);
    return tl::unexpected(Error{
        ErrorCode::busy, "the protected folder is in use by " + (who.empty() ? "an unknown process" : who), {}, 0});
  }
  void join() {
    const std::lock_guard guard(join_mutex_);
    if (reaped_) return;
    if (uring_) uring_->join();
    if (dev_) dev_->join();
    server_.inodes().clear();
    mount_.close_device();
    reaped_ = true;
  }

  MountPoint mount_;
  const Descriptor root_;
  Server server_;
  std::unique_ptr<DevTransport> dev_;
  std::unique_ptr<UringTransport> uring_;
  bool uring_refused_ = false;
  mutable std::mutex mutex_;
  std::mutex join_mutex_;
  std::condition_variable changed_;
  bool initialized_ = false, ended_ = false;
  std::atomic<bool> aborted_{false}, reaped_{false};
};

}  // namespace

Result<std::unique_ptr<Session>> Session::mount(const SessionOptions& options, mirror::CaptureLog& log,
                                                mirror::LeaseGate& lease, FileIds& ids,
                                                std::function<void(const Error&)> on_fault) {
  const bool offered = uring_available();
  if (options.transport == TransportKind::uring && !offered)
    return fail(ErrorCode::unavailable,
                "this kernel offers no FUSE over io_uring (Linux 6.14, /sys/module/fuse/parameters/enable_uring)");
  const bool over_uring = options.transport != TransportKind::dev && offered;
  SessionOptions settled = options;
  settled.cached_descriptors = affordable_descriptors(options.cached_descriptors);
  Descriptor root(fcntl(options.root_fd, F_DUPFD_CLOEXEC, 3));
  struct stat st;
  if (root.get() < 0 || fstat(root.get(), &st) != 0)
    return fail_errno(errno, "cannot use the root of {}", options.path);
  Descriptor readable(openat(root.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));  // syncfs and handles refuse O_PATH
  if (readable.get() < 0) return fail_errno(errno, "cannot open the tree of {}", options.path);
  MountPoint::How how;
  if (const int error = flags_of_mount(readable.get(), how.flags))
    return fail_errno(error, "cannot read the mount options of {}", options.path);
  HF_ASSIGN(MountPoint mount, MountPoint::create(options.path, st.st_mode, how));
  auto session = std::make_unique<MountedSession>(std::move(mount), std::move(readable), settled, over_uring, log,
                                                  lease, ids, std::move(on_fault));
  HF_TRY(session->start(settled, over_uring));
  return session;
}

}  // namespace holdfast::capture
