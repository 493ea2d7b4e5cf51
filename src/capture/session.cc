// SPDX-License-Identifier: Apache-2.0
#include "capture/session.h"

#include <sys/resource.h>
#include <sys/syscall.h>

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

struct TakenOver {
  bool over_uring = false;
  std::uint64_t buffers_at = 0, slots = 0;
  std::vector<UringTransport::Parked> parked;
};

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
    dev_threads_ = over_uring ? 2 : std::max(2U, options.threads ? options.threads : default_dev_threads);
    dev_ = std::make_unique<DevTransport>(mount_.device(), server_, dev_threads_,
                                          std::max(dev_threads_, over_uring ? dev_threads_ : most_threads));
    HF_TRY(dev_->start());
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, first_answer, [this] { return initialized_ || ended_; }) || !initialized_)
      return fail(ErrorCode::io, "the kernel did not accept the FUSE session at {}", mount_.path());
    lock.unlock();
    if (over_uring) {
      HF_ASSIGN(auto buffers,
                EntryBuffers::create(UringTransport::buffers_needed(uring_threads(options), most_threads)));
      make_uring(options, std::move(buffers));
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

  static unsigned uring_threads(const SessionOptions& options) {
    return options.threads ? options.threads : default_uring_threads;
  }

  void make_uring(const SessionOptions& options, std::unique_ptr<EntryBuffers> buffers) {
    uring_ = std::make_unique<UringTransport>(
        mount_.device(), server_, uring_threads(options), most_threads, std::move(buffers), [path = mount_.path()] {
          struct statx stx;
          (void)statx(AT_FDCWD, path.c_str(), AT_STATX_FORCE_SYNC | AT_NO_AUTOMOUNT, STATX_MODE, &stx);
        });
  }

  Status go_on(const SessionOptions& options, const TakenOver& before, ByteReader& state, Handover& from) {
    HF_TRY(server_.open_root());
    HF_TRY(server_.take_over(state, from.pins));
    initialized_ = true;
    if (before.over_uring) {
      HF_ASSIGN(auto buffers, EntryBuffers::adopt(std::move(from.buffers), before.buffers_at, before.slots));
      for (const auto& one : before.parked)
        if (!buffers->take(one.slot)) return fail(ErrorCode::corrupt, "a request was parked twice");
      make_uring(options, std::move(buffers));
    }
    dev_threads_ = before.over_uring ? 2 : std::max(2U, options.threads ? options.threads : default_dev_threads);
    dev_ = std::make_unique<DevTransport>(mount_.device(), server_, dev_threads_,
                                          std::max(dev_threads_, before.over_uring ? dev_threads_ : most_threads));
    HF_TRY(dev_->start());
    if (uring_) HF_TRY(uring_->start(before.parked));
    (void)mount_.set_background(background_requests);
    return {};
  }

  Result<Handover> hand_over(std::chrono::milliseconds patience, std::size_t most_inodes) override {
    if (uring_refused_ || (uring_ && uring_->buffers().file() < 0))
      return fail(ErrorCode::refused, "{} can't be handed over", mount_.path());
    if (server_.inodes().size() > most_inodes)
      return fail(ErrorCode::refused, "the kernel knows {} objects of {}", server_.inodes().size(), mount_.path());
    // What is dirty below is on its way while requests are still served: the second time, little is left.
    if (::syncfs(root_.get()) != 0) return fail_errno(errno, "{} could not be synced", mount_.path());
    if (auto quiet = quiesce(patience); !quiet) {
      serve_again();
      return tl::unexpected(quiet.error());
    }
    Handover out;
    if (auto packed = pack(out); !packed) {
      if (packed.error().code == ErrorCode::io)
        abort();
      else
        serve_again();
      return tl::unexpected(packed.error());
    }
    handed_over_ = true;
    server_.inodes().clear();
    mount_.close_device();
    set(ended_);
    return out;
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
    if (handed_over_) return;  // it is another's
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
  // No request is under way, and none is read.
  Status quiesce(std::chrono::milliseconds patience) {
    if (uring_) {
      HF_ASSIGN(auto folders, open_folders(uring_->folders_to_park()));
      if (!mount_.set_background(std::numeric_limits<std::uint16_t>::max()))
        return fail(ErrorCode::refused, "the kernel shows no limit of background requests for {}", mount_.path());
      server_.hold_releases(true);
      HF_TRY(uring_->park(std::move(folders), patience));
    }
    if (!dev_->pause(patience)) return fail(ErrorCode::busy, "{}: a request is under way", mount_.path());
    return {};
  }

  Result<std::vector<Descriptor>> open_folders(std::size_t count) {
    std::vector<Descriptor> folders;
    server_.to_park_of(static_cast<std::int32_t>(syscall(SYS_gettid)));
    int error = 0;
    while (!error && folders.size() < count) {
      folders.emplace_back(::open(mount_.path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
      if (folders.back().get() < 0) error = errno;
    }
    server_.to_park_of(0);
    if (error) return fail_errno(error, "{} can't be opened", mount_.path());
    return folders;
  }

  void serve_again() {
    server_.hold_releases(false);
    (void)mount_.set_background(background_requests);
    Status again = dev_->add_threads(dev_threads_ - std::min(dev_threads_, dev_->thread_count()));
    if (again && uring_) again = uring_->start(uring_->parked());
    if (again) return;
    log_error("{}: {}", mount_.path(), again.error().to_string());
    abort();
  }

  Status pack(Handover& out) {
    // An error that the disk below has kept for the next fsync would be lost with our descriptors.
    if (::syncfs(root_.get()) != 0)
      return tl::unexpected(Error{ErrorCode::io, "the protected folder could not be synced", {}, errno});
    out.path = mount_.path();
    out.number = mount_.number();
    ByteWriter to(out.state);
    to.u32(handover_version);
    to.text(mount_.path());
    to.text(mount_.number());
    to.u8(uring_ != nullptr);
    if (uring_) {
      to.u64(uring_->buffers().at());
      to.u64(uring_->buffers().slots());
      const auto parked = uring_->parked();
      to.u32(static_cast<std::uint32_t>(parked.size()));
      for (const auto& one : parked) {
        to.u32(one.slot);
        to.u16(one.queue);
      }
      out.buffers = Descriptor(fcntl(uring_->buffers().file(), F_DUPFD_CLOEXEC, 3));
    }
    server_.hand_over(to, out.pins);
    to.u32(crc32c(out.state));
    out.device = Descriptor(fcntl(mount_.device(), F_DUPFD_CLOEXEC, 3));
    out.root = Descriptor(fcntl(root_.get(), F_DUPFD_CLOEXEC, 3));
    bool whole = out.device.get() >= 0 && out.root.get() >= 0 && (!uring_ || out.buffers.get() >= 0);
    for (const Descriptor& pin : out.pins) whole = whole && pin.get() >= 0;
    if (!whole) return fail_errno(errno, "no descriptors left");
    return {};
  }

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
    if (handed_over_) {
      reaped_ = true;
      return;
    }
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
  unsigned dev_threads_ = 0;
  std::atomic<bool> handed_over_{false};
  mutable std::mutex mutex_;
  std::mutex join_mutex_;
  std::condition_variable changed_;
  bool initialized_ = false, ended_ = false;
  std::atomic<bool> aborted_{false}, reaped_{false};
};

Result<TakenOver> read_taken_over(ByteReader& from, std::string& path, std::string& number) {
  if (const std::uint32_t version = from.u32(); from.ok() && version != handover_version)
    return fail(ErrorCode::unavailable, "a capture was handed over in form {}, this version reads {}", version,
                handover_version);
  TakenOver out;
  path = from.text();
  number = from.text();
  out.over_uring = from.u8() != 0;
  if (out.over_uring) {
    out.buffers_at = from.u64();
    out.slots = from.u64();
    for (std::uint32_t left = from.u32(); left > 0 && from.ok(); --left) {
      const std::uint32_t slot = from.u32();
      out.parked.push_back({slot, from.u16()});
    }
  }
  if (!from.ok()) return fail(ErrorCode::corrupt, "what the mirror before this one left can't be read");
  return out;
}

}  // namespace

Result<std::unique_ptr<Session>> Session::take_over(const SessionOptions& options, Handover from,
                                                    mirror::CaptureLog& log, mirror::LeaseGate& lease, FileIds& ids,
                                                    std::function<void(const Error&)> on_fault) {
  constexpr std::size_t sum_bytes = sizeof(std::uint32_t);
  const ByteView all = from.state;
  if (all.size() < sum_bytes) return fail(ErrorCode::corrupt, "what the mirror before this one left is cut off");
  const ByteView body = all.subspan(0, all.size() - sum_bytes);
  ByteReader reader(body);
  if (ByteReader sum(all.subspan(body.size())); sum.u32() != crc32c(body))
    return fail(ErrorCode::corrupt, "what the mirror before this one left is damaged");
  std::string path, number;
  HF_ASSIGN(const TakenOver before, read_taken_over(reader, path, number));
  if (path != options.path) return fail(ErrorCode::corrupt, "{} was handed over for {}", path, options.path);
  SessionOptions settled = options;
  settled.cached_descriptors = affordable_descriptors(options.cached_descriptors);
  HF_ASSIGN(MountPoint mount, MountPoint::take_over(path, number, std::move(from.device)));
  auto session = std::make_unique<MountedSession>(std::move(mount), std::move(from.root), settled, before.over_uring,
                                                  log, lease, ids, std::move(on_fault));
  HF_TRY(session->go_on(settled, before, reader, from));
  return session;
}

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
