// SPDX-License-Identifier: Apache-2.0
// One protected folder on this node: the private way to its real tree, its cover, and, while this node is the active, its capture.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "capture/session.h"
#include "daemon/mirror/file_ids.h"
#include "daemon/mirror/mirror_config.h"
#include "platform/posix_tree.h"

namespace holdfast::mirror_process {

// Takes a dead capture of an earlier mirror away and puts the read-only cover over `path`. Idempotent.
Status cover_path(const std::string& path);
// The opposite, where no set is open: the protection of the path ended in another life. ErrorCode::busy: somebody holds the cover. Idempotent.
Status uncover_path(const std::string& path);

class ProtectedSet {
 public:
  // Finds the real tree below whatever is mounted on the path, takes a dead capture of an earlier mirror away, and covers the path.
  // ErrorCode::busy: processes hold files of the tree that they opened before the cover was there; the message names them. They could write
  // past the capture, so nothing may be called a copy until they are gone.
  // `keep_capture`: the one that is mounted there is to be taken over.
  static Result<std::unique_ptr<ProtectedSet>> open(const SetConfig& config, platform::FileIndex& index,
                                                    bool keep_capture = false);

  const SetConfig& config() const { return config_; }
  std::shared_ptr<platform::PosixTree> tree() const { return tree_; }
  Result<platform::UniqueFd> duplicate_root() const;

  // Capture of one epoch. Not thread-safe against each other; the service serializes role changes.
  Status mount(mirror::CaptureLog& log, mirror::LeaseGate& lease, std::shared_ptr<const mirror::LiveLimits> limits,
               std::function<void(const Error&)> on_fault);
  // The capture of an epoch that goes on: from the mirror before this one, and to the next one. As Session has them.
  Status take_over(capture::Handover from, mirror::CaptureLog& log, mirror::LeaseGate& lease,
                   std::shared_ptr<const mirror::LiveLimits> limits, std::function<void(const Error&)> on_fault);
  Result<capture::Handover> hand_over(std::chrono::milliseconds patience, std::size_t most_inodes);
  // As Session::unmount_and_wait; success drops the session.
  Status unmount(std::chrono::milliseconds patience, std::vector<capture::Holder>* holders);
  // After an abort: true when the session's threads are gone, and with them the session.
  bool reap(std::chrono::milliseconds patience);

  // For abort and status, from any thread: null when not mounted.
  std::shared_ptr<capture::Session> session() const;

  // The protection of this folder ends: the cover goes.
  Status release();

 private:
  ProtectedSet(SetConfig config, platform::UniqueFd root, std::shared_ptr<platform::PosixTree> tree,
               platform::FileIndex& index)
      : config_(std::move(config)),
        root_(std::move(root)),
        tree_(std::move(tree)),
        ids_(index, root_.get(), tree_->dead_names_gone()) {}

  capture::SessionOptions options(std::shared_ptr<const mirror::LiveLimits> limits) const;
  const SetConfig config_;
  platform::UniqueFd root_;
  std::shared_ptr<platform::PosixTree> tree_;
  IndexedFileIds ids_;
  mutable std::mutex mutex_;
  std::shared_ptr<capture::Session> session_;
};

}  // namespace holdfast::mirror_process
