// SPDX-License-Identifier: Apache-2.0
// Drives the push helper (capture/push.h): once per recovery point target, everything that was written before the round is brought from the
// kernel's cache into the log, and the log is told so. Between rounds nothing is held, so it is never in the way of an unmount.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "capture/push.h"
#include "platform/self_process.h"

namespace holdfast::mirror_process {

class Pusher {
 public:
  struct Mount {
    std::string path;
    std::shared_ptr<capture::Session> session;
  };
  // `mounts`: what is captured now; empty while this node is not the active. `completed(began_ns)`: a round that began then is done; the time
  // is that of `now_ns`. All called on the pusher's thread.
  Pusher(std::chrono::milliseconds every, std::function<std::vector<Mount>()> mounts,
         std::function<std::int64_t()> now_ns, std::function<void(std::int64_t began_ns)> completed);
  ~Pusher();

  // A round beside those that come by themselves; its mark is in the log when it returns.
  void push_now() { round(); }
  // While the returned lock is held no round runs: for an unmount. Waits for the round under way.
  [[nodiscard]] std::unique_lock<std::mutex> pause() { return std::unique_lock(round_mutex_); }

 private:
  void run();
  void round();
  Result<capture::PushResult> push(const Mount& mount);

  const std::chrono::milliseconds every_;
  const std::function<std::vector<Mount>()> mounts_;
  const std::function<std::int64_t()> now_ns_;
  const std::function<void(std::int64_t)> completed_;
  std::mutex round_mutex_;
  platform::SelfProcess helper_;  // under round_mutex_, as client_
  std::unique_ptr<capture::PushClient> client_;
  std::mutex mutex_;
  std::condition_variable stop_cv_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace holdfast::mirror_process
