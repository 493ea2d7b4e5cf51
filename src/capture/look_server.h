// SPDX-License-Identifier: Apache-2.0
// Answers the kernel's questions about a past (look_mount.h): a small FUSE file system, which is only read or, over a scratch tree, written to
// (look_write.cc). The kernel is this view's only user, so it may keep what it has seen, and it has checked rights, types and cycles.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "capture/look_listing.h"
#include "capture/look_mount.h"
#include "capture/request_parts.h"
#include "ports/scratch_tree.h"

namespace holdfast::capture {

class LookServer final : public Handler {
 public:
  LookServer(const std::vector<LookMount::Root>& roots, std::shared_ptr<ports::PastTree> past);
  LookServer(const std::vector<LookMount::Root>& roots, std::shared_ptr<ports::ScratchTree> scratch);
  Answer handle(Request& request) override;
  void initialized() override { on_initialized(); }
  void connection_ended(bool) override { on_ended(); }

  std::function<void()> on_initialized, on_ended;  // before the first request
  std::function<void(const Error& why)>
      on_trouble;  // once: it is full (no_space), it is over (stale); in the thread of a request

 private:
  LookServer(const std::vector<LookMount::Root>& roots, std::shared_ptr<ports::PastTree> past,
             std::shared_ptr<ports::ScratchTree> scratch);
  struct Node {
    SetNumber set = 0;  // 0: a folder above the sets
    FileId id;
    std::uint64_t ino = 0;
    std::uint64_t parent_ino = 0;                   // of a folder: where it was seen last
    std::uint64_t lookups = 0;                      // of the kernel; those above the sets, and the root, stay
    std::map<std::string, std::uint64_t> children;  // of a folder above the sets
  };

  Answer init(Request& r);
  Answer statfs(Request& r);
  Answer lookup(Request& r);
  Answer getattr(Request& r);
  Answer readlink(Request& r);
  Answer open(Request& r);
  Answer read(Request& r);
  Answer opendir(Request& r);
  Answer readdir(Request& r);
  Answer releasedir(Request& r);
  Answer xattr(Request& r, bool list);
  void forget(std::uint64_t node, std::uint64_t lookups);
  void place_root(const LookMount::Root& root);
  bool node_of(std::uint64_t number, Node& node) const;
  Answer refused(const Error& why);
  void tell(std::atomic<bool>& told, const Error& why);
  std::uint64_t remember(const Node& node);
  Answer attributes(const Node& node, fuse::Attr& attr);
  Answer entry(Node node, const Node& parent, fuse::EntryOut& out);

  // --- look_write.cc
  using Change = Answer (LookServer::*)(Request&);
  static Change change_of(fuse::Op op);  // null: it changes nothing, or we can't
  Answer refused_change(const Error& why);
  Answer done(const Status& status) { return status ? 0 : refused_change(status.error()); }
  Answer setattr(Request& r);
  Answer create(Request& r);
  Answer tmpfile(Request& r);
  Answer mkdir(Request& r);
  Answer mknod(Request& r);
  Answer symlink(Request& r);
  Answer link(Request& r);
  Answer unlink(Request& r);
  Answer rmdir(Request& r);
  Answer rename(Request& r);
  Answer rename2(Request& r);
  Answer write(Request& r);
  Answer fallocate(Request& r);
  Answer lseek(Request& r);
  Answer setxattr(Request& r);
  Answer removexattr(Request& r);
  Answer fsync(Request& r);
  Answer make(Request& r, std::string_view name, const ports::ScratchNode& node, bool open);
  Answer remove(Request& r, bool folder);
  Answer rename_names(Request& r, std::uint64_t new_parent, std::uint32_t flags);
  void moved(const Node& parent, std::string_view name);
  bool folder_of(std::uint64_t number, Node& node, int& error) const;

  const std::shared_ptr<ports::PastTree> past_;
  const std::shared_ptr<ports::ScratchTree> scratch_;  // null: read-only
  std::atomic<bool> setxattr_ext_{false}, full_told_{false}, over_told_{false};
  mutable std::mutex mutex_;  // below; never held while the past is asked
  std::map<std::uint64_t, Node> nodes_;
  std::map<std::pair<SetNumber, FileId>, std::uint64_t> known_;
  std::uint64_t last_node_ = fuse::root_node, last_listing_ = 0;
  using Listing = std::shared_ptr<LookListing>;
  Answer list(const Node& dir, Listing& listing);
  std::mutex
      listing_mutex_;  // one at a time is made: what that takes meanwhile is more than what stays. Taken before mutex_
  std::atomic<std::uint64_t> listing_bytes_{0};  // of those that are open
  std::map<std::uint64_t, Listing> listings_;    // under mutex_
};

}  // namespace holdfast::capture
