// SPDX-License-Identifier: Apache-2.0
// What will happen, in the order of true time, and of asking where the time is the same. Most of a run is putting in and taking out:
// what is to be done lies in slots that are used again, never in memory of its own.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

namespace holdfast::sim {

using Time = std::int64_t;  // true time, ns
constexpr Time ms = 1'000'000;
constexpr Time second = 1'000 * ms;

class EventQueue {
 public:
  EventQueue() = default;
  EventQueue(const EventQueue&) = delete;
  EventQueue& operator=(const EventQueue&) = delete;
  ~EventQueue() {
    for (const Entry& e : heap_) slots_[e.slot].drop(slots_[e.slot].bytes);
  }

  template <class What>
  void push(Time at, What&& what) {
    using Held = std::decay_t<What>;
    static_assert(sizeof(Held) <= slot_bytes && std::alignment_of_v<Held> <= alignof(std::max_align_t));
    if (free_.empty()) {
      free_.push_back(static_cast<std::uint32_t>(slots_.size()));
      slots_.emplace_back();
    }
    const std::uint32_t at_slot = free_.back();
    free_.pop_back();
    Slot& s = slots_[at_slot];
    ::new (static_cast<void*>(s.bytes)) Held(std::forward<What>(what));
    s.call = [](void* p) { (*static_cast<Held*>(p))(); };
    s.drop = [](void* p) { static_cast<Held*>(p)->~Held(); };
    heap_.push_back({at, ++number_, at_slot});
    std::push_heap(heap_.begin(), heap_.end());
  }
  bool empty() const { return heap_.empty(); }
  Time next_at() const { return heap_.front().at; }
  void run_next() {
    std::pop_heap(heap_.begin(), heap_.end());
    const std::uint32_t slot = heap_.back().slot;
    heap_.pop_back();
    Slot& s = slots_[slot];  // stays where it is whatever is pushed meanwhile
    s.call(s.bytes);
    s.drop(s.bytes);
    free_.push_back(slot);
  }

 private:
  static constexpr std::size_t slot_bytes = 224;
  struct Slot {
    alignas(std::max_align_t) std::byte bytes[slot_bytes];
    void (*call)(void*) = nullptr;
    void (*drop)(void*) = nullptr;
  };
  struct Entry {
    Time at;
    std::uint64_t number;
    std::uint32_t slot;
    bool operator<(const Entry& o) const { return at != o.at ? at > o.at : number > o.number; }
  };

  std::vector<Entry> heap_;
  std::deque<Slot> slots_;
  std::vector<std::uint32_t> free_;
  std::uint64_t number_ = 0;
};

}  // namespace holdfast::sim
