// SPDX-License-Identifier: Apache-2.0
#include "platform/process.h"

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <mutex>
#include <string_view>

#include "platform/unique_fd.h"

namespace holdfast::platform {
namespace {

constexpr const char* search_path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

struct Identity {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
};

struct Pipe {
  UniqueFd read;
  UniqueFd write;
};

Result<Pipe> make_pipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return fail_errno(errno, "cannot create a pipe");
  return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

Result<Identity> look_up(const std::string& user) {
  std::vector<char> buffer(16 * 1024);
  passwd entry{};
  passwd* found = nullptr;
  getpwnam_r(user.c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (found == nullptr) return fail(ErrorCode::not_found, "there is no user {} on this machine", user);
  Identity id{entry.pw_uid, entry.pw_gid, {}};
  int count = 64;
  id.groups.resize(static_cast<std::size_t>(count));
  if (getgrouplist(user.c_str(), entry.pw_gid, id.groups.data(), &count) < 0) {
    id.groups.resize(static_cast<std::size_t>(count));
    getgrouplist(user.c_str(), entry.pw_gid, id.groups.data(), &count);
  }
  id.groups.resize(static_cast<std::size_t>(count));
  return id;
}

Result<std::string> find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) {
    if (access(name.c_str(), X_OK) == 0) return name;
    return fail(ErrorCode::not_found, "cannot run {}: it is not there or not executable", name);
  }
  std::string_view rest = search_path;
  while (!rest.empty()) {
    const std::size_t colon = rest.find(':');
    const std::string candidate = std::string(rest.substr(0, colon)) + "/" + name;
    if (access(candidate.c_str(), X_OK) == 0) return candidate;
    rest = colon == std::string_view::npos ? std::string_view{} : rest.substr(colon + 1);
  }
  return fail(ErrorCode::not_found, "the program {} is not installed on this machine", name);
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (std::string& t : texts) result.push_back(t.data());
  result.push_back(nullptr);
  return result;
}

// Between fork and exec in a process with threads only async-signal-safe calls are allowed: raw system calls, no allocation, no locks
// (glibc's own setuid would try to tell threads that do not exist in the child). Writes errno to `report` if it fails.
[[noreturn]] void become(int in, int out, int err, int report, const Identity* id, const char* program,
                         char* const* argv, char* const* env) {
  int error = 0;
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  struct sigaction normal {};
  normal.sa_handler = SIG_DFL;
  sigaction(SIGPIPE, &normal, nullptr);
  setpgid(0, 0);
  if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0) error = errno;
  if (error == 0 && id != nullptr &&
      (syscall(SYS_setgroups, id->groups.size(), id->groups.data()) != 0 ||
       syscall(SYS_setresgid, id->gid, id->gid, id->gid) != 0 ||
       syscall(SYS_setresuid, id->uid, id->uid, id->uid) != 0))
    error = errno;
  if (error == 0) {
    if (chdir("/") == 0) execve(program, argv, env);
    error = errno;
  }
  [[maybe_unused]] const ssize_t n = write(report, &error, sizeof error);
  _exit(127);
}

struct Stream {
  UniqueFd fd;
  std::string* text;
};

void read_some(Stream& stream, std::size_t max) {
  char buffer[8192];
  const ssize_t n = read(stream.fd.get(), buffer, sizeof buffer);
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
  if (n <= 0) {
    stream.fd.reset();
    return;
  }
  const std::size_t room = max - std::min(max, stream.text->size());
  stream.text->append(buffer, std::min(room, static_cast<std::size_t>(n)));
}

// Reads both streams until they end and the process is gone, or the time is up. True: in time.
bool collect(Stream (&streams)[2], int pidfd, int timeout_ms, std::size_t max_output) {
  using clock = std::chrono::steady_clock;
  const auto deadline = clock::now() + std::chrono::milliseconds(timeout_ms);
  bool exited = false;
  while (!exited || streams[0].fd || streams[1].fd) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - clock::now()).count();
    if (left <= 0) return false;
    pollfd fds[3] = {
        {streams[0].fd.get(), POLLIN, 0}, {streams[1].fd.get(), POLLIN, 0}, {exited ? -1 : pidfd, POLLIN, 0}};
    if (poll(fds, 3, static_cast<int>(left)) < 0 && errno != EINTR) return false;
    for (int i = 0; i < 2; ++i)
      if (fds[i].revents != 0) read_some(streams[i], max_output);
    if (fds[2].revents != 0) exited = true;
  }
  return true;
}

