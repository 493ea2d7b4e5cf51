// SPDX-License-Identifier: Apache-2.0
// Answers the kernel's questions about a past (look_mount.h): a small FUSE file system that is only read.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "capture/look_mount.h"
#include "capture/request_parts.h"

namespace holdfast::capture {

class LookServer final : public Handler {
 public:
  LookServer(const std::vector<LookMount::Root>& roots, std::shared_ptr<ports::PastTree> past);
  Answer handle(Request& request) override;
  void initialized() override { on_initialized(); }
  void connection_ended(bool) override { on_ended(); }

  std::function<void()> on_initialized, on_ended;  // before the first request

 private:
  struct Node {
    SetNumber set = 0;  // 0: a folder above the sets
    FileId id;
    std::uint64_t ino = 0;
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
  std::uint64_t remember(SetNumber set, const FileId& id);
  Answer attributes(const Node& node, fuse::Attr& attr);

  const std::shared_ptr<ports::PastTree> past_;
  mutable std::mutex mutex_;  // below; never held while the past is asked
  std::map<std::uint64_t, Node> nodes_;
  std::map<std::pair<SetNumber, FileId>, std::uint64_t> known_;
  std::uint64_t last_node_ = fuse::root_node, last_listing_ = 0;
  struct Entry {
    std::string name;
    std::uint64_t ino;
    std::uint32_t type;
  };
  std::map<std::uint64_t, std::shared_ptr<std::vector<Entry>>> listings_;
};

}  // namespace holdfast::capture
