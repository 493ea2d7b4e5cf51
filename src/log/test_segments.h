// SPDX-License-Identifier: Apache-2.0
// For tests only: segments in memory that forget on power_cut() what was not synced, in whole or (tear) in part.
#pragma once

#include <map>
#include <random>
#include <string>

#include "ports/segments.h"

namespace holdfast::log::testing {

class MemorySegments final : public ports::SegmentStore {
 public:
  struct Content {
    Bytes now, durable;
  };
  std::map<std::uint64_t, std::shared_ptr<Content>> files;
  std::vector<std::shared_ptr<Content>> spares;
  bool fail_sync = false;

  Result<std::vector<std::uint64_t>> list() override {
    std::vector<std::uint64_t> numbers;
    for (const auto& [n, f] : files) numbers.push_back(n);
    return numbers;
  }
  Result<std::unique_ptr<ports::SegmentFile>> create(std::uint64_t number, std::uint64_t bytes) override {
    std::shared_ptr<Content> content;
    if (!spares.empty()) {
      content = spares.back();
      spares.pop_back();
    } else {
      content = std::make_shared<Content>(Content{Bytes(bytes), Bytes(bytes)});
    }
    files[number] = content;
    return std::make_unique<File>(*this, content);
  }
  Result<std::unique_ptr<ports::SegmentFile>> open(std::uint64_t number) override {
    if (!files.contains(number)) return fail(ErrorCode::not_found, "no segment {}", number);
    return std::make_unique<File>(*this, files[number]);
  }
  Status remove(std::uint64_t number) override {
    spares.push_back(files[number]);
    files.erase(number);
    return {};
  }
  Status remove_all() override {
    files.clear();
    spares.clear();
    return {};
  }

  // `keep_percent` of the 512-byte sectors written since the last sync reach the disk anyway, in any order.
  void power_cut(unsigned seed = 0, unsigned keep_percent = 0) {
    std::mt19937 random(seed);
    for (auto& [n, f] : files) {
      for (std::size_t at = 0; at < f->now.size(); at += 512) {
        const std::size_t end = std::min(at + 512, f->now.size());
        if (random() % 100 < keep_percent)
          std::copy(f->now.begin() + static_cast<long>(at), f->now.begin() + static_cast<long>(end),
                    f->durable.begin() + static_cast<long>(at));
      }
      f->now = f->durable;
    }
  }

 private:
  class File final : public ports::SegmentFile {
   public:
    File(MemorySegments& store, std::shared_ptr<Content> content) : store_(store), content_(std::move(content)) {}
    std::uint64_t size() const override { return content_->now.size(); }
    Result<std::size_t> read_at(std::uint64_t offset, std::span<std::uint8_t> into) override {
      const std::size_t n =
          offset >= content_->now.size() ? 0 : std::min<std::size_t>(into.size(), content_->now.size() - offset);
      std::copy_n(content_->now.begin() + static_cast<long>(offset), n, into.begin());
      return n;
    }
    Status write_at(std::uint64_t offset, std::span<const ByteView> pieces) override {
      for (const ByteView p : pieces) {
        std::copy(p.begin(), p.end(), content_->now.begin() + static_cast<long>(offset));
        offset += p.size();
      }
      return {};
    }
    Status sync() override {
      if (store_.fail_sync) return fail(ErrorCode::io, "the disk says no");
      content_->durable = content_->now;
      return {};
    }

   private:
    MemorySegments& store_;
    std::shared_ptr<Content> content_;
  };
};

}  // namespace holdfast::log::testing
