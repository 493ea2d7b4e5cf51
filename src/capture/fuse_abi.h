// SPDX-License-Identifier: Apache-2.0
// The kernel's FUSE protocol, version 7.45, as far as this server speaks it: what is on the wire, nothing else.
// Written down here because distributions ship the header of their own kernel, which may lack io_uring, statx and tmpfile.
// Every struct is what the kernel copies byte for byte: no reordering, sizes are asserted.
#pragma once

#include <sys/ioctl.h>

#include <cstddef>
#include <cstdint>

namespace holdfast::capture::fuse {

constexpr std::uint32_t major_version = 7;
constexpr std::uint32_t minor_version = 45;
constexpr std::uint32_t least_minor = 36;  // INIT with 64 flag bits; kernel 5.17
constexpr std::uint64_t root_node = 1;

enum class Op : std::uint32_t {
  lookup = 1,
  forget = 2,
  getattr = 3,
  setattr = 4,
  readlink = 5,
  symlink = 6,
  mknod = 8,
  mkdir = 9,
  unlink = 10,
  rmdir = 11,
  rename = 12,
  link = 13,
  open = 14,
  read = 15,
  write = 16,
  statfs = 17,
  release = 18,
  fsync = 20,
  setxattr = 21,
  getxattr = 22,
  listxattr = 23,
  removexattr = 24,
  flush = 25,
  init = 26,
  opendir = 27,
  readdir = 28,
  releasedir = 29,
  fsyncdir = 30,
  getlk = 31,
  setlk = 32,
  setlkw = 33,
  access = 34,
  create = 35,
  interrupt = 36,
  bmap = 37,
  destroy = 38,
  ioctl = 39,
  poll = 40,
  notify_reply = 41,
  batch_forget = 42,
  fallocate = 43,
  readdirplus = 44,
  rename2 = 45,
  lseek = 46,
  copy_file_range = 47,
  setupmapping = 48,
  removemapping = 49,
  syncfs = 50,
  tmpfile = 51,
  statx = 52,
  copy_file_range_64 = 53,
};
constexpr std::uint32_t op_count = 54;

struct InHeader {
  std::uint32_t len, opcode;
  std::uint64_t unique, nodeid;
  std::uint32_t uid, gid, pid;
  std::uint16_t extension_words;  // 8-byte units at the end of the message
  std::uint16_t padding;
};
struct OutHeader {
  std::uint32_t len;
  std::int32_t error;
  std::uint64_t unique;
};
static_assert(sizeof(InHeader) == 40 && sizeof(OutHeader) == 16);

struct Attr {
  std::uint64_t ino, size, blocks, atime, mtime, ctime;
  std::uint32_t atime_nsec, mtime_nsec, ctime_nsec;
  std::uint32_t mode, nlink, uid, gid, rdev, blksize, flags;
};
static_assert(sizeof(Attr) == 88);

struct EntryOut {
  std::uint64_t nodeid, generation, entry_valid, attr_valid;
  std::uint32_t entry_valid_nsec, attr_valid_nsec;
  Attr attr;
};
struct AttrOut {
  std::uint64_t attr_valid;
  std::uint32_t attr_valid_nsec, padding;
  Attr attr;
};
static_assert(sizeof(EntryOut) == 128 && sizeof(AttrOut) == 104);

struct InitIn {
  std::uint32_t major, minor, max_readahead, flags, flags2;
  std::uint32_t unused[11];
};
struct InitOut {
  std::uint32_t major, minor, max_readahead, flags;
  std::uint16_t max_background, congestion_threshold;
  std::uint32_t max_write, time_gran;
  std::uint16_t max_pages, map_alignment;
  std::uint32_t flags2, max_stack_depth;
  std::uint16_t request_timeout;
  std::uint16_t unused[11];
};
static_assert(sizeof(InitIn) == 64 && sizeof(InitOut) == 64);

constexpr std::uint64_t bit(unsigned n) { return std::uint64_t{1} << n; }
constexpr std::uint64_t init_async_read = bit(0), init_posix_locks = bit(1), init_atomic_o_trunc = bit(3),
                        init_export_support = bit(4), init_big_writes = bit(5), init_dont_mask = bit(6),
                        init_flock_locks = bit(10), init_has_ioctl_dir = bit(11), init_auto_inval_data = bit(12),
                        init_readdirplus = bit(13), init_readdirplus_auto = bit(14), init_async_dio = bit(15),
                        init_writeback_cache = bit(16), init_parallel_dirops = bit(18), init_handle_killpriv = bit(19),
                        init_posix_acl = bit(20), init_abort_error = bit(21), init_max_pages = bit(22),
                        init_cache_symlinks = bit(23), init_explicit_inval_data = bit(25),
                        init_handle_killpriv_v2 = bit(28), init_setxattr_ext = bit(29), init_ext = bit(30),
                        init_security_ctx = bit(32), init_create_supp_group = bit(34),
                        init_direct_io_allow_mmap = bit(36), init_over_io_uring = bit(41);

struct ForgetIn {
  std::uint64_t nlookup;
};
struct ForgetOne {
  std::uint64_t nodeid, nlookup;
};
struct BatchForgetIn {
  std::uint32_t count, padding;
};

constexpr std::uint32_t getattr_has_fh = 1;
struct GetattrIn {
  std::uint32_t flags, padding;
  std::uint64_t fh;
};
struct StatxTime {
  std::int64_t sec;
  std::uint32_t nsec;
  std::int32_t reserved;
};
struct Statx {
  std::uint32_t mask, blksize;
  std::uint64_t attributes;
  std::uint32_t nlink, uid, gid;
  std::uint16_t mode, spare0;
  std::uint64_t ino, size, blocks, attributes_mask;
  StatxTime atime, btime, ctime, mtime;
  std::uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
  std::uint64_t spare[14];
};
struct StatxIn {
  std::uint32_t flags, reserved;
  std::uint64_t fh;
  std::uint32_t statx_flags, mask;
};
struct StatxOut {
  std::uint64_t attr_valid;
  std::uint32_t attr_valid_nsec, flags;
  std::uint64_t spare[2];
  Statx stat;
};
static_assert(sizeof(Statx) == 256 && sizeof(StatxIn) == 24 && sizeof(StatxOut) == 288);

constexpr std::uint32_t set_mode = 1, set_uid = 2, set_gid = 4, set_size = 8, set_atime = 16, set_mtime = 32,
                        set_fh = 64, set_atime_now = 128, set_mtime_now = 256, set_lockowner = 512, set_ctime = 1024,
                        set_kill_suidgid = 2048;
struct SetattrIn {
  std::uint32_t valid, padding;
  std::uint64_t fh, size, lock_owner, atime, mtime, ctime;
  std::uint32_t atime_nsec, mtime_nsec, ctime_nsec, mode, unused4, uid, gid, unused5;
};
static_assert(sizeof(SetattrIn) == 88);

struct MknodIn {
  std::uint32_t mode, rdev, umask, padding;
};
struct MkdirIn {
  std::uint32_t mode, umask;
};
struct RenameIn {
  std::uint64_t new_parent;
};
struct Rename2In {
  std::uint64_t new_parent;
  std::uint32_t flags, padding;
};
struct LinkIn {
  std::uint64_t old_node;
};

constexpr std::uint32_t open_kill_suidgid = 1;
struct OpenIn {
  std::uint32_t flags, open_flags;
};
struct CreateIn {
  std::uint32_t flags, mode, umask, open_flags;
};
constexpr std::uint32_t fopen_direct_io = 1, fopen_keep_cache = 2, fopen_cache_dir = 8,
                        fopen_parallel_direct_writes = 64;
struct OpenOut {
  std::uint64_t fh;
  std::uint32_t open_flags, backing_id;
};
struct ReleaseIn {
  std::uint64_t fh;
  std::uint32_t flags, release_flags;
  std::uint64_t lock_owner;
};
struct FlushIn {
  std::uint64_t fh;
  std::uint32_t unused, padding;
  std::uint64_t lock_owner;
};

struct ReadIn {
  std::uint64_t fh, offset;
  std::uint32_t size, read_flags;
  std::uint64_t lock_owner;
  std::uint32_t flags, padding;
};
constexpr std::uint32_t write_from_cache = 1, write_kill_suidgid = 4;
struct WriteIn {
  std::uint64_t fh, offset;
  std::uint32_t size, write_flags;
  std::uint64_t lock_owner;
  std::uint32_t flags, padding;
};
struct WriteOut {
  std::uint32_t size, padding;
};
static_assert(sizeof(ReadIn) == 40 && sizeof(WriteIn) == 40);

struct StatfsOut {
  std::uint64_t blocks, bfree, bavail, files, ffree;
  std::uint32_t bsize, namelen, frsize, padding;
  std::uint32_t spare[6];
};
static_assert(sizeof(StatfsOut) == 80);

constexpr std::uint32_t fsync_data_only = 1;
struct FsyncIn {
  std::uint64_t fh;
  std::uint32_t flags, padding;
};
constexpr std::uint32_t setxattr_acl_kill_sgid = 1;
struct SetxattrIn {
  std::uint32_t size, flags, setxattr_flags, padding;
};
struct GetxattrIn {
  std::uint32_t size, padding;
};
struct GetxattrOut {
  std::uint32_t size, padding;
};
struct AccessIn {
  std::uint32_t mask, padding;
};
struct InterruptIn {
  std::uint64_t unique;
};
struct IoctlIn {
  std::uint64_t fh;
  std::uint32_t flags, command;
  std::uint64_t arg;
  std::uint32_t in_size, out_size;
};
struct IoctlOut {
  std::int32_t result;
  std::uint32_t flags, in_iovs, out_iovs;
};
struct FallocateIn {
  std::uint64_t fh, offset, length;
  std::uint32_t mode, padding;
};
struct LseekIn {
  std::uint64_t fh, offset;
  std::uint32_t whence, padding;
};
struct LseekOut {
  std::uint64_t offset;
};

struct Dirent {
  std::uint64_t ino, off;
  std::uint32_t namelen, type;
};  // name follows, padded to 8
struct DirentPlus {
  EntryOut entry;
  Dirent dirent;
};
static_assert(sizeof(Dirent) == 24 && sizeof(DirentPlus) == 152);
constexpr std::size_t record_aligned(std::size_t n) { return (n + 7) & ~std::size_t{7}; }

// Extensions at the end of create requests. Types up to 31 count security contexts; 32 carries supplementary groups.
struct ExtensionHeader {
  std::uint32_t size, type;
};
constexpr std::uint32_t extension_security_max = 31, extension_groups = 32;
struct SecurityContext {
  std::uint32_t size, padding;
};  // then name NUL, value

constexpr std::int32_t notify_inval_inode = 2;
struct NotifyInvalInode {
  std::uint64_t nodeid;
  std::int64_t offset, length;
};

// io_uring: entry buffers are {UringHeader, payload}; commands live in the upper 80 bytes of a 128-byte SQE.
struct UringEntryInOut {
  std::uint64_t flags, commit_id;
  std::uint32_t payload_size, padding;
  std::uint64_t reserved;
};
struct UringHeader {
  std::uint8_t in_out[128];  // InHeader one way, OutHeader back
  std::uint8_t op_in[128];   // the first argument of the request
  UringEntryInOut entry;
};
struct UringCommand {
  std::uint64_t flags, commit_id;
  std::uint16_t queue;
  std::uint8_t padding[6];
};
static_assert(sizeof(UringHeader) == 288 && sizeof(UringCommand) == 24);
constexpr std::uint32_t uring_register = 1, uring_commit_and_fetch = 2;

constexpr unsigned long ioctl_clone = _IOR(229, 0, std::uint32_t);

// How a file is named to open_by_handle_at on the mount: node and generation.
constexpr int handle_type_node_generation = 0x81;

// Size of the first, fixed argument of a request; over io_uring it travels apart from the rest.
constexpr std::size_t fixed_size(Op op) {
  switch (op) {
    case Op::forget:
      return sizeof(ForgetIn);
    case Op::getattr:
      return sizeof(GetattrIn);
    case Op::setattr:
      return sizeof(SetattrIn);
    case Op::mknod:
      return sizeof(MknodIn);
    case Op::mkdir:
      return sizeof(MkdirIn);
    case Op::rename:
      return sizeof(RenameIn);
    case Op::rename2:
      return sizeof(Rename2In);
    case Op::link:
      return sizeof(LinkIn);
    case Op::open:
    case Op::opendir:
      return sizeof(OpenIn);
    case Op::create:
    case Op::tmpfile:
      return sizeof(CreateIn);
    case Op::read:
    case Op::readdir:
    case Op::readdirplus:
      return sizeof(ReadIn);
    case Op::write:
      return sizeof(WriteIn);
    case Op::release:
    case Op::releasedir:
      return sizeof(ReleaseIn);
    case Op::fsync:
    case Op::fsyncdir:
      return sizeof(FsyncIn);
    case Op::setxattr:
      return sizeof(SetxattrIn);
    case Op::getxattr:
    case Op::listxattr:
      return sizeof(GetxattrIn);
    case Op::flush:
      return sizeof(FlushIn);
    case Op::init:
      return sizeof(InitIn);
    case Op::access:
      return sizeof(AccessIn);
    case Op::interrupt:
      return sizeof(InterruptIn);
    case Op::ioctl:
      return sizeof(IoctlIn);
    case Op::batch_forget:
      return sizeof(BatchForgetIn);
    case Op::fallocate:
      return sizeof(FallocateIn);
    case Op::lseek:
      return sizeof(LseekIn);
    case Op::syncfs:
      return 8;
    case Op::statx:
      return sizeof(StatxIn);
    default:
      return 0;
  }
}

}  // namespace holdfast::capture::fuse
