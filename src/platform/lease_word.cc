// SPDX-License-Identifier: Apache-2.0
#include "platform/lease_word.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstddef>
#include <ctime>
#include <filesystem>
#include <utility>

#include "base/check.h"
#include "platform/unique_fd.h"

namespace holdfast::platform {

namespace {
constexpr std::uint64_t word_magic = 0x65736165'4C664C48;  // "HLfLease"
constexpr std::uint32_t word_version = 1;
constexpr std::int64_t ns_per_ms = 1'000'000;
constexpr int reader_tries =
    1'000;  // of a few ns: a writer needs about 20 ns, one that takes longer is stopped or dead
}  // namespace

struct LeaseWord::Word {
  std::atomic<std::uint64_t> magic;
  std::atomic<std::uint32_t> version;
  std::atomic<std::uint32_t> lock;
  std::atomic<std::uint32_t> changes;
  std::uint32_t reserved;
  std::atomic<std::uint64_t> epoch;
  std::atomic<std::int64_t> boot_ns;
  std::atomic<std::int64_t> real_ns;
  std::atomic<std::uint64_t> tsc_ticks;
  std::atomic<std::int64_t> lease_ns;
  std::atomic<std::uint64_t> revoked;
};

Result<LeaseWord> LeaseWord::open(Side side, const std::string& path) {
  static_assert(std::atomic<std::uint64_t>::is_always_lock_free, "the word is shared between processes");
  static_assert(offsetof(Word, changes) == 16 && offsetof(Word, epoch) == 24 && offsetof(Word, revoked) == 64,
                "the layout is a format");
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST)
    return fail_errno(errno, "cannot create {}", folder.string());
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return fail_errno(errno, "cannot open the lease word {}", path);
  if (side == Side::writer && flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK)
      return fail(ErrorCode::busy, "another holdfastd runs on this machine (it holds {})", path);
    return fail_errno(errno, "cannot lock {}", path);
  }
  struct stat st {};
  if (fstat(fd.get(), &st) != 0) return fail_errno(errno, "cannot look at {}", path);
  if (st.st_size < static_cast<off_t>(sizeof(Word)) && ftruncate(fd.get(), sizeof(Word)) != 0)
    return fail_errno(errno, "cannot size {}", path);
  void* map = mmap(nullptr, sizeof(Word), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd.get(), 0);
  if (map == MAP_FAILED) return fail_errno(errno, "cannot map {}", path);
  auto* word = static_cast<Word*>(map);
  LeaseWord result(fd.release(), word);
  // All zero is a valid, empty word: whoever comes first writes the header, and both would write the same.
  if (word->magic.load() == 0 && word->version.load() == 0) {
    word->version.store(word_version);
    word->magic.store(word_magic);
  }
  if (word->magic.load() != word_magic || word->version.load() != word_version) {
    if (side == Side::reader)
      return fail(ErrorCode::corrupt, "{} is not a lease word of this version: restart holdfastd", path);
    for (auto* field : {&word->epoch, &word->tsc_ticks, &word->revoked}) field->store(0);
    for (auto* field : {&word->boot_ns, &word->real_ns, &word->lease_ns}) field->store(0);
    word->version.store(word_version);
    word->magic.store(word_magic);
  }
  // A writer that died in mid-update left a mixture: nothing of it may count.
  if (side == Side::writer && (word->lock.load() & 1U) != 0) {
    word->lease_ns.store(0);
    word->lock.fetch_add(1);
  }
  return result;
}

LeaseWord::LeaseWord(LeaseWord&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), word_(std::exchange(other.word_, nullptr)), hz_(other.hz_) {}

LeaseWord& LeaseWord::operator=(LeaseWord&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(word_, other.word_);
  return *this;
}

LeaseWord::~LeaseWord() {
  if (word_ != nullptr) munmap(word_, sizeof(Word));
  if (fd_ >= 0) close(fd_);  // gives the writer's lock back, too
}

