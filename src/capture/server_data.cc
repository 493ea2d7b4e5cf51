// SPDX-License-Identifier: Apache-2.0
// Open files: data in both directions, and making it durable.
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <sys/xattr.h>

#include "capture/caller.h"
#include "capture/server.h"

namespace holdfast::capture {
namespace {

// All of it, or the errno with how much was done.
std::size_t write_all(int fd, ByteView data, std::uint64_t offset, int& error) {
  std::size_t done = 0;
  error = 0;
  while (done < data.size()) {
    const ssize_t n = pwrite(fd, data.data() + done, data.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      error = n < 0 ? errno : ENOSPC;
      break;
    }
    done += static_cast<std::size_t>(n);
  }
  return done;
}

bool writes(std::uint32_t flags) { return (flags & O_ACCMODE) != O_RDONLY; }

// Under write-back the kernel owns the times of a file and sends them after the data, but only when they differ from what it was told last.
// So writing its pages must not move them. (Under write-through they are ours, and it asks for them after it wrote mapped pages.)
bool keep_time(int fd, const struct stat& before, struct stat& st) {
  if (st.st_mtim.tv_sec == before.st_mtim.tv_sec && st.st_mtim.tv_nsec == before.st_mtim.tv_nsec) return true;
  const timespec times[2] = {{0, UTIME_OMIT}, before.st_mtim};
  st.st_mtim = before.st_mtim;
  return futimens(fd, times) == 0;
}

constexpr std::int8_t most_hurried_writes = 2;  // more between two fsyncs is bulk

std::uint32_t orphan_flag(const Inode& inode) { return inode.unlinked ? log::flag_orphan : 0; }

}  // namespace

bool Server::may_lose_capability(Inode& inode, int fd) {
  std::int8_t has = inode.has_capability.load(std::memory_order_relaxed);
  if (has < 0) {
    has = ::getxattr(ProcPath(fd).c_str(), capability, nullptr, 0) > 0;
    inode.has_capability = has;
  }
  return has > 0;
}

void Server::append_lost_privileges(Reservation& held, Inode& inode, int fd, mode_t mode_before, struct stat& st) {
  if (fstat(fd, &st) == 0 && st.st_mode != mode_before) {
    log::Record record = record_of(log::Kind::set_attributes, inode.id);
    record.flags = orphan_flag(inode);
    record.valid = log::valid_mode;
    record.mode = st.st_mode;
    append(held, record);
  }
  if (inode.has_capability <= 0) return;
  if (::getxattr(ProcPath(fd).c_str(), capability, nullptr, 0) >= 0) return;
  inode.has_capability = 0;
  log::Record record = record_of(log::Kind::remove_xattr, inode.id);
  record.flags = orphan_flag(inode);
  record.name = capability;
  append(held, record);
}

Answer Server::open(Request& r) {
  const auto in = r.in<fuse::OpenIn>();
  const InodePtr inode = inodes_.find(r.head.nodeid);
  if (!inode) return -ESTALE;
  const bool truncates = in.flags & O_TRUNC;
  const bool write = writes(in.flags) || truncates;
  HotGuard hot;
  if (const Answer no = truncates ? note_hot(hot, *inode) : 0) return no;
  SharedDescriptor data = inodes_.open_data(*inode, write);
  if (!data) return failed(errno, "opening below failed");
  if (truncates) {
    int error = !stopped_ && lease_.wait_valid() ? 0 : EIO;
    Reservation held(log_);
    if (!error && !take_space(r, held, {0, 32, 32})) error = EIO;
    ObjectLocks::Guard guard = locks_.lock(inode->id);
    struct stat before, st;
    if (!error && fstat(data->get(), &before) != 0) error = errno;
    if (!error) {
      may_lose_capability(*inode, data->get());
      const WithoutFsetid ordinary(in.open_flags & fuse::open_kill_suidgid);
      if (ftruncate(data->get(), 0) != 0) error = errno;
    }
    if (error) {
      guard.unlock();
      inodes_.close_data(*inode, write);
      return failed(error, "truncating below failed");
    }
    fstat(data->get(), &st);
    log::Record record = record_of(log::Kind::truncate, inode->id);
    record.flags = orphan_flag(*inode);
    record.mtime_ns = nanoseconds(st.st_mtim);
    append(held, record);
    append_lost_privileges(held, *inode, data->get(), before.st_mode, st);
    guard.unlock();
    if (!lease_.wait_valid()) {
      inodes_.close_data(*inode, write);
      return -EIO;
    }
  }
  const std::uint64_t fh = files_.add(std::make_unique<FileHandle>(inode, std::move(data), write));
  return put(r, fuse::OpenOut{fh, fuse::fopen_keep_cache, 0});
}

Answer Server::release(Request& r) {
  const auto handle = files_.take(r.in<fuse::ReleaseIn>().fh);
  inodes_.close_data(*handle->inode, handle->write);
  return 0;
}

Answer Server::read(Request& r) {
  const auto& in = r.in<fuse::ReadIn>();
  const int fd = files_.at(in.fh).data->get();
  const std::size_t wanted = std::min<std::size_t>(in.size, r.reply.size());
  std::size_t done = 0;
  while (done < wanted) {
    const ssize_t n = pread(fd, r.reply.data() + done, wanted - done, static_cast<off_t>(in.offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && done == 0) return -errno;
    if (n <= 0) break;
    done += static_cast<std::size_t>(n);
  }
  counters_.bytes_read.fetch_add(done, std::memory_order_relaxed);
  return static_cast<Answer>(done);
}

Answer Server::write(Request& r) {
  const auto in = r.in<fuse::WriteIn>();
  const FileHandle& handle = files_.at(in.fh);
  Inode& inode = *handle.inode;
  const SharedDescriptor shared =
      handle.write ? nullptr : inodes_.data(inode, true);  // write-back names any handle of the file
  const int fd = shared ? shared->get() : handle.data->get();
  const ByteView data = r.args.subspan(0, std::min<std::size_t>(in.size, r.args.size()));
  if (const int error = peers_.file_end(in.offset + data.size())) return -error;
  const bool from_cache = in.write_flags & fuse::write_from_cache, kill = in.write_flags & fuse::write_kill_suidgid;
  const bool privileges = may_lose_capability(inode, fd) || kill;
  HotGuard hot;
  if (const Answer no = note_hot(hot, inode)) return no;
  Reservation held(log_);
  if (!(privileges ? take_space(r, held, {data.size(), 32, 32}) : take_space(r, held, {data.size()}))) return -EIO;
  ObjectLocks::Guard guard = locks_.lock(inode.id);
  struct stat before, st;
  const bool keeps_time = from_cache && options_.write_back;
  if ((privileges || keeps_time) && fstat(fd, &before) != 0) return failed(errno, "reading attributes below failed");
  int error;
  std::size_t done;
  {
    const WithoutFsetid ordinary(kill);
    done = write_all(fd, data, in.offset, error);
  }
  if (done) {
    if (fstat(fd, &st) != 0) return fault(errno, "reading attributes below failed");
    if (keeps_time && !keep_time(fd, before, st)) return fault(errno, "setting times below failed");
    log::Record record = record_of(log::Kind::write, inode.id);
    record.flags = orphan_flag(inode);
    record.offset = in.offset;
    record.payload = data.subspan(0, done);
    record.mtime_ns = nanoseconds(st.st_mtim);
    append(held, record);
    if (privileges) append_lost_privileges(held, inode, fd, before.st_mode, st);
    counters_.bytes_written.fetch_add(done, std::memory_order_relaxed);
  }
  guard.unlock();
  hot.leave();  // what follows may wait for peers
  // The kernel takes a short write of cached pages for success, so there it is an error; what was written is recorded all the same.
  if (error && (from_cache || done == 0)) return failed(error, "writing below failed");
  if (from_cache) begin_sync(inode, fd, in.offset, done);
  if (!from_cache && (in.flags & (O_DSYNC | O_SYNC))) {
    if (const Answer synced = make_durable(r, inode, fd, (in.flags & O_SYNC) != O_SYNC); synced < 0) return synced;
  }
  return put(r, fuse::WriteOut{static_cast<std::uint32_t>(done), 0});
}

// The first writes after an fsync, if the file has the habit: the FSYNC that follows them finds our disk and the peers at work already.
void Server::begin_sync(Inode& inode, int fd, std::uint64_t offset, std::size_t bytes) {
  if (inode.sync_habit.load(std::memory_order_relaxed) <= 0) return;
  inode.sync_habit.fetch_sub(1, std::memory_order_relaxed);
  log_.hurry();
  // A hint as well: an error shows in the fsync.
  (void)::sync_file_range(fd, static_cast<off_t>(offset), static_cast<off_t>(bytes), SYNC_FILE_RANGE_WRITE);
}

Answer Server::make_durable(Request& r, int fd, bool data_only) {
  return make_durable(r, data_only, [&] { return (data_only ? fdatasync(fd) : ::fsync(fd)) ? errno : 0; });
}

Answer Server::make_durable(Request& r, const Inode& inode, int fd, bool data_only) {
  return make_durable(r, data_only, [&] {
    const auto ticket = unsynced_.begin(inode.id, data_only);
    if (!ticket) return 0;
    const int error = (data_only ? fdatasync(fd) : ::fsync(fd)) ? errno : 0;
    if (error) fault(error, "fsync below failed");  // before those who sync beside us hear of our end
    unsynced_.ended(inode.id, *ticket);
    return error;
  });
}

Answer Server::make_durable(Request& r, bool data_only, const std::function<int()>& sync_here) {
  if (faulted_.load(std::memory_order_relaxed)) return -EIO;  // what failed before may be what this would promise
  counters_.syncs.fetch_add(1, std::memory_order_relaxed);
  // Everything sequenced before now: the peers work while our disk does.
  auto wait = std::make_shared<DurableWait>();
  log_.when_durable(data_only ? log_.last_but_times() : log_.last_sequence(), [wait] { wait->done(); });
  if (const int error = sync_here()) return fault(error, "fsync below failed");
  if (faulted_.load()) return -EIO;
  if (wait->settled()) return 0;
  r.transport->wait_begins(r.queue);
  const bool durable = durable_.wait(wait);
  r.transport->wait_ends(r.queue);
  return durable ? 0 : -EIO;
}

Answer Server::fsync(Request& r) {
  const auto& in = r.in<fuse::FsyncIn>();
  const FileHandle& handle = files_.at(in.fh);
  handle.inode->sync_habit.store(most_hurried_writes, std::memory_order_relaxed);
  return make_durable(r, *handle.inode, handle.data->get(), in.flags & fuse::fsync_data_only);
}

Answer Server::fallocate(Request& r) {
  const auto in = r.in<fuse::FallocateIn>();
  const FileHandle& handle = files_.at(in.fh);
  Inode& inode = *handle.inode;
  const int fd = handle.data->get();
  if (const int error = peers_.file_end(in.offset + in.length)) return -error;
  HotGuard hot;
  if (const Answer no = note_hot(hot, inode)) return no;
  Reservation held(log_);
  if (!take_space(r, held, {0, 32, 32})) return -EIO;
  ObjectLocks::Guard guard = locks_.lock(inode.id);
  struct stat before, st;
  if (fstat(fd, &before) != 0) return failed(errno, "reading attributes below failed");
  may_lose_capability(inode, fd);
  {
    const WithoutFsetid ordinary(r.head.uid != 0);
    if (::fallocate(fd, static_cast<int>(in.mode), static_cast<off_t>(in.offset), static_cast<off_t>(in.length)) != 0) {
      const int error = errno;
      // ext4 leaves the file as long as it had got when the space ran out. There is no record of that: take it back.
      if (fstat(fd, &st) != 0 || (st.st_size != before.st_size && ftruncate(fd, before.st_size) != 0))
        return fault(errno, "taking a half-done fallocate back failed");
      return failed(error, "fallocate below failed");
    }
  }
  if (fstat(fd, &st) != 0) return fault(errno, "reading attributes below failed");
  log::Record record = record_of(log::Kind::fallocate, inode.id);
  record.flags = orphan_flag(inode);
  record.mode_flags = in.mode;
  record.offset = in.offset;
  record.length = in.length;
  record.size = static_cast<std::uint64_t>(st.st_size);
  record.mtime_ns = nanoseconds(st.st_mtim);
  append(held, record);
  append_lost_privileges(held, inode, fd, before.st_mode, st);
  return 0;
}

Answer Server::lseek(Request& r) {
  const auto in = r.in<fuse::LseekIn>();
  const FileHandle& handle = files_.at(in.fh);
  if (options_.write_back && options_.device >= 0 && inodes_.has_writers(*handle.inode)) {
    // Dirty pages the kernel still has are holes down here: have them written first. Other threads serve those writes.
    const fuse::NotifyInvalInode note{r.head.nodeid, 0, 0};
    const fuse::OutHeader head{sizeof head + sizeof note, fuse::notify_inval_inode, 0};
    const iovec parts[2] = {{const_cast<fuse::OutHeader*>(&head), sizeof head},
                            {const_cast<fuse::NotifyInvalInode*>(&note), sizeof note}};
    r.transport->wait_begins(r.queue);
    (void)!writev(options_.device, parts, 2);
    r.transport->wait_ends(r.queue);
  }
  const off_t at = ::lseek(handle.data->get(), static_cast<off_t>(in.offset), static_cast<int>(in.whence));
  if (at < 0) return -errno;
  return put(r, fuse::LseekOut{static_cast<std::uint64_t>(at)});
}

namespace {

// True: what is to be set stands there already.
bool same_flags(std::uint32_t command, const std::uint8_t* there, ByteView wanted) {
  if (command == FS_IOC_SETFLAGS)
    return wanted.size() >= sizeof(int) && std::memcmp(there, wanted.data(), sizeof(int)) == 0;
  fsxattr now, then;
  if (wanted.size() < sizeof then) return false;
  std::memcpy(&now, there, sizeof now);
  std::memcpy(&then, wanted.data(), sizeof then);
  constexpr auto told_only = FS_XFLAG_PREALLOC | FS_XFLAG_HASATTR;
  return ((now.fsx_xflags ^ then.fsx_xflags) & ~told_only) == 0 && now.fsx_extsize == then.fsx_extsize &&
         now.fsx_projid == then.fsx_projid && now.fsx_cowextsize == then.fsx_cowextsize;
}

}  // namespace

// As it stands in file handles.
Answer Server::generation(Request& r, std::size_t wanted) {
  const InodePtr inode = inodes_.find(r.head.nodeid);
  if (!inode) return -ESTALE;
  const fuse::IoctlOut out{};
  put(r, out);
  const std::uint64_t value = inode->generation();
  std::memcpy(r.reply.data() + sizeof out, &value, std::min(wanted, sizeof value));
  return static_cast<Answer>(sizeof out + std::min(wanted, sizeof value));
}

// Flags of files (immutable and the like) have no record in the log, so they can be read but not changed.
Answer Server::ioctl(Request& r) {
  const auto in = r.in<fuse::IoctlIn>();
  const bool sets = in.command == FS_IOC_SETFLAGS || in.command == FS_IOC_FSSETXATTR;
  const bool plain = in.command == FS_IOC_SETFLAGS || in.command == FS_IOC_GETFLAGS;
  if (in.command == FS_IOC_GETVERSION) return generation(r, in.out_size);
  if (!sets && !plain && in.command != FS_IOC_FSGETXATTR) return -ENOTTY;
  SharedDescriptor path;
  const InodePtr inode = inode_of(r.head.nodeid, path);
  if (!inode) return -ESTALE;
  if (!S_ISREG(inode->file_type) && !S_ISDIR(inode->file_type)) return -ENOTTY;
  const Descriptor fd(::open(ProcPath(path->get()).c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) return -errno;
  alignas(8) std::uint8_t value[sizeof(struct fsxattr)] = {};
  if (::ioctl(fd.get(), plain ? FS_IOC_GETFLAGS : FS_IOC_FSGETXATTR, value) != 0) return -errno;
  if (sets && !same_flags(in.command, value, r.args.subspan(0, std::min<std::size_t>(in.in_size, r.args.size()))))
    return -EOPNOTSUPP;
  const fuse::IoctlOut out{};
  put(r, out);
  const std::size_t size = plain ? sizeof(int) : sizeof(struct fsxattr);
  const std::size_t wanted = std::min<std::size_t>(in.out_size, size);
  std::memcpy(r.reply.data() + sizeof out, value, wanted);
  return static_cast<Answer>(sizeof out + wanted);
}

}  // namespace holdfast::capture
