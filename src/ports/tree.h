// SPDX-License-Identifier: Apache-2.0
// One protected folder as the mirror core sees it: objects by file id, names only inside a folder that is given by id. The real one is
// platform/posix_tree.h; redo rules, order and resync stay in the core. "Absent" is a value (nullopt, Standing::absent), not an error;
// an Error from here means the disk or the tree is not what it must be, and stops the node (I7), unless a comment says otherwise.
// Threads: one user at a time. Nothing is durable before sync(), except ids: commit_ids().
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/types.h"
#include "ports/tree_limits.h"

namespace holdfast::ports {

// The mirror's own folder in the root of each set; never shown to anybody.
constexpr std::string_view hidden_name = ".holdfast";

struct NodeAttributes {
  std::uint32_t mode = 0, uid = 0, gid = 0;  // mode with type bits
  std::uint64_t rdev = 0, size = 0, links = 0;
  std::uint64_t allocated_bytes = 0;
  std::int64_t atime_ns = 0, mtime_ns = 0;
};

struct NewNode {
  std::uint32_t mode = 0, uid = 0, gid = 0;
  std::uint64_t rdev = 0;
  std::int64_t atime_ns = 0, mtime_ns = 0;  // both 0: leave the present time
  ByteView xattrs;                          // log/xattrs.h list; ACLs among them
  std::string_view target;                  // symlink
};

// What stands at a name, compared with what is expected there.
enum class Standing { absent, expected, other };

struct TreeEntry {
  std::string name;
  FileId id;               // none: carries no id that the index confirms (R25)
  std::uint32_t mode = 0;  // type bits
};
struct TreeListing {
  std::vector<TreeEntry> entries;  // without ".", ".." and the hidden folder
  std::uint64_t cookie = 0;        // where to go on
  bool end = false;
};

// Why an object has no place in the tree at present. Each has its own corner of the graveyard.
enum class Grave {
  deleted,  // its last name was removed; purged when no checkpoint and no undo history needs it any more
  orphan,   // made without a name (O_TMPFILE); kept until its epoch ends
  limbo,    // displaced by a resync; may be pulled back by a later listing
};

// How far changes of names have got: written into the tree itself after each of them, so that the file system's journal, which keeps their
// order, brings it back in step with them after a crash. `log` tells one life of the receive log from another.
struct NamesMark {
  std::uint64_t log = 0;
  Sequence sequence;
};

// Small values in the tree itself, so that they are lost, replaced or put back in time together with what they speak of: how far the tree has
// got, compared with what is remembered of that elsewhere (mirror/tree_marks.h).
enum class Mark { checkpoint, hot };
constexpr std::size_t mark_bytes = 24;

// What is about to change in one tree: said ahead, so that undo costs one sync a batch and not one a primitive (mirror/undo_tree.h).
struct TouchedRange {
  FileId id;
  std::uint64_t offset = 0, length = 0;  // length to_end: to the end of the file
};
constexpr std::uint64_t to_end = ~std::uint64_t{0};
struct Touches {
  std::vector<FileId> objects;                        // attributes
  std::vector<std::pair<FileId, std::string>> names;  // folder, name
  std::vector<TouchedRange> data;
};

// Of a part of a file: the hash of its bytes (log/hash.h), and how many there are (fewer than asked for only at the end).
struct Digest {
  std::array<std::uint8_t, 16> hash{};
  std::uint64_t bytes = 0;
};
constexpr std::uint64_t most_digest_bytes = std::uint64_t{1} << 20;

// An object of the graveyard. `stamp`: the number of the undo batch that buried it (0: none was noted).
struct GraveEntry {
  FileId id;
  std::uint64_t stamp = 0;
  std::uint64_t allocated_bytes = 0;  // of a folder in Grave::deleted with all that is below it
  std::uint64_t objects = 1;          // the same; 0: its file system is damaged there, and nothing else is known of it
};

class Tree {
 public:
  virtual ~Tree() = default;
  virtual SetNumber set() const = 0;

