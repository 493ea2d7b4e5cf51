// SPDX-License-Identifier: Apache-2.0
// What the kernel knows: node id -> inode, until FORGET. Descriptors are a cache over file handles; an object that lost its last name keeps
// one pinned until it is forgotten (R18). Any thread.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "base/bytes.h"
#include "base/result.h"
#include "base/types.h"
#include "capture/lower.h"
#include "mirror/hot_gate.h"

namespace holdfast::capture {

class Inode {
 public:
  Inode(const FileId& file, std::uint64_t node, std::uint64_t lower, mode_t type, const LowerHandle& h)
      : id(file), nodeid(node), lower_ino(lower), file_type(type), handle(h) {}

  const FileId id;
  const std::uint64_t nodeid;
  const std::uint64_t lower_ino;
  const mode_t file_type;  // S_IFMT bits
  const LowerHandle handle;
  std::uint32_t generation() const;
  std::uint64_t shown_ino() const;

  // Knowledge that spares look-ups; all changes come through us. -1 = not known yet.
  std::atomic<std::int32_t> default_acl_bytes{-1};
  std::atomic<std::int8_t> has_capability{-1};  // security.capability
  std::atomic<bool> unlinked{false};
  // How many of the coming writes will probably be synced at once: an fsync raises it, each write uses one up.
  std::atomic<std::int8_t> sync_habit{0};
  mirror::HotGate::Cell hot{0};

 private:
  friend class InodeTable;
  std::uint64_t nlookup_ = 0;  // under the shard's mutex
  bool forgotten_ = false;     // under the shard's mutex
  std::mutex mutex_;
  SharedDescriptor path_;  // O_PATH; null when evicted
  bool pinned_ = false, recently_used_ = false;
  SharedDescriptor data_;  // for reads and writes, while open
  bool data_writable_ = false;
  unsigned openers_ = 0, writers_ = 0;
};
using InodePtr = std::shared_ptr<Inode>;

// The node id an id gets when nothing else has it: its first 8 bytes, big-endian; same on all nodes. Roots aside it is also st_ino.
std::uint64_t preferred_node(const FileId& id);

class InodeTable {
 public:
  // `mount_fd` is borrowed: handles are opened on its mount. At most about `cached_descriptors` O_PATH descriptors stay open unpinned.
  InodeTable(int mount_fd, std::size_t cached_descriptors)
      : mount_fd_(mount_fd), cached_limit_(cached_descriptors), pinned_limit_(cached_descriptors / 2 + 8) {}

  InodePtr find(std::uint64_t nodeid);
  // By the inode number below, without counting a look-up.
  InodePtr find_lower(std::uint64_t lower_ino);
  // Counts one look-up of a known inode; false: it was forgotten meanwhile.
  bool look_up(const InodePtr& inode);
  // Adds an object (or finds it, if another thread was faster) and counts one look-up. `path`: its O_PATH
  // descriptor if there is one at hand, else it is opened by handle when first needed.
  InodePtr add(const FileId& id, std::uint64_t lower_ino, mode_t type, const LowerHandle& handle, Descriptor path);
  InodePtr add_root(const FileId& id, std::uint64_t lower_ino, const LowerHandle& handle, Descriptor path);
  // Returns the inode when this was the last look-up.
  InodePtr forget(std::uint64_t nodeid, std::uint64_t count);

  // A descriptor to name it by, O_PATH if it is not open anyway; null and errno when the object can't be opened any more.
  SharedDescriptor path(Inode& inode);
  // From here until it is forgotten the descriptor stays open. False and errno when it is too late.
  bool pin(Inode& inode);
  void unpin(Inode& inode);  // it has a name again
  // Whoever removes names faster than the kernel's FORGETs are served (each of those may free a file below) would use up all descriptors: this
  // holds it up until there are fewer, as long as they come, a second at most. An application may have that many removed files open: then none
  // come, and nobody waits. Nor does a third one beside two who do: the threads that serve FORGETs are among those that wait here.
  bool too_many_pinned() const { return pinned_.load(std::memory_order_relaxed) > pinned_limit_; }
  void wait_for_forgets();
  // The process has no descriptors left: closes some of the cached ones. False: there are none.
  bool shed();
  // Opens or shares the descriptor for data; null and errno. Balanced by close_data with the same `write`.
  SharedDescriptor open_data(Inode& inode, bool write);
  // The same when the descriptor was just made by a create.
  void adopt_data(Inode& inode, SharedDescriptor data, bool write);
  void close_data(Inode& inode, bool write);
  // What is open now, or null.
  SharedDescriptor data(Inode& inode, bool write);
  bool has_writers(Inode& inode);
  std::vector<InodePtr> open_for_write();
  std::size_t size() const { return size_.load(std::memory_order_relaxed); }
  void clear();
  // All but the root, for the mirror that goes on with this connection, and back. Pinned ones: their descriptors, in that order. Nobody else is here.
  void hand_over(ByteWriter& to, std::vector<Descriptor>& pins);
  Status take_over(ByteReader& from, std::vector<Descriptor>& pins);

 private:
  Status take_one(ByteReader& from, std::vector<Descriptor>& pins, std::size_t& pinned);

  static constexpr std::size_t shards = 64;
  struct Shard {
    std::mutex mutex;
    std::unordered_map<std::uint64_t, InodePtr> map;
  };
  Shard& node_shard(std::uint64_t nodeid) { return by_node_[(nodeid * 0x9E3779B97F4A7C15ULL) >> 58]; }
  Shard& lower_shard(std::uint64_t ino) { return by_lower_[(ino * 0x9E3779B97F4A7C15ULL) >> 58]; }
  SharedDescriptor opened_path(Inode& inode);
  void remember_descriptor(const InodePtr& inode);
  void unpinned();
  InodePtr shared(Inode& inode) { return find_lower(inode.lower_ino); }

  const int mount_fd_;
  const std::size_t cached_limit_, pinned_limit_;
  std::array<Shard, shards> by_node_, by_lower_;
  std::atomic<std::size_t> size_{0}, pinned_{0};
  std::mutex forgets_mutex_;
  std::condition_variable forgets_;
  unsigned waiting_ = 0;  // under forgets_mutex_
  std::mutex cache_mutex_;
  std::deque<std::weak_ptr<Inode>> cache_;  // second chance, oldest first
  std::mutex writers_mutex_;
  std::unordered_map<Inode*, InodePtr> writers_;
};

}  // namespace holdfast::capture
