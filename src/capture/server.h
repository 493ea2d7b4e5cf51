// SPDX-License-Identifier: Apache-2.0
// What each request of the kernel does to the tree below and to the log. One method a request, spread over server_*.cc by theme.
// The shape of every change (R5, R22, R12): noted as hot, space in the log, locks in id order, the local operation, the record of what really happened,
// unlock, lease, answer. A change that failed leaves no record.
#pragma once

#include <array>
#include <atomic>
#include <functional>
#include <mutex>

#include "capture/directory.h"
#include "capture/durable_wait.h"
#include "capture/file_ids.h"
#include "capture/handle_table.h"
#include "capture/held_by_peers.h"
#include "capture/inode_table.h"
#include "capture/object_locks.h"
#include "capture/request_parts.h"
#include "capture/space_gate.h"
#include "capture/transport.h"
#include "capture/unsynced_files.h"
#include "log/record.h"
#include "mirror/capture_log.h"

namespace holdfast::capture {

constexpr std::uint16_t background_requests = 64;

struct ServerOptions {
  int root_fd = -1;  // owned by the caller, outlives the server
  SetNumber set = 0;
  bool write_back = true;
  bool over_uring = false;
  int device = -1;  // for notifications to the kernel
  std::size_t cached_descriptors = 32768;
  std::shared_ptr<const mirror::LiveLimits> limits;  // of the other nodes; null: none are known
};

struct ServerCounters {
  std::atomic<std::uint64_t> operations{0}, bytes_read{0}, bytes_written{0}, records{0}, syncs{0};
};

// An open file of the kernel.
struct FileHandle {
  FileHandle(InodePtr of, SharedDescriptor opened, bool for_write)
      : inode(std::move(of)), data(std::move(opened)), write(for_write) {}
  InodePtr inode;
  SharedDescriptor data;
  bool write;
};

class Server : public Handler {
 public:
  Server(const ServerOptions& options, mirror::CaptureLog& log, mirror::LeaseGate& lease, FileIds& ids,
         std::function<void(const Error&)> on_fault);
  Status open_root();

  Answer handle(Request& request) override;
  void initialized() override { on_initialized(); }
  void connection_ended(bool aborted) override { on_ended(aborted); }
  // --- server_handover.cc: to another mirror, and from it
  // Folders that this thread (its number) opens from now on are there to be released while hold_releases() is in force; 0: nobody's.
  void to_park_of(std::int32_t thread) { parker_ = thread; }
  void hold_releases(bool hold) { hold_releases_ = hold; }
  // No request is under way, and none comes. Everything below is durable.
  void hand_over(ByteWriter& to, std::vector<Descriptor>& pins);
  // Instead of INIT, after open_root().
  Status take_over(ByteReader& from, std::vector<Descriptor>& pins);
  // Releases every wait; nothing that is answered afterwards says success.
  void stop();

  std::function<void()> on_initialized;
  std::function<void(bool aborted)> on_ended;
  InodeTable& inodes() { return inodes_; }
  const InodeTable& inodes() const { return inodes_; }
  ObjectLocks& locks() { return locks_; }
  const ServerCounters& counters() const { return counters_; }
  unsigned waiting_for_space() const { return space_.waiting(); }

 private:
  using Method = Answer (Server::*)(Request&);
  struct Operation {
    Method method = nullptr;
    bool changes = false;  // checked against the lease before and after
  };
  static const std::array<Operation, fuse::op_count>& operations();

  // server.cc
  Answer init(Request& r);
  std::uint64_t wanted_flags() const;
  Answer statfs(Request& r);
  Answer syncfs(Request& r);
  using HotGuard = mirror::HotGate::Guard;
  // Before anything is touched (R5): objects whose contents, attributes or listings are about to change. 0, or what to answer.
  template <class... Inodes>
  Answer note_hot(HotGuard& guard, Inodes&... inodes) {
    if (!hot_) return 0;
    const mirror::HotGate::Object objects[] = {{inodes.id, inodes.hot, S_ISDIR(inodes.file_type)}...};
    const Status noted = hot_->enter(guard, options_.set, objects);
    return noted ? 0 : not_noted(noted.error());
  }
  Answer not_noted(const Error& why);
  bool take_space(Request& r, Reservation& held, std::initializer_list<std::size_t> pieces);
  void append(Reservation& held, const log::Record& record);
  void note_unsynced(const log::Record& record);
  log::Record record_of(log::Kind kind, const FileId& file) const;
  // Fence and say why (I7). Returns -errno for the caller.
  Answer fault(int sys_errno, const char* what);
  // EIO below is a fault; other errors are the caller's.
  Answer failed(int sys_errno, const char* what);

  // server_lookup.cc
  Answer lookup(Request& r);
  Answer forget(Request& r);
  Answer batch_forget(Request& r);
  Answer getattr(Request& r);
  Answer statx(Request& r);
  Answer readlink(Request& r);
  bool hidden(const Inode& parent, const char* name) const;
  // The object behind a name, counted as one look-up of the kernel. 0 or errno.
  int look_up_child(int parent_fd, const char* name, InodePtr& out, struct stat& st);
  struct Child {
    struct stat st {};
    FileId id;       // none: there is no such name
    InodePtr known;  // null: the kernel doesn't know it
  };
  // The same without counting. 0 or errno; ENOENT leaves `id` none.
  int peek_child(int parent_fd, const char* name, Child& out);
  int identify(int parent_fd, const char* name, struct stat& st, LowerHandle& handle, FileId& id, Descriptor& path);
  InodePtr inode_of(std::uint64_t nodeid, SharedDescriptor& path);  // null: answer -ESTALE
  void fill_attr(const Inode& inode, const struct stat& st, fuse::Attr& out) const;
  void fill_entry(const Inode& inode, const struct stat& st, fuse::EntryOut& out) const;
  void forget_one(std::uint64_t nodeid, std::uint64_t count);
  int open_exported(std::uint64_t nodeid, InodePtr& out, struct stat& st);

