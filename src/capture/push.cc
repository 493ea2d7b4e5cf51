// SPDX-License-Identifier: Apache-2.0
#include "capture/push.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "capture/fuse_abi.h"
#include "capture/lower.h"

namespace holdfast::capture {
namespace {

// Between one program and its own fork: no versions, no byte order.
struct RoundHead {
  std::uint32_t path_bytes, files;
};
struct RoundFile {
  std::uint64_t nodeid;
  std::uint32_t generation, padding;
};
constexpr std::uint32_t most_path_bytes = 4096;

bool send_all(int socket, const void* data, std::size_t size) {
  const char* at = static_cast<const char*>(data);
  while (size) {
    const ssize_t n = send(socket, at, size, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += n;
    size -= static_cast<std::size_t>(n);
  }
  return true;
}

bool receive_all(int socket, void* data, std::size_t size) {
  char* at = static_cast<char*>(data);
  while (size) {
    const ssize_t n = recv(socket, at, size, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += n;
    size -= static_cast<std::size_t>(n);
  }
  return true;
}

// How FUSE encodes a file: node id, high half first, then the generation.
LowerHandle handle_on_mount(const RoundFile& file) {
  LowerHandle handle;
  handle.type = fuse::handle_type_node_generation;
  const std::uint32_t words[3] = {static_cast<std::uint32_t>(file.nodeid >> 32),
                                  static_cast<std::uint32_t>(file.nodeid), file.generation};
  handle.size = sizeof words;
  std::memcpy(handle.bytes.data(), words, sizeof words);
  return handle;
}

void push_file(int root, const RoundFile& file, PushResult& result) {
  const Descriptor fd(open_handle(root, handle_on_mount(file), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOATIME));
  int error = 0;
  if (fd.get() < 0)
    error = errno;
  else if (sync_file_range(fd.get(), 0, 0,
                           SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER) != 0)
    error = errno;
  if (error == 0)
    ++result.pushed;
  else if (error == ESTALE || error == ENOENT)
    ++result.gone;
  else {
    ++result.failed;
    if (!result.sys_errno) result.sys_errno = error;
  }
}  // closing waits for the FLUSH, which waits for what is left

PushResult push_round(const std::string& path, const std::vector<RoundFile>& files) {
  PushResult result;
  const Descriptor root(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (root.get() < 0) {
    result.failed = static_cast<std::uint32_t>(files.size());
    result.sys_errno = errno;
    return result;
  }
  for (const RoundFile& file : files) push_file(root.get(), file, result);
  return result;
}

}  // namespace

int serve_push_rounds(int socket) {
  for (;;) {
    RoundHead head;
    if (!receive_all(socket, &head, sizeof head)) return 0;
    if (head.path_bytes > most_path_bytes) return 1;
    std::string path(head.path_bytes, 0);
    std::vector<RoundFile> files(head.files);
    if (!receive_all(socket, path.data(), path.size()) ||
        !receive_all(socket, files.data(), files.size() * sizeof(RoundFile)))
      return 1;
    const PushResult result = push_round(path, files);
    if (!send_all(socket, &result, sizeof result)) return 0;
  }
}

PushClient::~PushClient() { close(socket_); }

Result<PushResult> PushClient::round(const std::string& path, std::span<const OpenFile> files,
                                     std::chrono::milliseconds patience) {
  if (path.size() > most_path_bytes) return fail(ErrorCode::invalid, "the path of the mount is too long");
  const RoundHead head{static_cast<std::uint32_t>(path.size()), static_cast<std::uint32_t>(files.size())};
  std::vector<RoundFile> list;
  list.reserve(files.size());
  for (const OpenFile& file : files) list.push_back({file.nodeid, file.generation, 0});
  if (!send_all(socket_, &head, sizeof head) || !send_all(socket_, path.data(), path.size()) ||
      !send_all(socket_, list.data(), list.size() * sizeof(RoundFile)))
    return fail(ErrorCode::unavailable, "the push helper is gone");
  pollfd ready{socket_, POLLIN, 0};
  const int polled = poll(&ready, 1, static_cast<int>(patience.count()));
  if (polled == 0) return fail(ErrorCode::timeout, "the push helper did not finish its round");
  PushResult result;
  if (polled < 0 || !receive_all(socket_, &result, sizeof result))
    return fail(ErrorCode::unavailable, "the push helper is gone");
  return result;
}

}  // namespace holdfast::capture
