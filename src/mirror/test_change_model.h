// SPDX-License-Identifier: Apache-2.0
// For tests only: one random life of a peer that keeps falling behind. An application changes a model; its records go through the real ring; the
// peer's queue keeps them, or gives up and notes what they changed (change_map.h); the peer returns, crashes, loses connections at any step, and
// gets only what changed (resync.h, changed_walk.h). Wherever it says it stands and is whole, its tree must be what the model was there.
// The queue and the session's beginning follow mirror/peer_queue.h and mirror/sender.cc in one thread. The same seed gives the same life.
#pragma once

#include <memory>
#include <string>

#include "log/record_codec.h"
#include "log/segment_log.h"
#include "mirror/active_log.h"
#include "mirror/applier.h"
#include "mirror/changed_walk.h"
#include "mirror/full_walk.h"
#include "mirror/open_questions.h"
#include "mirror/resync.h"
#include "mirror/test_change_store.h"
#include "mirror/test_live_tree.h"
#include "mirror/test_machine.h"

namespace holdfast::mirror::testing {

struct ChangeOptions {
  // Rules of the design, left out to see that the test misses them.
  enum class Flaw {
    none,
    gap_not_folded,       // records between the map's end and resync_begin
    tail_not_folded,      // records after resync_begin, until the peer is whole
    not_drained,          // start 2 of a peer that has more in its log than in its tree
    made_not_asked,       // NAK of what was made without contents
    missing_not_asked,    // NAK of what a record was about and is not here
    aside_not_asked,      // NAK of a folder taken from its place
    named_not_noted,      // what a live rename or link made empty, and the connection broke
    unsettled_forgotten,  // what was named and not confirmed when the connection broke
  };
  std::uint64_t seed = 1;
  bool trace = false;
  Flaw flaw = Flaw::none;
};

struct ChangeReport {
  std::string failure;  // empty: none
  std::uint64_t records = 0, crashes = 0, cuts = 0, partials = 0, fulls = 0, completed = 0, compared = 0;
  auto operator<=>(const ChangeReport&) const = default;
};

class ChangeRun {
 public:
  using Flaw = ChangeOptions::Flaw;
  explicit ChangeRun(const ChangeOptions& options)
      : options_(options),
        random_(static_cast<std::mt19937::result_type>(options.seed * 0x9E3779B97F4A7C15ULL >> 32) ^
                static_cast<std::mt19937::result_type>(options.seed)),
        segments_(fuse_),
        cell_(fuse_),
        tree_(std::make_shared<MemoryTree>(set, fuse_)),
        model_(set),
        live_(model_),
        application_(model_, random_, set),
        active_(least_ring_bytes, times_),
        map_(std::make_unique<MemoryChangeStore>(), "peer") {}
  ChangeReport run() {
    if (Status lived = live(); !lived) report_.failure = lived.error().to_string();
    return report_;
  }

 private:
  static constexpr SetNumber set = 1;
  struct Times final : ports::Times {
    std::int64_t now_ns = 1;
    std::int64_t realtime_ns() override { return ++now_ns; }
    std::int64_t steady_ns() override { return ++now_ns; }
  };
  unsigned pick(unsigned n) { return static_cast<unsigned>(random_() % n); }
  Sequence last() const { return Sequence(base_.sequence.value + records_.size()); }
  bool whole() const { return state_.complete.contains(set) && !state_.resyncing.contains(set); }
  void note(const std::string& line) {
    if (options_.trace) fmt::print("{}\n", line);
  }

  Status live();
  Status turn();
  Status settle();
  Status become_whole();
  Status return_with_another_past();
  Status compare();
  // --- active
  void produce(unsigned operations);
  void collect();
  void trace(ByteView record);
  Status connect();
  void cut();
  void drop_resync();
  Status send(unsigned records);
  Status acknowledge();
  void give_up();
  Status ship(unsigned steps);
  void fold(Sequence after, Sequence to);
  // --- passive
  Status start_again();
  Status store(const std::function<void(NodeState&)>& change);
  Status restart_log(Position base);
  Status survives(const Status& status);
  Result<bool> apply();
  void on_nak(const Nak& nak);

  ChangeOptions options_;
  std::mt19937 random_;
  Fuse fuse_;
  ModelSegments segments_;
  ModelCell cell_;
  std::shared_ptr<MemoryTree> tree_;
  ModelTree model_;
  ModelLiveTree live_;
  RandomModelApplication application_;
  Times times_;
  ActiveLog active_;
  ChangeMap map_;
  NoUndo no_undo_;
  std::unique_ptr<log::SegmentLog> log_;
  std::unique_ptr<Applier> applier_;
  NodeState state_;
  const NodeId peer_{7};
  Position base_{Epoch(1), Sequence(100)};
  Epoch epoch_{2};
  std::shared_ptr<LogRing::Cursor> cursor_;

