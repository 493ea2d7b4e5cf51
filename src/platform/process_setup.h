// SPDX-License-Identifier: Apache-2.0
// What a process in the kernel's write-back path owes the kernel: it must never wait for memory that only it can free. Each forgotten
// line here is a deadlock under memory pressure.
#pragma once

#include "base/result.h"

namespace holdfast::platform {

// Raises descriptor limits, marks the process as an I/O flusher, asks the OOM killer to spare it. What the machine does not permit is a
// warning in the log, not an error: containers often withhold CAP_SYS_RESOURCE.
void prepare_process();

// After start-up and the allocation of the ring: nothing of ours is paged out from now on.
void lock_memory();

// FUSE over io_uring is off by default in the kernel; switched on if the kernel has it. Without it the /dev/fuse transport is used.
void enable_fuse_io_uring();

}  // namespace holdfast::platform
