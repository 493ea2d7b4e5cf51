// SPDX-License-Identifier: Apache-2.0
// For tests only: one random life of a passive. An application changes a model and makes records; they are received, applied, checkpointed; the
// power goes at any step, half-way through anything; what comes back redoes. Wherever the passive says it stands, its tree must be what the model
// was there. In some lives it is given a first copy, or comes back with a tree of another past and is resynchronized.
// The same seed gives the same life.
#pragma once

#include <memory>
#include <string>

#include "log/record_codec.h"
#include "log/segment_log.h"
#include "mirror/applier.h"
#include "mirror/log_restart.h"
#include "mirror/rewind.h"
#include "mirror/shadows.h"
#include "mirror/test_checked_tree.h"
#include "mirror/test_machine.h"
#include "mirror/test_shipper.h"
#include "mirror/test_verify.h"

namespace holdfast::mirror::testing {

struct ModelOptions {
  std::uint64_t seed = 1;
  bool trace = false;
  bool undo = true;  // in half of the lives
  MemoryTree::Flaw flaw = MemoryTree::Flaw::none;
  bool verify = false;  // the active compares, and repairs what this disk is made to forget (test_model_verify.h)
};
struct ModelTimes final : ports::Times {
  std::int64_t now_ns = 1;
  std::int64_t realtime_ns() override { return ++now_ns; }
  std::int64_t steady_ns() override { return ++now_ns; }
};

struct ModelReport {
  std::string failure;  // empty: none
  std::uint64_t records = 0, crashes = 0, compared = 0, resyncs = 0, steps = 0, rewinds = 0, damages = 0, repaired = 0,
                given_up = 0;
};

class ModelRun {
 public:
  explicit ModelRun(const ModelOptions& options)
      : options_(options),
        random_(static_cast<std::mt19937::result_type>(options.seed * 0x9E3779B97F4A7C15ULL >> 32) ^
                static_cast<std::mt19937::result_type>(options.seed)),
        segments_(fuse_),
        undo_segments_(fuse_),
        cell_(fuse_),
        shadow_cell_(fuse_),
        tree_(std::make_shared<MemoryTree>(set, fuse_, options.flaw)),
        model_(set),
        application_(model_, random_, set) {}

  ModelReport run();

 private:
  static constexpr SetNumber set = 1;
  unsigned pick(unsigned n) { return static_cast<unsigned>(random_() % n); }
  Sequence last() const { return Sequence(base_.sequence.value + records_.size()); }
  bool complete() const { return state_.complete.contains(set) && !state_.resyncing.contains(set); }
  void note(const std::string& line) {
    if (options_.trace) fmt::print("{}\n", line);
  }

  Status live();
  Status start_again();
  Status turn();
  Status become_whole();
  Status settle();
  Status recover();
  Status store(const std::function<void(NodeState&)>& change);
  void produce(unsigned operations);
  void ship(unsigned records);
  void begin_session();
  void mark(log::Kind kind, const std::string& name = {});
  void append(OwnedRecord& record);
  Status send(std::size_t groups);
  Result<bool> apply();
  Status compare();
  void pin();
  void remember();
  Position position_of(Sequence sequence) const;
  bool of_this_past(Position position) const;
  // --- test_model_undo.h
  Status restart_elsewhere();
  Status turn_history();
  Status restart_log(Position base, const std::function<void(NodeState&)>& change);
  Status go_back();
  Status rewind(const UndoBatch& to);
  Status rewind_steps(const UndoBatch& to);
  Status finish_rewind();
  Status resume_rewind();
  Status check_graves();
  Status note_shadow(const log::Record& record, std::uint64_t batch);
  Status check_shadows() const;
  // --- test_model_verify.h
  void make_quiet_folder();
  void plant();
  void begin_walk(VerifyKind kind, bool trust_active);
  Status walk(unsigned steps);
  Status end_walk();
  Status verify_turn();
  Status verify_all();
  // True when the power went; then the machine is up again.
  Result<bool> survives(const Status& status);