  std::vector<Bytes> records_;             // all since base_
  std::map<Sequence, ModelTree> history_;  // the model after each
  // The queue: what is after `released_` is there; in mode map, what is after `noted_since_` up to there is noted.
  Sequence released_, taken_, applied_seen_;
  std::optional<Sequence> noted_since_;
  // The session, and the resynchronization that outlives it.
  bool connected_ = false;
  bool partial_ = false;  // the peer was told to restart from the map, and is not whole since
  Sequence partial_since_, partial_base_;
  bool full_ = false;
  std::optional<Sequence> counts_from_;
  std::unique_ptr<Resync> resync_;
  std::deque<Nak> naks_;  // not sent yet in this session
  OpenQuestions questions_;
  std::uint64_t life_ = 1, met_life_ = 0;
  ChangeReport report_;
};

inline Status ChangeRun::live() {
  active_.begin_epoch();
  active_.ring().open(epoch_, base_);
  HF_ASSIGN(cursor_, active_.ring().attach(base_));
  released_ = taken_ = base_.sequence;
  application_.prefer_folders(pick(3) == 0);
  state_.applied = base_;
  state_.complete.insert(set);
  history_.insert_or_assign(last(), model_);
  HF_TRY(cell_.store(encode(state_)));
  log_ = std::make_unique<log::SegmentLog>(segments_);
  HF_TRY(log_->reset(base_));
  HF_TRY(start_again());
  HF_TRY(connect());
  for (unsigned turns = 30 + pick(120); turns > 0; --turns) HF_TRY(turn());
  if (pick(3) == 0) {
    HF_TRY(return_with_another_past());
    for (unsigned turns = 20 + pick(60); turns > 0; --turns) HF_TRY(turn());
  }
  return settle();
}

// The peer led, and died: its last changes are nobody else's, and it noted where they were before it made them (hot_set.h). The others go on from
// an earlier moment.
inline Status ChangeRun::return_with_another_past() {
  HF_TRY(settle());
  HF_TRY(applier_->checkpoint());
  cut();
  auto past = history_.begin();
  std::advance(past, history_.size() - 1 - pick(static_cast<unsigned>(std::min<std::size_t>(history_.size(), 20))));
  ChangeSet hot;
  for (std::uint64_t s = past->first.value; s < last().value; ++s) {
    const auto r = log::decode(records_[s - base_.sequence.value]).value();
    if (r.set != set || r.addressed_to == peer_) continue;
    if (!r.parent.is_none()) hot.note_folder(set, r.parent);
    if (!r.parent2.is_none()) hot.note_folder(set, r.parent2);
    if (r.parent.is_none() && !r.file.is_none()) hot.note_file(set, r.file);
  }
  note(fmt::format("-- another past: from {} instead of {}", past->first.value, last().value));
  model_ = past->second;
  application_.close_all();
  base_ = {epoch_, Sequence(last().value + 1000)};
  epoch_ = epoch_.next();
  records_.clear();
  history_.clear();
  history_.insert_or_assign(last(), model_);
  (void)active_.ring().detach(cursor_);  // nobody waits for space
  active_.ring().close();
  active_.begin_epoch();
  active_.ring().open(epoch_, base_);
  HF_ASSIGN(cursor_, active_.ring().attach(base_));
  released_ = partial_since_ = partial_base_ = base_.sequence;
  noted_since_.reset();
  map_.forget();
  HF_TRY(map_.note(hot));
  partial_ = true;
  if (options_.flaw != Flaw::named_not_noted) map_.begin_partial();
  HF_TRY(restart_log(base_));
  return connect();
}

inline Status ChangeRun::turn() {
  const unsigned n = pick(40);
  if (n < 9) {
    produce(1 + pick(8));
  } else if (n < 14) {
    if (!connected_) HF_TRY(connect());
  } else if (n < 19) {
    return ship(1 + pick(10));
  } else if (n < 24) {
    return survives(send(1 + pick(12)));
  } else if (n < 29) {
    return survives(apply().map([](bool) {}));
  } else if (n < 32) {
    return survives(acknowledge());
  } else if (n < 33) {
    return survives(applier_->checkpoint());
  } else if (n < 35) {
    cut();
  } else if (n < 38) {
    give_up();
  } else if (n < 39 && fuse_.left > 1000) {
    fuse_.left = pick(80);
  }
  return {};
}

// --- the active

inline void ChangeRun::produce(unsigned operations) {
  application_.allow_shifts(true);
  for (OwnedRecord r; operations > 0; --operations) {
    if (!application_.step(r)) continue;
    const log::Record view = r.view();
    const std::size_t bytes = view.payload.size() + view.name.size() + view.name2.size();
    CHECK(active_.try_reserve(bytes), "the ring is full");
    active_.append(view, bytes);
    collect();
  }
  (void)application_.take_moved();
}

inline void ChangeRun::trace(ByteView record) {
  if (!options_.trace) return;
  const auto r = log::decode(record).value();
  note(fmt::format("{:6} {}{} file {} parent {} \"{}\" parent2 {} \"{}\" offset {} length {} flags {} payload {}",
                   r.sequence.value, r.addressed_to == peer_ ? "* " : "", log::to_string(r.kind),
                   r.file.to_hex().substr(0, 6), r.parent.to_hex().substr(0, 6), r.name,
                   r.parent2.to_hex().substr(0, 6), r.name2, r.offset, r.length, r.flags, r.payload.size()));
}

// What was appended, as the peer is sent it.
inline void ChangeRun::collect() {
  Bytes scratch;
  for (;;) {
    const LogRing::Batch batch = active_.ring().take(*cursor_, max_batch_bytes, peer_, scratch);
    if (batch.count == 0) return;
    for (ByteView rest = scratch; !rest.empty();) {
      const std::size_t length = log::head_of(rest.data()).length;
      records_.emplace_back(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(length));
      rest = rest.subspan(length);
      trace(records_.back());
      ++report_.records;
      history_.insert_or_assign(last(), model_);
    }
    (void)active_.ring().release(*cursor_, batch.end);  // nobody waits for space
  }
}

inline void ChangeRun::fold(Sequence after, Sequence to) {
  Bytes bytes;
  for (std::uint64_t s = after.value; s < to.value; ++s) {
    const Bytes& r = records_[s - base_.sequence.value];
    bytes.insert(bytes.end(), r.begin(), r.end());
  }
  map_.fold(bytes);
}

// The bound is hit: what is not acknowledged is noted from now on, and the session ends.
inline void ChangeRun::give_up() {
  if (last() == released_) return;
  const Sequence to(released_.value + 1 + pick(static_cast<unsigned>(last().value - released_.value)));
  if (!noted_since_) noted_since_ = released_;
  fold(released_, to);
  released_ = to;
  note(fmt::format("-- given up: noted after {} up to {}", noted_since_->value, released_.value));
  if (connected_ && taken_ < released_) cut();
}

inline void ChangeRun::cut() {
  if (!connected_) return;
  ++report_.cuts;
  note("-- the connection breaks");
  connected_ = false;
  naks_.clear();
}

// sender_resync.cc: drop_resync, keep_doubts.
inline void ChangeRun::drop_resync() {
  counts_from_.reset();
  if (!resync_) return;
  resync_->cancel();
  if (partial_ && options_.flaw != Flaw::unsettled_forgotten)
    for (const auto& [id, folder] : resync_->unsettled()) {
      map_.note_object(set, id);
      if (!folder.is_none()) map_.note_place(set, folder);
    }
  resync_.reset();
}

// sender.cc: place_cursor.
inline Status ChangeRun::connect() {
  HF_TRY(survives(log_->sync()));
  const Position x = log_->end();
  bool restart = false;
  Sequence base = x.sequence;
  bool from_map = false;
  const auto continues = [&](Sequence at) { return !noted_since_ && at >= released_ && at <= last(); };
  const auto in_map = [&](Sequence at) { return noted_since_ && at >= *noted_since_ && at <= released_; };
  const auto back_in_ring = [&](Sequence at) { return noted_since_ && at >= released_ && at <= last(); };
  if (continues(x.sequence) || back_in_ring(x.sequence)) {
    if (noted_since_ && !partial_) map_.forget();
    noted_since_.reset();
    released_ = x.sequence;
  } else if (in_map(x.sequence)) {
    restart = from_map = true;
    if (!partial_) partial_since_ = *noted_since_;
    base = released_;
  } else if (partial_ && x.sequence >= partial_since_ && x.sequence <= partial_base_) {
    restart = from_map = true;  // it was told, and did not do it
    base = continues(partial_base_) ? partial_base_ : released_;
  } else {
    return fail(ErrorCode::internal, "a peer at {} is stale: released {}", x.sequence.value, released_.value);
  }
  const bool was_whole = whole();
  if (restart) {
    if (from_map && !was_whole && !partial_) return fail(ErrorCode::internal, "not whole, and nobody knows why");
    noted_since_.reset();
    partial_ = true;
    partial_base_ = base;
    if (options_.flaw != Flaw::named_not_noted) map_.begin_partial();
    if (options_.flaw != Flaw::not_drained) {
      // Start 2 is refused while there is more to apply; a stubborn peer makes the active come again.
      for (unsigned steps = pick(6); applier_->applied().sequence < log_->end().sequence;) {
        if (steps-- == 0) {
          note("-- start 2 is refused: busy");
          return {};
        }
        if (auto more = apply(); !more || !*more) {
          HF_TRY(survives(more.map([](bool) {})));
          if (fuse_.left != UINT64_MAX || !more) return {};
        }
      }
      if (Status done = applier_->checkpoint(); !done) return survives(done);
    }
    note(fmt::format("-- start 2 at {}: the peer stands at {}", base.value, x.sequence.value));
    const Position position{base == base_.sequence ? base_.epoch : epoch_, base};
    if (Status done = restart_log(position); !done) return survives(done);
  }
  if (restart || life_ != met_life_) drop_resync();
  met_life_ = life_;
  if (restart) questions_.clear();
  naks_.assign(questions_.all().begin(), questions_.all().end());
  connected_ = true;
  taken_ = base;
  applied_seen_ = Sequence(0);
  if (!partial_ && !was_whole) return fail(ErrorCode::internal, "it is not whole, and not in a partial resync");
  if (partial_ && !restart && whole()) {  // resync_end was applied, and the acknowledgement lost
    drop_resync();
    partial_ = false;
    if (!noted_since_) map_.forget();
  }
  return {};
}

inline Status ChangeRun::ship(unsigned steps) {
  if (!partial_ || counts_from_) return {};
  if (!resync_) {
    if (!connected_ || pick(3) != 0) return {};
    resync_ = std::make_unique<Resync>(active_, live_, peer_, set, std::make_unique<ChangedWalk>(map_, set, "peer"));
    ++report_.partials;
  }
  for (; steps > 0; --steps) {
    HF_ASSIGN(const Resync::Turn turn, resync_->step());
    collect();
    if (turn == Resync::Turn::waits) return {};
    if (turn == Resync::Turn::more) continue;
    counts_from_ = resync_->end();
    ++report_.completed;
    application_.close_all();  // files without a name are not shipped
    return {};
  }
  return {};
}

inline Status ChangeRun::send(unsigned count) {
  if (!connected_) return {};
  for (; count > 0 && taken_ < last(); --count) {
    const Bytes& r = records_[taken_.value - base_.sequence.value];
    const log::RecordHead head = log::head_of(r.data());
    const bool gap = !resync_, tail = !gap;
    if (partial_ && !(gap && options_.flaw == Flaw::gap_not_folded) &&
        !(tail && options_.flaw == Flaw::tail_not_folded))
      fold(taken_, head.sequence);
    taken_ = head.sequence;
    HF_TRY(log_->append(r, 1, {head.epoch, head.sequence}));
    questions_.answered_by(r);
    if (pick(12) == 0) HF_TRY(log_->rotate());
  }
  return pick(4) == 0 ? Status{} : log_->sync();
}

// NAKs first, then how far it is (receiver.cc: send_ack).
inline Status ChangeRun::acknowledge() {
  if (!connected_) return {};
  HF_TRY(log_->sync());
  const Ack ack{log_->durable(), applier_->announced()};
  for (; !naks_.empty(); naks_.pop_front())
    if (resync_ && !counts_from_) resync_->nak(naks_.front());
  if (ack.durable > released_) {
    released_ = ack.durable;
    if (noted_since_ && !partial_) map_.forget();
    noted_since_.reset();
  }
  applied_seen_ = std::max(applied_seen_, ack.applied);
  if (resync_) resync_->acked(ack);
  if (!counts_from_ || applied_seen_ < *counts_from_) return {};
  if (!whole()) return fail(ErrorCode::internal, "the resync has ended, and the peer is not whole");
  resync_.reset();
  counts_from_.reset();
  partial_ = false;
  if (!noted_since_) map_.forget();
  return {};
}

// Quiet at last: it comes back, and becomes a whole copy with nothing left over.
inline Status ChangeRun::settle() {
  HF_TRY(become_whole());
  HF_TRY(compare());
  if (const std::size_t left = tree_->in_grave_count(ports::Grave::limbo); left != 0)
    return fail(ErrorCode::internal, "{} objects are left in limbo", left);
  return {};
}

inline Status ChangeRun::become_whole() {
  fuse_.left = UINT64_MAX;
  for (int round = 0;; ++round) {
    if (round > 4000) return fail(ErrorCode::internal, "the resynchronization does not come to an end");
    if (!connected_) HF_TRY(connect());
    HF_TRY(ship(20));
    HF_TRY(survives(send(30)));
    HF_TRY(survives(apply().map([](bool) {})));
    HF_TRY(acknowledge());
    if (connected_ && whole() && !partial_ && applier_->applied().sequence == last() && applied_seen_ == last())
      return {};
  }
}

inline ChangeReport run_changes(const ChangeOptions& options) { return ChangeRun(options).run(); }

}  // namespace holdfast::mirror::testing

#include "mirror/test_change_passive.h"
