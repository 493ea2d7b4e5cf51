// SPDX-License-Identifier: Apache-2.0
// Small files that must be there, whole, after a power cut. A failed fsync is an error for the caller to stop on (I7).
// Any thread; callers serialize writers of one path.
#pragma once

#include <string>

#include <sys/types.h>

#include "base/bytes.h"
#include "base/result.h"

namespace holdfast::platform {

// Replaces `path` in one step: temporary file beside it, fsync, rename, fsync of the folder. Readers see the old or the new content.
Status write_file_durably(const std::string& path, ByteView content, mode_t mode = 0600);

// The whole file; not_found when there is none; invalid when it is larger than `limit_bytes`.
Result<Bytes> read_file(const std::string& path, std::size_t limit_bytes = 64U << 20);

// Appends and fdatasyncs; creates the file (mode 0600, folder synced) when it is missing.
Status append_durably(const std::string& path, ByteView content);

Status make_private_dir(const std::string& path);     // mkdir -p, the last one 0700
Status remove_file_durably(const std::string& path);  // absent is fine
Status sync_dir(const std::string& path);

}  // namespace holdfast::platform
