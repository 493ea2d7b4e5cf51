// SPDX-License-Identifier: Apache-2.0
// For tests: one small file system of each kind a process, in memory, seen by this process alone. Nothing of it outlives the process.
#pragma once

#include <string>

namespace holdfast::capture {

enum class DiskKind { ext4, xfs, strict };  // strict: ext4, mounted nosuid, nodev, noexec, noatime, sync
const char* to_string(DiskKind kind);

// A folder on it; made at the first call. Empty: not here, and a failure is noted. Needs can_mount().
const std::string& test_disk(DiskKind kind);

}  // namespace holdfast::capture
