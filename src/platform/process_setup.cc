// SPDX-License-Identifier: Apache-2.0
#include "platform/process_setup.h"

#include <fcntl.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>

#include "base/log.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif

namespace holdfast::platform {
namespace {

bool write_file(const char* path, std::string_view text) {
  const int fd = ::open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  const bool ok = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  const int saved = errno;
  ::close(fd);
  errno = saved;
  return ok;
}

void raise_descriptor_limit() {
  constexpr rlim_t wanted = 1'048'576;  // the kernel's fs.nr_open
  rlimit limit{wanted, wanted};
  if (::setrlimit(RLIMIT_NOFILE, &limit) == 0) return;
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
}

}  // namespace

void prepare_process() {
  raise_descriptor_limit();
  if (::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) < 0)
    log_warning("cannot become an I/O flusher ({}): under extreme memory pressure writes may stall",
                std::strerror(errno));
  if (!write_file("/proc/self/oom_score_adj", "-1000"))
    log_warning("cannot lower the OOM score ({}): the kernel may choose the mirror when memory runs out",
                std::strerror(errno));
  // Few arenas: many threads that each hold little would otherwise keep an arena of their own locked in memory.
  ::mallopt(M_ARENA_MAX, 2);
}

void lock_memory() {
  // ONFAULT: locks what is used, not every reserved stack and buffer whole.
  if (::mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0)
    log_warning("cannot lock memory: {}", std::strerror(errno));
}

void enable_fuse_io_uring() {
  constexpr const char* path = "/sys/module/fuse/parameters/enable_uring";
  if (::access(path, F_OK) != 0) return;
  if (!write_file(path, "Y"))
    log_warning("cannot switch on FUSE over io_uring ({}); /dev/fuse is used", std::strerror(errno));
}

}  // namespace holdfast::platform
