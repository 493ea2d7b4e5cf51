// SPDX-License-Identifier: Apache-2.0
// A mount of the protected folders as they were (ports/past_tree.h): read-only, for root only; or one that can be written to (ports/scratch_tree.h),
// for whom the modes in it let in. Nothing in it changes but through it, so the kernel may keep what it has seen. Gone with the process; what a dead
// one left is cleared away at the next start.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "ports/scratch_tree.h"

namespace holdfast::capture {

class LookMount {
 public:
  struct Root {
    SetNumber set = 0;
    std::string path;  // where it is shown below the mount, as "srv/data"; empty: it is the mount
  };
  // Returns when the mount answers. `dir` must be an empty folder.
  static Result<std::unique_ptr<LookMount>> mount(const std::string& dir, const std::vector<Root>& roots,
                                                  std::shared_ptr<ports::PastTree> past);
  // `on_trouble`: once when there is no room left (no_space), once when the view is over (stale); it must not block, nor end the mount.
  using Trouble = std::function<void(const Error& why)>;
  static Result<std::unique_ptr<LookMount>> mount(const std::string& dir, const std::vector<Root>& roots,
                                                  std::shared_ptr<ports::ScratchTree> scratch, Trouble on_trouble,
                                                  bool others = true);
  virtual ~LookMount() = default;  // whoever is in it gets errors
  // ErrorCode::busy: somebody is in it.
  virtual Status end() = 0;
  virtual bool ended() const = 0;  // somebody unmounted it
  // Mounts of processes that are dead.
  static void clear_dead();
};

}  // namespace holdfast::capture
