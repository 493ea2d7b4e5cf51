// SPDX-License-Identifier: Apache-2.0
// Which files were changed since they were last made durable here. An fsync of any other file has nothing to do on our disk: a database that
// syncs each of its files when it starts after a failure (PostgreSQL does) is then not held up by one flush of the disk a file.
// Everything counts as durable in the beginning, so the file system below must have been synced once before the first request.
// Too many at once: from then on every fsync is a real one. Any thread.
#pragma once

#include <array>
#include <atomic>
#include <mutex>
#include <unordered_map>

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

  // False: it is durable, nothing to do. True: sync it, then call ended(). A second fsync while the first is under way is a real one, too:
  // what the first one took with it is not durable yet.
  bool begin(const FileId& id, bool data_only) {
    Shard& shard = shard_of(id);
    const std::lock_guard guard(shard.mutex);
    const auto found = shard.files.find(id);
    if (found == shard.files.end() && !overflowed_) return false;
    State& state = found == shard.files.end() ? shard.files[id] : found->second;
    if (!state.data && (data_only || !state.attributes) && state.syncing == 0 && !overflowed_) return false;
    state.data = false;
    if (!data_only) state.attributes = false;
    ++state.syncing;
    return true;
  }
  void ended(const FileId& id) {
    Shard& shard = shard_of(id);
    const std::lock_guard guard(shard.mutex);
    const auto found = shard.files.find(id);
    if (--found->second.syncing == 0 && !found->second.data && !found->second.attributes) shard.files.erase(found);
  }

 private:
  static constexpr std::size_t shards = 64;
  struct State {
    bool data = false, attributes = false;
    unsigned syncing = 0;
  };
  struct Shard {
    std::mutex mutex;
    std::unordered_map<FileId, State, FileIdHash> files;
  };
  Shard& shard_of(const FileId& id) { return shards_[(FileIdHash{}(id)*0x9E3779B97F4A7C15ULL) >> 58]; }

  const std::size_t most_in_shard_;
  std::atomic<bool> overflowed_{false};
  std::array<Shard, shards> shards_;
};

}  // namespace holdfast::capture
