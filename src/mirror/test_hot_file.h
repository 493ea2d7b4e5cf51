// SPDX-License-Identifier: Apache-2.0
// For tests only: a hot set over a disk in memory.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "log/test_segments.h"
#include "mirror/hot_set.h"

namespace holdfast::mirror::testing {

using log::testing::MemorySegments;

class FakeTimes final : public ports::Times {
 public:
  std::int64_t realtime_ns() override { return now; }
  std::int64_t steady_ns() override { return now; }
  std::atomic<std::int64_t> now{1};
};

inline FileId id_of(unsigned number) {
  FileId id;
  std::memcpy(id.bytes.data() + 8, &number, sizeof number);
  id.bytes[0] = 0x0b;
  return id;
}

// Tells of every call, and can be made to lie about syncs.
class WatchedFile final : public ports::SegmentFile {
 public:
  explicit WatchedFile(std::unique_ptr<ports::SegmentFile> file) : file_(std::move(file)) {}
  std::uint64_t size() const override { return file_->size(); }
  Result<std::size_t> read_at(std::uint64_t offset, std::span<std::uint8_t> into) override {
    return file_->read_at(offset, into);
  }
  Status write_at(std::uint64_t offset, std::span<const ByteView> pieces) override {
    HF_TRY(file_->write_at(offset, pieces));
    if (called) called();
    return {};
  }
  Status sync() override {
    if (!lies) HF_TRY(file_->sync());
    if (called) called();
    return {};
  }
  std::function<void()> called;
  bool lies = false;

 private:
  std::unique_ptr<ports::SegmentFile> file_;
};

inline constexpr HotSetOptions small{64, 16, 1'000'000, 1};

struct HotSetFile {
  MemorySegments disk;
  FakeTimes times;
  unsigned blocks = 0;
  std::unique_ptr<WatchedFile> file;

  explicit HotSetFile(HotSetOptions options = small) {
    file = std::make_unique<WatchedFile>(disk.create(1, hot_file_bytes(options.slots)).value());
  }
  HotSetPorts ports() {
    return {*file, times, [this]() -> Result<FileId> {
              FileId base = id_of(++blocks);
              base.bytes[0] = 0xb1;
              std::memcpy(base.bytes.data() + 1, &blocks, 4);
              return base;
            }};
  }
  std::unique_ptr<HotSet> open(HotSetOptions options = small) {
    auto opened = HotSet::open(ports(), options);
    EXPECT_TRUE(opened) << opened.error().message;
    return std::move(*opened);
  }
};

inline Status begin_epoch(HotSet& hot, Epoch epoch, Position covered) {
  HF_ASSIGN(const HotMark mark, hot.draw(epoch));
  return hot.begin(mark, covered);
}

inline bool covers(const std::vector<HotNote>& notes, SetNumber set, const FileId& id, bool folder) {
  return std::any_of(notes.begin(), notes.end(), [&](const HotNote& n) {
    switch (n.kind) {
      case HotKind::set:
        return n.set == set;
      case HotKind::block: {
        FileId base = id;
        base.bytes[6] = base.bytes[7] = 0;
        return base == n.id;
      }
      case HotKind::folder:
        return n.set == set && n.id == id && folder;
      case HotKind::file:
        return n.set == set && n.id == id && !folder;
    }
    return false;
  });
}

}  // namespace holdfast::mirror::testing
