// SPDX-License-Identifier: Apache-2.0
// What is open in the kernel, by the number that the kernel keeps for it (`fh`). A number means the same to the next mirror that takes over the
// connection, and it is reused only after its release. Any thread; looking one up takes no lock.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "base/check.h"

namespace holdfast::capture {

template <class T>
class HandleTable {
 public:
  HandleTable() = default;
  HandleTable(const HandleTable&) = delete;
  ~HandleTable() { clear(); }

  std::uint64_t add(std::unique_ptr<T> handle) {
    const std::lock_guard guard(mutex_);
    std::uint64_t number = next_;
    if (free_.empty()) {
      ++next_;
    } else {
      number = free_.back();
      free_.pop_back();
    }
    slot(number).store(handle.release(), std::memory_order_release);
    return number;
  }
  // As it was known to the mirror before this one: in ascending order, before anything is added.
  void restore(std::uint64_t number, std::unique_ptr<T> handle) {
    const std::lock_guard guard(mutex_);
    CHECK(number >= next_, "an open file is handed over twice");
    while (next_ < number) free_.push_back(next_++);
    ++next_;
    slot(number).store(handle.release(), std::memory_order_release);
  }
  // The kernel names only what it was given and has not released.
  T& at(std::uint64_t number) const {
    const Chunk* chunk =
        number / chunk_size < most_chunks ? chunks_[number / chunk_size].load(std::memory_order_acquire) : nullptr;
    T* const found = chunk ? (*chunk)[number % chunk_size].load(std::memory_order_acquire) : nullptr;
    CHECK(found, "the kernel names an open file {} that there is not", number);
    return *found;
  }
  std::unique_ptr<T> take(std::uint64_t number) {
    std::unique_ptr<T> taken(&at(number));
    const std::lock_guard guard(mutex_);
    slot(number).store(nullptr, std::memory_order_release);
    free_.push_back(number);
    return taken;
  }
  // In ascending order. Nobody opens or releases meanwhile.
  template <class F>
  void for_each(const F& body) const {
    const std::lock_guard guard(mutex_);
    for (std::uint64_t number = 1; number < next_; ++number)
      if (const Chunk* chunk = chunks_[number / chunk_size].load(); chunk)
        if (T* const handle = (*chunk)[number % chunk_size].load()) body(number, *handle);
  }
  void clear() {
    const std::lock_guard guard(mutex_);
    for (auto& place : chunks_)
      if (Chunk* const chunk = place.exchange(nullptr)) {
        for (auto& one : *chunk) delete one.load();
        delete chunk;
      }
    free_.clear();
    next_ = 1;
  }

 private:
  static constexpr std::uint64_t chunk_size = 4096, most_chunks = 16 * 1024;
  using Chunk = std::array<std::atomic<T*>, chunk_size>;
  std::atomic<T*>& slot(std::uint64_t number) {  // under mutex_
    CHECK(number / chunk_size < most_chunks, "too many open files");
    auto& place = chunks_[number / chunk_size];
    if (!place.load()) place.store(new Chunk{}, std::memory_order_release);
    return (*place.load())[number % chunk_size];
  }

  mutable std::mutex mutex_;
  std::uint64_t next_ = 1;  // 0 is no number
  std::vector<std::uint64_t> free_;
  std::array<std::atomic<Chunk*>, most_chunks> chunks_{};
};

}  // namespace holdfast::capture