  // server_create.cc
  Answer create(Request& r);
  Answer tmpfile(Request& r);
  Answer mkdir(Request& r);
  Answer mknod(Request& r);
  Answer symlink(Request& r);
  struct NewObject;
  Answer make(Request& r, NewObject& object);
  int make_below(Request& r, int parent_fd, NewObject& object);
  int finish_new(int parent_fd, NewObject& object);
  void undo_new(int parent_fd, const NewObject& object);
  std::size_t default_acl_bytes(Inode& parent, int parent_fd);

  // server_names.cc
  Answer unlink(Request& r) { return remove_name(r, 0); }
  Answer rmdir(Request& r);
  Answer rename(Request& r);
  Answer rename2(Request& r);
  Answer link(Request& r);
  Answer remove_name(Request& r, int at_flags);
  Answer rename_names(Request& r, std::uint64_t new_parent, unsigned flags);
  int lock_rename(const Inode& from, int from_fd, const Name& name, const Inode& to, int to_fd, const Name& name2,
                  unsigned flags, Child& moved, Child& replaced, ObjectLocks::Guard& guard);
  // `open`: a new descriptor, or -1 and errno; asked again when there were none left and cached ones could be closed.
  template <class Open>
  int with_descriptors(const Open& open) {
    const int fd = open();
    return fd >= 0 || !no_descriptors_left(errno) || !inodes_.shed() ? fd : open();
  }
  void let_forgets_catch_up(Request& r);
  bool pin_before_loss(const Child& child, bool is_dir);
  void after_loss(const Child& child, bool is_dir);
  FileId append_whiteout(Reservation& held, int parent_fd, const Name& name, const FileId& parent, const Name& as,
                         std::int64_t parent_mtime_ns);

  // server_data.cc
  Answer open(Request& r);
  Answer release(Request& r);
  Answer read(Request& r);
  Answer write(Request& r);
  Answer fsync(Request& r);
  Answer fallocate(Request& r);
  Answer lseek(Request& r);
  Answer ioctl(Request& r);
  Answer generation(Request& r, std::size_t wanted);
  // Local and remote at the same time; both are there when it returns 0.
  Answer make_durable(Request& r, int fd, bool data_only);
  Answer make_durable(Request& r, const Inode& inode, int fd, bool data_only);  // of a file, if it was changed at all
  Answer make_durable(Request& r, bool data_only, const std::function<int()>& sync_here);
  void begin_sync(Inode& inode, int fd, std::uint64_t offset, std::size_t bytes);
  bool may_lose_capability(Inode& inode, int fd);
  // Records what a change of data or owner did to set-id bits and file capabilities.
  void append_lost_privileges(Reservation& held, Inode& inode, int fd, mode_t mode_before, struct stat& st);

  // server_attributes.cc
  Answer setattr(Request& r);
  Answer getxattr(Request& r);
  Answer listxattr(Request& r);
  Answer setxattr(Request& r);
  Answer removexattr(Request& r);
  int truncate_below(Inode& inode, int path_fd, std::uint64_t size, bool by_descriptor, bool drop_privileges);

  // server_directory.cc
  Answer opendir(Request& r);
  Answer readdir(Request& r) { return list(r, false); }
  Answer readdirplus(Request& r) { return list(r, true); }
  Answer releasedir(Request& r);
  Answer fsyncdir(Request& r);
  Answer list(Request& r, bool plus);
  std::size_t emit(Request& r, DirectoryHandle& dir, const DirectoryEntry& entry, bool plus, std::uint8_t* to,
                   std::size_t room);
  std::uint64_t shown_ino_of(DirectoryHandle& dir, const DirectoryEntry& entry);

  const ServerOptions options_;
  mirror::CaptureLog& log_;
  mirror::HotGate* const hot_;
  mirror::LeaseGate& lease_;
  FileIds& ids_;
  std::function<void(const Error&)> on_fault_;
  const HeldByPeers peers_;
  SpaceGate space_;
  InodeTable inodes_;
  ObjectLocks locks_;
  DurableWaits durable_;
  UnsyncedFiles unsynced_;
  ServerCounters counters_;
  std::array<std::mutex, 64> identify_mutexes_;  // one identification of an inode at a time
  InodePtr root_;
  dev_t device_ = 0;
  bool labels_ = false;  // a security module labels new objects
  bool setxattr_ext_ = false;
  std::uint64_t offered_ = 0, agreed_ = 0;  // flags of INIT
  std::atomic<std::int32_t> parker_{0};
  std::atomic<bool> hold_releases_{false};
  std::uint32_t root_hidden_links_ = 0;
  std::atomic<bool> stopped_{false}, faulted_{false};
  HandleTable<FileHandle> files_;  // open in the kernel; freed here when a connection dies
  HandleTable<DirectoryHandle> directories_;
};

}  // namespace holdfast::capture
