// SPDX-License-Identifier: Apache-2.0
// Folders to be gone through with ::readdir.
#pragma once

#include <dirent.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <memory>

#include "platform/unique_fd.h"

namespace holdfast::platform {

struct FolderCloser {
  void operator()(DIR* d) const { ::closedir(d); }
};
using FolderStream = std::unique_ptr<DIR, FolderCloser>;

// Takes the descriptor. Null: errno says why, or still says why `fd` is empty.
inline FolderStream read_folder(UniqueFd fd) {
  FolderStream stream(fd ? ::fdopendir(fd.get()) : nullptr);
  if (stream) (void)fd.release();
  return stream;
}

// The folder from its beginning, with a position of its own; `folder` may be O_PATH.
inline FolderStream read_folder(int folder) {
  return read_folder(UniqueFd(::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)));
}

// A name in the folder itself: neither a link's target nor what is mounted there.
inline UniqueFd open_in_folder(int folder, const char* name, int flags) {
  open_how how{};
  how.flags = static_cast<std::uint64_t>(flags) | O_NOFOLLOW | O_CLOEXEC;
  how.resolve = RESOLVE_NO_XDEV;
  return UniqueFd(static_cast<int>(::syscall(SYS_openat2, folder, name, &how, sizeof how)));
}

}  // namespace holdfast::platform
