// SPDX-License-Identifier: Apache-2.0
// Stream sockets of the Unix domain with time limits: the local API. Reads and writes of one stream: one thread at a time;
// shutdown() and close() from any thread, they wake the others.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include <sys/types.h>

#include "base/bytes.h"
#include "base/result.h"
#include "platform/unique_fd.h"

namespace holdfast::platform {

class UnixStream {
 public:
  explicit UnixStream(UniqueFd fd) : fd_(std::move(fd)) {}
  // `unavailable` when nobody listens there.
  static Result<std::unique_ptr<UnixStream>> connect(const std::string& path);

  // At least one byte, or 0 at the end. Past the limit ErrorCode::timeout.
  Result<std::size_t> read_some(std::span<std::uint8_t> into, int timeout_ms);
  Status write_all(ByteView bytes, int timeout_ms);
  Result<uid_t> peer_uid() const;
  void shutdown();

 private:
  UniqueFd fd_;
};

class UnixListener {
 public:
  // Mode is exact whatever the umask. A socket nobody listens on is replaced; a live one is ErrorCode::exists.
  static Result<std::unique_ptr<UnixListener>> open(const std::string& path, mode_t mode);
  ~UnixListener();                               // removes the socket
  Result<std::unique_ptr<UnixStream>> accept();  // ErrorCode::unavailable after close()
  void close();

 private:
  UnixListener(std::string path, UniqueFd fd, UniqueFd wake)
      : path_(std::move(path)), fd_(std::move(fd)), wake_(std::move(wake)) {}
  const std::string path_;
  UniqueFd fd_;
  UniqueFd wake_;  // eventfd: readable for good once closed
};

}  // namespace holdfast::platform
