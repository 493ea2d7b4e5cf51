// SPDX-License-Identifier: Apache-2.0
// For tests only: what a passive's disk holds beside the tree, as small as a model test needs it: segments that lose what was not synced, and the
// state cell. All of it hangs on one fuse.
#pragma once

#include <map>
#include <memory>
#include <random>

#include "log/segment.h"
#include "mirror/test_tree.h"
#include "ports/durable_cell.h"
#include "ports/segments.h"

namespace holdfast::mirror::testing {

// Segments are as long as what was written to them: the big ones of the product would make up most of a run's time.
class ModelSegments final : public ports::SegmentStore {
 public:
  explicit ModelSegments(Fuse& fuse) : fuse_(fuse) {}
  // Each sector that was not synced is kept or lost.
  void crash(std::mt19937& random) {
    const unsigned percents[] = {0, 50, 100};
    const unsigned percent = percents[random() % 3];
    for (auto& [number, f] : files_) {
      for (const auto& [offset, length] : f->unsynced)
        for (std::uint64_t at = offset; at < offset + length;) {
          const std::uint64_t n = std::min(sector_bytes - at % sector_bytes, offset + length - at);
          if (random() % 100 < percent) {
            f->durable.resize(std::max<std::size_t>(f->durable.size(), at + n));
            std::copy_n(f->now.begin() + static_cast<long>(at), n, f->durable.begin() + static_cast<long>(at));
          }
          at += n;
        }
      f->unsynced.clear();
      f->now = f->durable;
    }
  }

  Result<std::vector<std::uint64_t>> list() override {
    std::vector<std::uint64_t> numbers;
    for (const auto& [number, f] : files_) numbers.push_back(number);
    return numbers;
  }
  Result<std::unique_ptr<ports::SegmentFile>> create(std::uint64_t number, std::uint64_t) override {
    HF_STEP(fuse_);
    return std::make_unique<File>(fuse_, files_[number] = std::make_shared<Content>());
  }
  Result<std::unique_ptr<ports::SegmentFile>> open(std::uint64_t number) override {
    if (!files_.contains(number)) return fail(ErrorCode::not_found, "no segment {}", number);
    return std::make_unique<File>(fuse_, files_[number]);
  }
  Status remove(std::uint64_t number) override {
    HF_STEP(fuse_);
    files_.erase(number);
    return {};
  }
  Status remove_all() override {
    HF_STEP(fuse_);
    files_.clear();
    return {};
  }

 private:
  struct Content {
    Bytes now = Bytes(log::segment_header_bytes), durable = now;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> unsynced;
  };
  class File final : public ports::SegmentFile {
   public:
    File(Fuse& fuse, std::shared_ptr<Content> content) : fuse_(fuse), content_(std::move(content)) {}
    std::uint64_t size() const override { return content_->now.size(); }
    Result<std::size_t> read_at(std::uint64_t offset, std::span<std::uint8_t> into) override {
      const Bytes& from = content_->now;
      const std::size_t n = offset >= from.size() ? 0 : std::min<std::size_t>(into.size(), from.size() - offset);
      std::copy_n(from.begin() + static_cast<long>(offset), n, into.begin());
      return n;
    }
    Status write_at(std::uint64_t offset, std::span<const ByteView> pieces) override {
      HF_STEP(fuse_);
      for (const ByteView p : pieces) {
        content_->now.resize(std::max<std::size_t>(content_->now.size(), offset + p.size()));
        std::copy(p.begin(), p.end(), content_->now.begin() + static_cast<long>(offset));
        content_->unsynced.emplace_back(offset, p.size());
        offset += p.size();
      }
      return {};
    }
    Status sync() override {
      HF_STEP(fuse_);
      content_->durable.resize(content_->now.size());
      for (const auto& [offset, length] : content_->unsynced)
        std::copy_n(content_->now.begin() + static_cast<long>(offset), length,
                    content_->durable.begin() + static_cast<long>(offset));
      content_->unsynced.clear();
      return {};
    }

   private:
    Fuse& fuse_;
    std::shared_ptr<Content> content_;
  };
  Fuse& fuse_;
  std::map<std::uint64_t, std::shared_ptr<Content>> files_;
};

class ModelCell final : public ports::DurableCell {
 public:
  explicit ModelCell(Fuse& fuse) : fuse_(fuse) {}
  Result<Bytes> load() override { return value_; }
  Status store(ByteView value) override {
    HF_STEP(fuse_);
    value_.assign(value.begin(), value.end());
    return {};
  }

 private:
  Fuse& fuse_;
  Bytes value_;
};

}  // namespace holdfast::mirror::testing
