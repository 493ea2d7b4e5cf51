// SPDX-License-Identifier: Apache-2.0
// A big file that is read from one end to the other, once (a copy, a comparison), at the disk's full speed and with the kernel's read-ahead, but
// not at the expense of who works here: of what was not in the page cache before, nothing stays in it. (read_aside.h is for small pieces, here and
// there: it reads nothing ahead.)
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <span>

#include "platform/unique_fd.h"

namespace holdfast::platform {

// Smaller ones are not worth it: each piece costs a look at the page cache.
constexpr std::uint64_t read_once_least_bytes = std::uint64_t{4} << 20;

// Any thread. Threads that read at the same time read near each other.
class ReadOnce {
 public:
  ReadOnce(UniqueFd file, std::uint64_t size);
  ~ReadOnce();
  ReadOnce(const ReadOnce&) = delete;
  ReadOnce& operator=(const ReadOnce&) = delete;
  int fd() const { return file_.get(); }
  // Short only at the end of the file. Negative: -errno.
  std::int64_t read(std::uint64_t offset, std::span<std::uint8_t> into);

 private:
  void look_ahead(std::uint64_t piece);
  std::uint64_t ask_until(std::uint64_t end);
  void drop_until(std::uint64_t piece);

  const UniqueFd file_;
  const std::uint64_t size_, pieces_;
  std::mutex mutex_;
  std::uint64_t asked_to_ = 0;                     // bytes that the disk was asked for
  std::uint64_t looked_from_ = 0, looked_to_ = 0;  // pieces
  std::map<std::uint64_t, bool>
      ours_;  // pieces that were looked at and not passed: nothing of it was in the page cache
};

}  // namespace holdfast::platform
