// SPDX-License-Identifier: Apache-2.0
// What one peer has not acknowledged and no longer fits into the ring, in files. Batches of whole records, in order and without a gap; where
// each one is stands in memory only. Nothing here is ever synced or recovered: a process that dies loses its ring too.
//
//   segment: group, group, .. (as in log/segment.h, without a segment header), as long as they fit
//
// Threads: write() and clean() by one thread (the spooler) without a lock; read() from any, without a lock; everything else under the
// owner's lock. A file that is given up stays readable for who holds its Batch.
#pragma once

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
    Position first, last;
    std::uint32_t count = 0, bytes = 0;  // of the records
    std::uint64_t segment = 0, offset = 0;
    std::shared_ptr<ports::SegmentFile> file;
  };
  // `store` belongs to this queue alone, and is empty. `limit_bytes`: of all segments together.
  SpillQueue(ports::SegmentStore& store, std::uint64_t limit_bytes, std::uint64_t segment_bytes = default_segment_bytes)
      : store_(store), limit_bytes_(limit_bytes), segment_bytes_(segment_bytes) {}

  // --- spooler's thread
  // Not part of the queue before add(). ErrorCode::no_space: the bound, or the disk; anything else: the disk fails. Either way nothing has changed.
  Result<Batch> write(ByteView records, std::uint32_t count, Position first, Position last);
  struct Files {
    std::vector<std::uint64_t> given_up;
  };
  Files take_given_up();              // under the owner's lock
  Status remove(const Files& files);  // without it; what can't be removed is tried again

  // --- under the owner's lock
  void add(Batch batch);      // CHECKs that it continues last()
  void trim(Sequence acked);  // whole batches
  void clear();               // all of it
  bool empty() const { return batches_.empty(); }
  Position first() const { return batches_.front().first; }
  Position last() const { return batches_.back().last; }
  std::optional<Batch> find(Sequence sequence) const;  // the batch that holds it
  std::uint64_t bytes() const { return bytes_; }       // of records
  std::size_t segments() const { return segments_; }

  // The records of a batch, checked: whole, gapless, those that were written. ErrorCode::corrupt, or the disk's.
  static Result<Bytes> read(const Batch& batch);

 private:
  ports::SegmentStore& store_;
  const std::uint64_t limit_bytes_, segment_bytes_;
  std::deque<Batch> batches_;
  std::uint64_t bytes_ = 0;
  std::vector<std::uint64_t> given_up_;
};

}  // namespace holdfast::log
