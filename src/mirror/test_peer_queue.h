// SPDX-License-Identifier: Apache-2.0
// For tests only: a log whose records can be told by their sequence, a disk that fails on demand, and what a peer has of it.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <random>
#include <set>
#include <vector>

#include "log/record_codec.h"
#include "mirror/peer_queue.h"

namespace holdfast::mirror::testing {

class TestTimes final : public ports::Times {
 public:
  std::int64_t realtime_ns() override { return now; }
  std::int64_t steady_ns() override { return now; }
  std::atomic<std::int64_t> now{1'000'000'000};
};

// Files that are gone stay readable for who has them open, as on a disk. Any thread.
class SpillDisk {
 public:
  std::atomic<int> create_fails_in{-1}, write_fails_in{-1}, read_fails_in{-1};  // calls from now; -1: never
  std::atomic<bool> keeps_bytes{true};
  std::atomic<std::size_t> files{0};

  PeerQueue::OpenStore opener() {
    return [this]() -> Result<std::unique_ptr<ports::SegmentStore>> { return std::make_unique<Store>(*this); };
  }

 private:
  static bool fails(std::atomic<int>& in) { return in >= 0 && in-- == 0; }

  class File final : public ports::SegmentFile {
   public:
    File(SpillDisk& disk, std::uint64_t bytes) : disk_(disk), bytes_(bytes), content_(disk.keeps_bytes ? bytes : 0) {}
    std::uint64_t size() const override { return bytes_; }
    Result<std::size_t> read_at(std::uint64_t offset, std::span<std::uint8_t> into) override {
      const std::lock_guard lock(mutex_);
      if (offset >= content_.size()) return std::size_t{0};
      const std::size_t n = std::min<std::size_t>(into.size(), content_.size() - offset);
      std::copy_n(content_.begin() + static_cast<long>(offset), n, into.begin());
      if (fails(disk_.read_fails_in)) into[n / 2] ^= 1;
      return n;
    }
    Status write_at(std::uint64_t offset, std::span<const ByteView> pieces) override {
      if (fails(disk_.write_fails_in)) return fail(ErrorCode::io, "the disk says no");
      const std::lock_guard lock(mutex_);
      for (const ByteView p : pieces) {
        EXPECT_LE(offset + p.size(), bytes_);
        if (!content_.empty()) std::copy(p.begin(), p.end(), content_.begin() + static_cast<long>(offset));
        offset += p.size();
      }
      return {};
    }
    Status sync() override { return fail(ErrorCode::internal, "nobody asks for that"); }

   private:
    SpillDisk& disk_;
    const std::uint64_t bytes_;
    std::mutex mutex_;
    Bytes content_;
  };
  class Store final : public ports::SegmentStore {
   public:
    explicit Store(SpillDisk& disk) : disk_(disk) {}
    ~Store() override { disk_.files -= names_.size(); }
    Result<std::vector<std::uint64_t>> list() override { return std::vector(names_.begin(), names_.end()); }
    Result<std::unique_ptr<ports::SegmentFile>> create(std::uint64_t number, std::uint64_t bytes) override {
      if (fails(disk_.create_fails_in)) return fail(ErrorCode::no_space, "the disk is full");
      EXPECT_TRUE(names_.insert(number).second);
      ++disk_.files;
      return std::make_unique<File>(disk_, bytes);
    }
    Result<std::unique_ptr<ports::SegmentFile>> open(std::uint64_t) override {
      return fail(ErrorCode::internal, "nobody asks for that");
    }
    Status remove(std::uint64_t number) override {
      EXPECT_EQ(names_.erase(number), 1U);
      --disk_.files;
      return {};
    }
    Status remove_all() override { return fail(ErrorCode::internal, "nobody asks for that"); }

   private:
    SpillDisk& disk_;
    std::set<std::uint64_t> names_;
  };
};

// Which records a peer is served from the map for.
class TestSink final : public ChangeSink {
 public:
  void fold(ByteView records) override {
    while (!records.empty()) {
      const log::RecordHead head = log::head_of(records.data());
      folded.insert(head.sequence.value);
      records = records.subspan(head.length);
    }
  }
  void forget() override { folded.clear(); }
  bool has_all(Sequence after, Sequence upto) const {
    for (std::uint64_t s = after.value + 1; s <= upto.value; ++s)
      if (!folded.contains(s)) return false;
    return true;
  }
  std::set<std::uint64_t> folded;
};

constexpr NodeId this_peer{9}, another_peer{8};

// Every record says by its bytes which one it is, but for what is addressed to another peer.
inline std::size_t payload_bytes(std::uint64_t sequence, std::size_t most) {
  return static_cast<std::size_t>((sequence * 0x9E3779B97F4A7C15ULL >> 20) % most);
}
inline bool is_addressed_elsewhere(std::uint64_t sequence) { return sequence % 11 == 3; }

inline void append_next(LogRing& ring, std::size_t reserved) {
  const std::uint64_t sequence = ring.last_sequence().value + 1;
  const Bytes payload(payload_bytes(sequence, reserved), static_cast<std::uint8_t>(sequence));
  log::Record r;
  r.kind = sequence % 7 == 0 ? log::Kind::create : log::Kind::write;
  r.name = "n";
  if (is_addressed_elsewhere(sequence)) {
    r.kind = log::Kind::ship_data;
    r.addressed_to = another_peer;
  }
  r.file.bytes[0] = static_cast<std::uint8_t>(sequence);
  if (r.kind != log::Kind::create) r.payload = payload;
  ring.append(r, reserved);
}

// What comes after `after`, in order, whole, and what was appended. Returns the last one.
inline std::uint64_t check_records(ByteView records, std::uint64_t after, bool* makes_ids = nullptr) {
  while (!records.empty()) {
    log::RecordHead head;
    EXPECT_EQ(log::inspect(records, head), log::Found::record);
    EXPECT_EQ(head.sequence.value, ++after);
    const auto record = log::decode(records);
    EXPECT_TRUE(record);
    if (is_addressed_elsewhere(after)) {
      EXPECT_EQ(head.kind, log::Kind::noop);
    } else {
      EXPECT_EQ(record->file.bytes[0], static_cast<std::uint8_t>(after));
      EXPECT_TRUE(record->payload.empty() || record->payload.back() == static_cast<std::uint8_t>(after));
    }
    if (makes_ids && log::makes_ids(head.kind)) *makes_ids = true;
    records = records.subspan(head.length);
    if (::testing::Test::HasFailure()) break;
  }
  return after;
}

}  // namespace holdfast::mirror::testing
