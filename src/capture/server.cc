// SPDX-License-Identifier: Apache-2.0
#include "capture/server.h"

#include <sys/statvfs.h>
#include <sys/xattr.h>

#include <fstream>

#include "base/log.h"

namespace holdfast::capture {
namespace {

bool security_module_labels() {
  std::ifstream in("/sys/kernel/security/lsm");
  std::string list;
  return in >> list && (list.find("selinux") != std::string::npos || list.find("smack") != std::string::npos);
}

}  // namespace

const std::array<Server::Operation, fuse::op_count>& Server::operations() {
  static const auto table = [] {
    std::array<Operation, fuse::op_count> t{};
    const auto set = [&t](fuse::Op op, Method method, bool changes) {
      t[static_cast<std::size_t>(op)] = {method, changes};
    };
    using O = fuse::Op;
    set(O::init, &Server::init, false);
    set(O::statfs, &Server::statfs, false);
    set(O::syncfs, &Server::syncfs, true);
    set(O::lookup, &Server::lookup, false);
    set(O::forget, &Server::forget, false);
    set(O::batch_forget, &Server::batch_forget, false);
    set(O::getattr, &Server::getattr, false);
    set(O::statx, &Server::statx, false);
    set(O::readlink, &Server::readlink, false);
    set(O::create, &Server::create, true);
    set(O::tmpfile, &Server::tmpfile, true);
    set(O::mkdir, &Server::mkdir, true);
    set(O::mknod, &Server::mknod, true);
    set(O::symlink, &Server::symlink, true);
    set(O::unlink, &Server::unlink, true);
    set(O::rmdir, &Server::rmdir, true);
    set(O::rename, &Server::rename, true);
    set(O::rename2, &Server::rename2, true);
    set(O::link, &Server::link, true);
    set(O::open, &Server::open, false);  // checks itself when it truncates
    set(O::release, &Server::release, false);
    set(O::read, &Server::read, false);
    set(O::write, &Server::write, true);
    // FLUSH (each close) is left to its default, "not implemented": the kernel asks once, and from then on writes the dirty pages and waits for that
    // as before (the push rounds rely on it, R10), but saves the round trip. There is nothing to do for it here: locks are the kernel's own.
    set(O::fsync, &Server::fsync, true);
    set(O::fallocate, &Server::fallocate, true);
    set(O::lseek, &Server::lseek, false);
    set(O::ioctl, &Server::ioctl, false);
    set(O::setattr, &Server::setattr, true);
    set(O::getxattr, &Server::getxattr, false);
    set(O::listxattr, &Server::listxattr, false);
    set(O::setxattr, &Server::setxattr, true);
    set(O::removexattr, &Server::removexattr, true);
    set(O::opendir, &Server::opendir, false);
    set(O::readdir, &Server::readdir, false);
    set(O::readdirplus, &Server::readdirplus, false);
    set(O::releasedir, &Server::releasedir, false);
    set(O::fsyncdir, &Server::fsyncdir, true);
    return t;
  }();
  return table;
}

Server::Server(const ServerOptions& options, mirror::CaptureLog& log, mirror::LeaseGate& lease, FileIds& ids,
               std::function<void(const Error&)> on_fault)
    : options_(options),
      log_(log),
      hot_(log.hot()),
      lease_(lease),
      ids_(ids),
      on_fault_(std::move(on_fault)),
      peers_(options.limits),
      space_(log),
      inodes_(options.root_fd, options.cached_descriptors),
      labels_(security_module_labels()) {}

Status Server::open_root() {
  struct stat st, inner;
  if (fstat(options_.root_fd, &st) != 0) return fail_errno(errno, "cannot look at the protected folder");
  if (!S_ISDIR(st.st_mode)) return fail(ErrorCode::invalid, "the protected path is not a folder");
  LowerHandle handle;
  if (const int error = handle_of(options_.root_fd, handle))
    return fail_errno(error, "the file system of the protected folder gives no file handles");
  Descriptor path(openat(options_.root_fd, ".", O_PATH | O_CLOEXEC | O_DIRECTORY));
  if (path.get() < 0) return fail_errno(errno, "cannot open the protected folder");
  device_ = st.st_dev;
  if (fstatat(options_.root_fd, hidden_folder.data(), &inner, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(inner.st_mode) &&
      st.st_nlink > 2)
    root_hidden_links_ = 1;
  root_ = inodes_.add_root(FileId::root(options_.set), st.st_ino, handle, std::move(path));
  return {};
}

void Server::stop() {
  stopped_ = true;
  space_.stop();
  durable_.stop();
}

Answer Server::handle(Request& request) {
  const auto& table = operations();
  if (request.head.opcode >= table.size()) return -ENOSYS;
  if (request.op() == fuse::Op::interrupt) return no_answer;  // a request under way ends by itself soon enough
  const Operation& operation = table[request.head.opcode];
  if (!operation.method) return -ENOSYS;
  counters_.operations.fetch_add(1, std::memory_order_relaxed);
  if (!operation.changes) return (this->*operation.method)(request);
  // I1: neither changes the tree nor answers without the lease.
  if (stopped_.load(std::memory_order_relaxed) || !lease_.wait_valid()) return -EIO;
  const Answer answer = (this->*operation.method)(request);
  if (answer < 0) return answer;
  return lease_.wait_valid() && !stopped_.load(std::memory_order_relaxed) ? answer : -EIO;
}

std::uint64_t Server::wanted_flags() const {
  std::uint64_t wanted =
      fuse::init_async_read | fuse::init_atomic_o_trunc | fuse::init_export_support | fuse::init_big_writes |
      fuse::init_dont_mask | fuse::init_has_ioctl_dir | fuse::init_readdirplus | fuse::init_readdirplus_auto |
      fuse::init_async_dio | fuse::init_parallel_dirops | fuse::init_posix_acl | fuse::init_abort_error |
      fuse::init_max_pages | fuse::init_cache_symlinks | fuse::init_handle_killpriv_v2 | fuse::init_setxattr_ext |
      fuse::init_ext | fuse::init_security_ctx | fuse::init_create_supp_group | fuse::init_direct_io_allow_mmap;
  if (options_.write_back) wanted |= fuse::init_writeback_cache;
  if (options_.over_uring) wanted |= fuse::init_over_io_uring;
  return wanted;
}

Answer Server::init(Request& r) {
  const auto& in = r.in<fuse::InitIn>();
  fuse::InitOut out{};
  out.major = fuse::major_version;
  out.minor = std::min(in.minor, fuse::minor_version);
  if (in.major != fuse::major_version) return in.major > fuse::major_version ? put(r, out) : -EPROTO;
  if (in.minor < fuse::least_minor) {
    log_error("the kernel speaks FUSE 7.{}, capture needs 7.{} (Linux 5.17)", in.minor, fuse::least_minor);
    return -EPROTO;
  }
  const std::uint64_t offered = in.flags | std::uint64_t{in.flags2} << 32;
  offered_ = offered;
  agreed_ = offered & wanted_flags();
  setxattr_ext_ = agreed_ & fuse::init_setxattr_ext;
  out.flags = static_cast<std::uint32_t>(agreed_);
  out.flags2 = static_cast<std::uint32_t>(agreed_ >> 32);
  out.max_readahead = 4U << 20;  // the limit is read_ahead_kb of the mount
  out.max_background = background_requests;
  out.congestion_threshold = background_requests * 3 / 4;
  out.max_write = max_write_bytes;
  out.max_pages = max_write_bytes / 4096;
  out.time_gran = 1;
  return put(r, out);
}

bool Server::take_space(Request& r, Reservation& held, std::initializer_list<std::size_t> pieces) {
  const std::span<const std::size_t> list(pieces.begin(), pieces.size());
  if (!space_.try_take(list)) {
    r.transport->wait_begins(r.queue);
    const bool taken = space_.wait_take(list);
    r.transport->wait_ends(r.queue);
    if (!taken) return false;
  }
  held.holds(list);
  return true;
}

void Server::append(Reservation& held, const log::Record& record) {
  log_.append(record, held.next());
  note_unsynced(record);
  counters_.records.fetch_add(1, std::memory_order_relaxed);
}

// Folders are synced for real whenever somebody asks.
void Server::note_unsynced(const log::Record& record) {
  using What = UnsyncedFiles::What;
  switch (record.kind) {
    case log::Kind::create:
    case log::Kind::write:
    case log::Kind::truncate:
    case log::Kind::fallocate:
      return unsynced_.changed(record.file, What::data);
    case log::Kind::set_attributes:
    case log::Kind::set_xattr:
    case log::Kind::remove_xattr:
    case log::Kind::link:
    case log::Kind::unlink:
    case log::Kind::rename:
      unsynced_.changed(record.file, What::attributes);
      if (!record.replaced.is_none()) unsynced_.changed(record.replaced, What::attributes);
      return;
    default:
      return;
  }
}

Answer Server::not_noted(const Error& why) {
  if (why.code == ErrorCode::stale) return -EIO;  // a straggler of an epoch that is over (R23)
  return fault(why.sys_errno ? why.sys_errno : EIO, "noting what is about to change failed");
}

log::Record Server::record_of(log::Kind kind, const FileId& file) const {
  log::Record record;
  record.kind = kind;
  record.set = options_.set;
  record.file = file;
  return record;
}

Answer Server::fault(int sys_errno, const char* what) {
  if (!faulted_.exchange(true)) {
    const Error error = errno_error(sys_errno, what);
    log_error("capture stops: {}", error.message);
    if (on_fault_) on_fault_(error);
  }
  return -sys_errno;
}

Answer Server::failed(int sys_errno, const char* what) {
  if (sys_errno == EIO || sys_errno == EUCLEAN || sys_errno == ESHUTDOWN) return fault(sys_errno, what);
  return -sys_errno;
}

Answer Server::statfs(Request& r) {
  struct statvfs fs;
  if (fstatvfs(options_.root_fd, &fs) != 0) return -errno;
  fuse::StatfsOut out{};
  out.blocks = fs.f_blocks;
  out.bfree = fs.f_bfree;
  out.bavail = fs.f_bavail;
  out.files = fs.f_files;
  out.ffree = fs.f_ffree;
  out.bsize = static_cast<std::uint32_t>(fs.f_bsize);
  out.frsize = static_cast<std::uint32_t>(fs.f_frsize);
  out.namelen = static_cast<std::uint32_t>(fs.f_namemax);
  return put(r, out);
}

Answer Server::syncfs(Request& r) {
  auto wait = std::make_shared<DurableWait>();
  log_.when_durable(log_.last_sequence(), [wait] { wait->done(); });
  if (::syncfs(options_.root_fd) != 0) return fault(errno, "syncfs of the protected folder failed");
  if (wait->settled()) return 0;
  r.transport->wait_begins(r.queue);
  const bool durable = durable_.wait(wait);
  r.transport->wait_ends(r.queue);
  return durable ? 0 : -EIO;
}

}  // namespace holdfast::capture