  // --- objects by id
  virtual Result<std::optional<NodeAttributes>> attributes(const FileId& id) = 0;
  virtual Result<std::size_t> read(const FileId& id, std::uint64_t offset,
                                   std::span<std::uint8_t> into) = 0;  // short only at the end
  // As read(), for who reads everything once: what was not in the page cache does not stay there.
  virtual Result<std::size_t> read_aside(const FileId& id, std::uint64_t offset, std::span<std::uint8_t> into) {
    return read(id, offset, into);
  }
  virtual Result<std::string> read_target(const FileId& id) = 0;
  // All of them but Holdfast's own, as a log/xattrs.h list, sorted by name.
  virtual Result<Bytes> read_xattrs(const FileId& id) = 0;
  // Where data (a hole) next begins at or after `offset`; the size when there is none. A file system without holes: all is data.
  virtual Result<std::uint64_t> next_data(const FileId& id, std::uint64_t offset) = 0;
  virtual Result<std::uint64_t> next_hole(const FileId& id, std::uint64_t offset) = 0;
  virtual Status write(const FileId& id, std::uint64_t offset, std::span<const ByteView> pieces) = 0;
  virtual Status truncate(const FileId& id, std::uint64_t size) = 0;
  virtual Status fallocate(const FileId& id, std::uint32_t mode_flags, std::uint64_t offset, std::uint64_t length) = 0;
  virtual Status punch(const FileId& id, std::uint64_t offset, std::uint64_t length) = 0;  // hole; the size stays
  // `valid`: log::valid_* bits.
  virtual Status set_attributes(const FileId& id, std::uint32_t valid, const NodeAttributes& to) = 0;
  virtual Status set_xattr(const FileId& id, std::string_view name, ByteView value) = 0;
  virtual Status remove_xattr(const FileId& id, std::string_view name) = 0;  // absent is fine
  virtual Status replace_xattrs(const FileId& id, ByteView list) = 0;        // exactly these, the id apart

  // --- making objects (R17): unnamed with its id first, ids durable, then the name. Staged objects are gone after a restart.
  virtual Status stage(const FileId& id, const NewNode& node) = 0;
  virtual Status commit_ids() = 0;
  // What is staged and was not placed is gone, ids too, as after a restart.
  virtual Status unstage() = 0;
  virtual Status place(const FileId& id, const FileId& dir,
                       std::string_view name) = 0;  // ErrorCode::exists: somebody stands there
  virtual Status place_in_grave(const FileId& id, Grave why) = 0;
  // An object that waits in the graveyard becomes as new: these attributes and xattrs, no contents. It stays where it is.
  virtual Status revive(const FileId& id, const NewNode& node) = 0;

  // --- names
  virtual Result<Standing> at(const FileId& dir, std::string_view name, const FileId& expected) = 0;
  virtual Result<std::optional<TreeEntry>> lookup(const FileId& dir, std::string_view name) = 0;
  virtual Result<TreeListing> list(const FileId& dir, std::uint64_t cookie, std::size_t max_entries) = 0;
  // The names alone: much cheaper than list() where nobody asks what stands there. The folder must not be changed meanwhile.
  virtual Status for_each_name(const FileId& dir, const std::function<void(std::string_view)>& see) = 0;
  virtual Status link(const FileId& id, const FileId& dir, std::string_view name) = 0;
  virtual Status unlink(const FileId& dir, std::string_view name) = 0;  // not folders
  // `flags`: log::flag_rename_*. ErrorCode::invalid when a folder would become its own descendant: the caller decides what that means.
  virtual Status rename(const FileId& dir, std::string_view name, const FileId& dir2, std::string_view name2,
                        std::uint32_t flags) = 0;

