// SPDX-License-Identifier: Apache-2.0
// For tests only: ports::ChangeStore in memory.
#pragma once

#include <map>
#include <mutex>

#include "ports/change_store.h"

namespace holdfast::mirror::testing {

class MemoryChangeStore final : public ports::ChangeStore {
 public:
  Result<Bytes> header() override { return header_; }
  Status merge(const std::vector<ports::ChangeEntry>& entries, const Combine& combine, ByteView header) override {
    const std::lock_guard lock(mutex_);
    if (no_space) return fail(ErrorCode::no_space, "no space, says the test");
    for (const auto& e : entries) {
      const auto it = keys_.find(e.key);
      if (it == keys_.end()) {
        keys_[e.key] = e.value;
      } else {
        HF_ASSIGN(it->second, combine(it->second, e.value));
      }
    }
    header_.assign(header.begin(), header.end());
    return {};
  }
  Status clear(ByteView header) override {
    const std::lock_guard lock(mutex_);
    keys_.clear();
    header_.assign(header.begin(), header.end());
    return {};
  }
  Result<std::vector<ports::ChangeEntry>> scan(ByteView key, std::size_t count) override {
    const std::lock_guard lock(mutex_);
    std::vector<ports::ChangeEntry> found;
    for (auto it = keys_.upper_bound(Bytes(key.begin(), key.end())); it != keys_.end() && found.size() < count; ++it)
      found.push_back({it->first, it->second});
    return found;
  }
  Result<bool> contains(ByteView key) override {
    const std::lock_guard lock(mutex_);
    return keys_.contains(Bytes(key.begin(), key.end()));
  }
  Result<std::uint64_t> size() override {
    const std::lock_guard lock(mutex_);
    return keys_.size();
  }
  bool no_space = false;

 private:
  std::mutex mutex_;
  std::map<Bytes, Bytes> keys_;
  Bytes header_;
};

}  // namespace holdfast::mirror::testing
