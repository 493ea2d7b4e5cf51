// SPDX-License-Identifier: Apache-2.0
#include "capture/inode_table.h"

#include <cerrno>
#include <utility>

#include "base/check.h"
#include "capture/fuse_abi.h"

namespace holdfast::capture {
namespace {

std::uint64_t word(const FileId& id, std::size_t at) {
  std::uint64_t v;
  std::memcpy(&v, id.bytes.data() + at, sizeof v);
  return v;
}

}  // namespace

// Big-endian: ids that are given one after the other differ in their bytes 6 and 7 (mirror/hot_set), and the kernel's hash of node ids looks at
// the low bits only. Were those equal, all new files would hang in one bucket of its inode table, under a lock of the whole machine.
std::uint64_t preferred_node(const FileId& id) {
  const std::uint64_t node = id.is_root() ? word(id, 8) : __builtin_bswap64(word(id, 0));
  return node <= fuse::root_node ? node + 0x4f1bbcdc676f5a2dULL : node;
}

std::uint32_t Inode::generation() const { return static_cast<std::uint32_t>(word(id, 8)); }
std::uint64_t Inode::shown_ino() const { return nodeid == fuse::root_node ? preferred_node(id) : nodeid; }

InodePtr InodeTable::find(std::uint64_t nodeid) {
  Shard& shard = node_shard(nodeid);
  const std::lock_guard guard(shard.mutex);
  const auto it = shard.map.find(nodeid);
  return it == shard.map.end() ? nullptr : it->second;
}

InodePtr InodeTable::find_lower(std::uint64_t lower_ino) {
  Shard& shard = lower_shard(lower_ino);
  const std::lock_guard guard(shard.mutex);
  const auto it = shard.map.find(lower_ino);
  return it == shard.map.end() ? nullptr : it->second;
}

bool InodeTable::look_up(const InodePtr& inode) {
  if (inode->nodeid == fuse::root_node) return true;
  const std::lock_guard guard(node_shard(inode->nodeid).mutex);
  if (inode->forgotten_) return false;
  ++inode->nlookup_;
  return true;
}

InodePtr InodeTable::add(const FileId& id, std::uint64_t lower_ino, mode_t type, const LowerHandle& handle,
                         Descriptor path) {
  Shard& lower = lower_shard(lower_ino);
  const std::lock_guard lower_guard(lower.mutex);
  if (const auto it = lower.map.find(lower_ino); it != lower.map.end()) {
    const std::lock_guard guard(node_shard(it->second->nodeid).mutex);
    if (!it->second->forgotten_) {
      if (it->second->nodeid != fuse::root_node) ++it->second->nlookup_;
      return it->second;
    }
  }
  // A node id that is taken by another object (a collision of 64 bits) moves on; ids stay what they are.
  for (std::uint64_t node = preferred_node(id);; node = node * 0x9E3779B97F4A7C15ULL + 2) {
    if (node <= fuse::root_node) continue;
    Shard& shard = node_shard(node);
    const std::lock_guard guard(shard.mutex);
    if (shard.map.contains(node)) continue;
    auto inode = std::make_shared<Inode>(id, node, lower_ino, type, handle);
    inode->nlookup_ = 1;
    const bool has_path = path.get() >= 0;
    if (has_path) inode->path_ = std::make_shared<Descriptor>(std::move(path));
    shard.map.emplace(node, inode);
    lower.map[lower_ino] = inode;
    size_.fetch_add(1, std::memory_order_relaxed);
    if (has_path) remember_descriptor(inode);
    return inode;
  }
}

InodePtr InodeTable::add_root(const FileId& id, std::uint64_t lower_ino, const LowerHandle& handle, Descriptor path) {
  auto inode = std::make_shared<Inode>(id, fuse::root_node, lower_ino, S_IFDIR, handle);
  inode->path_ = std::make_shared<Descriptor>(std::move(path));
  inode->pinned_ = true;
  node_shard(fuse::root_node).map.emplace(fuse::root_node, inode);
  lower_shard(lower_ino).map.emplace(lower_ino, inode);
  size_.fetch_add(1, std::memory_order_relaxed);
  return inode;
}

InodePtr InodeTable::forget(std::uint64_t nodeid, std::uint64_t count) {
  if (nodeid == fuse::root_node) return nullptr;
  InodePtr gone;
  {
    Shard& shard = node_shard(nodeid);
    const std::lock_guard guard(shard.mutex);
    const auto it = shard.map.find(nodeid);
    if (it == shard.map.end()) return nullptr;
    CHECK(it->second->nlookup_ >= count, "the kernel forgot node {:x} {} times, it was looked up {} times", nodeid,
          count, it->second->nlookup_);
    it->second->nlookup_ -= count;
    if (it->second->nlookup_) return nullptr;
    gone = std::move(it->second);
    gone->forgotten_ = true;
    shard.map.erase(it);
  }
  bool was_pinned = false;
  {
    const std::lock_guard guard(gone->mutex_);
    was_pinned = gone->pinned_;
  }
  if (was_pinned) unpinned();
  Shard& lower = lower_shard(gone->lower_ino);
  const std::lock_guard guard(lower.mutex);
  // Between the two steps the same object may have been looked up afresh: then the number is the newcomer's.
  if (const auto it = lower.map.find(gone->lower_ino); it != lower.map.end() && it->second == gone) lower.map.erase(it);
  size_.fetch_sub(1, std::memory_order_relaxed);
  return gone;
}

void InodeTable::unpinned() {
  if (pinned_.fetch_sub(1, std::memory_order_relaxed) <= pinned_limit_) return;
  const std::lock_guard guard(forgets_mutex_);
  forgets_.notify_all();
}

void InodeTable::unpin(Inode& inode) {
  {
    const std::lock_guard guard(inode.mutex_);
    if (!std::exchange(inode.pinned_, false)) return;
  }
  unpinned();
  if (const InodePtr known = shared(inode); known.get() == &inode) remember_descriptor(known);
}

void InodeTable::wait_for_forgets() {
  constexpr std::chrono::milliseconds one_comes_within{20}, most{1000};
  constexpr unsigned most_waiting = 2;
  const auto until = std::chrono::steady_clock::now() + most;
  std::unique_lock lock(forgets_mutex_);
  if (waiting_ == most_waiting) return;
  ++waiting_;
  while (too_many_pinned() && std::chrono::steady_clock::now() < until)
    if (forgets_.wait_for(lock, one_comes_within) == std::cv_status::timeout) break;
  --waiting_;
}

bool InodeTable::shed() {
  constexpr std::size_t some = 256;
  std::vector<SharedDescriptor> closed;  // after the mutexes are released
  const std::lock_guard guard(cache_mutex_);
  for (std::size_t looked = cache_.size(); looked > 0 && closed.size() < some; --looked) {
    std::weak_ptr<Inode> oldest = std::move(cache_.front());
    cache_.pop_front();
    const InodePtr old = oldest.lock();
    if (!old) continue;
    const std::unique_lock lock(old->mutex_, std::try_to_lock);
    if (!lock)
      cache_.push_back(std::move(oldest));
    else if (!old->pinned_ && old->path_)
      closed.push_back(std::move(old->path_));
  }
  return !closed.empty();
}

void InodeTable::remember_descriptor(const InodePtr& inode) {
  std::vector<SharedDescriptor> evicted;  // closed after the mutexes are released
  const std::lock_guard guard(cache_mutex_);
  cache_.push_back(inode);
  for (std::size_t looked = 0; cache_.size() > cached_limit_ && looked < 64; ++looked) {
    std::weak_ptr<Inode> oldest = std::move(cache_.front());
    cache_.pop_front();
    const InodePtr old = oldest.lock();
    if (!old) continue;
    const std::unique_lock lock(old->mutex_, std::try_to_lock);
    if (!lock || old->recently_used_) {
      if (lock) old->recently_used_ = false;
      cache_.push_back(std::move(oldest));
    } else if (!old->pinned_) {
      evicted.push_back(std::move(old->path_));
    }
  }
}

SharedDescriptor InodeTable::path(Inode& inode) {
  {
    const std::lock_guard guard(inode.mutex_);
    if (!inode.path_ && inode.data_) return inode.data_;  // what is open for data does as well
  }
  return opened_path(inode);
}

SharedDescriptor InodeTable::opened_path(Inode& inode) {
  SharedDescriptor opened;
  for (bool again = true; !opened;) {
    int error = 0;
    {
      const std::lock_guard guard(inode.mutex_);
      inode.recently_used_ = true;
      if (inode.path_) return inode.path_;
      const int fd = open_handle(mount_fd_, inode.handle, O_PATH | O_CLOEXEC | O_NOFOLLOW);
      if (fd >= 0)
        opened = inode.path_ = std::make_shared<Descriptor>(fd);
      else
        error = errno;
    }
    if (error && !(std::exchange(again, false) && no_descriptors_left(error) && shed())) {
      errno = error;
      return nullptr;
    }
  }
  if (const InodePtr known = shared(inode); known.get() == &inode) remember_descriptor(known);
  return opened;
}

bool InodeTable::pin(Inode& inode) {
  const SharedDescriptor held = opened_path(inode);
  if (!held) return false;
  const std::lock_guard guard(inode.mutex_);
  inode.path_ = held;
  if (!std::exchange(inode.pinned_, true)) pinned_.fetch_add(1, std::memory_order_relaxed);
  return true;
}

SharedDescriptor InodeTable::open_data(Inode& inode, bool write) {
  SharedDescriptor result = data(inode, write);
  if (!result) {
    const SharedDescriptor held = path(inode);
    if (!held) return nullptr;
    const ProcPath name(held->get());
    int fd = open(name.c_str(), O_RDWR | O_CLOEXEC | O_NOATIME);
    if (fd < 0 && no_descriptors_left(errno) && shed()) fd = open(name.c_str(), O_RDWR | O_CLOEXEC | O_NOATIME);
    const bool writable = fd >= 0;
    if (fd < 0 && !write && (errno == EROFS || errno == EACCES || errno == EPERM || errno == ETXTBSY))
      fd = open(name.c_str(), O_RDONLY | O_CLOEXEC | O_NOATIME);
    if (fd < 0) return nullptr;
    result = std::make_shared<Descriptor>(fd);
    const std::lock_guard guard(inode.mutex_);
    if (!inode.data_ || (writable && !inode.data_writable_)) {
      inode.data_ = result;
      inode.data_writable_ = writable;
    }
  }
  adopt_data(inode, result, write);
  return result;
}

void InodeTable::adopt_data(Inode& inode, SharedDescriptor data, bool write) {
  bool first_writer = false;
  {
    const std::lock_guard guard(inode.mutex_);
    ++inode.openers_;
    if (write) first_writer = inode.writers_++ == 0;
    if (!inode.data_) {
      inode.data_ = std::move(data);
      inode.data_writable_ = write;
    }
  }
  if (!first_writer) return;
  if (InodePtr known = shared(inode); known.get() == &inode) {
    const std::lock_guard guard(writers_mutex_);
    writers_[&inode] = std::move(known);
  }
}

void InodeTable::close_data(Inode& inode, bool write) {
  SharedDescriptor closing;  // closed after the mutex is released
  bool last_writer = false;
  {
    const std::lock_guard guard(inode.mutex_);
    CHECK(inode.openers_ > 0 && (!write || inode.writers_ > 0), "a file was released more often than opened");
    if (write) last_writer = --inode.writers_ == 0;
    if (--inode.openers_ == 0) closing = std::move(inode.data_);
  }
  if (!last_writer) return;
  InodePtr released;
  const std::lock_guard guard(writers_mutex_);
  const std::lock_guard again(inode.mutex_);
  if (inode.writers_) return;  // opened anew meanwhile
  if (const auto it = writers_.find(&inode); it != writers_.end()) {
    released = std::move(it->second);
    writers_.erase(it);
  }
}

SharedDescriptor InodeTable::data(Inode& inode, bool write) {
  const std::lock_guard guard(inode.mutex_);
  return !write || inode.data_writable_ ? inode.data_ : nullptr;
}

bool InodeTable::has_writers(Inode& inode) {
  const std::lock_guard guard(inode.mutex_);
  return inode.writers_ > 0;
}

std::vector<InodePtr> InodeTable::open_for_write() {
  std::vector<InodePtr> out;
  const std::lock_guard guard(writers_mutex_);
  out.reserve(writers_.size());
  for (const auto& [raw, inode] : writers_) out.push_back(inode);
  return out;
}

void InodeTable::clear() {
  for (auto* side : {&by_node_, &by_lower_})
    for (Shard& shard : *side) {
      const std::lock_guard guard(shard.mutex);
      shard.map.clear();
    }
  const std::lock_guard guard(writers_mutex_);
  writers_.clear();
}

}  // namespace holdfast::capture
