// SPDX-License-Identifier: Apache-2.0
// One change, as it stands in the log: physical and complete, addressed by file ids. The vocabulary of capture, log, channel and apply.
// Views point into memory of whoever made the record (a request, the ring, a segment buffer); a Record owns nothing and must not outlive it.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/bytes.h"
#include "base/types.h"

namespace holdfast::log {

enum class Kind : std::uint8_t {
  // Changes of the application. Fields used are listed in record_fields.h's table, which is the codec.
  write = 1,  // file, offset, payload, mtime (0 = not known yet, a set_attributes follows)
  truncate,   // file, length (new size), mtime
  fallocate,  // file, mode_flags (FALLOC_FL_*), offset, length, mtime; size (collapse and insert range: it tells if they were done)
  create,   // regular file: parent, name, file, attributes, xattrs in payload; flags: orphan = O_TMPFILE (no name yet)
  mkdir,    // like create
  symlink,  // like create, payload = target
  mknod,    // like create, plus rdev; fifo, socket, devices
  link,     // file gets another name: parent, name; mode (type bits: a resync may not know the file yet)
  unlink,   // parent, name, file = what the name meant
  rmdir,    // parent, name, file
  rename,  // parent, name, file -> parent2, name2; replaced = id that stood at name2 (or none); flags RENAME_EXCHANGE/NOREPLACE/WHITEOUT; mode as in link
  set_attributes,  // file; valid bits; mode uid gid atime mtime
  set_xattr,       // file, name = attribute, payload = value
  remove_xattr,    // file, name = attribute

  // Marks: no change of the tree.
  epoch_begin = 64,
  epoch_end,     // nothing follows in this epoch
  consistent,    // every earlier change of a completed push round is before this
  resync_begin,  // addressed
  resync_end,    // addressed: the peer is complete from here on
  shadow,        // a named point; name
  noop,          // stands in for a record addressed to somebody else (R26)

  // Resync: the state of objects as of this sequence, addressed to the peer that needs them (others read a no-op).
  ship_node =
      96,  // file: type in mode, attributes, length = size, rdev, payload = xattrs (list); symlink target in name2 (up to 4095)
  ship_dir,   // file = folder; payload = entries (see ship_dir codec in log/ship.h); flags first/last chunk
  ship_data,  // file, offset, length, payload: these bytes stand there now; no payload = a hole of that length
  ship_hash,  // file, offset, length, payload = 16-byte XXH3-128: compare, answer NAK when it differs

  // Verify (mirror/verify_walk.h): what an object is at this sequence, addressed to a complete peer; what differs there is answered, not changed.
  check_node =
      100,  // as ship_node, but valid: valid_mtime = mtime is settled; payload = hash of the xattrs (list sorted by name)
  check_dir,   // as ship_dir
  check_data,  // file, offset, length, mtime, size; payload = hash, none = a hole
  // What differed is made as it is here; these do what ship_node, ship_dir, ship_data do, in a set that stays complete.
  repair_node,
  repair_dir,
  repair_data,

  // Undo history of a passive (mirror/undo_journal.h). Never on a channel, never applied: values of before a batch.
  undo_batch = 128,  // begins a batch; payload: mirror/undo_journal.h
  undo_object,       // file; flags: absent; length = size, mode uid gid mtime atime, payload = xattrs (list)
  undo_name,         // parent, name: file stood there (none: nothing did); mode = its type bits
  undo_bytes,        // file, offset, payload: these bytes stood there
  undo_hole,         // file, offset, length: nothing was written there
  undo_seal,         // all that was foreseen is before this: the batch may be executed
  undo_gap,  // set (0: all); payload = why: the tree was changed here without undo; batches before can't be undone here
};

// Bits of Record::flags.
constexpr std::uint32_t flag_orphan =
    1;  // create: no name yet. Others: the file had no name any more; skipped where it is gone
constexpr std::uint32_t flag_first_chunk = 2;  // ship_dir
constexpr std::uint32_t flag_last_chunk = 4;   // ship_dir
constexpr std::uint32_t flag_partial_resync =
    128;  // resync_begin: only what changed comes; what is missing is asked for
// ship_node of a regular file or a folder, as rdev, which means nothing else there: all of its contents follow (of a folder its names), so who
// makes it need not ask for them.
constexpr std::uint64_t rdev_all_follows = 1;
constexpr std::uint32_t flag_absent = 64;  // undo_object: there was no such object
constexpr std::uint32_t flag_rename_noreplace = 8, flag_rename_exchange = 16, flag_rename_whiteout = 32;

// Bits of Record::valid (set_attributes).
constexpr std::uint32_t valid_mode = 1, valid_owner = 2, valid_atime = 4, valid_mtime = 8;

struct Record {
  Epoch epoch;
  Sequence sequence;
  std::int64_t time_ns = 0;  // wall clock of the active when the record was made (CLOCK_REALTIME)
  Kind kind = Kind::write;
  SetNumber set = 0;
  NodeId addressed_to;  // 0 = everyone
  FileId file, parent, parent2, replaced;
  std::string_view name, name2;  // any bytes but '/' and NUL, 1..255 (xattr names too)
  std::uint64_t offset = 0, length = 0;
  std::uint64_t size = 0;  // resulting size of the file, where the kind says so
  std::uint32_t flags = 0, valid = 0;
  std::uint32_t mode_flags = 0;              // fallocate
  std::uint32_t mode = 0, uid = 0, gid = 0;  // mode with file type bits
  std::uint64_t rdev = 0;
  std::int64_t mtime_ns = 0, atime_ns = 0;  // nanoseconds since the epoch; result of the operation
  std::int64_t parent_mtime_ns = 0,
               parent2_mtime_ns = 0;  // resulting mtime of the folder(s), so that trees compare equal
  ByteView payload;
};

const char* to_string(Kind kind);

}  // namespace holdfast::log
