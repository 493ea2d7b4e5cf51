// SPDX-License-Identifier: Apache-2.0
// Client of the mirror's control socket. One thread reads; it dials again until destroyed. The end of the connection is the
// death of the mirror: `lost` is called within milliseconds, so that the lease can be given back at once.
#pragma once

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "daemon/holdfastd/mirror_port.h"
#include "platform/unique_fd.h"

namespace holdfast::daemon {

class MirrorClient : public MirrorPort {
 public:
  struct Events {  // on the client's thread; must not block
    std::function<void()> connected;
    std::function<void()> lost;
    std::function<void(nlohmann::json)> event;
  };
  MirrorClient(std::string path, Events events);
  ~MirrorClient() override;

  void request(const std::string& op, nlohmann::json arguments, int timeout_ms, Reply reply) override;
  bool connected() const override { return connected_; }
  bool kill() override;

 private:
  struct Pending {
    std::chrono::steady_clock::time_point deadline;
    std::string op;
    Reply reply;
  };
  // Null: on its way, and `pending` is kept until the answer. Else why not, and `pending` is still the caller's.
  const char* send_request(nlohmann::json arguments, Pending& pending);
  void run();
  bool dial();
  void serve();
  void take(const std::string& message);
  void expire();
  void drop(const std::string& reason);
  void wake() const;

  const std::string path_;
  const Events events_;
  const int wake_fd_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> connected_{false};
  std::mutex mutex_;
  int fd_ = -1;
  platform::UniqueFd process_;  // of who listens at the other end
  std::uint64_t next_id_ = 1;
  std::map<std::uint64_t, Pending> pending_;
  std::thread thread_;
};

}  // namespace holdfast::daemon
