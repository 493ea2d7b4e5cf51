// SPDX-License-Identifier: Apache-2.0
// For tests only: a node's whole data plane over a temporary folder, and an "application" that changes the active's tree at random the way
// capture would: reserve, lock, do, append, unlock.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <condition_variable>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>

#include <linux/fs.h>
#include <sys/syscall.h>

#include "base/log.h"
#include "log/xattrs.h"
#include "mirror/node_log.h"
#include "platform/file_index.h"
#include "platform/live_tree.h"
#include "platform/mirror_runtime.h"
#include "platform/posix_tree.h"
#include "platform/segment_store.h"
#include "platform/test_certificates.h"
#include "platform/test_tree_digest.h"

namespace holdfast::platform::testing {

inline std::string read_proc_link(int fd) { return fmt::format("/proc/self/fd/{}", fd); }

class TestNode {
 public:
  TestNode(const TestAuthority& authority, const std::string& dir, NodeId id) : dir_(dir), id_(id) {
    authority.issue(dir_ + "/tls", to_hex(id));
    std::filesystem::create_directories(tree_path());
  }
  ~TestNode() { stop(); }

  std::string tree_path() const { return dir_ + "/tree"; }
  std::string log_path() const { return dir_ + "/log"; }
  std::string send_path(NodeId peer) const { return dir_ + "/send-" + to_hex(peer); }
  NodeId id() const { return id_; }
  std::uint16_t port() const { return runtime->port(); }
  std::string address() const { return fmt::format("127.0.0.1:{}", port()); }

  Status start(bool with_set = true, std::int64_t checkpoint_ms = 300) {
    HF_ASSIGN(index, FileIndex::open(dir_ + "/index"));
    HF_ASSIGN(segments, FolderSegmentStore::open(log_path(), segment_bytes));
    state = std::make_unique<DurableFile>(dir_ + "/state");
    live = std::make_unique<PosixLiveTree>(*index, [this](SetNumber, const FileId&, const std::function<void()>& body) {
      const std::lock_guard lock(object_mutex);
      body();
    });
    mirror::NodeLogConfig config;
    config.cluster_id = "c1";
    config.node = id_;
    config.ring_bytes = ring_bytes;
    config.segment_bytes = segment_bytes;
    config.checkpoint_ms = checkpoint_ms;
    config.send_limit_bytes = send_limit_bytes;
    config.life = std::random_device{}();
    mirror::NodeLogEvents events;
    events.fault = [this](const Error& why) {
      const std::lock_guard lock(fault_mutex);
      fault = why.to_string();
    };
    events.peer_state = [this](NodeId, mirror::PeerState now) {
      const std::lock_guard lock(fault_mutex);
      peer_states.insert(now);
    };
    HF_ASSIGN(undo_segments, FolderSegmentStore::open(dir_ + "/undo", segment_bytes));
    HF_ASSIGN(undo, mirror::UndoJournal::open(*undo_segments, times, {undo_bytes, 0, mirror::default_undo_age_ns},
                                              segment_bytes));
    const auto open_spill = [this](NodeId peer) -> Result<std::unique_ptr<ports::SegmentStore>> {
      HF_ASSIGN(auto store,
                FolderSegmentStore::open_scratch(send_path(peer), [this] { return send_keep_free_bytes.load(); }));
      return store;
    };
    HF_ASSIGN(log, mirror::NodeLog::open(
                       config, {*segments, *state, times, *live, *index, *undo, undo.get(), open_spill}, events));
    if (with_set) HF_TRY(add_set());
    MirrorRuntime::Options options;
    options.listen_address = "127.0.0.1";
    options.listen_port = listen_port;
    options.tls_dir = dir_ + "/tls";
    HF_ASSIGN(runtime, MirrorRuntime::start(options, *log));
    listen_port = runtime->port();
    return {};
  }

  Status add_set(SetNumber set = 1) {
    const auto root = [&] { return UniqueFd(::open(tree_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)); };
    HF_ASSIGN(auto tree, PosixTree::open(root(), set, *index));
    live->add(set, root());
    return log->add_set(std::move(tree));
  }

  // Waits for space in the log, as capture does.
  void reserve(std::size_t bytes) {
    auto& capture_log = log->capture_log();
    struct Waiter {
      std::mutex mutex;
      std::condition_variable cv;
      bool freed = false;
    };
    for (;;) {
      auto w = std::make_shared<Waiter>();
      capture_log.when_space([w] {
        const std::lock_guard lock(w->mutex);
        w->freed = true;
        w->cv.notify_all();
      });
      if (capture_log.try_reserve(bytes)) return;
      std::unique_lock lock(w->mutex);
      w->cv.wait(lock, [&] { return w->freed; });
    }
  }

