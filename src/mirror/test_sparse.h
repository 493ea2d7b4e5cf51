// SPDX-License-Identifier: Apache-2.0
// For tests only: the content of a file that may be huge and mostly hole, in sectors of 512 bytes. A hole reads as zeros.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <span>

#include "base/bytes.h"

namespace holdfast::mirror::testing {

constexpr std::uint64_t sector_bytes = 512;

class SparseBytes {
 public:
  std::uint64_t size() const { return size_; }

  void write(std::uint64_t offset, ByteView bytes) {
    size_ = std::max(size_, offset + bytes.size());
    while (!bytes.empty()) {
      const std::uint64_t in = offset % sector_bytes;
      const std::size_t n = std::min<std::size_t>(bytes.size(), sector_bytes - in);
      std::copy_n(bytes.begin(), n, sectors_[offset / sector_bytes].begin() + static_cast<long>(in));
      offset += n;
      bytes = bytes.subspan(n);
    }
  }
  void resize(std::uint64_t size) {
    if (size < size_) clear(size, size_ - size);
    size_ = size;
  }
  // A hole where whole sectors are in it, zeros at its ends.
  void clear(std::uint64_t offset, std::uint64_t length) {
    const std::uint64_t end = offset + length;
    auto it = sectors_.lower_bound(offset / sector_bytes);
    while (it != sectors_.end() && it->first * sector_bytes < end) {
      const std::uint64_t begin = it->first * sector_bytes;
      if (begin >= offset && (begin + sector_bytes <= end || end >= size_)) {
        it = sectors_.erase(it);
        continue;
      }
      const std::uint64_t from = std::max(begin, offset), to = std::min(begin + sector_bytes, end);
      std::fill(it->second.begin() + static_cast<long>(from - begin),
                it->second.begin() + static_cast<long>(to - begin), 0);
      ++it;
    }
  }
  // Both on whole sectors.
  void collapse(std::uint64_t offset, std::uint64_t length) {
    clear(offset, length);
    shift(offset + length, -static_cast<std::int64_t>(length));
    size_ -= length;
  }
  void insert(std::uint64_t offset, std::uint64_t length) {
    shift(offset, static_cast<std::int64_t>(length));
    size_ += length;
  }
  std::size_t read(std::uint64_t offset, std::span<std::uint8_t> into) const {
    if (offset >= size_) return 0;
    const std::size_t n = std::min<std::uint64_t>(into.size(), size_ - offset);
    std::fill_n(into.begin(), n, 0);
    for (auto it = sectors_.lower_bound(offset / sector_bytes);
         it != sectors_.end() && it->first * sector_bytes < offset + n; ++it) {
      const std::uint64_t begin = it->first * sector_bytes;
      const std::uint64_t from = std::max(begin, offset), to = std::min(begin + sector_bytes, offset + n);
      std::copy(it->second.begin() + static_cast<long>(from - begin),
                it->second.begin() + static_cast<long>(to - begin), into.begin() + static_cast<long>(from - offset));
    }
    return n;
  }
  // First byte at or after `offset` in a sector that is there (or is not); the size when there is none.
  std::uint64_t next_data(std::uint64_t offset) const {
    if (offset >= size_) return size_;
    const auto it = sectors_.lower_bound(offset / sector_bytes);
    return it == sectors_.end() ? size_ : std::min(size_, std::max(offset, it->first * sector_bytes));
  }
  std::uint64_t next_hole(std::uint64_t offset) const {
    while (offset < size_ && sectors_.contains(offset / sector_bytes))
      offset = (offset / sector_bytes + 1) * sector_bytes;
    return std::min(offset, size_);
  }
  std::size_t sectors() const { return sectors_.size(); }
  // Reads the same; where its holes are does not count.
  bool operator==(const SparseBytes& o) const {
    if (size_ != o.size_) return false;
    const Sector zeros{};
    const auto lacks = [&](const SparseBytes& a, const SparseBytes& b) {
      return std::any_of(a.sectors_.begin(), a.sectors_.end(), [&](const auto& s) {
        const auto it = b.sectors_.find(s.first);
        return s.second != (it == b.sectors_.end() ? zeros : it->second);
      });
    };
    return !lacks(*this, o) && !lacks(o, *this);
  }

 private:
  using Sector = std::array<std::uint8_t, sector_bytes>;
  void shift(std::uint64_t from, std::int64_t by) {
    std::map<std::uint64_t, Sector> next;
    for (const auto& [number, sector] : sectors_)
      next[number * sector_bytes < from ? number
                                        : static_cast<std::uint64_t>(static_cast<std::int64_t>(number) +
                                                                     by / static_cast<std::int64_t>(sector_bytes))] =
          sector;
    sectors_ = std::move(next);
  }
  std::uint64_t size_ = 0;
  std::map<std::uint64_t, Sector> sectors_;  // bytes past the size are zero
};

}  // namespace holdfast::mirror::testing
