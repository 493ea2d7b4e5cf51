// SPDX-License-Identifier: Apache-2.0
// The fence below the mirror (R4): a process of its own that reads the lease word and aborts the FUSE connections of an epoch whose
// lease has been over for `grace_ms`. It needs nothing of the mirror: a mirror that is stopped, swapped out or stuck is fenced all the same,
// and callers blocked in D state get ECONNABORTED. Requests on their way into the io_uring of a mirror that does not run are out of an abort's
// reach, for its own threads end them: when some wait still a moment later, the mirror is killed. It is this same binary, executed again, so
// that it shares no memory, lock or thread.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "base/types.h"
#include "platform/self_process.h"

namespace holdfast::platform {

class Watchdog {
 public:
  // Starts the child. `lease_path` is the lease word; the child dies with us (PR_SET_PDEATHSIG) after aborting what is armed.
  static Result<Watchdog> start(const std::string& lease_path, std::int64_t grace_ms);
  // From now on `abort_fd` (an open .../fuse/connections/N/abort) is written when the lease of `epoch` is over. Acknowledged by the child
  // before this returns: a mount that is not guarded must not be used.
  Status arm(Epoch epoch, int abort_fd);
  // From now on the end of this process alone aborts nothing: another one goes on with what is armed. The lease is watched until that end.
  Status let_go();
  // After a clean unmount: nothing is left to abort.
  Status disarm();

 private:
  explicit Watchdog(SelfProcess process) : process_(std::move(process)) {}
  Status request(char op, Epoch epoch, int pass_fd);
  SelfProcess process_;
};

// The child's main: `holdfast-mirror watchdog LEASE GRACE_MS`, socket on descriptor 3. Returns the exit status.
int watchdog_main(const std::string& lease_path, std::int64_t grace_ms);

}  // namespace holdfast::platform