  // The process is gone: nothing is flushed, checkpointed or said goodbye to.
  void stop() {
    runtime.reset();
    log.reset();
    undo.reset();
    undo_segments.reset();
    live.reset();
    state.reset();
    segments.reset();
    index.reset();
  }

  // Which states its peers have been in since the last call.
  std::set<mirror::PeerState> take_peer_states() {
    const std::lock_guard lock(fault_mutex);
    return std::exchange(peer_states, {});
  }

  std::string fault_text() {
    const std::lock_guard lock(fault_mutex);
    return fault;
  }

  std::uint64_t segment_bytes = 5U << 20;
  std::size_t ring_bytes = 32U << 20;
  std::uint16_t listen_port = 0;
  std::mutex object_mutex;  // stands for capture's object locks
  std::mutex fault_mutex;
  std::string fault;
  std::set<mirror::PeerState> peer_states;
  std::uint64_t send_limit_bytes = 1ULL << 30;
  std::atomic<std::uint64_t> send_keep_free_bytes{0};
  SystemTimes times;
  std::unique_ptr<FolderSegmentStore> undo_segments;
  std::unique_ptr<mirror::UndoJournal> undo;
  std::uint64_t undo_bytes = 1ULL << 30;
  std::unique_ptr<FileIndex> index;
  std::unique_ptr<FolderSegmentStore> segments;
  std::unique_ptr<DurableFile> state;
  std::unique_ptr<PosixLiveTree> live;
  std::unique_ptr<mirror::NodeLog> log;
  std::unique_ptr<MirrorRuntime> runtime;

