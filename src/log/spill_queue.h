// SPDX-License-Identifier: Apache-2.0
// What one peer has not acknowledged and no longer fits into the ring, in files. Batches of whole records, in order and without a gap; where
// each one is stands in memory only. Nothing here is ever synced or recovered: a process that dies loses its ring too.
//
//   segment: group, group, .. (as in log/segment.h, without a segment header), as long as they fit
//
// Threads: write(), take_given_up() and remove() by one thread (the spooler), of those only take_given_up() under the owner's lock; read() from
// any, without a lock; everything else under the owner's lock. A file that is given up stays readable for who holds its Batch.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "base/types.h"
#include "log/segment.h"
#include "ports/segments.h"

namespace holdfast::log {

class SpillQueue {
 public:
  struct Batch {
    Position before, first, last;  // before: what the first one continues
    std::uint32_t count = 0;
    std::uint64_t segment = 0, offset = 0, bytes = 0;  // bytes of records, after the group's head
    std::shared_ptr<ports::SegmentFile> file;
  };
  // `store` is empty and for this queue alone.
  SpillQueue(std::unique_ptr<ports::SegmentStore> store, std::uint64_t segment_bytes)
      : store_(std::move(store)), segment_bytes_(segment_bytes) {}

  // --- spooler
  // No part of the queue before add(); all but `records` and `limit_bytes` (of all segments) comes in `batch`, and is completed here.
  // ErrorCode::refused: the limit; no_space: the disk is full; else the disk fails. What was in the queue is as it was.
  Result<Batch> write(Batch batch, ByteView records, std::uint64_t limit_bytes);
  std::vector<std::uint64_t> take_given_up();                 // segments that nothing of the queue is in any more
  Status remove(const std::vector<std::uint64_t>& segments);  // those; what fails is given up again

  void add(Batch batch);     // continues what is there
  void trim(Sequence upto);  // whole batches
  void clear();
  bool empty() const { return batches_.empty(); }
  const Batch& front() const { return batches_.front(); }
  const Batch& back() const { return batches_.back(); }
  const Batch* find(Sequence sequence) const;     // who holds it; until the next change. nullptr: not here
  std::uint64_t bytes() const { return bytes_; }  // of records
  std::size_t segments() const { return segment_count_.load(); }
  std::uint64_t segment_bytes() const { return segment_bytes_; }

  // The records of a batch, whole and gapless and those that were written. ErrorCode::corrupt, or the disk's.
  static Result<Bytes> read(const Batch& batch);

 private:
  const std::unique_ptr<ports::SegmentStore> store_;
  const std::uint64_t segment_bytes_;
  std::deque<Batch> batches_;
  std::uint64_t bytes_ = 0;
  // spooler's
  std::vector<std::uint64_t> on_disk_;  // ascending; the last is being written, if `file_`
  std::shared_ptr<ports::SegmentFile> file_;
  std::uint64_t last_number_ = 0, used_ = 0;
  std::atomic<std::size_t> segment_count_{0};
};

}  // namespace holdfast::log
