// SPDX-License-Identifier: Apache-2.0
// Locks of objects by id. Whoever changes an object, or ships its state (first copy, resync), holds its lock from the local operation to
// the append, so the log has conflicting changes in the order the disk saw them. Several locks are taken in one global order.
// A fixed number of mutexes serves all ids: two objects may share one, which costs a little waiting and nothing else.
#pragma once

#include <algorithm>
#include <array>
#include <memory>
#include <mutex>

#include "base/types.h"

namespace holdfast::capture {

class ObjectLocks {
 public:
  static constexpr std::size_t count = 4096;

  class Guard {
   public:
    Guard() = default;
    Guard(Guard&& other) noexcept : held_(other.held_), size_(other.size_) { other.size_ = 0; }
    Guard& operator=(Guard&&) = delete;
    ~Guard() { unlock(); }
    // Takes over what another guard holds; this one must hold nothing.
    void adopt(Guard&& other) {
      held_ = other.held_;
      size_ = other.size_;
      other.size_ = 0;
    }
    void unlock() {
      while (size_) held_[--size_]->unlock();
    }

   private:
    friend class ObjectLocks;
    std::array<std::mutex*, 4> held_{};
    std::size_t size_ = 0;
  };

  // Up to four ids; none-ids and repetitions are fine. Don't take a second guard while holding one.
  template <class... Ids>
  [[nodiscard]] Guard lock(const Ids&... ids) {
    static_assert(sizeof...(ids) >= 1 && sizeof...(ids) <= 4);
    std::array<std::size_t, sizeof...(ids)> slots{slot(ids)...};
    std::sort(slots.begin(), slots.end());
    Guard guard;
    for (std::size_t i = 0; i < slots.size(); ++i) {
      if (slots[i] == count || (i && slots[i] == slots[i - 1])) continue;
      mutexes_[slots[i]].lock();
      guard.held_[guard.size_++] = &mutexes_[slots[i]];
    }
    return guard;
  }

 private:
  static std::size_t slot(const FileId& id) {
    return id.is_none() ? count : (FileIdHash{}(id)*0x9E3779B97F4A7C15ULL) >> 52;
  }
  std::array<std::mutex, count> mutexes_;
};

}  // namespace holdfast::capture
