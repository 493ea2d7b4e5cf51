// SPDX-License-Identifier: Apache-2.0
// The lease deadline in shared memory: holdfastd moves it forward, the mirror and its watchdog obey it. It survives a restart of either.
//
//   offset  0 magic u64      8 version u32   12 sequence lock u32 (odd = being written)   16 change counter u32 (futex)
//          24 epoch u64     32 sent: boot_ns i64, real_ns i64, tsc_ticks u64             56 lease_ns i64
//          64 revoked up to epoch u64 (only rises)
//
// What holds: the lease of epoch e is valid iff the word carries e, e was not revoked, and by *every* clock less than lease_ns has
// passed since the reading taken before the request was sent (R6). A writer that died or hangs in mid-update reads as "not valid".
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "base/types.h"
#include "platform/clock_reading.h"

namespace holdfast::platform {

inline constexpr const char* lease_word_path = "/run/holdfast/lease";

enum class LeaseWait { valid, epoch_over, timed_out };

class LeaseWord {
 public:
  enum class Side {
    reader,
    writer,  // at most one process at a time; the second is refused with `busy`
  };
  // Creates the file (0600) and its folder (0700) when missing. A file of another version is replaced by the writer, refused to a reader.
  static Result<LeaseWord> open(Side side, const std::string& path = lease_word_path);
  LeaseWord(LeaseWord&& other) noexcept;
  LeaseWord& operator=(LeaseWord&& other) noexcept;
  LeaseWord(const LeaseWord&) = delete;
  ~LeaseWord();

  // Writer only, one thread. `sent` was read before the renewal was sent to the voters. `stale` if the epoch is revoked or older than the
  // word's: a lapsed epoch can be extended again (it was won again), a revoked one never.
  Status extend(Epoch epoch, const ClockReading& sent, std::int64_t lease_ns);
  // Either side, any thread: ends this and all earlier epochs at once and for good.
  void revoke(Epoch epoch);

  // Any thread, well below a microsecond, no system call. Read just before each success reply.
  bool valid(Epoch epoch) const { return remaining_ns(epoch) > 0; }
  // 0 when not valid.
  std::int64_t remaining_ns(Epoch epoch) const { return remaining_ns_at(epoch, nullptr); }
  // As above, for given clocks (tests; and who needs the reading itself).
  std::int64_t remaining_ns_at(Epoch epoch, const ClockReading* now) const;
  // The epoch in the word; 0 before the first extend.
  Epoch epoch() const;
  bool over(Epoch epoch) const;  // revoked, or a later epoch is in the word

  // Sleeps until `epoch` is valid or can never be again. Woken by extend and revoke of any process. timeout_ms < 0 = no limit.
  LeaseWait wait_valid(Epoch epoch, std::int64_t timeout_ms) const;
  // Wakes this object's waiters so that they look again (shutdown); each returns only for its own reason or timeout.
  void wake() const;

 private:
  struct Word;
  LeaseWord(int fd, Word* word) : fd_(fd), word_(word) {}
  int fd_ = -1;
  Word* word_ = nullptr;
  double hz_ = tsc_hz();
};

}  // namespace holdfast::platform
