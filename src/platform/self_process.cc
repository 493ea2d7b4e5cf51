// SPDX-License-Identifier: Apache-2.0
#include "platform/self_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

namespace holdfast::platform {

Result<SelfProcess> SelfProcess::start(const std::vector<std::string>& arguments, int socket_type) {
  int pair[2];
  if (::socketpair(AF_UNIX, socket_type | SOCK_CLOEXEC, 0, pair) < 0)
    return fail_errno(errno, "cannot make a socket pair");
  UniqueFd ours(pair[0]);
  const UniqueFd theirs(pair[1]);
  std::vector<char*> argv;
  std::string name = "holdfast-mirror";
  argv.push_back(name.data());
  for (const auto& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const pid_t pid = ::fork();
  if (pid < 0) return fail_errno(errno, "cannot start a helper process");
  if (pid == 0) {
    if (theirs.get() == helper_socket)
      ::fcntl(helper_socket, F_SETFD, 0);
    else
      ::dup2(theirs.get(), helper_socket);
    ::execv("/proc/self/exe", argv.data());
    ::_exit(127);
  }
  return SelfProcess(std::move(ours), pid);
}

SelfProcess::SelfProcess(SelfProcess&& other) noexcept
    : socket_(std::move(other.socket_)), pid_(std::exchange(other.pid_, -1)) {}

SelfProcess& SelfProcess::operator=(SelfProcess&& other) noexcept {
  std::swap(socket_, other.socket_);
  std::swap(pid_, other.pid_);
  return *this;
}

SelfProcess::~SelfProcess() {
  socket_.reset();
  if (pid_ > 0) ::waitpid(pid_, nullptr, 0);
}

void SelfProcess::kill() {
  if (pid_ > 0) ::kill(pid_, SIGKILL);
}

}  // namespace holdfast::platform