 private:
  std::string dir_;
  NodeId id_;
};

// Random operations on a tree of a few dozen names, so that they meet each other often.
class RandomApplication {
 public:
  RandomApplication(TestNode& node, unsigned seed, SetNumber set = 1) : node_(node), random_(seed), set_(set) {
    root_ = UniqueFd(::open(node.tree_path().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  }

  void run(int operations) {
    for (int i = 0; i < operations; ++i) step();
  }

  void step() {
    static constexpr std::size_t space = 192 * 1024;
    node_.reserve(space);
    const std::lock_guard lock(node_.object_mutex);
    used_ = false;
    space_ = space;
    choose();
    if (!used_) node_.log->capture_log().give_back(space);
  }

 private:
  using Record = log::Record;
  using Kind = log::Kind;

  unsigned pick(unsigned n) { return static_cast<unsigned>(random_() % n); }

  UniqueFd some_folder(int depth = 0) {
    UniqueFd at(::openat(root_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    for (; depth < 4 && pick(3) != 0; ++depth) {
      UniqueFd down(
          ::openat(at.get(), fmt::format("d{}", pick(4)).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW));
      if (!down) break;
      at = std::move(down);
    }
    return at;
  }
  std::string file_name() { return fmt::format("f{}", pick(8)); }
  std::string any_name() {
    return pick(3) == 0 ? fmt::format("d{}", pick(4)) : pick(4) == 0 ? fmt::format("s{}", pick(4)) : file_name();
  }

  FileId id_of(int fd) { return node_.index->identify(fd, set_).value(); }
  FileId id_at(int dir, const std::string& name, mode_t* mode = nullptr) {
    UniqueFd fd(::openat(dir, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!fd) return {};
    struct stat st {};
    ::fstatat(fd.get(), "", &st, AT_EMPTY_PATH);
    if (mode) *mode = st.st_mode;
    return id_of(fd.get());
  }
  static std::int64_t mtime(int fd) {
    struct stat st {};
    ::fstatat(fd, "", &st, AT_EMPTY_PATH);
    return st.st_mtim.tv_sec * 1'000'000'000LL + st.st_mtim.tv_nsec;
  }
  void append(Record& r) {
    r.set = set_;
    node_.log->capture_log().append(r, space_);
    used_ = true;
  }

  void choose() {
    switch (pick(24)) {
      case 0:
      case 1:
      case 2:
      case 3:
      case 4:
        return create();
      case 5:
      case 6:
      case 7:
      case 8:
        return write();
      case 9:
        return truncate();
      case 10:
        return fallocate();
      case 11:
      case 12:
        return make_folder();
      case 13:
        return symlink();
      case 14:
        return make_node();
      case 15:
        return link();
      case 16:
      case 17:
        return remove();
      case 18:
      case 19:
      case 20:
      case 21:
        return rename();
      case 22:
        return set_attributes();
      default:
        return xattr();
    }
  }

  void created(Record& r, int dir, const std::string& name) {
    UniqueFd fd(::openat(dir, name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    struct stat st {};
    ::fstatat(fd.get(), "", &st, AT_EMPTY_PATH);
    r.file = node_.index->fresh();
    CHECK(node_.index->bind(fd.get(), set_, r.file), "bind");
    r.parent = id_of(dir);
    r.name = name;
    r.mode = st.st_mode;
    r.uid = st.st_uid;
    r.gid = st.st_gid;
    r.rdev = st.st_rdev;
    r.mtime_ns = r.atime_ns = mtime(fd.get());
    r.parent_mtime_ns = mtime(dir);
    append(r);
  }

  void create() {
    const UniqueFd dir = some_folder();
    const std::string name = file_name();
    const UniqueFd fd(::openat(dir.get(), name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600 + pick(64)));
    if (!fd) return write();
    Record r;
    r.kind = Kind::create;
    created(r, dir.get(), name);
  }

  UniqueFd some_file() {
    for (int attempt = 0; attempt < 4; ++attempt) {
      const UniqueFd dir = some_folder();
      UniqueFd fd(::openat(dir.get(), file_name().c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
      struct stat st {};
      if (fd && ::fstat(fd.get(), &st) == 0 && S_ISREG(st.st_mode)) return fd;
    }
    return UniqueFd();
  }

  void write() {
    const UniqueFd fd = some_file();
    if (!fd) return;
    Bytes data(pick(10) == 0 ? pick(150'000) + 1 : pick(9000) + 1);
    for (auto& b : data) b = static_cast<std::uint8_t>(random_());
    struct stat st {};
    ::fstat(fd.get(), &st);
    const std::uint64_t offset = pick(2) ? static_cast<std::uint64_t>(st.st_size) : pick(400'000);
    CHECK(::pwrite(fd.get(), data.data(), data.size(), static_cast<off_t>(offset)) == static_cast<ssize_t>(data.size()),
          "pwrite");
    Record r;
    r.kind = Kind::write;
    r.file = id_of(fd.get());
    r.offset = offset;
    r.mtime_ns = mtime(fd.get());
    r.payload = data;
    append(r);
  }

  void truncate() {
    const UniqueFd fd = some_file();
    if (!fd) return;
    Record r;
    r.kind = Kind::truncate;
    r.length = pick(200'000);
    CHECK(::ftruncate(fd.get(), static_cast<off_t>(r.length)) == 0, "ftruncate");
    r.file = id_of(fd.get());
    r.mtime_ns = mtime(fd.get());
    append(r);
  }

  void fallocate() {
    const UniqueFd fd = some_file();
    if (!fd) return;
    struct stat st {};
    ::fstat(fd.get(), &st);
    Record r;
    r.kind = Kind::fallocate;
    static constexpr std::uint32_t modes[] = {0, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE,
                                              FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE};
    r.mode_flags = modes[pick(20) == 0 ? 3 + pick(2) : pick(3)];
    r.offset = pick(20) * 4096;
    r.length = (1 + pick(10)) * 4096;
    // Refused only after it has changed the modification time (ext4).
    if (r.mode_flags & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE) &&
        r.offset + r.length >= static_cast<std::uint64_t>(st.st_size))
      return;
    if (::fallocate(fd.get(), static_cast<int>(r.mode_flags), static_cast<off_t>(r.offset),
                    static_cast<off_t>(r.length)) != 0)
      return;
    ::fstat(fd.get(), &st);
    r.size = static_cast<std::uint64_t>(st.st_size);
    r.file = id_of(fd.get());
    r.mtime_ns = mtime(fd.get());
    append(r);
  }

  void make_folder() {
    const UniqueFd dir = some_folder();
    const std::string name = fmt::format("d{}", pick(4));
    if (::mkdirat(dir.get(), name.c_str(), 0700 + pick(64)) != 0) return;
    Record r;
    r.kind = Kind::mkdir;
    created(r, dir.get(), name);
  }

  void symlink() {
    const UniqueFd dir = some_folder();
    const std::string name = fmt::format("s{}", pick(4)), target = "to/" + std::to_string(random_());
    if (::symlinkat(target.c_str(), dir.get(), name.c_str()) != 0) return;
    Record r;
    r.kind = Kind::symlink;
    r.payload = as_bytes(target);
    created(r, dir.get(), name);
  }

  void make_node() {
    const UniqueFd dir = some_folder();
    const std::string name = fmt::format("s{}", pick(4));
    static constexpr mode_t types[] = {S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK};
    const mode_t type = types[pick(4)];
    if (::mknodat(dir.get(), name.c_str(), type | 0640,
                  type == S_IFCHR || type == S_IFBLK ? makedev(7, pick(100)) : 0) != 0)
      return;
    Record r;
    r.kind = Kind::mknod;
    created(r, dir.get(), name);
  }

  void link() {
    const UniqueFd from = some_folder(), to = some_folder();
    const std::string name = any_name(), name2 = name[0] == 's' ? fmt::format("s{}", pick(4)) : file_name();
    mode_t mode = 0;
    Record r;
    r.file = id_at(from.get(), name, &mode);
    if (r.file.is_none() || S_ISDIR(mode) || ::linkat(from.get(), name.c_str(), to.get(), name2.c_str(), 0) != 0)
      return;
    r.kind = Kind::link;
    r.mode = mode & S_IFMT;
    r.parent = id_of(to.get());
    r.name = name2;
    r.parent_mtime_ns = mtime(to.get());
    append(r);
    node_.log->capture_log().moved(set_, r.file);
  }

  void remove() {
    const UniqueFd dir = some_folder();
    const std::string name = any_name();
    mode_t mode = 0;
    Record r;
    r.file = id_at(dir.get(), name, &mode);
    if (r.file.is_none() || ::unlinkat(dir.get(), name.c_str(), S_ISDIR(mode) ? AT_REMOVEDIR : 0) != 0) return;
    r.kind = S_ISDIR(mode) ? Kind::rmdir : Kind::unlink;
    r.parent = id_of(dir.get());
    r.name = name;
    r.parent_mtime_ns = mtime(dir.get());
    append(r);
  }

  void rename() {
    const UniqueFd from = some_folder(), to = some_folder();
    const std::string name = any_name();
    const std::string name2 = name[0] == 'd'   ? fmt::format("d{}", pick(4))
                              : name[0] == 's' ? fmt::format("s{}", pick(4))
                                               : file_name();
    mode_t mode = 0, mode2 = 0;
    Record r;
    r.file = id_at(from.get(), name, &mode);
    r.replaced = id_at(to.get(), name2, &mode2);
    if (r.file.is_none() || r.file == r.replaced) return;
    const bool exchange = pick(5) == 0 && !r.replaced.is_none();
    if (::syscall(SYS_renameat2, from.get(), name.c_str(), to.get(), name2.c_str(), exchange ? RENAME_EXCHANGE : 0) !=
        0)
      return;
    r.kind = Kind::rename;
    r.mode = mode & S_IFMT;
    r.flags = exchange ? log::flag_rename_exchange : 0;
    r.parent = id_of(from.get());
    r.name = name;
    r.parent2 = id_of(to.get());
    r.name2 = name2;
    r.parent_mtime_ns = mtime(from.get());
    r.parent2_mtime_ns = mtime(to.get());
    append(r);
    node_.log->capture_log().moved(set_, r.file);
    if (exchange) node_.log->capture_log().moved(set_, r.replaced);
  }

  void set_attributes() {
    const UniqueFd fd = some_file();
    if (!fd) return;
    Record r;
    r.kind = Kind::set_attributes;
    r.valid = log::valid_mode | log::valid_owner | log::valid_mtime;
    r.mode = 0600 + pick(64);
    r.uid = pick(5);
    r.gid = pick(5);
    r.mtime_ns = 1'600'000'000'123'456'789 + pick(1000);
    const timespec times[2] = {{0, UTIME_OMIT}, {r.mtime_ns / 1'000'000'000, r.mtime_ns % 1'000'000'000}};
    CHECK(::fchown(fd.get(), r.uid, r.gid) == 0 && ::fchmod(fd.get(), r.mode) == 0 && ::futimens(fd.get(), times) == 0,
          "attributes");
    r.file = id_of(fd.get());
    append(r);
  }

  void xattr() {
    const UniqueFd fd = some_file();
    if (!fd) return;
    const std::string name = fmt::format("user.x{}", pick(3));
    Record r;
    r.name = name;
    Bytes value(pick(60));
    for (auto& b : value) b = static_cast<std::uint8_t>(random_());
    if (pick(3) == 0) {
      if (::fremovexattr(fd.get(), name.c_str()) != 0) return;
      r.kind = Kind::remove_xattr;
    } else {
      if (::fsetxattr(fd.get(), name.c_str(), value.data(), value.size(), 0) != 0) return;
      r.kind = Kind::set_xattr;
      r.payload = value;
    }
    r.file = id_of(fd.get());
    append(r);
  }

  TestNode& node_;
  std::mt19937 random_;
  SetNumber set_;
  UniqueFd root_;
  bool used_ = false;
  std::size_t space_ = 0;
};

}  // namespace holdfast::platform::testing