  ModelOptions options_;
  std::mt19937 random_;
  Fuse fuse_;
  ModelSegments segments_, undo_segments_;
  ModelCell cell_, shadow_cell_;
  std::shared_ptr<MemoryTree> tree_;
  ModelTree model_;
  RandomModelApplication application_;
  NoUndo no_undo_;
  ModelTimes times_;
  bool with_undo_ = false;
  unsigned turns_ = 0;
  bool switches_ = false, wants_history_ = true;  // the history is switched off and on in mid-life
  std::uint64_t undo_bytes_ = std::uint64_t{1} << 30;
  std::unique_ptr<log::SegmentLog> log_;
  std::unique_ptr<UndoJournal> journal_;
  std::unique_ptr<CheckedUndo> checked_undo_;
  std::unique_ptr<Applier> applier_;
  std::unique_ptr<Shadows> shadows_;
  NodeState state_;

  Position base_{Epoch(1), Sequence(100)};
  Epoch epoch_{1};
  std::vector<Bytes> records_;               // all since base_
  std::map<Sequence, ModelTree> history_;    // the model after some of them
  std::map<Position, ModelTree> all_pasts_;  // the same of all bases
  std::unique_ptr<Shipper> shipper_;
  Sequence shipped_;
  bool told_ = true;
  bool redoing_ = false;  // the tree may be ahead of the position
  ModelLiveTree live_tree_{model_};
  ModelCaptureLog capture_log_;
  std::unique_ptr<VerifyWalk> walk_;
  VerifyCounts walked_;
  bool damaged_ = false, ever_damaged_ = false, may_damage_ = false;
  ModelReport report_;
};

inline ModelReport ModelRun::run() {
  if (Status lived = live(); !lived)
    report_.failure = fmt::format("{} (sequence {})", lived.error().to_string(), last().value);
  report_.steps = fuse_.steps;
  return report_;
}

inline Status ModelRun::live() {
  const unsigned kind = pick(4);
  application_.prefer_folders(pick(4) == 0);
  with_undo_ = options_.undo && pick(2) == 0;
  if (pick(5) == 0) undo_bytes_ = 1;
  switches_ = with_undo_ && options_.seed % 7 == 3;
  if (switches_) wants_history_ = pick(2) == 0;
  state_.applied = base_;
  may_damage_ = options_.verify && pick(2) == 0;
  if (kind == 1) {
    if (options_.verify) make_quiet_folder();
    produce(5 + pick(40));
    records_.clear();
    history_.clear();
    all_pasts_.clear();
  } else {
    state_.complete.insert(set);
  }
  remember();
  HF_TRY(cell_.store(encode(state_)));
  log_ = std::make_unique<log::SegmentLog>(segments_);
  HF_TRY(log_->reset(base_));
  HF_TRY(start_again());
  if (kind != 1 && options_.verify) make_quiet_folder();
  for (unsigned turns = 10 + pick(30); turns > 0; --turns) HF_TRY(turn());
  if (kind >= 2) {
    HF_TRY(restart_elsewhere());
    for (unsigned turns = 10 + pick(30); turns > 0; --turns) HF_TRY(turn());
  }
  return settle();
}

// The node's process begins: what the disk holds is all it knows.
inline Status ModelRun::start_again() {
  shipper_.reset();
  if (walk_) walk_->session_began();
  HF_ASSIGN(const Bytes stored, cell_.load());
  HF_ASSIGN(state_, decode_node_state(stored));
  log_ = std::make_unique<log::SegmentLog>(segments_);
  if (with_undo_) {
    journal_.reset();
    HF_ASSIGN(journal_, UndoJournal::open(undo_segments_, times_, {undo_bytes_, 0, default_undo_age_ns, {}, 0},
                                          log::default_segment_bytes, wants_history_));
    if (const std::string damage = journal_->stats().damage; !damage.empty())
      return fail(ErrorCode::internal, "{}", damage);
    pin();
  }
  if (with_undo_) checked_undo_ = std::make_unique<CheckedUndo>(*journal_);
  UndoWriter& undo = with_undo_ ? static_cast<UndoWriter&>(*checked_undo_) : no_undo_;
  if (state_.restarting) {  // whatever is left of the log
    HF_TRY(log_->reset(state_.applied));
    HF_TRY(undo.jump(jump_head(state_)));
    HF_TRY(store([](NodeState& s) { s.restarting = false; }));
  } else {
    HF_ASSIGN(const log::Recovery recovery, log_->recover(state_.applied.sequence));
    if (!recovery.found) return fail(ErrorCode::internal, "the receive log is gone");
  }
  Applier::Hooks hooks;
  hooks.update_state = [this](const auto& change) { return store(change); };
  hooks.nak = [this](const Nak& nak) {
    if (shipper_) shipper_->nak(nak);
  };
  hooks.differs = [this](const Differs& differs) {
    if (walk_) walk_->differs(differs);
  };
  hooks.applied = [](std::uint64_t) {};
  shadows_ = std::make_unique<Shadows>(&shadow_cell_);
  HF_TRY(shadows_->load());
  hooks.shadow = [this](const log::Record& r, std::uint64_t batch) { return note_shadow(r, batch); };
  hooks.resync_broken = [this] {
    shipper_.reset();
    if (!state_.resyncing.contains(set)) ++report_.given_up;
  };
  hooks.unknown_set = [](SetNumber) {};
  applier_ = std::make_unique<Applier>(*log_, undo, std::move(hooks), pick(2) ? 1 : apply_batch_bytes,
                                       options_.seed % 7 == 6 ? 25 : most_covered_cells);
  HF_TRY(applier_->begin(state_));
  std::shared_ptr<ports::Tree> tree = tree_;
  if (with_undo_) tree = std::make_shared<CheckedTree>(tree_, *checked_undo_);
  HF_TRY(applier_->add_tree(std::move(tree)));
  HF_TRY(resume_rewind());
  return with_undo_ ? turn_history() : Status{};
}

inline Status ModelRun::store(const std::function<void(NodeState&)>& change) {
  NodeState next = state_;
  change(next);
  HF_TRY(cell_.store(encode(next)));
  state_ = std::move(next);
  pin();
  return {};
}

inline void ModelRun::pin() {
  if (!journal_) return;
  journal_->pin("resync", state_.point ? state_.point->batch : 0);
  journal_->pin("rewind", state_.rewind ? state_.rewind->batch : 0);
}

inline Status ModelRun::turn() {
  if (options_.verify && pick(2) == 0) {
    const Status verified = verify_turn();
    HF_TRY(survives(verified));
  }
  if (++turns_ % 3 == 0) HF_TRY(survives(applier_->sweep(turns_ % 5).map([](const auto&) {})));
  if (switches_ && pick(5) == 0) {
    wants_history_ = pick(2) == 0;
    HF_TRY(survives(turn_history()));
  }
  const unsigned n = pick(20);
  Status status;
  if (n < 6) {
    produce(1 + pick(8));
  } else if (n < 9) {
    if (!complete() && !shipper_ && (pick(2) == 0)) begin_session();
    ship(1 + pick(12));
  } else if (n < 13) {
    status = send(1 + pick(3));
  } else if (n < 16) {
    if (auto more = apply(); !more) status = tl::unexpected(std::move(more).error());
  } else if (n < 17) {
    status = applier_->checkpoint();
  } else if (n < 18) {
    if (with_undo_ && journal_->on() && !may_damage_ && pick(3) == 0) {
      walk_.reset();
      return go_back();
    }
    if (pick(4) == 0)
      mark(log::Kind::epoch_begin);
    else if (pick(8) == 0)
      shipper_.reset();  // the connection is lost
    else if (pick(3) == 0)
      mark(log::Kind::shadow, "u-:" + std::to_string(last().value));
    else
      mark(log::Kind::consistent);
  } else if (fuse_.left > 1000) {
    fuse_.left = pick(pick(2) ? 12 : 120);
  }
  HF_TRY(survives(status));
  return {};
}

inline Result<bool> ModelRun::survives(const Status& status) {
  if (!fuse_.burnt) {
    if (!status) return tl::unexpected(status.error());
    return false;
  }
  HF_TRY(recover());
  return true;
}

inline Status ModelRun::recover() {
  for (;;) {
    ++report_.crashes;
    note("-- the power goes");
    applier_.reset();
    journal_.reset();
    log_.reset();
    segments_.crash(random_);
    undo_segments_.crash(random_);
    tree_->crash(random_);
    fuse_.burnt = false;
    fuse_.left = pick(3) == 0 ? pick(60) : UINT64_MAX;
    Status up = start_again();
    note(fmt::format("-- up again at {}, the log ends at {}", state_.applied.sequence.value,
                     log_->end().sequence.value));
    redoing_ = true;
    for (bool more = up.has_value(); more;) {
      auto applied = apply();
      more = applied && *applied;
      if (more && pick(4) == 0)
        if (Status done = applier_->checkpoint(); !done) applied = tl::unexpected(std::move(done).error());
      if (!applied) up = tl::unexpected(std::move(applied).error()), more = false;
    }
    redoing_ = false;
    if (!fuse_.burnt) return up ? compare() : up;
  }
}

inline void ModelRun::append(OwnedRecord& owned) {
  log::Record r = owned.view();
  r.epoch = epoch_;
  r.sequence = last().next();
  r.time_ns = static_cast<std::int64_t>(r.sequence.value);
  note(
      fmt::format("{:6} {} file {} parent {} \"{}\" parent2 {} \"{}\" replaced {} offset {} length {} size {} flags {} "
                  "payload {}",
                  r.sequence.value, log::to_string(r.kind), r.file.to_hex().substr(0, 6),
                  r.parent.to_hex().substr(0, 6), r.name, r.parent2.to_hex().substr(0, 6), r.name2,
                  r.replaced.to_hex().substr(0, 6), r.offset, r.length, r.size, r.flags, r.payload.size()));
  records_.push_back(log::encode(r));
  ++report_.records;
}

inline void ModelRun::produce(unsigned operations) {
  application_.allow_shifts(true);
  for (OwnedRecord r; operations > 0; --operations)
    if (application_.step(r)) {
      append(r);
      if (with_undo_) remember();
    }
  for (const FileId& id : application_.take_moved()) {
    if (shipper_) shipper_->moved(id);
    if (walk_) walk_->moved(id);
  }
  remember();
}

inline void ModelRun::begin_session() {
  walk_.reset();  // only a complete copy is verified
  OwnedRecord r;
  r.record.set = set;
  r.record.kind = log::Kind::resync_begin;
  append(r);
  shipper_ = std::make_unique<Shipper>(model_, set, tree_->is_empty().value());
  shipped_ = last();
  ++report_.resyncs;
}

inline void ModelRun::ship(unsigned records) {
  for (OwnedRecord r; shipper_ && records > 0; --records) {
    if (!shipper_->step(r, applier_->applied().sequence >= shipped_)) break;
    append(r);
    shipped_ = last();
    if (shipper_->ended()) shipper_.reset();
  }
  remember();
}

inline void ModelRun::mark(log::Kind kind, const std::string& name) {
  if (kind == log::Kind::epoch_begin) {
    epoch_ = epoch_.next();
    application_.close_all();
    shipper_.reset();
  }
  OwnedRecord r;
  r.record.kind = kind;
  r.name = name;
  append(r);
  remember();
}

// Groups end where the model was kept, most of the time.
inline Status ModelRun::send(std::size_t groups) {
  for (; groups > 0 && log_->end().sequence < last(); --groups) {
    const std::uint64_t from = log_->end().sequence.value;
    std::uint64_t to = history_.upper_bound(Sequence(from))->first.value;
    if (pick(4) == 0) to = from + 1 + pick(static_cast<unsigned>(to - from));
    Bytes bytes;
    for (std::uint64_t s = from; s < to; ++s) {
      const Bytes& r = records_[s - base_.sequence.value];
      bytes.insert(bytes.end(), r.begin(), r.end());
    }
    const Epoch epoch = log::head_of(records_[to - 1 - base_.sequence.value].data()).epoch;
    HF_TRY(log_->append(bytes, static_cast<std::uint32_t>(to - from), {epoch, Sequence(to)}));
    if (pick(8) == 0) HF_TRY(log_->rotate());
  }
  return pick(5) == 0 ? Status{} : log_->sync();
}

inline Result<bool> ModelRun::apply() {
  HF_ASSIGN(const bool more, applier_->step());
  if (fuse_.burnt) return false;
  if (applier_->waits_for_space()) {  // the history is needed and may grow no more: somebody makes room
    undo_bytes_ = std::uint64_t{1} << 30;
    journal_->set_settings({undo_bytes_, 0, default_undo_age_ns});
    return true;
  }
  if (tree_->staged() != 0) return fail(ErrorCode::internal, "{} staged objects were not placed", tree_->staged());
  if (!redoing_) HF_TRY(compare());
  return more;
}

inline Position ModelRun::position_of(Sequence sequence) const {
  if (sequence == base_.sequence) return base_;
  return {log::head_of(records_[sequence.value - base_.sequence.value - 1].data()).epoch, sequence};
}

inline bool ModelRun::of_this_past(Position position) const {
  return position.sequence >= base_.sequence && position.sequence <= last() &&
         position == position_of(position.sequence);
}

inline void ModelRun::remember() {
  history_.insert_or_assign(last(), model_);
  all_pasts_.insert_or_assign(position_of(last()), model_);
}

inline Status ModelRun::compare() {
  const auto then = all_pasts_.find(applier_->applied());
  if (!told_ || damaged_ || !complete() || then == all_pasts_.end()) return {};
  ++report_.compared;
  const std::string difference = then->second.difference(*tree_);
  if (difference.empty()) return {};
  return fail(ErrorCode::internal, "the tree at sequence {} is not what the model was: {}", then->first.sequence.value,
              difference);
}

inline Status ModelRun::become_whole() {
  for (int round = 0; !complete() || applier_->applied().sequence < last(); ++round) {
    if (round > 3000) return fail(ErrorCode::internal, "the resynchronization does not come to an end");
    if (!complete() && !shipper_ && applier_->applied().sequence == last()) begin_session();
    ship(20);
    HF_TRY(send(4));
    HF_ASSIGN([[maybe_unused]] const bool more, apply());
  }
  return {};
}

// Quiet at last: everything comes over, and the passive is a whole copy with nothing left over.
inline Status ModelRun::settle() {
  for (unsigned rounds = pick(2) ? 0 : 12; rounds > 0 && (!complete() || applier_->applied().sequence < last());
       --rounds) {
    if (!complete() && !shipper_ && applier_->applied().sequence == last()) begin_session();
    ship(1 + pick(20));
    if (fuse_.left > 1000) fuse_.left = pick(60);
    Status status = send(1 + pick(3));
    if (status && pick(2)) status = apply().map([](bool) {});
    if (status && pick(3) == 0) status = applier_->checkpoint();
    HF_TRY(survives(status));
  }
  fuse_.left = UINT64_MAX;
  wants_history_ = true;
  if (with_undo_) HF_TRY(turn_history());
  HF_TRY(become_whole());
  // Files that were made without a name, perhaps before the copy was, get one.
  OwnedRecord named;
  for (int i = 0; i < 8; ++i)
    if (application_.name_nameless(named)) append(named);
  remember();
  HF_TRY(become_whole());
  if (options_.verify) HF_TRY(verify_all());
  mark(log::Kind::epoch_begin);
  while (log_->end().sequence < last() || log_->durable() < last()) HF_TRY(send(4));
  for (bool more = true; more;) {
    HF_ASSIGN(more, apply());
  }
  HF_TRY(applier_->checkpoint());
  HF_TRY(compare());
  if (applier_->applied().sequence != last()) return fail(ErrorCode::internal, "not everything was applied");
  HF_TRY(check_graves());
  HF_TRY(check_shadows());
  // What is not foreseen costs a sync of its own: ordinary changes all are.
  if (journal_ && !ever_damaged_ && report_.resyncs + report_.crashes + report_.rewinds == 0 &&
      journal_->stats().late_groups != 0)
    return fail(ErrorCode::internal, "{} changes were not foreseen", journal_->stats().late_groups);
  for (int i = 0; with_undo_ && !ever_damaged_ && i < 3; ++i) HF_TRY(go_back());
  return {};
}

inline ModelReport run_model(const ModelOptions& options) { return ModelRun(options).run(); }

}  // namespace holdfast::mirror::testing

#include "mirror/test_model_undo.h"
#include "mirror/test_model_verify.h"
