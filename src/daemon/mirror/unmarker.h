// SPDX-License-Identifier: Apache-2.0
// Folders that were protected: the ids of their files go, in the background. What is left to do is noted in a file, so a restart goes on with it.
// Threads: one user at a time.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "platform/unmark.h"

namespace holdfast::mirror_process {

class Unmarker {
 public:
  explicit Unmarker(std::string file) : file_(std::move(file)) {}
  ~Unmarker() { stop(); }
  Unmarker(const Unmarker&) = delete;
  Unmarker& operator=(const Unmarker&) = delete;

  // Durable when it returns. While nothing runs.
  Status add(const std::vector<std::string>& paths);
  // Begins with the first again. What overlaps with one of these is not touched, and forgotten; nor is `others`, whose index outlives the work.
  void start(const std::vector<std::string>& protected_paths, platform::StillProtected others);
  // When it returns nothing is touched any more: before anything is protected.
  void stop();

 private:
  void run(std::vector<std::string> paths, const platform::StillProtected& others);
  bool wait_a_little();
  std::vector<std::string> load() const;
  Status store(const std::vector<std::string>& paths) const;

  const std::string file_;
  std::thread thread_;
  std::mutex mutex_;  // below
  std::condition_variable cv_;
  bool stopping_ = false;
};

}  // namespace holdfast::mirror_process
