// SPDX-License-Identifier: Apache-2.0
#include "platform/file_index.h"

#include <dirent.h>
#include <fcntl.h>
#include <lmdb.h>
#include <sys/random.h>
#include <sys/stat.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <map>
#include <vector>

#include "base/check.h"
#include "platform/durable_file.h"
#include "platform/object_xattrs.h"

namespace holdfast::platform {
namespace {

constexpr std::size_t map_bytes = std::size_t{64}
                                  << 30;  // address space, not memory: the file grows with what is in it

std::atomic<std::uint64_t> opened{0};

tl::unexpected<Error> fail_lmdb(int rc, const char* what) {
  if (rc > 0) return fail_errno(rc, "file index: cannot {}", what);
  return fail(ErrorCode::corrupt, "file index: cannot {}: {}: remove the index folder, it is made anew by a walk", what,
              mdb_strerror(rc));
}

// A transaction that is aborted unless committed.
struct Transaction {
  MDB_txn* txn = nullptr;
  ~Transaction() {
    if (txn) mdb_txn_abort(txn);
  }
};

struct HandleBuffer {
  file_handle head;
  std::uint8_t room[128];
};

MDB_val key_of(const FileId& id) { return {id.bytes.size(), const_cast<std::uint8_t*>(id.bytes.data())}; }

Bytes encode_value(SetNumber set, const FileHandle& h) {
  Bytes out;
  ByteWriter w(out);
  w.u16(set);
  w.u32(h.type_bits);
  w.u32(static_cast<std::uint32_t>(h.handle_type));
  w.bytes({h.bytes.data(), h.size});
  return out;
}

Result<FileHandle> decode_value(const MDB_val& v) {
  ByteReader r({static_cast<const std::uint8_t*>(v.mv_data), v.mv_size});
  FileHandle h;
  r.u16();
  h.type_bits = r.u32();
  h.handle_type = static_cast<std::int32_t>(r.u32());
  const ByteView bytes = r.bytes();
  if (!r.ok() || bytes.size() > h.bytes.size())
    return fail(ErrorCode::corrupt, "file index: a damaged entry: remove the index folder, it is made anew by a walk");
  std::memcpy(h.bytes.data(), bytes.data(), bytes.size());
  h.size = static_cast<std::uint32_t>(bytes.size());
  return h;
}

SetNumber set_of(const MDB_val& value) {
  ByteReader r({static_cast<const std::uint8_t*>(value.mv_data), value.mv_size});
  return r.u16();
}

}  // namespace

Result<FileHandle> handle_of(int fd) {
  struct stat st {};
  if (::fstatat(fd, "", &st, AT_EMPTY_PATH) != 0) return fail_errno(errno, "cannot stat");
  return handle_of(fd, st.st_mode & S_IFMT);
}

bool FileHandle::operator==(const FileHandle& o) const {
  return handle_type == o.handle_type && size == o.size && std::memcmp(bytes.data(), o.bytes.data(), size) == 0;
}

Result<FileHandle> handle_of(int fd, std::uint32_t type_bits) {
  HandleBuffer buffer{};
  buffer.head.handle_bytes = sizeof buffer.room;
  int mount_id = 0;
  if (::name_to_handle_at(fd, "", &buffer.head, &mount_id, AT_EMPTY_PATH) != 0)
    return fail_errno(errno, "cannot get a file handle (file system without them?)");
  FileHandle h;
  h.type_bits = type_bits;
  h.handle_type = buffer.head.handle_type;
  h.size = buffer.head.handle_bytes;
  std::memcpy(h.bytes.data(), buffer.head.f_handle, h.size);
  return h;
}

std::uint64_t objects_opened() { return opened.load(std::memory_order_relaxed); }
void note_object_opened() { opened.fetch_add(1, std::memory_order_relaxed); }

Result<UniqueFd> open_by_handle(int mount_fd, const FileHandle& handle, int flags) {
  note_object_opened();
  HandleBuffer buffer{};
  buffer.head.handle_bytes = handle.size;
  buffer.head.handle_type = handle.handle_type;
  std::memcpy(buffer.head.f_handle, handle.bytes.data(), handle.size);
  UniqueFd fd(::open_by_handle_at(mount_fd, &buffer.head, flags | O_CLOEXEC));
  if (!fd && errno != ESTALE && errno != ENOENT) return fail_errno(errno, "cannot open a file by its handle");
  return fd;
}

Result<std::unique_ptr<FileIndex>> FileIndex::open(const std::string& dir) {
  HF_TRY(make_private_dir(dir));
  std::unique_ptr<FileIndex> made(new FileIndex);
  MDB_env* env = nullptr;
  if (int rc = mdb_env_create(&env); rc != 0) return fail_lmdb(rc, "start");
  made->env_ = env;
  mdb_env_set_mapsize(env, map_bytes);
  mdb_env_set_maxreaders(env, 512);
  if (int rc = mdb_env_open(env, dir.c_str(), MDB_NOTLS | MDB_NORDAHEAD, 0600); rc != 0) return fail_lmdb(rc, "open");
  Transaction t;
  if (int rc = mdb_txn_begin(env, nullptr, 0, &t.txn); rc != 0) return fail_lmdb(rc, "begin");
  if (int rc = mdb_dbi_open(t.txn, nullptr, 0, &made->dbi_); rc != 0) return fail_lmdb(rc, "open its table");
  if (int rc = mdb_txn_commit(std::exchange(t.txn, nullptr)); rc != 0) return fail_lmdb(rc, "commit");
  return made;
}

FileIndex::~FileIndex() {
  if (env_) mdb_env_close(static_cast<MDB_env*>(env_));
}

FileId FileIndex::fresh() {
  FileId id;
  do {
    std::size_t have = 0;
    while (have < id.bytes.size()) {
      const ssize_t n = ::getrandom(id.bytes.data() + have, id.bytes.size() - have, 0);
      CHECK(n > 0 || errno == EINTR, "no random numbers: {}", std::strerror(errno));
      if (n > 0) have += static_cast<std::size_t>(n);
    }
  } while (id.is_none() || id.is_root());
  return id;
}

Result<FileId> FileIndex::unused_block() {
  for (;;) {
    const FileId id = block_of(fresh());
    HF_ASSIGN(const bool known, knows_prefix(ByteView(id.bytes).first(6)));
    if (!known) return id;
  }
}

// One after the other, so that what a first copy gives ids lies together in the index: else each of them is a page of its own that is written anew.
Result<FileId> FileIndex::next_in_block() {
  const std::lock_guard lock(block_mutex_);
  if (block_next_ == ids_in_block) {
    HF_ASSIGN(block_, unused_block());
    block_next_ = 0;
  }
  return id_in_block(block_, block_next_++);
}

Result<bool> FileIndex::knows_prefix(ByteView prefix) {
  const auto begins = [&](const void* id) { return std::memcmp(id, prefix.data(), prefix.size()) == 0; };
  {
    const std::lock_guard lock(pending_mutex_);
    for (const auto* map : {&pending_, &committing_})
      for (const auto& [id, value] : *map)
        if (begins(id.bytes.data())) return true;
  }
  Transaction t;
  if (int rc = mdb_txn_begin(static_cast<MDB_env*>(env_), nullptr, MDB_RDONLY, &t.txn); rc != 0)
    return fail_lmdb(rc, "read");
  MDB_cursor* cursor = nullptr;
  if (int rc = mdb_cursor_open(t.txn, dbi_, &cursor); rc != 0) return fail_lmdb(rc, "read");
  MDB_val key{prefix.size(), const_cast<std::uint8_t*>(prefix.data())}, value{};
  const int rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
  mdb_cursor_close(cursor);
  if (rc == MDB_NOTFOUND) return false;
  if (rc != 0) return fail_lmdb(rc, "read");
  return key.mv_size >= prefix.size() && begins(key.mv_data);
}

// What is pending is newer than what is stored; in the order of ids.
Status FileIndex::ids_of_block(const FileId& block, const Found& found) {
  const auto in_block = [&](const FileId& id) {
    return std::equal(id.bytes.begin(), id.bytes.begin() + 6, block.bytes.begin()) &&
           std::equal(id.bytes.begin() + 8, id.bytes.end(), block.bytes.begin() + 8);
  };
  std::map<FileId, Value> newer;
  {
    const std::lock_guard lock(pending_mutex_);
    for (const auto* map : {&pending_, &committing_})
      for (const auto& [id, value] : *map)
        if (in_block(id)) newer.emplace(id, value);
  }
  FileId at = block;
  at.bytes[6] = at.bytes[7] = 0;
  HF_TRY(each_stored(at, [&](const FileId& id, SetNumber set, const FileHandle& handle) {
    if (std::memcmp(id.bytes.data(), block.bytes.data(), 6) != 0) return false;
    if (in_block(id) && !newer.contains(id)) found(set, id, S_ISDIR(handle.type_bits));
    return true;
  }));
  for (const auto& [id, v] : newer)
    if (!v.gone) found(v.set, id, S_ISDIR(v.handle.type_bits));
  return {};
}

Result<FileId> FileIndex::carried_id(int fd) {
  FileId id;
  const ssize_t n = get_xattr(fd, id_attribute, id.bytes.data(), id.bytes.size());
  if (n == static_cast<ssize_t>(id.bytes.size())) return id;
  if (n >= 0 || errno == ENODATA || errno == ERANGE) return FileId{};  // none, or nothing of ours
  return fail_errno(errno, "cannot read the attribute {}", id_attribute);
}

Result<FileId> FileIndex::id_of(int fd) {
  HF_ASSIGN(const FileId id, carried_id(fd));
  if (id.is_none()) return id;
  HF_ASSIGN(const std::optional<FileHandle> known, find(id));
  if (!known) return FileId{};
  HF_ASSIGN(const FileHandle own, handle_of(fd, known->type_bits));
  return own == *known ? id : FileId{};
}

Result<FileId> FileIndex::identify(int fd, SetNumber set) {
  struct stat st {};
  if (::fstatat(fd, "", &st, AT_EMPTY_PATH) != 0) return fail_errno(errno, "cannot stat");
  return identify(fd, st, set);
}

Result<FileId> FileIndex::identify(int fd, const struct stat& st, SetNumber set) {
  const std::lock_guard lock(inode_mutexes_[(st.st_ino * 0x9E3779B97F4A7C15ULL) >> 58]);
  HF_ASSIGN(FileId id, id_of(fd));
  if (!id.is_none()) return id;
  HF_ASSIGN(id, next_in_block());
  const auto give = [&] { return bind(fd, set, id, st.st_mode & S_IFMT); };
  if (around_)
    HF_TRY(around_(set, give));
  else
    HF_TRY(give());
  return id;
}

Status FileIndex::bind(int fd, SetNumber set, const FileId& id) {
  struct stat st {};
  if (::fstatat(fd, "", &st, AT_EMPTY_PATH) != 0) return fail_errno(errno, "cannot stat");
  return bind(fd, set, id, st.st_mode & S_IFMT);
}

Status FileIndex::bind(int fd, SetNumber set, const FileId& id, std::uint32_t type_bits) {
  if (set_xattr(fd, id_attribute, id.bytes.data(), id.bytes.size()) != 0)
    return fail_errno(errno, "cannot set the attribute {}", id_attribute);
  HF_ASSIGN(const FileHandle handle, handle_of(fd, type_bits));
  put(id, set, handle);
  return {};
}

void FileIndex::put(const FileId& id, SetNumber set, const FileHandle& handle) {
  const std::lock_guard lock(pending_mutex_);
  pending_[id] = {set, handle, false};
}

void FileIndex::forget(const FileId& id) {
  const std::lock_guard lock(pending_mutex_);
  pending_[id].gone = true;
}

Result<std::optional<FileHandle>> FileIndex::find(const FileId& id) {
  {
    const std::lock_guard lock(pending_mutex_);
    for (const auto* map : {&pending_, &committing_})
      if (const auto it = map->find(id); it != map->end())
        return it->second.gone ? std::nullopt : std::optional(it->second.handle);
  }
  return find_stored(id);
}

Result<std::optional<FileHandle>> FileIndex::find_stored(const FileId& id) {
  Transaction t;
  if (int rc = mdb_txn_begin(static_cast<MDB_env*>(env_), nullptr, MDB_RDONLY, &t.txn); rc != 0)
    return fail_lmdb(rc, "read");
  MDB_val key = key_of(id), value{};
  const int rc = mdb_get(t.txn, dbi_, &key, &value);
  if (rc == MDB_NOTFOUND) return std::optional<FileHandle>{};
  if (rc != 0) return fail_lmdb(rc, "read");
  HF_ASSIGN(const FileHandle handle, decode_value(value));
  return std::optional(handle);
}

Status FileIndex::commit() {
  const std::lock_guard one(commit_mutex_);
  {
    const std::lock_guard lock(pending_mutex_);
    if (pending_.empty()) return {};
    committing_.swap(pending_);
  }
  Status written = write_committing();
  const std::lock_guard lock(pending_mutex_);
  // Not durable (no space): all of it is tried again with the next commit. What came meanwhile is newer.
  if (!written) pending_.merge(committing_);
  committing_.clear();
  return written;
}

Status FileIndex::write_committing() {
  Transaction t;
  if (int rc = mdb_txn_begin(static_cast<MDB_env*>(env_), nullptr, 0, &t.txn); rc != 0) return fail_lmdb(rc, "begin");
  for (const auto& [id, entry] : committing_) {
    MDB_val key = key_of(id);
    if (entry.gone) {
      if (int rc = mdb_del(t.txn, dbi_, &key, nullptr); rc != 0 && rc != MDB_NOTFOUND) return fail_lmdb(rc, "delete");
      continue;
    }
    Bytes bytes = encode_value(entry.set, entry.handle);
    MDB_val value{bytes.size(), bytes.data()};
    if (int rc = mdb_put(t.txn, dbi_, &key, &value, 0); rc != 0) return fail_lmdb(rc, "write");
  }
  if (int rc = mdb_txn_commit(std::exchange(t.txn, nullptr)); rc != 0) return fail_lmdb(rc, "commit");
  return {};
}

Result<std::size_t> FileIndex::size() {
  HF_TRY(commit());
  MDB_stat stat{};
  mdb_env_stat(static_cast<MDB_env*>(env_), &stat);
  return stat.ms_entries;
}

Status FileIndex::each_stored(const FileId& from, const Seen& see) {
  Transaction t;
  if (int rc = mdb_txn_begin(static_cast<MDB_env*>(env_), nullptr, MDB_RDONLY, &t.txn); rc != 0)
    return fail_lmdb(rc, "read");
  MDB_cursor* cursor = nullptr;
  if (int rc = mdb_cursor_open(t.txn, dbi_, &cursor); rc != 0) return fail_lmdb(rc, "read");
  const std::unique_ptr<MDB_cursor, void (*)(MDB_cursor*)> closes(cursor, mdb_cursor_close);
  MDB_val key = key_of(from), value{};
  int rc = mdb_cursor_get(cursor, &key, &value, MDB_SET_RANGE);
  for (; rc == 0; rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
    FileId id;
    if (key.mv_size != id.bytes.size()) continue;
    std::memcpy(id.bytes.data(), key.mv_data, id.bytes.size());
    HF_ASSIGN(const FileHandle handle, decode_value(value));
    if (!see(id, set_of(value), handle)) return {};
  }
  return rc == MDB_NOTFOUND ? Status{} : fail_lmdb(rc, "read");
}

Result<UniqueFd> FileIndex::open_by_prefix(int mount_fd, std::uint64_t prefix) {
  HF_TRY(commit());
  FileId first;
  for (std::size_t i = 0; i < sizeof prefix; ++i) first.bytes[i] = static_cast<std::uint8_t>(prefix >> (56 - 8 * i));
  std::optional<FileHandle> found;
  HF_TRY(each_stored(first, [&](const FileId& id, SetNumber, const FileHandle& handle) {
    if (std::memcmp(id.bytes.data(), first.bytes.data(), sizeof prefix) == 0) found = handle;
    return false;
  }));
  return found ? open_by_handle(mount_fd, *found, O_PATH) : Result<UniqueFd>(UniqueFd{});
}

// In pieces: a set may have millions.
Status FileIndex::forget_set(SetNumber set) {
  constexpr std::size_t at_once = 10'000;
  HF_TRY(commit());
  for (FileId last;;) {
    const FileId from = last;
    std::vector<FileId> found;
    HF_TRY(each_stored(from, [&](const FileId& id, SetNumber of, const FileHandle&) {
      last = id;
      if (of == set && !id.is_root()) found.push_back(id);
      return found.size() < at_once;
    }));
    if (found.empty()) return {};
    for (const FileId& id : found) forget(id);
    HF_TRY(commit());
  }
}

Result<std::size_t> FileIndex::rebuild(int root_fd, SetNumber set) {
  std::size_t found = 0;
  std::vector<FileHandle> folders;  // handles, not descriptors: a tree may be wide
  HF_ASSIGN(FileHandle root, handle_of(root_fd));
  folders.push_back(root);
  while (!folders.empty()) {
    HF_ASSIGN(UniqueFd folder, open_by_handle(root_fd, folders.back(), O_RDONLY | O_DIRECTORY));
    folders.pop_back();
    if (!folder) continue;  // gone meanwhile
    DIR* dir = ::fdopendir(::dup(folder.get()));
    if (!dir) return fail_errno(errno, "cannot read a folder");
    for (dirent* entry = nullptr; (entry = ::readdir(dir)) != nullptr;) {
      const std::string_view name = entry->d_name;
      if (name == "..") continue;
      UniqueFd child(::openat(folder.get(), entry->d_name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
      if (!child) continue;  // gone meanwhile
      auto id = carried_id(child.get());
      if (id && !id->is_none()) {
        if (auto handle = handle_of(child.get())) {
          put(*id, set, *handle);
          if (++found % 10'000 == 0) HF_TRY(commit());
        }
      }
      struct stat st {};
      if (name != "." && ::fstatat(child.get(), "", &st, AT_EMPTY_PATH) == 0 && S_ISDIR(st.st_mode))
        if (auto handle = handle_of(child.get())) folders.push_back(*handle);
    }
    ::closedir(dir);
  }
  HF_TRY(commit());
  return found;
}

}  // namespace holdfast::platform
