// SPDX-License-Identifier: Apache-2.0
#include "platform/read_once.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

namespace holdfast::platform {
namespace {

// Not smaller than the page cache's biggest folios: one that is dropped in part stays.
constexpr std::uint64_t piece_bytes = std::uint64_t{4} << 20;
// Looked at ahead of what is read: more than the kernel reads ahead, or its pages would be taken for others'.
constexpr std::uint64_t pieces_ahead = 16, pieces_at_once = 16;
// Less than what is looked at ahead; and not more at once than the kernel takes.
constexpr std::uint64_t asked_ahead_bytes = 2 * piece_bytes, asked_at_once_bytes = std::uint64_t{1} << 20;
// The last ones stay for a moment: another thread may be reading there, and pages that were just read still wait in the CPUs' own lists: to drop
// such the kernel asks all CPUs.
constexpr std::uint64_t pieces_behind = 2;

}  // namespace

ReadOnce::ReadOnce(UniqueFd file, std::uint64_t size)
    : file_(std::move(file)), size_(size), pieces_((size + piece_bytes - 1) / piece_bytes) {
  ::posix_fadvise(file_.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
}

ReadOnce::~ReadOnce() { drop_until(~std::uint64_t{0}); }

std::int64_t ReadOnce::read(std::uint64_t offset, std::span<std::uint8_t> into) {
  std::uint64_t ask = 0, ask_to = 0;
  {
    const std::lock_guard lock(mutex_);
    look_ahead(offset / piece_bytes);
    ask = std::exchange(asked_to_, ask_to = ask_until(offset + into.size()));
  }
  for (; ask < ask_to; ask += asked_at_once_bytes)
    ::posix_fadvise(file_.get(), static_cast<off_t>(ask), asked_at_once_bytes, POSIX_FADV_WILLNEED);
  std::size_t done = 0;
  while (done < into.size()) {
    const ssize_t n = ::pread(file_.get(), into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
    if (n == 0) break;
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    done += static_cast<std::size_t>(n);
  }
  const std::lock_guard lock(mutex_);
  if (const std::uint64_t at = (offset + done) / piece_bytes; at > pieces_behind) drop_until(at - pieces_behind);
  return static_cast<std::int64_t>(done);
}

// A jump to where nobody looked: what read-ahead left behind there is taken for others', and stays.
void ReadOnce::look_ahead(std::uint64_t piece) {
  if (piece < looked_from_ || piece > looked_to_) looked_from_ = looked_to_ = piece;
  if (piece + pieces_ahead < looked_to_) return;
  const std::uint64_t to = std::min(piece + pieces_ahead + pieces_at_once, pieces_);
  if (to <= looked_to_) return;
  const std::uint64_t count = to - looked_to_;
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::uint64_t pages = piece_bytes / page;
  void* seen = ::mmap(nullptr, count * piece_bytes, PROT_READ, MAP_SHARED, file_.get(),
                      static_cast<off_t>(looked_to_ * piece_bytes));
  if (seen == MAP_FAILED) return;  // then it stays
  std::vector<unsigned char> there(count * pages);
  const bool known = ::mincore(seen, count * piece_bytes, there.data()) == 0;
  ::munmap(seen, count * piece_bytes);
  for (std::uint64_t i = 0; known && i < count; ++i) {
    const auto first = there.begin() + static_cast<std::ptrdiff_t>(i * pages);
    ours_[looked_to_ + i] = std::none_of(first, first + static_cast<std::ptrdiff_t>(pages),
                                         [](unsigned char one) { return (one & 1) != 0; });
  }
  looked_to_ += count;
}

// What the kernel reads ahead by itself is too little to keep a fast disk busy while one reader computes.
std::uint64_t ReadOnce::ask_until(std::uint64_t end) {
  if (end > asked_to_ || end + 2 * asked_ahead_bytes < asked_to_) asked_to_ = end;  // it begins, or jumps
  const std::uint64_t to = std::min(end + asked_ahead_bytes, size_);
  return to < asked_to_ ? asked_to_ : to - (to - asked_to_) % asked_at_once_bytes;
}

void ReadOnce::drop_until(std::uint64_t piece) {
  while (!ours_.empty() && ours_.begin()->first < piece) {
    if (ours_.begin()->second)
      ::posix_fadvise(file_.get(), static_cast<off_t>(ours_.begin()->first * piece_bytes), piece_bytes,
                      POSIX_FADV_DONTNEED);
    ours_.erase(ours_.begin());
  }
}

}  // namespace holdfast::platform
