// SPDX-License-Identifier: Apache-2.0
// R10: pushes what applications have written but the kernel still holds, so that the recovery point doesn't depend on when it writes back.
// Works in a process of its own, forked from the mirror before its threads start: the one that opens files of the mount must not be the one
// that answers for them. Holds nothing between rounds, so it is never in the way of an unmount.
#pragma once

#include <chrono>
#include <cstdint>
#include <span>
#include <string>

#include "capture/session.h"

namespace holdfast::capture {

struct PushResult {
  std::uint32_t pushed = 0;    // files whose pages of before the round are with the mirror now
  std::uint32_t gone = 0;      // files that were closed and removed meanwhile: nothing of theirs is missing
  std::uint32_t failed = 0;    // files that could not be pushed: the round doesn't count
  std::int32_t sys_errno = 0;  // of the first failure
};

// The body of the helper process: serves rounds on a stream socket until its other end closes. Returns the exit status.
int serve_push_rounds(int socket);

// The mirror's end. One round at a time.
class PushClient {
 public:
  explicit PushClient(int socket) : socket_(socket) {}  // owns it
  ~PushClient();
  PushClient(const PushClient&) = delete;
  PushClient& operator=(const PushClient&) = delete;
  // Files open for write on the mount at `path`, taken at the start of the round. Error `timeout`: the helper hangs in the kernel (a dead
  // connection releases it); the client is of no use any more and must be replaced together with the helper.
  Result<PushResult> round(const std::string& path, std::span<const OpenFile> files,
                           std::chrono::milliseconds patience);

 private:
  int socket_;
};

}  // namespace holdfast::capture
