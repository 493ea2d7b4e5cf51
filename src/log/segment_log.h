// SPDX-License-Identifier: Apache-2.0
// A log in segments: appended by the receiver, read by the applier, recovered after a crash. Sequences in it are gapless. The undo history of a
// passive is kept in one too (mirror/undo_journal.h).
// Threads: append/sync/rotate by one thread at a time (the receiver holds the append lock); read() by one reader at the same time;
// trim() by the reader's thread. durable(), read_group() and the figures from any thread.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/types.h"
#include "log/segment.h"
#include "ports/segments.h"

namespace holdfast::log {

struct Recovery {
  Position end;                 // last whole record, or what the log continues
  std::uint64_t cut_bytes = 0;  // torn tail that was removed
  bool found = false;           // false: no log here yet
};

// Where a group stands.
struct Place {
  std::uint64_t segment = 0, offset = 0;
  auto operator<=>(const Place&) const = default;
};
struct Group {
  GroupHead head;
  Bytes records;
};

// What a log is called in messages, and what helps when it is damaged.
struct LogName {
  std::string name = "receive log";
  std::string what_to_do =
      "this copy must be made anew: remove the folder of the receive log, and the node resynchronizes";
};

class SegmentLog {
 public:
  // `segment_bytes` must hold the biggest group.
  explicit SegmentLog(ports::SegmentStore& store, std::uint64_t segment_bytes = default_segment_bytes,
                      LogName name = {});

  // Opens what is there. `known_durable`: everything up to here was durable once (the checkpoint): missing it is damage, not a torn tail.
  // ErrorCode::corrupt says where and what to do; nothing was changed then. A cut tail is zeroed durably before this returns.
  // Segments that end at or before `known_durable`, and with `trust_closed` all but the last (a later one was begun only when they were
  // durable), are not read but for their headers: a log that is kept for long must not cost minutes at each start. Damage in them is found,
  // and told, by whoever reads them.
  Result<Recovery> recover(Sequence known_durable, bool trust_closed = false);
  // Forgets everything; the log continues `position` from now on. Durable.
  Status reset(Position position);

  Position end() const { return end_; }  // appender's thread
  Sequence durable() const { return Sequence(durable_.load()); }
  std::uint64_t first_kept() const { return first_kept_.load(); }  // lowest sequence that read() can give
  // Appends whole records (inspect() accepted them), of sequences end()+1..., last one = `last`. Not durable yet. ErrorCode::no_space: nothing has
  // changed, and it may be asked again.
  Status append(ByteView records, std::uint32_t count, Position last);
  // Where the last append went. Appender's thread.
  Place last_place() const { return last_place_; }
  // Everything appended before the call is durable after it. A failure is final.
  Status sync();
  // The next append begins a segment of its own, so that all before it can be trimmed.
  Status rotate();

  // Records from `after`+1 on, whole groups (so the first may lie at or before `after`: skip those), at most about `max_bytes`, durable
  // ones only; empty when there are none yet.
  Result<Bytes> read(Sequence after, std::size_t max_bytes);
  // The group at `at`, checksums compared; `at` then is the place of the next one. nullopt: nothing was appended there yet. Not durable
  // ones too.
  Result<std::optional<Group>> read_group(Place& at);
  // Each group in order, without reading them: `start` is its first record, as far as `start_bytes` go. Appender's thread.
  using GroupVisit = std::function<Status(Place place, const GroupHead& head, ByteView start)>;
  Status for_each_group(std::size_t start_bytes, const GroupVisit& visit);
  // Segments wholly at or below `applied` are given up; the last one always stays (it says where we stand).
  Status trim(Sequence applied);
  // Last sequence of the oldest segment, which trim() of it would give up; nullopt: there is but one.
  std::optional<Sequence> oldest_segment_end() const;
  std::uint64_t size_bytes() const;                        // of all segments
  std::uint64_t size_bytes_below(Sequence applied) const;  // of those that trim(applied) would give up

 private:
  struct Segment {
    SegmentHeader header;
    std::shared_ptr<ports::SegmentFile> file;
    std::uint64_t used =
        segment_header_bytes;  // end of the last whole group; of a segment that was not read: of the file
    Sequence last;             // of the last whole group; header.before.sequence when empty
  };
  Segment* last_segment();
  Status add_segment(Position before);
  Result<std::vector<Segment>> open_segments(Sequence known_durable);
  Result<bool> scan(Segment& segment, bool is_last, Sequence known_durable, Position& end, std::uint64_t& cut);
  Status judge_tail(const Segment& segment, ByteView content, std::size_t at, Sequence expected, bool is_last,
                    Sequence known_durable, std::uint64_t& cut);
  Status zero_tail(Segment& segment, ByteView content, std::size_t at);

  ports::SegmentStore& store_;
  const std::uint64_t segment_bytes_;
  const LogName name_;
  Position end_;
  Place last_place_;
  bool unsynced_ = false;
  std::atomic<std::uint64_t> durable_{0}, first_kept_{0};
  mutable std::mutex segments_mutex_;  // the list, not the files
  std::deque<Segment> segments_;       // ascending numbers
  // reader's place
  std::uint64_t read_number_ = 0, read_offset_ = 0;
  Sequence read_next_;
};

}  // namespace holdfast::log
