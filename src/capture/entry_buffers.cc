// SPDX-License-Identifier: Apache-2.0
#include "capture/entry_buffers.h"

#include <sys/mman.h>

#include <cerrno>

#include "base/check.h"
#include "base/log.h"

namespace holdfast::capture {
namespace {

// Far from where programs, heaps, libraries and stacks are put. One place a connection.
constexpr std::uint64_t first_place = 0x2000'0000'0000, places_apart = std::uint64_t{64} << 30;
constexpr unsigned places = 256;
constexpr std::size_t most_slots = 16 * 1024;

void* map_at(std::uint64_t at, std::size_t bytes, int file) {
  void* const wanted = reinterpret_cast<void*>(at);
  void* const got =
      mmap(wanted, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE | MAP_NORESERVE, file, 0);
  if (got == MAP_FAILED) return nullptr;
  if (got == wanted) return got;
  munmap(got, bytes);
  errno = EEXIST;
  return nullptr;
}

}  // namespace

EntryBuffers::EntryBuffers(Descriptor file, void* memory, std::size_t slots)
    : file_(std::move(file)), memory_(static_cast<std::uint8_t*>(memory)), slots_(slots), taken_(slots) {}

EntryBuffers::~EntryBuffers() { munmap(memory_, slots_ * stride); }

Result<std::unique_ptr<EntryBuffers>> EntryBuffers::create(std::size_t slots) {
  const std::size_t bytes = slots * stride;
#ifndef __SANITIZE_THREAD__  // it has no shadow of memory there
  // Machines of more CPUs than that go without: their captures can't be handed over.
  Descriptor file(slots <= most_slots ? memfd_create("holdfast-capture", MFD_CLOEXEC) : -1);
  if (file.get() >= 0 && ftruncate(file.get(), static_cast<off_t>(bytes)) == 0)
    for (unsigned i = 0; i < places; ++i)
      if (void* const memory = map_at(first_place + i * places_apart, bytes, file.get()))
        return std::unique_ptr<EntryBuffers>(new EntryBuffers(std::move(file), memory, slots));
  if (slots <= most_slots)
    log_warning("no memory that another process can take over: {}", errno_error(errno, "mmap").message);
#endif
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return fail_errno(errno, "no memory for the requests of a capture");
  return std::unique_ptr<EntryBuffers>(new EntryBuffers(Descriptor(), memory, slots));
}

Result<std::unique_ptr<EntryBuffers>> EntryBuffers::adopt(Descriptor file, std::uint64_t at, std::size_t slots) {
  struct stat st;
  if (slots == 0 || slots > most_slots || fstat(file.get(), &st) != 0 ||
      st.st_size != static_cast<off_t>(slots * stride))
    return fail(ErrorCode::corrupt, "the memory of a capture's requests is not what it is said to be");
  void* const memory = map_at(at, slots * stride, file.get());
  if (!memory) return fail_errno(errno, "the memory of a capture's requests can't be mapped at {:x}", at);
  return std::unique_ptr<EntryBuffers>(new EntryBuffers(std::move(file), memory, slots));
}

std::optional<unsigned> EntryBuffers::take() {
  const std::lock_guard guard(mutex_);
  for (unsigned slot = 0; slot < slots_; ++slot) {
    if (taken_[slot]) continue;
    taken_[slot] = true;
    return slot;
  }
  return std::nullopt;
}

bool EntryBuffers::take(unsigned slot) {
  const std::lock_guard guard(mutex_);
  if (slot >= slots_ || taken_[slot]) return false;
  taken_[slot] = true;
  return true;
}

void EntryBuffers::give_back(unsigned slot) {
  const std::lock_guard guard(mutex_);
  taken_[slot] = false;
}

}  // namespace holdfast::capture
