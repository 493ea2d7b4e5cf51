// SPDX-License-Identifier: Apache-2.0
// The mirror's local control port: a SOCK_SEQPACKET Unix socket, one JSON object a message (docs/formats/mirror-control.md).
// One daemon at a time: a newer connection replaces the older, so that a restarted holdfastd never waits for its dead predecessor.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include <nlohmann/json.hpp>

#include "base/result.h"

namespace holdfast::platform {

class ControlSocket {
 public:
  // Two halves. The handler itself runs in the order in which requests came, on the reading thread: it must not block, and is where order
  // matters (a wait set must never be overtaken by an older one). What it returns runs in a thread of its own, so that a long `activate`
  // never holds up `status` or `abort`, and makes the reply (without "id").
  using Answer = std::function<nlohmann::json()>;
  using Handler = std::function<Answer(const nlohmann::json& request)>;

  // Creates the socket, mode 0600; a stale file of a dead mirror is replaced.
  static Result<std::unique_ptr<ControlSocket>> listen(const std::string& path, Handler handler);
  ~ControlSocket();

  // Serves until stop(); call from the main thread.
  void run();
  void stop();  // from any thread or a signal-handling thread
  void push(const nlohmann::json&
                event);  // to the connected daemon; dropped when nobody is there: a new one asks for `status`

 private:
  struct Connection;
  ControlSocket(int listen_fd, int wake_fd, std::string path, Handler handler);
  void serve(std::shared_ptr<Connection> connection);
  void answer(std::shared_ptr<Connection> connection, const nlohmann::json& request);

  int listen_fd_, wake_fd_;
  std::string path_;
  Handler handler_;
  std::mutex mutex_;
  std::shared_ptr<Connection> current_;
  std::atomic<int> busy_{0};  // requests being answered; run() returns only when there are none
};

}  // namespace holdfast::platform
