// SPDX-License-Identifier: Apache-2.0
// A log in segments: appended by the receiver, read by the applier, recovered after a crash. Sequences in it are gapless.
// Threads: append/sync/seal by one thread at a time (the receiver holds the append lock); read() by one reader at the same time;
// trim() by the reader's thread. durable() from any thread.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>

#include "base/types.h"
#include "log/segment.h"
#include "ports/segments.h"

namespace holdfast::log {

struct Recovery {
  Position end;                 // last whole record, or what the log continues
  std::uint64_t cut_bytes = 0;  // torn tail that was removed
  bool found = false;           // false: no log here yet
};

class SegmentLog {
 public:
  // `segment_bytes` must hold the biggest group.
  explicit SegmentLog(ports::SegmentStore& store, std::uint64_t segment_bytes = default_segment_bytes);

  // Opens what is there. `known_durable`: everything up to here was durable once (the checkpoint): missing it is damage, not a torn tail.
  // ErrorCode::corrupt says where and what to do; nothing was changed then. A cut tail is zeroed durably before this returns.
  Result<Recovery> recover(Sequence known_durable);
  // Forgets everything; the log continues `position` from now on. Durable.
  Status reset(Position position);

  Position end() const { return end_; }  // appender's thread
  Sequence durable() const { return Sequence(durable_.load()); }
  std::uint64_t first_kept() const { return first_kept_.load(); }  // lowest sequence that read() can give
  // Appends whole records (inspect() accepted them), of sequences end()+1..., last one = `last`. Not durable yet.
  Status append(ByteView records, std::uint32_t count, Position last);
  // Everything appended before the call is durable after it. A failure is final.
  Status sync();

  // Records from `after`+1 on, whole groups (so the first may lie at or before `after`: skip those), at most about `max_bytes`, durable
  // ones only; empty when there are none yet.
  Result<Bytes> read(Sequence after, std::size_t max_bytes);
  // Segments wholly at or below `applied` are given up; the last one always stays (it says where we stand).
  Status trim(Sequence applied);

 private:
  struct Segment {
    SegmentHeader header;
    std::shared_ptr<ports::SegmentFile> file;
    std::uint64_t used = segment_header_bytes;  // end of the last whole group
    Sequence last;                              // of the last whole group; header.before.sequence when empty
  };
  Segment* last_segment();
  Status add_segment(Position before);
  Result<bool> scan(Segment& segment, bool is_last, Sequence known_durable, Position& end, std::uint64_t& cut);
  Status judge_tail(const Segment& segment, ByteView content, std::size_t at, Sequence expected, bool is_last,
                    Sequence known_durable, std::uint64_t& cut);
  Status zero_tail(Segment& segment, ByteView content, std::size_t at);

  ports::SegmentStore& store_;
  const std::uint64_t segment_bytes_;
  Position end_;
  bool unsynced_ = false;
  std::atomic<std::uint64_t> durable_{0}, first_kept_{0};
  std::mutex segments_mutex_;     // the list, not the files
  std::deque<Segment> segments_;  // ascending numbers
  // reader's place
  std::uint64_t read_number_ = 0, read_offset_ = 0;
  Sequence read_next_;
};

}  // namespace holdfast::log
