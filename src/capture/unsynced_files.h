// SPDX-License-Identifier: Apache-2.0
// Which files were changed since they were last made durable here. An fsync of any other file has nothing to do on our disk: a database that
// syncs each of its files when it starts after a failure (PostgreSQL does) is then not held up by one flush of the disk a file.
// Everything counts as durable in the beginning, so the file system below must have been synced once before the first request.
// Too many at once: from then on every fsync is a real one. Any thread.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/types.h"

namespace holdfast::capture {

class UnsyncedFiles {
 public:
  enum class What { data, attributes };
  explicit UnsyncedFiles(std::size_t most_files = 256 * 1024) : most_in_shard_(most_files / shards + 1) {}

  // After the change below, before it is answered.
  void changed(const FileId& id, What what) {
    Shard& shard = shard_of(id);
    const std::lock_guard guard(shard.mutex);
    if (shard.files.size() >= most_in_shard_ && !shard.files.contains(id)) {
      overflowed_ = true;
      return;
    }
    State& state = shard.files[id];
    (what == What::data ? state.data : state.attributes) = true;
  }

  using Ticket = std::uint64_t;
  // None: it is durable, nothing to do. Else sync it, then call ended(). A second fsync while the first is under way is a real one, too:
  // what the first one took with it is not durable yet.
  std::optional<Ticket> begin(const FileId& id, bool data_only) {
    Shard& shard = shard_of(id);
    const std::lock_guard guard(shard.mutex);
    const auto found = shard.files.find(id);
    if (found == shard.files.end() && !overflowed_) return std::nullopt;
    State& state = found == shard.files.end() ? shard.files[id] : found->second;
    if (!state.data && (data_only || !state.attributes) && state.running.empty() && !overflowed_) return std::nullopt;
    state.data = false;
    if (!data_only) state.attributes = false;
    const Ticket mine = ++shard.tickets;
    state.running.push_back(mine);
    return mine;
  }
  // After a failure was made known. Waits for the syncs of this file that began before: all of them share one descriptor, of which the kernel
  // tells an error of write-back once; a sync that succeeded beside one that failed has made nothing durable.
  void ended(const FileId& id, Ticket ticket) {
    Shard& shard = shard_of(id);
    std::unique_lock lock(shard.mutex);
    auto found = shard.files.find(id);
    std::erase(found->second.running, ticket);
    if (found->second.running.empty() && !found->second.data && !found->second.attributes) shard.files.erase(found);
    shard.ended.notify_all();
    const Ticket last = shard.tickets;
    shard.ended.wait(lock, [&] {
      found = shard.files.find(id);
      return found == shard.files.end() || std::none_of(found->second.running.begin(), found->second.running.end(),
                                                        [&](Ticket t) { return t <= last; });
    });
  }

 private:
  static constexpr std::size_t shards = 64;
  struct State {
    bool data = false, attributes = false;
    std::vector<Ticket> running;
  };
  struct Shard {
    std::mutex mutex;
    std::condition_variable ended;
    Ticket tickets = 0;
    std::unordered_map<FileId, State, FileIdHash> files;
  };
  Shard& shard_of(const FileId& id) { return shards_[(FileIdHash{}(id)*0x9E3779B97F4A7C15ULL) >> 58]; }

  const std::size_t most_in_shard_;
  std::atomic<bool> overflowed_{false};
  std::array<Shard, shards> shards_;
};

}  // namespace holdfast::capture
