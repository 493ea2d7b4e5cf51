// SPDX-License-Identifier: Apache-2.0
// The memory of all io_uring entries of one connection. The kernel knows an entry by two addresses, so whoever takes the entries over must have
// the same memory at the same place: it is a file without a name, mapped where nothing else ever is.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/result.h"
#include "capture/fuse_abi.h"
#include "capture/lower.h"
#include "capture/transport.h"

namespace holdfast::capture {

class EntryBuffers {
 public:
  // Touched only as far as it is used.
  static Result<std::unique_ptr<EntryBuffers>> create(std::size_t slots);
  // Of the mirror before this one. Fails when the place is taken here.
  static Result<std::unique_ptr<EntryBuffers>> adopt(Descriptor file, std::uint64_t at, std::size_t slots);
  ~EntryBuffers();
  EntryBuffers(const EntryBuffers&) = delete;

  std::optional<unsigned> take();  // the lowest
  bool take(unsigned slot);        // this one; false: somebody has it, or there is none such
  void give_back(unsigned slot);
  fuse::UringHeader* header(unsigned slot) const {
    return reinterpret_cast<fuse::UringHeader*>(memory_ + slot * stride + max_write_bytes);
  }
  std::span<std::uint8_t> payload(unsigned slot) const { return {memory_ + slot * stride, max_write_bytes}; }

  // -1: it is this process's alone, and no other can take it over.
  int file() const { return file_.get(); }
  std::uint64_t at() const { return reinterpret_cast<std::uint64_t>(memory_); }
  std::size_t slots() const { return slots_; }

 private:
  static constexpr std::size_t stride = max_write_bytes + 4096;
  EntryBuffers(Descriptor file, void* memory, std::size_t slots);
  Descriptor file_;
  std::uint8_t* const memory_;
  const std::size_t slots_;
  std::mutex mutex_;
  std::vector<bool> taken_;
};

}  // namespace holdfast::capture
