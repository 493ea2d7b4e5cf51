// SPDX-License-Identifier: Apache-2.0
// The undo history of a passive: batches of cells with their old values, in a segment log of its own (docs/formats/log.md).
//
//   group                                   group ...                        group               group
//   +------------+------+- - -+------+      +------+- - -+------+------+     +------+- - -+     +------------+- -
//   | undo_batch | cell |     | cell |      | cell |     | cell | seal |     | late |     |     | undo_batch |
//   +------------+------+- - -+------+      +------+- - -+------+------+     +------+- - -+     +------------+- -
//
//   payload of undo_batch: version u8 = 1, why u8, life u64, before {epoch u64, sequence u64}, after {the same}, first_time_ns i64,
//   last_time_ns i64, made_ns i64 (this node's clock), flags u8 (1: `before` is a consistent point; 2: at `before` the tree was that of an active that died), previous u64 (number of the last batch
//   before it that was sealed), target u64 (of a rewind), sets and partial sets (varint count, u16 each)
//
// A batch's number is the sequence of its head in this log; it rises for ever, names the point at the batch's start, and stamps graves. A head
// always begins a group, so the index is made anew from group heads. A head without seal is void: nothing of it was executed. Only a crash or
// a full disk leaves one, and the next head's `previous` says so.
// Threads: as UndoWriter; batches() and stats() from any; read() beside the writer.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "log/record.h"
#include "log/segment_log.h"
#include "mirror/undo.h"
#include "ports/times.h"

namespace holdfast::mirror {

// Each is an entry in memory.
constexpr std::size_t max_undo_batches = 250'000;
constexpr std::uint64_t max_graves = 1'000'000;
constexpr std::int64_t default_undo_age_ns = 24LL * 3600 * 1'000'000'000;

struct UndoSettings {
  std::uint64_t max_bytes = 0;
  std::uint64_t max_grave_bytes = 0;  // deleted objects kept for it; 0: as max_bytes
  std::int64_t max_age_ns = default_undo_age_ns;
  // What the journal's file system has left, and what of that others need (the receive log, the mirror's state): history goes rather than that.
  std::function<std::uint64_t()> free_bytes;
  std::uint64_t reserve_bytes = 0;
};

struct UndoBatch {
  std::uint64_t number = 0;
  UndoHead head;
  std::int64_t made_ns = 0;
  log::Place place;
};
struct UndoGap {
  std::uint64_t number = 0;
  SetNumber set = 0;  // 0: all
  std::string why;
  std::int64_t made_ns = 0;  // this node's clock
};
struct UndoStats {
  std::uint64_t bytes = 0, limit_bytes = 0, batches = 0, late_groups = 0;
  std::int64_t oldest_time_ns = 0, newest_time_ns = 0;  // the active's clock; 0: nothing usable
  std::string damage;                                   // empty: none was found at the start
};

class UndoJournal final : public UndoWriter {
 public:
  // Damage does not stop a node that only writes history: it is given up, stats().damage says so, and history begins anew.
  // `on` false: as turn(false) leaves it, and nothing is made where nothing is; but what is there is opened, for who may need it: turn() it off.
  static Result<std::unique_ptr<UndoJournal>> open(ports::SegmentStore& store, ports::Times& times,
                                                   UndoSettings settings,
                                                   std::uint64_t segment_bytes = log::default_segment_bytes,
                                                   bool on = true);

  bool on() const override { return on_; }
  Status turn(bool on) override;
  Result<RedoPlan> redo(Position checkpoint, std::uint64_t life, Position log_end) override;
  Status resume(Covered& covered) override;
  Status load(std::uint64_t from, const std::set<SetNumber>& sets, Covered& covered, std::size_t most) override;
  Status begin(const UndoHead& head) override;
  Status add(const Cell& cell) override;
  Status expect(std::uint64_t bytes) override;
  Status seal() override;
  Status flush_late() override;
  Status sync() override;
  Status gap(SetNumber set, std::string_view why) override;
  Status jump(UndoHead head) override;
  std::uint64_t current_batch() const override;
  std::uint64_t next_batch() const override { return next_number(); }
  std::uint64_t oldest_batch() const override;
  bool starved() const override { return starved_; }
  bool hopeless() const override { return hopeless_; }
  bool pinned() const override;
  Result<bool> drop_oldest(std::string_view why) override;
  Result<bool> keep_bounds(const GravesHeld& graves, const GravesInside& inside) override;
  Result<bool> shed() override;

