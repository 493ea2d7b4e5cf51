// SPDX-License-Identifier: Apache-2.0
// Extended attributes and mode of an object behind a descriptor that may be O_PATH: such a one is reached by its path in /proc, which costs a
// walk of that file system more; a real one is asked itself. All return as the system calls do, with errno; threads: any.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace holdfast::platform {

ssize_t get_xattr(int fd, const char* name, void* value, std::size_t size);
int set_xattr(int fd, const char* name, const void* value, std::size_t size);
int remove_xattr(int fd, const char* name);
int change_mode(int fd, mode_t mode);

// Names of all attributes, ours too. A file system without attributes has none.
Status for_each_xattr_name(int fd, const std::function<Status(const std::string& name)>& see);
// Neither ours (trusted.holdfast.*) nor an alias: xfs shows its access lists a second time under names of its own, where others would keep them as
// something else.
bool is_replicated_xattr(std::string_view name);
// All attributes that are replicated, by name, in the log's encoding (log/xattrs.h).
Result<Bytes> read_all_xattrs(int fd);

}  // namespace holdfast::platform
