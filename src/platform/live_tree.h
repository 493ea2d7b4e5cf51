// SPDX-License-Identifier: Apache-2.0
// ports::LiveTree over the real folders of the active. The locks are capture's (its ObjectLocks), handed in as a function, so that this folder
// needs to know nothing of capture. Any thread.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <utility>
#include <vector>

#include "platform/file_index.h"
#include "platform/unique_fd.h"
#include "ports/live_tree.h"

namespace holdfast::platform {

// Runs `body` while the object's lock is held; nothing of capture may change the object or append a record about it meanwhile.
using WithObjectLocked = std::function<void(SetNumber set, const FileId& id, const std::function<void()>& body)>;

class PosixLiveTree final : public ports::LiveTree {
 public:
  PosixLiveTree(FileIndex& index, WithObjectLocked with_locked) : index_(index), with_locked_(std::move(with_locked)) {}
  void add(SetNumber set, UniqueFd root);
  void remove(SetNumber set);
  Status with_object(SetNumber set, const FileId& id, const std::function<Status(ports::LiveObject&)>& body) override;
  void will_read(SetNumber set, const FileId& id) override;
  void reads_end(SetNumber set) override;
  struct Opened;  // a file, by its handle

 private:
  // Open files whose turn comes, or goes on: opening one costs as much as reading a small one.
  struct Kept {
    SetNumber set = 0;
    FileId id;
    std::shared_ptr<Opened> opened;
  };
  using Listed = std::vector<std::pair<FileId, UniqueFd>>;
  UniqueFd take_listed(SetNumber set, const FileId& id);
  void keep(std::deque<Kept>& where, std::size_t most, Kept what);
  std::shared_ptr<Opened> take(SetNumber set, const FileId& id);
  std::shared_ptr<UniqueFd> root_of(SetNumber set) const;  // null: not here

  FileIndex& index_;
  WithObjectLocked with_locked_;
  mutable std::shared_mutex mutex_;
  std::map<SetNumber, std::shared_ptr<UniqueFd>> roots_;
  std::mutex kept_mutex_;
  std::deque<Kept> soon_, begun_;  // to be read soon; big ones, read in part
  // Files of the folder that was listed last, as they were opened for it: of a set of which anything is said to be read soon.
  std::map<SetNumber, Listed> listed_;
};

}  // namespace holdfast::platform