  // --- graveyard
  virtual Result<std::optional<Grave>> in_grave(const FileId& id) = 0;
  // Takes the object at the name out of the tree, into the graveyard. `id` may be none (no id: gets a name of its own).
  virtual Status bury(const FileId& dir, std::string_view name, const FileId& id, Grave why) = 0;
  // Gives an object of the graveyard a name again.
  virtual Status exhume(const FileId& id, Grave from, const FileId& dir, std::string_view name) = 0;
  virtual Status purge(Grave what) = 0;  // folders with all that is in them; forgets their ids
  // What is buried from now on carries this number (Grave::deleted): written on the object before it loses its name, so that a crash leaves
  // no grave with an older one. 0: graves are not stamped.
  virtual void burial_stamp(std::uint64_t stamp) = 0;
  virtual Result<std::vector<GraveEntry>> graves(Grave what) = 0;
  // Purges one, if it is there and carries this stamp (brought back and buried again meanwhile: another one); 0: whatever it carries. At most about
  // `most` objects, counted down (big ones as more); false: something is left of it. ErrorCode::denied, busy, no_space, corrupt: it can't go now.
  virtual Result<bool> purge_one(Grave what, const FileId& id, std::uint64_t stamp, std::size_t& most) = 0;
  // All of limbo becomes Grave::deleted with this stamp.
  virtual Status settle_limbo(std::uint64_t stamp) = 0;

  // --- resync
  // Gives the nameless-id object at the name this id (an existing copy is adopted, not re-made). Durable with commit_ids().
  virtual Status adopt(const FileId& dir, std::string_view name, const FileId& id) = 0;
  // Brings an object that stands elsewhere (graveyard included) to this name: folders move, others get one more link.
  // ErrorCode::invalid: the folder holds `dir`.
  virtual Status bring(const FileId& id, const FileId& dir, std::string_view name) = 0;
  // Takes a folder, wherever it stands, into limbo.
  virtual Status set_aside(const FileId& folder) = 0;
  // Where a folder stands: its parent and its name there; nullopt: in the graveyard, or nowhere. The root has no place.
  virtual Result<std::optional<std::pair<FileId, std::string>>> place_of(const FileId& folder) = 0;
  // The id of what stands at the name; gives it a fresh one if it has none. Durable when it returns. None: nothing stands there.
  virtual Result<FileId> identify(const FileId& dir, std::string_view name) = 0;
  virtual Result<bool> is_empty() = 0;  // nothing but the hidden folder, and nothing in the graveyard

  // --- undo
  // A hint, never needed for correctness: all this is about to change. Real trees have no use for it.
  virtual Status about_to_change(const Touches&) { return {}; }

  // --- comparing
  // Of what read() would give. `length`: at most most_digest_bytes.
  virtual Result<Digest> digest(const FileId& id, std::uint64_t offset, std::uint64_t length) = 0;
  // A hint, never needed for correctness: this digest is asked for soon. Returns at once; what is not there is nobody's fault.
  virtual void will_digest(const FileId&, std::uint64_t /*offset*/, std::uint64_t /*length*/) {}
  // Others may change the tree from now on: what was begun, and not asked for, says nothing about it any more.
  virtual void forget_digests() {}

  // --- durability
  virtual Result<NamesMark> names_mark() = 0;
  virtual Status set_names_mark(NamesMark mark) = 0;        // not synced: ordered after the changes before it
  virtual Result<Bytes> mark(Mark which) = 0;               // empty: none
  virtual Status set_mark(Mark which, ByteView value) = 0;  // of mark_bytes; not synced
  virtual Status sync() = 0;                                // syncfs; a failure is final
  // The folder is not the one that was here before: its root is known to the index, and is something else. So it is, after a crash too, until
  // adopt_root(): first somebody notes durably what that means.
  virtual bool is_another() const { return false; }
  virtual Status adopt_root() { return {}; }
  // What its file system can hold. Any thread.
  virtual TreeLimits limits() const { return {}; }
  // What its file system has left for us.
  virtual Result<std::uint64_t> free_bytes() { return ~std::uint64_t{0}; }
};

}  // namespace holdfast::ports
