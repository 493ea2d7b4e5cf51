// SPDX-License-Identifier: Apache-2.0
// The voter's durable state: one file, replaced whole. Writing waits for the disk, so it happens in a thread of its own: a
// stalled fsync must not keep the loop from renewing the lease. Only the newest of several waiting states is written; all of
// them are reported, for the newest contains the older ones' promises.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "cluster/codec.h"

namespace holdfast::daemon {

class RegisterStore {
 public:
  // `persisted` with the highest id that is on disk; `failed` once: the caller must stop (I7). Both on the writer's thread.
  struct Events {
    std::function<void(std::uint64_t id)> persisted;
    std::function<void(Error)> failed;
  };
  RegisterStore(std::string file, Events events);
  ~RegisterStore();

  // nullopt: there is none yet. Any error: stop, never start afresh (a voter that forgets may vote twice).
  static Result<std::optional<cluster::VoterState>> load(const std::string& file);
  void write(std::uint64_t id, const cluster::VoterState& state);

 private:
  struct Job {
    std::uint64_t id;
    cluster::VoterState state;
  };
  void run();

  const std::string file_;
  const Events events_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Job> next_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace holdfast::daemon
