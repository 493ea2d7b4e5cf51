// SPDX-License-Identifier: Apache-2.0
// File id -> file handle, durable (R7, R25): how a record finds its object whatever it is called by now. One LMDB environment for all sets.
// A handle that the file system no longer knows (ESTALE) means absent. New ids sit in memory until commit(), which syncs; lookups see
// them at once. The index can be made anew by a walk (rebuild).
// Threads: any. Descriptors passed in are borrowed and may be O_PATH.
#pragma once

#include <sys/stat.h>

#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>

#include "base/id_block.h"
#include "base/types.h"
#include "platform/unique_fd.h"
#include "ports/live_tree.h"

namespace holdfast::platform {

constexpr const char* id_attribute = "trusted.holdfast.id";

struct FileHandle {
  std::uint32_t type_bits = 0;  // S_IFMT of the object: how to open it without asking first
  std::int32_t handle_type = 0;
  std::uint32_t size = 0;
  std::array<std::uint8_t, 128> bytes{};  // MAX_HANDLE_SZ
  bool operator==(const FileHandle& o) const;
};

// The handle of what `fd` refers to; who knows its type (S_IFMT) saves a system call.
Result<FileHandle> handle_of(int fd);
Result<FileHandle> handle_of(int fd, std::uint32_t type_bits);
// Opens by handle on the file system of `mount_fd`; an empty descriptor: ESTALE, the object is gone. O_PATH for what has no data.
Result<UniqueFd> open_by_handle(int mount_fd, const FileHandle& handle, int flags);

// Objects of protected folders that this process has opened by handle or looked at in a listing, ever: tests see by it what a resynchronization
// touches.
std::uint64_t objects_opened();
void note_object_opened();

class FileIndex final : public ports::IdBarrier {
 public:
  // `dir` is made when missing.
  static Result<std::unique_ptr<FileIndex>> open(const std::string& dir);
  ~FileIndex() override;

  // --- what capture needs (wiring adapts it to capture::FileIds)
  // The object's id: the one it carries if the index maps that to this very inode, else a fresh one, set and indexed (R25).
  Result<FileId> identify(int fd, SetNumber set);
  Result<FileId> identify(int fd, const struct stat& st, SetNumber set);  // who looked at it already
  FileId fresh();
  // A fresh id with bytes 6 and 7 zero; none in the index is equal in the first 6 (node ids and file handles are made of the first 8).
  Result<FileId> unused_block();
  // Every object with an id that is equal to `block` but for bytes 6 and 7.
  using Found = std::function<void(SetNumber, const FileId&, bool folder)>;
  Status ids_of_block(const FileId& block, const Found& found);
  // Runs the giving of an id to an object that was there before; set once, before use.
  using Around = std::function<Status(SetNumber, const std::function<Status()>&)>;
  void around_identify(Around around) { around_ = std::move(around); }
  Status bind(int fd, SetNumber set, const FileId& id, std::uint32_t type_bits);
  Status bind(int fd, SetNumber set, const FileId& id);  // sets the attribute, indexes in memory; durable with commit()
  // An O_PATH descriptor of the object whose id begins with these 8 bytes (big-endian); -1 inside when there is none.
  Result<UniqueFd> open_by_prefix(int mount_fd, std::uint64_t prefix);

  // --- for the tree
  // The id, without making one: none when it carries none that the index confirms. `any`: whatever it carries, confirmed or not.
  Result<FileId> id_of(int fd);
  static Result<FileId> carried_id(int fd);
  Result<std::optional<FileHandle>> find(const FileId& id);
  void put(const FileId& id, SetNumber set, const FileHandle& handle);
  void forget(const FileId& id);
  Status commit();  // durable; a no-op when nothing is pending
  Status make_ids_durable() override { return commit(); }
  Result<std::size_t> size();

  // All of a set but its root, durably.
  Status forget_set(SetNumber set);
  // Indexes every object below `root_fd` (one mount) that carries an id; objects without one are left alone. Returns how many.
  Result<std::size_t> rebuild(int root_fd, SetNumber set);

 private:
  struct Value {
    SetNumber set = 0;
    FileHandle handle;
    bool gone = false;
  };
  FileIndex() = default;
  Result<std::optional<FileHandle>> find_stored(const FileId& id);
  // What is durable, from this id on, in ascending order, until it says false.
  using Seen = std::function<bool(const FileId&, SetNumber, const FileHandle&)>;
  Status each_stored(const FileId& from, const Seen& see);
  Result<FileId> next_in_block();
  Result<bool> knows_prefix(ByteView prefix);
  Status write_committing();

  Around around_;
  void* env_ = nullptr;  // MDB_env*
  unsigned dbi_ = 0;
  std::mutex pending_mutex_, commit_mutex_;
  std::unordered_map<FileId, Value> pending_, committing_;
  std::mutex block_mutex_;  // taken before pending_mutex_
  FileId block_;            // of identify(), in this process
  std::uint32_t block_next_ = ids_in_block;
  std::array<std::mutex, 64> inode_mutexes_;  // identify of one inode by two threads
};

}  // namespace holdfast::platform