  // --- for rewinds and views
  std::vector<UndoBatch> batches() const;  // oldest first; continuations (why resume) among them
  std::vector<UndoGap> gaps() const;
  // Why the history begins where it does, when that is neither its age nor its own size: what of it was given up last, in this life.
  std::optional<UndoGap> shortened() const;
  std::optional<UndoGap> take_shortened();  // the last one since it was asked for, though it may be no reason any more
  // The set's history is whole from the start of this batch on.
  bool reaches(std::uint64_t batch, SetNumber set) const;
  // The batch at whose start the trees hold what happened up to this whole second of the active's clock, and nothing after this time; nullopt: that
  // is now. ErrorCode::not_found: the history begins later.
  Result<std::optional<UndoBatch>> point_at(std::int64_t time_ns) const;
  // The first batch from this number on that is a point; nullopt: that is now.
  std::optional<UndoBatch> first_from(std::uint64_t number) const;
  // No gap of all sets lies between this number and now, and the history begins before it.
  bool is_reachable(std::uint64_t number) const;
  // The active's clock at the last record that is in the trees at the batch's start; 0: not known.
  std::int64_t time_before(const UndoBatch& batch) const;
  std::uint64_t bytes_since(std::uint64_t number) const;
  // Age alone does not give up what lies at or after this batch; size does. 0: nothing is held.
  void keep_from(std::uint64_t batch);
  // Nothing at or after this batch is given up, whatever the bounds say; 0: nothing is held. One pin a holder.
  void pin(const std::string& holder, std::uint64_t batch);
  std::uint64_t next_number() const { return log_.end().sequence.value + group_count_ + 1; }  // writer's thread
  bool has_room(std::uint64_t bytes) const;  // on its file system, beside the reserve
  // All cells of sealed batches from `from` on, oldest first, as records (kinds undo_*); heads too.
  using Visit = std::function<Status(const UndoBatch& batch, const log::Record& record)>;
  Status read(std::uint64_t from, const Visit& visit);
  // All records from `at` on, of groups that were appended, sealed or not; `at` is then where the next one will be. Any thread.
  Status read_on(log::Place& at, const std::function<Status(const log::Record& record, log::Place group)>& visit);
  Result<std::optional<log::Group>> group_at(log::Place& at) { return log_.read_group(at); }

  UndoStats stats() const;
  void set_settings(UndoSettings settings);  // any thread

 private:
  UndoJournal(ports::SegmentStore& store, ports::Times& times, UndoSettings settings, std::uint64_t segment_bytes);
  Status recover();
  Status build_index();
  Status start_anew(std::string damage);
  void leave_past();
  Status begin_anew(std::string_view why);
  Status append(const log::Record& record);
  Status flush_group();
  Status check_size(const Cell& cell);
  Status check_room(std::uint64_t bytes);
  std::uint64_t most_of_a_batch() const;
  Status write_head(const UndoHead& head);
  Result<bool> is_sealed(const UndoBatch& batch);
  Status give_up_to(Sequence end);
  Result<bool> drop_oldest_segment();
  void note_shortened(std::string_view why);
  bool is_older(std::uint64_t batch, std::int64_t than_ns) const;
  const UndoBatch* last_batch() const;  // continuations apart
  std::size_t batch_count() const;

  ports::SegmentStore& store_;
  ports::Times& times_;
  log::SegmentLog log_;
  std::atomic<bool> on_{false};
  bool opened_ = false;  // log_ was recovered
  // writer
  Bytes group_;
  std::uint32_t group_count_ = 0;
  UndoBatch open_;
  bool is_open_ = false, placed_ = false, sealed_ = false, has_cells_ = false;
  std::uint64_t open_bytes_ = 0;  // of the open batch
  bool resuming_ = false;         // batch m is executed again; cells begin a continuation
  bool last_is_gap_ = false;
  bool starved_ = false, hopeless_ = false;
  std::atomic<std::uint64_t> late_groups_{0};
  std::int64_t segment_began_ns_ = 0;  // when the newest segment's first batch was made

  mutable std::mutex mutex_;  // below
  UndoSettings settings_;
  std::deque<UndoBatch> batches_;
  std::deque<UndoGap> gaps_;
  std::optional<UndoGap> shortened_, shortened_untold_;
  std::map<std::string, std::uint64_t> pins_;
  std::uint64_t keep_from_ = 0;
  std::string damage_;
};

}  // namespace holdfast::mirror