Status LeaseWord::extend(Epoch epoch, const ClockReading& sent, std::int64_t lease_ns) {
  CHECK(lease_ns > 0 && epoch.value > 0, "lease of {} ns for epoch {}", lease_ns, epoch.value);
  if (word_->revoked.load() >= epoch.value)
    return fail(ErrorCode::stale, "epoch {} was given up on this node", epoch.value);
  if (word_->epoch.load() > epoch.value)
    return fail(ErrorCode::stale, "epoch {} is over: {} was held here since", epoch.value, word_->epoch.load());
  word_->lock.fetch_add(1, std::memory_order_acq_rel);
  std::atomic_thread_fence(std::memory_order_release);
  word_->epoch.store(epoch.value, std::memory_order_relaxed);
  word_->boot_ns.store(sent.boot_ns, std::memory_order_relaxed);
  word_->real_ns.store(sent.real_ns, std::memory_order_relaxed);
  word_->tsc_ticks.store(sent.tsc_ticks, std::memory_order_relaxed);
  word_->lease_ns.store(lease_ns, std::memory_order_relaxed);
  word_->lock.fetch_add(1, std::memory_order_release);
  wake();
  return {};
}

void LeaseWord::revoke(Epoch epoch) {
  std::uint64_t seen = word_->revoked.load();
  while (seen < epoch.value && !word_->revoked.compare_exchange_weak(seen, epoch.value)) {
  }
  wake();
}

std::int64_t LeaseWord::remaining_ns_at(Epoch epoch, const ClockReading* now) const {
  for (int i = 0; i < reader_tries; ++i) {
    const std::uint32_t before = word_->lock.load(std::memory_order_acquire);
    const std::uint64_t held = word_->epoch.load(std::memory_order_relaxed);
    ClockReading sent;
    sent.boot_ns = word_->boot_ns.load(std::memory_order_relaxed);
    sent.real_ns = word_->real_ns.load(std::memory_order_relaxed);
    sent.tsc_ticks = word_->tsc_ticks.load(std::memory_order_relaxed);
    const std::int64_t lease_ns = word_->lease_ns.load(std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_acquire);
    if ((before & 1U) != 0 || word_->lock.load(std::memory_order_relaxed) != before) continue;
    if (held != epoch.value || epoch.value == 0 || word_->revoked.load(std::memory_order_acquire) >= epoch.value)
      return 0;
    // The clocks are read after the word: what passed in between only shortens the lease.
    const std::int64_t left = lease_ns - holder_elapsed_ns(sent, now != nullptr ? *now : read_clocks(), hz_);
    return left > 0 ? left : 0;
  }
  return 0;
}

Epoch LeaseWord::epoch() const { return Epoch(word_->epoch.load()); }

bool LeaseWord::over(Epoch epoch) const {
  return word_->revoked.load() >= epoch.value || word_->epoch.load() > epoch.value;
}

void LeaseWord::wake() const {
  word_->changes.fetch_add(1);
  syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word_->changes), FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

LeaseWait LeaseWord::wait_valid(Epoch epoch, std::int64_t timeout_ms) const {
  const auto monotonic_ns = [] {
    timespec t{};
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * std::int64_t{1'000'000'000} + t.tv_nsec;
  };
  const std::int64_t deadline = timeout_ms < 0 ? -1 : monotonic_ns() + timeout_ms * ns_per_ms;
  for (;;) {
    const std::uint32_t seen = word_->changes.load();  // before the look: a change after it ends the sleep at once
    if (valid(epoch)) return LeaseWait::valid;
    if (over(epoch)) return LeaseWait::epoch_over;
    timespec left{};
    if (deadline >= 0) {
      const std::int64_t ns = deadline - monotonic_ns();
      if (ns <= 0) return LeaseWait::timed_out;
      left = {ns / 1'000'000'000, ns % 1'000'000'000};
    }
    syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word_->changes), FUTEX_WAIT, seen,
            deadline >= 0 ? &left : nullptr, nullptr, 0);
  }
}

}  // namespace holdfast::platform