// Children in D state ignore SIGKILL (a blocked file system): they are left behind, and reaped by a later call, rather than waited for.
std::mutex abandoned_mutex;
std::vector<pid_t> abandoned;

std::optional<int> reap(pid_t pid, int pidfd) {
  constexpr int patience_ms = 1'000;
  pollfd exit{pidfd, POLLIN, 0};
  while (poll(&exit, 1, patience_ms) < 0 && errno == EINTR) {
  }
  int status = 0;
  if (waitpid(pid, &status, WNOHANG) == pid) return status;
  const std::lock_guard lock(abandoned_mutex);
  abandoned.push_back(pid);
  return std::nullopt;
}

void reap_abandoned() {
  const std::lock_guard lock(abandoned_mutex);
  std::erase_if(abandoned, [](pid_t pid) { return waitpid(pid, nullptr, WNOHANG) != 0; });
}

}  // namespace

Result<CommandResult> run_command(const Command& command) {
  reap_abandoned();
  if (command.argv.empty()) return fail(ErrorCode::invalid, "no command given");
  if (command.input.size() > 64 * 1024)
    return fail(ErrorCode::invalid, "input of {} is longer than 64 KiB", command.argv[0]);
  HF_ASSIGN(const std::string program, find_program(command.argv[0]));
  Identity id;
  if (!command.user.empty()) {
    HF_ASSIGN(id, look_up(command.user));
  }
  std::vector<std::string> argv = command.argv;
  std::vector<std::string> env = command.environment;
  env.push_back(std::string("PATH=") + search_path);
  env.push_back("LANG=C.UTF-8");
  const std::vector<char*> argv_pointers = pointers(argv);
  const std::vector<char*> env_pointers = pointers(env);
  HF_ASSIGN(Pipe in, make_pipe());
  HF_ASSIGN(Pipe out, make_pipe());
  HF_ASSIGN(Pipe err, make_pipe());
  HF_ASSIGN(Pipe report, make_pipe());
  // A pipe holds 64 KiB: the whole input fits before anyone reads, so nothing has to be fed later.
  if (!command.input.empty() && write(in.write.get(), command.input.data(), command.input.size()) < 0)
    return fail_errno(errno, "cannot write to a pipe");

  const pid_t pid = fork();
  if (pid < 0) return fail_errno(errno, "cannot start {}", command.argv[0]);
  if (pid == 0)
    become(in.read.get(), out.write.get(), err.write.get(), report.write.get(), command.user.empty() ? nullptr : &id,
           program.c_str(), argv_pointers.data(), env_pointers.data());
  setpgid(pid, pid);  // both do it: whoever is first, the group exists before we could kill it
  in = {};
  out.write.reset();
  err.write.reset();
  report.write.reset();
  UniqueFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  int exec_errno = 0;
  if (read(report.read.get(), &exec_errno, sizeof exec_errno) == sizeof exec_errno) {
    waitpid(pid, nullptr, 0);
    return fail_errno(exec_errno, "cannot run {}{}{}", program, command.user.empty() ? "" : " as ", command.user);
  }
  CommandResult result;
  Stream streams[2] = {{std::move(out.read), &result.out}, {std::move(err.read), &result.err}};
  result.timed_out = !collect(streams, pidfd.get(), command.timeout_ms, command.max_output);
  if (result.timed_out) kill(-pid, SIGKILL);
  const std::optional<int> waited = reap(pid, pidfd.get());
  const int status = waited.value_or(SIGKILL);
  result.exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

Result<std::string> run_checked(const Command& command) {
  HF_ASSIGN(CommandResult result, run_command(command));
  if (result.ok()) return std::move(result.out);
  if (result.timed_out)
    return fail(ErrorCode::timeout, "{} did not end within {} ms and was killed", command.argv[0], command.timeout_ms);
  std::string_view text = result.err.empty() ? result.out : result.err;
  while (!text.empty() && text.back() == '\n') text.remove_suffix(1);
  const std::size_t line = text.rfind('\n');
  if (line != std::string_view::npos) text = text.substr(line + 1);
  return fail(ErrorCode::io, "{} failed with status {}: {}", command.argv[0], result.exit_status, text);
}

}  // namespace holdfast::platform
