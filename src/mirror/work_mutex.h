// SPDX-License-Identifier: Apache-2.0
// A mutex with two sorts of users: who works takes it as any mutex, who only looks takes a Look. A std::mutex is not fair: a few threads that look
// again and again could keep the worker waiting for as long as they like.
//
//   worker   next_ ............ work_          holds next_ only while it waits for work_
//   look     behind_ .. next_ .. work_         holds behind_ as long as work_
//
// So at most one look is ahead of a worker that waits: the others queue up at behind_, and whoever holds that waits for next_.
#pragma once

#include <mutex>

namespace holdfast::mirror {

class WorkMutex {
 public:
  void lock() {
    const std::lock_guard next(next_);
    work_.lock();
  }
  void unlock() { work_.unlock(); }
  // Somebody stands next in line: a hint, true for moments of each locking too.
  bool is_awaited() {
    const std::unique_lock next(next_, std::try_to_lock);
    return !next.owns_lock();
  }

  class Look {
   public:
    explicit Look(WorkMutex& m) : behind_(m.behind_) {
      const std::lock_guard next(m.next_);
      work_ = std::unique_lock(m.work_);
    }

   private:
    std::unique_lock<std::mutex> behind_, work_;
  };

 private:
  std::mutex behind_, next_, work_;
};

}  // namespace holdfast::mirror
