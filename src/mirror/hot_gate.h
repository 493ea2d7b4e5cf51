// SPDX-License-Identifier: Apache-2.0
// What every change of a protected tree passes before it touches the disk (R5): the objects it is about have been noted, durably, as possibly
// different from what the peers hold. Most changes find their objects noted already: one add, two loads and one compare an object, no lock.
//
// Notes belong to a generation. From time to time the next one begins, and when everything done under the older one is durable here and held by
// the peers (mirror/hot_set.h), its notes are dropped. A guard says under which generation a change runs: none is dropped while it has guards.
// Threads: any; a guard belongs to one thread.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <span>

#include "base/result.h"
#include "base/types.h"

namespace holdfast::mirror {

class HotGate {
 public:
  // Kept with an object that may change: the last generation in which it was noted. A cache; 0 in the beginning.
  using Cell = std::atomic<std::uint32_t>;
  struct Object {
    const FileId& id;
    Cell& cell;
    bool folder;  // its attributes and its listing; else attributes and contents
  };
  using Objects = std::span<const Object>;

 private:
  struct alignas(64) Inside {
    std::atomic<std::uint32_t> guards{0};
  };

 public:
  class Guard {
   public:
    Guard() = default;
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;
    ~Guard() { leave(); }
    void leave() {
      if (inside_) std::exchange(gate_, nullptr)->left(*std::exchange(inside_, nullptr), generation_);
    }
    // What was made under this guard, with an id of fresh(), is noted already.
    void made(Cell& cell) const {
      if (inside_) cell.store(generation_, std::memory_order_release);
    }

   private:
    friend class HotGate;
    HotGate* gate_ = nullptr;
    Inside* inside_ = nullptr;
    std::uint32_t generation_ = 0;
  };

  virtual ~HotGate() = default;

  // Before a change, ahead of every lock and of waiting for log space; the guard is kept until the change is recorded. May wait for the disk.
  // ErrorCode::stale: the epoch is over. Another error: it could not be noted. Nothing may be changed; after the latter the epoch must end (I7).
  Status enter(Guard& guard, SetNumber set, Objects objects) {
    while (!try_enter(guard, objects)) HF_TRY(note(set, objects));
    return {};
  }
  // The id of an object that is about to be made, under a guard: it needs no note of its own.
  virtual Result<FileId> fresh(SetNumber set) = 0;
  // Runs `body` with the whole set noted: for changes that are about no object that has an id.
  virtual Status with_whole_set(SetNumber set, const std::function<Status()>& body) = 0;

 protected:
  // False: something is not noted in the present generation.
  bool try_enter(Guard& guard, Objects objects) {
    hold(guard);
    for (const Object& object : objects)
      if (object.cell.load(std::memory_order_acquire) != guard.generation_) {
        guard.leave();
        return false;
      }
    return true;
  }
  // Under whatever generation is the present one.
  void hold(Guard& guard) {
    for (;;) {
      const std::uint32_t generation = generation_.load();
      Inside& inside = inside_[generation & 1][shard()];
      inside.guards.fetch_add(1);
      if (generation_.load() == generation) {  // so whoever ends this generation sees the guard
        guard.gate_ = this;
        guard.inside_ = &inside;
        guard.generation_ = generation;
        return;
      }
      left(inside, generation);
    }
  }
  // Makes the notes durable and brings the cells up to date.
  virtual Status note(SetNumber set, Objects objects) = 0;

  // Generation 0: nothing is noted and everything passes (no epoch of this node's).
  std::uint32_t generation() const { return generation_.load(); }
  // Guards of the generation before are waited for with wait_left(). At most two generations have guards at a time.
  void set_generation(std::uint32_t generation) { generation_.store(generation); }
  bool has_guards(std::uint32_t generation) const {
    for (const Inside& inside : inside_[generation & 1])
      if (inside.guards.load() != 0) return true;
    return false;
  }
  // Until nobody is left in a generation that is not the present one, or `stop` says so (asked when woken). False: stopped.
  bool wait_left(std::uint32_t generation, const std::function<bool()>& stop) {
    std::unique_lock lock(left_mutex_);
    left_cv_.wait(lock, [&] { return !has_guards(generation) || stop(); });
    return !has_guards(generation);
  }
  void wake_left() {
    const std::lock_guard lock(left_mutex_);
    left_cv_.notify_all();
  }

 private:
  static constexpr unsigned shards = 16;
  static unsigned shard() {
    static std::atomic<unsigned> next{0};
    thread_local const unsigned mine = next.fetch_add(1, std::memory_order_relaxed) % shards;
    return mine;
  }
  void left(Inside& inside, std::uint32_t generation) {
    inside.guards.fetch_sub(1);
    if (generation_.load() != generation) wake_left();
  }

  std::atomic<std::uint32_t> generation_{0};
  std::array<std::array<Inside, shards>, 2> inside_;
  std::mutex left_mutex_;
  std::condition_variable left_cv_;
};

}  // namespace holdfast::mirror
