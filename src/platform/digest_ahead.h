// SPDX-License-Identifier: Apache-2.0
// Digests of parts of files, computed by threads of its own while the one that will ask for them does something else.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "base/types.h"
#include "platform/read_once.h"
#include "platform/unique_fd.h"
#include "ports/tree.h"

namespace holdfast::platform {

// One user, who takes what he asked for in that order (or never), and says what he changes. The threads begin with the first request.
class DigestAhead {
 public:
  DigestAhead() = default;
  ~DigestAhead();
  DigestAhead(const DigestAhead&) = delete;
  DigestAhead& operator=(const DigestAhead&) = delete;

  // `length`: at most ports::most_digest_bytes. What was asked for long before, and not taken, is given up for it.
  void ask(const FileId& id, UniqueFd file, std::uint64_t offset, std::uint64_t length);
  // The same, of a big file: nobody's pages are driven out for it (read_once.h). It is kept open until another one is asked for, or none.
  void ask_big(const FileId& id, const std::function<std::shared_ptr<ReadOnce>()>& open, std::uint64_t offset,
               std::uint64_t length);
  // Waits for it if it is in work. nullopt: not asked for, forgotten, or it could not be read.
  std::optional<ports::Digest> take(const FileId& id, std::uint64_t offset, std::uint64_t length);
  // The file's bytes are about to change.
  void forget(const FileId& id);
  void forget_all();

 private:
  struct Job;
  void add(std::shared_ptr<Job> job);
  enum class State { waiting, in_work, done };
  struct Job {
    FileId id;
    UniqueFd file;
    std::shared_ptr<ReadOnce> big;  // instead
    std::uint64_t offset = 0, length = 0;
    State state = State::waiting;
    std::optional<ports::Digest> digest;
  };
  void work();
  static std::optional<ports::Digest> compute(const Job& job, Bytes& buffer);

  std::mutex mutex_;
  std::condition_variable wanted_, done_;
  std::deque<std::shared_ptr<Job>>
      jobs_;  // in the order they were asked for; a thread may hold one that is not among them any more
  bool stops_ = false;
  // The user's own.
  FileId big_id_;
  std::shared_ptr<ReadOnce> big_;
  bool big_is_used_ = false;  // since forget_all()
  std::vector<std::thread> threads_;
};

}  // namespace holdfast::platform
