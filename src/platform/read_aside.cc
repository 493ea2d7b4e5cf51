// SPDX-License-Identifier: Apache-2.0
#include "platform/read_aside.h"

#include <fcntl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

namespace holdfast::platform {

// RWF_NOWAIT gives what is cached and nothing else. The rest is read without read-ahead and then dropped again.
std::int64_t read_aside(int fd, std::uint64_t offset, std::span<std::uint8_t> into) {
  std::size_t done = 0;
  bool cached = true;
  while (done < into.size()) {
    const auto at = static_cast<off_t>(offset + done);
    const iovec part{into.data() + done, into.size() - done};
    ssize_t n = cached ? ::preadv2(fd, &part, 1, at, RWF_NOWAIT) : ::preadv(fd, &part, 1, at);
    if (n < 0 && errno == EINTR) continue;
    if (cached && n < 0 && (errno == EAGAIN || errno == EOPNOTSUPP)) {
      cached = false;
      ::posix_fadvise(fd, at, static_cast<off_t>(part.iov_len), POSIX_FADV_RANDOM);
      continue;
    }
    if (n < 0) return -errno;
    if (n == 0) break;
    if (!cached) {
      ::posix_fadvise(fd, at, n, POSIX_FADV_DONTNEED);
      cached = true;  // what comes next may be
    }
    done += static_cast<std::size_t>(n);
  }
  return static_cast<std::int64_t>(done);
}

}  // namespace holdfast::platform
