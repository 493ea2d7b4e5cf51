// SPDX-License-Identifier: Apache-2.0
// A helper process: this same binary executed again with other arguments, so that it shares no memory, lock or thread with us. It has one end
// of a socket pair on descriptor `helper_socket` and ends when ours is closed.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "platform/unique_fd.h"

namespace holdfast::platform {

constexpr int helper_socket = 3;  // in the helper

class SelfProcess {
 public:
  // `socket_type`: SOCK_STREAM or SOCK_SEQPACKET.
  static Result<SelfProcess> start(const std::vector<std::string>& arguments, int socket_type);
  SelfProcess() = default;
  SelfProcess(SelfProcess&& other) noexcept;
  SelfProcess& operator=(SelfProcess&& other) noexcept;
  ~SelfProcess();  // closes our end and waits for the helper

  int socket() const { return socket_.get(); }
  int release_socket() { return socket_.release(); }  // somebody else closes our end
  void kill();                                        // SIGKILL: for one that hangs

 private:
  SelfProcess(UniqueFd socket, int pid) : socket_(std::move(socket)), pid_(pid) {}
  UniqueFd socket_;
  int pid_ = -1;
};

}  // namespace holdfast::platform
