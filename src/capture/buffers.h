// SPDX-License-Identifier: Apache-2.0
// Page-aligned memory of one request, mapped once per thread and touched only as far as used.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>

namespace holdfast::capture {

constexpr std::size_t page_bytes = 4096;

class PageBuffer {
 public:
  explicit PageBuffer(std::size_t bytes) : size_((bytes + page_bytes - 1) / page_bytes * page_bytes) {
    void* p = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    data_ = p == MAP_FAILED ? nullptr : static_cast<std::uint8_t*>(p);
  }
  ~PageBuffer() {
    if (data_) munmap(data_, size_);
  }
  PageBuffer(const PageBuffer&) = delete;
  PageBuffer& operator=(const PageBuffer&) = delete;
  std::uint8_t* data() const { return data_; }  // null: no memory
  std::size_t size() const { return size_; }

 private:
  std::size_t size_;
  std::uint8_t* data_;
};

}  // namespace holdfast::capture
