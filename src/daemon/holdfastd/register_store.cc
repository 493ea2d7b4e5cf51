// SPDX-License-Identifier: Apache-2.0
#include "daemon/holdfastd/register_store.h"

#include "platform/durable_file.h"

namespace holdfast::daemon {

RegisterStore::RegisterStore(std::string file, Events events) : file_(std::move(file)), events_(std::move(events)) {
  thread_ = std::thread([this] { run(); });
}

RegisterStore::~RegisterStore() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

Result<std::optional<cluster::VoterState>> RegisterStore::load(const std::string& file) {
  auto bytes = platform::read_file(file, 1u << 20);
  if (!bytes) {
    if (bytes.error().code == ErrorCode::not_found) return std::optional<cluster::VoterState>();
    return tl::unexpected(bytes.error());
  }
  auto state = cluster::decode_voter_state(*bytes);
  if (!state)
    return tl::unexpected(
        with_hint(Error{ErrorCode::corrupt, fmt::format("{}: {}", file, state.error().message), {}, 0},
                  "this voter's memory is damaged; remove the node from the cluster and let it join again"));
  return std::optional<cluster::VoterState>(std::move(*state));
}

void RegisterStore::write(std::uint64_t id, const cluster::VoterState& state) {
  {
    const std::lock_guard lock(mutex_);
    next_ = Job{id, state};
  }
  changed_.notify_one();
}

void RegisterStore::run() {
  for (;;) {
    std::optional<Job> job;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || next_; });
      if (!next_) return;  // what waits is written before a stop
      job.swap(next_);
    }
    const Status written = platform::write_file_durably(file_, cluster::encode(job->state));
    if (!written) {
      events_.failed(written.error());
      return;
    }
    events_.persisted(job->id);
  }
}

}  // namespace holdfast::daemon
