// SPDX-License-Identifier: Apache-2.0
#include "capture/caller.h"

#include <linux/capability.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/check.h"

namespace holdfast::capture {
namespace {

struct Capabilities {
  __user_cap_data_struct data[2];
};
thread_local Capabilities base_capabilities;  // of this thread when it acts as itself
thread_local mode_t thread_umask = 0777;

// The C library would change all threads; these calls change one.
void set_groups(std::span<const std::uint32_t> groups) { syscall(SYS_setgroups, groups.size(), groups.data()); }
void set_ids(std::uint32_t uid, std::uint32_t gid) {
  syscall(SYS_setfsgid, gid);
  syscall(SYS_setfsuid, uid);
}

Capabilities read_capabilities() {
  Capabilities c{};
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  syscall(SYS_capget, &header, c.data);
  return c;
}
void write_capabilities(const Capabilities& c) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  CHECK(syscall(SYS_capset, &header, c.data) == 0, "cannot set the capabilities of a capture thread");
}
void lower(Capabilities& c, int capability) { c.data[CAP_TO_INDEX(capability)].effective &= ~CAP_TO_MASK(capability); }
void raise_if_permitted(Capabilities& c, int capability) {
  auto& word = c.data[CAP_TO_INDEX(capability)];
  word.effective |= word.permitted & CAP_TO_MASK(capability);
}

void use_umask(mode_t mask) {
  if (thread_umask == mask) return;
  umask(mask);
  thread_umask = mask;
}

}  // namespace

void prepare_worker_thread() {
  unshare(CLONE_FS);  // umask and working directory of this thread alone
  set_groups({});
  base_capabilities = read_capabilities();
  lower(base_capabilities, CAP_SYS_RESOURCE);
  write_capabilities(base_capabilities);
  umask(0);
  thread_umask = 0;
}

AsCaller::AsCaller(std::uint32_t uid, std::uint32_t gid, std::span<const std::uint32_t> groups, std::uint32_t mask)
    : changed_(uid != 0 || gid != 0), groups_(!groups.empty()) {
  use_umask(mask & 0777);
  if (groups_) set_groups(groups);
  if (!changed_) return;
  set_ids(uid, gid);
  if (uid == 0) return;
  // Leaving uid 0 dropped the file system capabilities; passing folders and making devices was decided by the kernel above.
  Capabilities now = base_capabilities;
  for (const int c : {CAP_CHOWN, CAP_FOWNER, CAP_FSETID, CAP_LINUX_IMMUTABLE, CAP_MAC_OVERRIDE}) lower(now, c);
  for (const int c : {CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_MKNOD}) raise_if_permitted(now, c);
  write_capabilities(now);
}

AsCaller::~AsCaller() {
  if (changed_) set_ids(0, 0);
  if (groups_) set_groups({});
}

WithoutFsetid::WithoutFsetid(bool active) : active_(active) {
  if (!active_) return;
  Capabilities now = base_capabilities;
  lower(now, CAP_FSETID);
  write_capabilities(now);
}

WithoutFsetid::~WithoutFsetid() {
  if (active_) write_capabilities(base_capabilities);
}

}  // namespace holdfast::capture
