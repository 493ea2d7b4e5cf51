// SPDX-License-Identifier: Apache-2.0
// Programs run from the folder, and what mount options forbid there; sockets, pipes, devices.
#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <sstream>

#include "capture/differential_cases.h"

namespace holdfast::capture {
namespace {

void copy_program(Trace& t, const char* from, const std::string& name, unsigned mode) {
  std::ifstream in(from, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  std::ofstream(t.at(name), std::ios::binary) << text.str();
  t.call(fmt::format("{} may run", name), chmod(t.at(name).c_str(), mode));
}

// What the program prints, or why it can't be run.
void run(Trace& t, const std::string& what, const std::vector<std::string>& words, unsigned uid = 0) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return t.note("no pipe");
  const pid_t child = fork();
  if (child == 0) {
    std::vector<char*> argv;
    for (const auto& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    if (uid && (setresgid(uid, uid, uid) || setresuid(uid, uid, uid))) _exit(99);
    dup2(ends[1], 1);
    execv(argv[0], argv.data());
    const std::string why = std::strerror(errno);
    (void)!write(1, why.data(), why.size());
    _exit(98);
  }
  close(ends[1]);
  int status = 0;
  std::string text = text_of_child(ends[0], child, status);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  t.note("{}: {} ({})", what, text, WEXITSTATUS(status));
}

void executing(Trace& t) {
  copy_program(t, "/bin/echo", "echo", 0755);
  copy_program(t, "/bin/echo", "closed", 0644);
  copy_program(t, "/bin/echo", "unreadable", 0711);
  copy_program(t, "/usr/bin/id", "id", 0755);
  t.put("script", "#!/bin/sh\necho script $1\n", 0755);
  t.put("odd", "#!./echo\n", 0755);
  t.put("nonsense", "no program", 0755);
  run(t, "program", {t.at("echo"), "hello"});
  run(t, "not executable", {t.at("closed"), "hello"});
  run(t, "only executable", {t.at("unreadable"), "hello"}, 1000);
  run(t, "script", {t.at("script"), "x"});
  run(t, "nonsense", {t.at("nonsense")});
  run(t, "folder", {t.at("")});
  t.call("link", symlink("echo", t.at("link").c_str()));
  run(t, "by link", {t.at("link"), "hello"});
  const int writer = t.opened("open for writing", open(t.at("echo").c_str(), O_WRONLY));
  run(t, "while it is open for writing", {t.at("echo"), "hello"});
  close(writer);
  run(t, "then", {t.at("echo"), "hello"});
  t.call("set-user-id", chown(t.at("id").c_str(), 1000, 1001));
  t.call("bits", chmod(t.at("id").c_str(), 06755));
  run(t, "as its owner", {t.at("id"), "-u"}, 1005);
  run(t, "as its group", {t.at("id"), "-g"}, 1005);
  const unsigned char capability[20] = {1, 0, 0, 2, 0, 4, 0, 0};
  copy_program(t, "/bin/grep", "grep", 0755);
  t.call("capability", setxattr(t.at("grep").c_str(), "security.capability", capability, sizeof capability, 0));
  run(t, "with a capability", {t.at("grep"), "CapEff", "/proc/self/status"}, 1005);
  const int fd = open(t.at("echo").c_str(), O_RDONLY);
  void* code = mmap(nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
  t.note("mapped to run: {}", code == MAP_FAILED ? std::strerror(errno) : "yes");
  if (code != MAP_FAILED) munmap(code, 4096);
  close(fd);
  for (const char* n : {"echo", "closed", "unreadable", "id", "grep"}) t.stat(n);
}

// Starts the program, a copy of cat, and hears that it runs. It ends when `in` is closed.
struct Running {
  pid_t pid = -1;
  int in[2] = {-1, -1}, out = -1;
};

Running start(Trace& t, const std::string& name) {
  int in[2], out[2];
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) {
    t.note("no pipe");
    return {};
  }
  const pid_t child = fork();
  if (child == 0) {
    dup2(in[0], 0);
    dup2(out[1], 1);
    execl(t.at(name).c_str(), "cat", nullptr);
    (void)!write(1, "?", 1);
    _exit(1);
  }
  close(out[1]);
  char byte = 0;
  t.call("say", write(in[1], "x", 1));
  t.call("it runs", read(out[0], &byte, 1));
  t.note("{}", byte);
  return {child, {in[0], in[1]}, out[0]};
}

int end(const Running& running) {
  for (const int fd : {running.in[0], running.in[1], running.out}) close(fd);
  int status = -1;
  waitpid(running.pid, &status, 0);
  return status;
}

void running_is_not_writable(Trace& t) {
  copy_program(t, "/bin/cat", "cat", 0755);
  const Running running = start(t, "cat");
  t.opened("write to what runs", open(t.at("cat").c_str(), O_WRONLY));
  t.opened("truncate what runs", open(t.at("cat").c_str(), O_WRONLY | O_TRUNC));
  t.call("truncate by name", truncate(t.at("cat").c_str(), 0));
  t.stat("cat");
  t.call("rename what runs", rename(t.at("cat").c_str(), t.at("dog").c_str()));
  t.call("unlink what runs", unlink(t.at("dog").c_str()));
  t.note("ended with {}", end(running));
}

void truncated_without_writing(Trace& t) {
  t.put("f", "text");
  t.opened("reading and truncating", open(t.at("f").c_str(), O_RDONLY | O_TRUNC));
  t.stat("f");
  copy_program(t, "/bin/cat", "cat", 0755);
  const Running running = start(t, "cat");
  t.opened("of what runs", open(t.at("cat").c_str(), O_RDONLY | O_TRUNC));
  struct stat st;
  lstat(t.at("cat").c_str(), &st);
  t.note("it is whole: {}", st.st_size != 0);
  kill(running.pid, SIGKILL);
  end(running);
  t.call("gone", unlink(t.at("cat").c_str()));
}

void sockets(Trace& t) {
  t.call("into", chdir(t.at("").c_str()));  // names of sockets are short
  sockaddr_un address{AF_UNIX, "socket"};
  const auto* name = reinterpret_cast<const sockaddr*>(&address);
  const int server = socket(AF_UNIX, SOCK_STREAM, 0);
  t.call("bind", bind(server, name, sizeof address));
  t.call("bind again", bind(socket(AF_UNIX, SOCK_STREAM, 0), name, sizeof address));
  t.stat("socket");
  const int client = socket(AF_UNIX, SOCK_STREAM, 0);
  t.call("nobody listens", connect(client, name, sizeof address));
  t.call("listen", listen(server, 5));
  t.call("connect", connect(client, name, sizeof address));
  t.call("chmod", chmod(t.at("socket").c_str(), 0700));
  t.as_user(1000, 1000, {},
            [&](Trace& u) { u.call("no right", connect(socket(AF_UNIX, SOCK_STREAM, 0), name, sizeof address)); });
  t.call("rename", rename(t.at("socket").c_str(), t.at("renamed").c_str()));
  t.call("the old name", connect(socket(AF_UNIX, SOCK_STREAM, 0), name, sizeof address));
  std::strcpy(address.sun_path, "renamed");
  t.call("the new name", connect(socket(AF_UNIX, SOCK_STREAM, 0), name, sizeof address));
  t.opened("open a socket", open(t.at("renamed").c_str(), O_RDWR));
  close(server);
  t.call("closed", connect(socket(AF_UNIX, SOCK_STREAM, 0), name, sizeof address));
  t.call("unlink", unlink(t.at("renamed").c_str()));
  t.put("plain", "");
  std::strcpy(address.sun_path, "plain");
  t.call("to a file", connect(socket(AF_UNIX, SOCK_STREAM, 0), name, sizeof address));
  close(client);
  t.call("out", chdir("/"));
}

void pipes_and_devices(Trace& t) {
  t.call("fifo", mkfifo(t.at("p").c_str(), 0600));
  t.opened("nobody reads", open(t.at("p").c_str(), O_WRONLY | O_NONBLOCK));
  const int reader = t.opened("read", open(t.at("p").c_str(), O_RDONLY | O_NONBLOCK));
  const int writer = t.opened("write", open(t.at("p").c_str(), O_WRONLY | O_NONBLOCK));
  t.call("write", write(writer, "through", 7));
  char text[8] = {};
  t.call("read", read(reader, text, 7));
  t.note("{}", text);
  t.call("sync", fsync(writer));
  t.call("unlink", unlink(t.at("p").c_str()));
  t.call("still", write(writer, "x", 1));
  close(reader);
  close(writer);
  t.call("fifo", mkfifo(t.at("q").c_str(), 0600));
  const pid_t child = fork();
  if (child == 0) {
    const int fd = open(t.at("q").c_str(), O_WRONLY);
    _exit(write(fd, "blocking", 8) == 8 ? 0 : 1);
  }
  const int blocking = open(t.at("q").c_str(), O_RDONLY);
  std::string got(8, 0);
  t.call("read", read(blocking, got.data(), 8));
  t.note("{}", got);
  close(blocking);
  int status = -1;
  waitpid(child, &status, 0);
  t.note("ended with {}", status);
  for (const auto& [name, minor] : {std::pair{"null", 3}, {"zero", 5}, {"full", 7}}) {
    t.call(name, mknod(t.at(name).c_str(), S_IFCHR | 0666, makedev(1, static_cast<unsigned>(minor))));
    const int fd = t.opened("open", open(t.at(name).c_str(), O_RDWR));
    t.call("write", write(fd, "x", 1));
    t.call("read", read(fd, text, 1));
    close(fd);
  }
  t.call("missing device", mknod(t.at("missing").c_str(), S_IFCHR | 0600, makedev(250, 99)));
  t.opened("open it", open(t.at("missing").c_str(), O_RDWR));
  t.call("missing disk", mknod(t.at("disk").c_str(), S_IFBLK | 0600, makedev(250, 99)));
  t.opened("open it", open(t.at("disk").c_str(), O_RDWR));
}

}  // namespace

std::vector<Case> run_cases() {
  return {{"executing", executing},
          {"running_is_not_writable", running_is_not_writable},
          {"truncated_without_writing", truncated_without_writing},
          {"sockets", sockets},
          {"pipes_and_devices", pipes_and_devices}};
}

}  // namespace holdfast::capture
