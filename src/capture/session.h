// SPDX-License-Identifier: Apache-2.0
// A protected set, mounted for one epoch: the public face of capture. One Session is one FUSE connection (R3); losing the epoch ends it by
// abort, a switchover by unmount; a new epoch mounts afresh.
// Threads: every method may be called from any thread but those of the session's own requests. `on_fault` may be called from those.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/types.h"
#include "capture/file_ids.h"
#include "capture/handover.h"
#include "capture/holders.h"
#include "capture/object_locks.h"
#include "mirror/capture_log.h"
#include "mirror/live_limits.h"

namespace holdfast::capture {

enum class WritePolicy { write_back, write_through };
enum class TransportKind { automatic, dev, uring };

struct SessionOptions {
  std::string path;  // where to mount: the protected folder, its cover in place
  int root_fd = -1;  // the real tree, on a mount nobody else sees; duplicated
  SetNumber set = 0;
  WritePolicy write_policy = WritePolicy::write_back;
  TransportKind transport = TransportKind::automatic;
  unsigned threads = 0;               // per queue (io_uring) or in all (/dev/fuse); 0 = what was measured best
  std::uint64_t max_dirty_bytes = 0;  // bound of dirty pages (R13); 0 = the kernel's global bound only
  unsigned read_ahead_kib = 1024;
  std::size_t cached_descriptors = 32768;
  std::shared_ptr<const mirror::LiveLimits> limits;  // what the other nodes can't hold; null: nothing is known
};

struct OpenFile {
  FileId id;
  std::uint64_t nodeid;
  std::uint32_t generation;
};

struct SessionStats {
  std::uint64_t operations = 0, bytes_read = 0, bytes_written = 0, records = 0, syncs = 0;
  std::size_t inodes = 0, waiting_for_space = 0;
  unsigned threads = 0;
};

class Session {
 public:
  // Returns when the mount answers. `log`, `lease` and `ids` must outlive the session. `on_fault`: the disk below failed in a way that
  // must end the epoch (I7); called once.
  static Result<std::unique_ptr<Session>> mount(const SessionOptions& options, mirror::CaptureLog& log,
                                                mirror::LeaseGate& lease, FileIds& ids,
                                                std::function<void(const Error&)> on_fault);
  // Goes on with a mount that another process left (hand_over), of the same options; there must be nobody left of that one who could touch the tree.
  // Applications notice nothing. An error ends the connection, and with it what they have open.
  static Result<std::unique_ptr<Session>> take_over(const SessionOptions& options, Handover from,
                                                    mirror::CaptureLog& log, mirror::LeaseGate& lease, FileIds& ids,
                                                    std::function<void(const Error&)> on_fault);
  // Aborts if still mounted, and waits for the threads.
  virtual ~Session() = default;

  // The barrier of a switchover (R10): success means that the file system is gone, its last request done, nothing was aborted,
  // and the tree below durable (syncfs).
  // Busy: someone holds it; `holders` says who; the mount is as before, unless error code is `timeout`: then it is no longer at its path,
  // but something unseen keeps it alive, and only abort() ends it.
  virtual Status unmount_and_wait(std::chrono::milliseconds patience, std::vector<Holder>* holders) = 0;
  // For a successor on this machine: every request that was read is answered, the tree below synced, the threads end, and what comes then waits in
  // the kernel. Success: this object is done; destroying it leaves the mount alone. An error leaves everything as it was, but after `io`: then it is
  // aborted. `most_inodes`: more known to the kernel would take too long. ErrorCode::refused: this mount can't be handed over at all.
  virtual Result<Handover> hand_over(std::chrono::milliseconds patience, std::size_t most_inodes) = 0;
  // Fence: no request is answered from now on, blocked callers get an error. Then the mount leaves its path (lazily). Doesn't wait.
  virtual void abort() = 0;
  // The connection is over, whoever ended it (the watchdog, `umount -f`): nothing is captured any more.
  virtual bool ended() const = 0;
  // R23: true when every thread has ended and nothing of this session can still touch the tree below.
  virtual bool wait_reaped(std::chrono::milliseconds patience) = 0;

  virtual std::vector<OpenFile> open_for_write() const = 0;
  virtual SessionStats stats() const = 0;
  virtual ObjectLocks& locks() = 0;
  // For the watchdog: writing "1" to this file aborts the connection. Empty if the kernel shows none.
  virtual std::string abort_path() const = 0;
  virtual std::string device() const = 0;       // "0:47", as in mountinfo and /sys/class/bdi
  virtual TransportKind transport() const = 0;  // dev or uring
};

}  // namespace holdfast::capture
