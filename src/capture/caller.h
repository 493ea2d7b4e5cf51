// SPDX-License-Identifier: Apache-2.0
// Acting as the caller of a request, in this thread only: new objects get their owner, group, setgid and umask rules from the file system
// below exactly as they would without us. The kernel has checked permissions already (default_permissions), so the right to pass is kept.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <span>

namespace holdfast::capture {

// Once at the start of each thread that handles requests.
void prepare_worker_thread();

class AsCaller {
 public:
  AsCaller(std::uint32_t uid, std::uint32_t gid, std::span<const std::uint32_t> groups, std::uint32_t umask);
  ~AsCaller();
  AsCaller(const AsCaller&) = delete;
  AsCaller& operator=(const AsCaller&) = delete;

 private:
  bool changed_, groups_;
};

// While it lives, writes and truncations of this thread clear setuid and setgid as those of an ordinary user do.
class WithoutFsetid {
 public:
  explicit WithoutFsetid(bool active);
  ~WithoutFsetid();
  WithoutFsetid(const WithoutFsetid&) = delete;
  WithoutFsetid& operator=(const WithoutFsetid&) = delete;

 private:
  bool active_;
};

}  // namespace holdfast::capture
