// SPDX-License-Identifier: Apache-2.0
// Reading, cutting and executing batches; what happens between them is in applier_checkpoint.cc.
#include "mirror/applier.h"

#include <algorithm>

#include "base/check.h"
#include "base/log.h"
#include "log/record_codec.h"
#include "log/record_fields.h"
#include "mirror/file_type.h"
#include "mirror/predict.h"
#include "mirror/read_ahead.h"
#include "mirror/shadows.h"

namespace holdfast::mirror {

using log::Kind;

namespace {

constexpr std::int64_t second_ns = 1'000'000'000;

bool is_mark(Kind kind) { return kind >= Kind::epoch_begin && kind <= Kind::noop; }
// Applied alone, between two checkpoints.
bool stands_alone(const log::Record& r) {
  return r.kind == Kind::resync_begin || r.kind == Kind::resync_end || r.kind == Kind::epoch_begin ||
         (r.kind == Kind::fallocate && shifts_range(r.mode_flags));
}
bool is_consistent(const log::Record& mark) {
  if (mark.kind == Kind::consistent) return true;
  const auto shadow = mark.kind == Kind::shadow ? shadow_of_mark(mark.name) : std::nullopt;
  return shadow && shadow->application_consistent;
}
// What follows begins a batch of its own: the point can be gone back to.
bool ends_batch(Kind kind) { return kind == Kind::consistent || kind == Kind::shadow || kind == Kind::epoch_end; }

}  // namespace

Status Applier::begin(const NodeState& state) {
  const std::lock_guard work(work_mutex_);
  return begin_held(state);
}

Status Applier::for_each_tree(const std::function<Status(ports::Tree&)>& look) {
  const std::lock_guard work(work_mutex_);
  for (auto& [number, set] : sets_) HF_TRY(look(*set.tree));
  return {};
}

Status Applier::begin_held(const NodeState& state) {
  HF_ASSIGN(plan_, undo_.redo(state.applied, state.log_life, {state.applied.epoch, log_.durable()}));
  doubt_to_ = log_.durable();
  again_ = batch_is_sealed_ = after_consistent_ = false;
  waits_for_space_ = false;
  staged_.clear();
  covered_.clear();
  covered_since_point_.clear();
  checkpoint_batch_ = plan_.covered;
  uncovered_to_ = Sequence(0);
  HF_TRY(load_graves());
  kept_ = state.point ? state.point->complete : std::set<SetNumber>{};
  kept_from_ = state.point ? state.point->batch : 0;
  const std::lock_guard lock(mutex_);
  applied_ = state.applied;
  announced_ = state.applied.sequence.value;
  log_life_ = state.log_life;
  resyncing_ = state.resyncing;
  complete_ = state.complete;
  for (auto& [number, set] : sets_) HF_TRY(adopt_state(number, set));
  resyncing_count_ = static_cast<int>(state.resyncing.size());
  dirty_ = false;
  return {};
}

Status Applier::adopt_state(SetNumber number, SetState& set) {
  set.resync = resyncing_.contains(number);
  set.complete = complete_.contains(number);
  // What was seen of listings, or missed, is forgotten with the life that saw it: a resync that was under way can't make the set complete.
  set.memory = {};
  set.verify.forget();
  set.memory.broken = set.resync;
  HF_ASSIGN(const ports::NamesMark mark, set.tree->names_mark());
  set.names = {log_life_, mark.log == log_life_ ? mark.sequence : Sequence(0), false, log_.durable()};
  // A crash came between "complete" and the end of clearing up after the resync.
  if (!set.complete || set.resync) return {};
  set.tree->set_capturing(false);
  return drop_limbo(set);
}

Status Applier::add_tree(std::shared_ptr<ports::Tree> tree) {
  const std::lock_guard work(work_mutex_);
  const SetNumber number = tree->set();
  const auto captured_tree = std::make_shared<UndoTree>(std::move(tree), undo_, covered_);
  Graves graves;
  HF_TRY(graves.load(*captured_tree));  // may take minutes; who asks how things stand does not wait for that
  const std::lock_guard lock(mutex_);
  removed_.erase(number);
  SetState& set = sets_[number];
  set.tree = captured_tree;
  set.graves = std::move(graves);
  set.tree->on_burial([this, &set](const FileId& id) -> Status {
    if (!undo_.on()) {
      set.graves.add({id});
      return {};
    }
    HF_ASSIGN(const auto there, set.tree->attributes(id));
    set.graves.add({id, undo_.current_batch(), there ? there->allocated_bytes : 0});
    return {};
  });
  return adopt_state(number, set);
}

void Applier::doubt(SetNumber set) {
  const std::lock_guard work(work_mutex_);
  const std::lock_guard lock(mutex_);
  complete_.erase(set);
  resyncing_.erase(set);
  kept_.erase(set);
  resyncing_count_ = static_cast<int>(resyncing_.size());
}

void Applier::remove_tree(SetNumber set) {
  const std::lock_guard work(work_mutex_);
  const std::lock_guard lock(mutex_);
  sets_.erase(set);
  removed_.insert(set);
}

std::vector<std::shared_ptr<ports::Tree>> Applier::trees() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<ports::Tree>> all;
  for (const auto& [number, set] : sets_) all.push_back(set.tree->shared());
  return all;
}

Position Applier::applied() const {
  const std::lock_guard lock(mutex_);
  return applied_;
}

Applier::SetState* Applier::find(SetNumber set) {
  const auto it = sets_.find(set);
  return it == sets_.end() ? nullptr : &it->second;
}

// Batch m of a redo is one slice, however big (R21).
Result<Bytes> Applier::read_ahead(Sequence from) {
  HF_ASSIGN(Bytes bytes, log_.read(from, batch_bytes_));
  if (!is_batch_m(from.next())) return bytes;
  for (;;) {
    Sequence last = from;
    for (ByteView rest = bytes; !rest.empty(); rest = rest.subspan(log::head_of(rest.data()).length))
      last = log::head_of(rest.data()).sequence;
    if (last >= *plan_.m_after) return bytes;
    HF_ASSIGN(const Bytes more, log_.read(last, batch_bytes_));
    if (more.empty())
      return fail(ErrorCode::corrupt, "the receive log ends at sequence {}, but {} was being applied", last.value,
                  plan_.m_after->value);
    bytes.insert(bytes.end(), more.begin(), more.end());
  }
}

Result<bool> Applier::step() {
  std::unique_lock work(work_mutex_);
  Sequence last = applied().sequence;
  HF_ASSIGN(const Bytes bytes, read_ahead(last));
  std::vector<log::Record> records;
  for (ByteView rest = bytes; !rest.empty();) {
    const log::RecordHead head = log::head_of(rest.data());
    HF_ASSIGN(const log::Record record, log::decode(rest.first(head.length)));
    if (static_cast<std::uint8_t>(record.kind) > log::highest_kind)
      return fail(ErrorCode::corrupt, "record {} is of kind {}, which is never applied", record.sequence.value,
                  log::to_string(record.kind));
    if (record.sequence > last) {
      records.push_back(record);
      last = record.sequence;
    }
    rest = rest.subspan(head.length);
  }
  if (records.empty()) {
    waits_for_space_ = false;
    return false;
  }
  for (std::size_t at = 0; at < records.size();) {
    const std::size_t end = slice_end(records, at);
    const std::span<const log::Record> slice(records.data() + at, end - at);
    for (const auto& r : slice)
      // The begin of a resynchronization waits for its set too: one that comes later could not tell it from one that a crash broke.
      if ((!is_mark(r.kind) || r.kind == Kind::resync_begin) && !find(r.set) && !removed_.contains(r.set)) {
        hooks_.unknown_set(r.set);
        return false;
      }
    if (Status done = apply_slice(slice); !done) {
      if (done.error().code != ErrorCode::no_space) return tl::unexpected(std::move(done).error());
      history_starves_ = undo_.on() && undo_.starved();
      HF_ASSIGN(const bool made, make_space(slice));
      if (!made && !waits_for_space_) log_warning("apply waits for space: {}", done.error().to_string());
      waits_for_space_ = !made;
      return made;
    }
    waits_for_space_ = false;
    std::uint64_t slice_bytes = 0;
    for (const auto& r : slice) slice_bytes += r.payload.size() + log::record_header_bytes;
    announced_ = applied().sequence.value;
    work.unlock();
    hooks_.applied(slice_bytes);
    work.lock();
    if (applied() != Position{slice.back().epoch, slice.back().sequence})
      return true;  // the log was replaced meanwhile
    at = end;
  }
  return true;
}

// Where a batch ends. The two cuts of a redo first (RedoPlan); then what stands alone, marks, whole seconds, and size.
std::size_t Applier::slice_end(std::span<const log::Record> records, std::size_t from) const {
  const auto& first = records[from];
  if (is_batch_m(first.sequence)) {
    std::size_t at = from;
    while (at < records.size() && records[at].sequence <= *plan_.m_after) ++at;
    return at;
  }
  if (stands_alone(first)) return from + 1;
  std::size_t creates_seen = 0, at = from;
  for (; at < records.size() && !stands_alone(records[at]); ++at) {
    const auto& r = records[at];
    if (at > from && (records[at - 1].sequence == plan_.pass_to || ends_batch(records[at - 1].kind) ||
                      r.time_ns / second_ns != first.time_ns / second_ns))
      break;
    if (creates(r.kind) && ++creates_seen > apply_batch_creates) break;
  }
  return at;
}

bool Applier::captured(SetNumber number, const SetState& set) const {
  return set.complete || (set.resync && kept_.contains(number));
}

// Undo of what the slice will overwrite is durable when it returns; trees capture what was not foreseen.
Status Applier::open_batch(std::span<const log::Record> slice) {
  if (!undo_.on()) return {};
  const bool pass = slice.back().sequence <= plan_.pass_to;
  for (auto& [number, set] : sets_) set.tree->set_capturing(!pass && captured(number, set));
  if (!pass && !again_) HF_TRY(begin_covering());
  if (!pass && is_batch_m(slice.front().sequence)) {
    if (!again_) HF_TRY(undo_.resume(covered_));
    batch_is_sealed_ = true;
    HF_TRY(foresee(slice));
  } else if (!pass) {
    UndoHead head;
    head.life = log_life_;
    head.before = applied();
    head.after = {slice.back().epoch, slice.back().sequence};
    head.first_time_ns = slice.front().time_ns;
    head.last_time_ns = slice.back().time_ns;
    head.consistent = after_consistent_;
    for (auto& [number, set] : sets_)
      if (captured(number, set)) (set.resync ? head.partial : head.sets).insert(number);
    for (const auto& r : slice)
      if (const SetState* set = find(r.set); set && set->resync) head.why = BatchWhy::resync;
    HF_TRY(undo_.begin(head));
    HF_TRY(foresee(slice));
    HF_TRY(undo_.seal());
    batch_is_sealed_ = true;
  }
  for (auto& [number, set] : sets_) set.tree->burial_stamp(undo_.current_batch());
  return {};
}

// A batch covers for itself. But in mid-resync there are no points, only the way back to the one before: there the first old value of each cell is
// enough (R14), so what was covered since that point stays covered, as far as memory goes: a cell that is captured again does no harm.
Status Applier::begin_covering() {
  std::set<SetNumber> since_point;
  for (const auto& [number, set] : sets_)
    if (set.resync && kept_.contains(number)) since_point.insert(number);
  std::set<SetNumber> missing;
  for (const SetNumber number : since_point)
    if (!covered_since_point_.contains(number)) missing.insert(number);
  std::erase_if(covered_, [&](const auto& c) {
    return !covered_since_point_.contains(c.first) || !since_point.contains(c.first);
  });
  std::uint64_t captured = 0;
  for (const auto& [number, set] : sets_) captured += set.tree->captured();
  if (since_point.empty() || captured - covered_began_ > most_covered_) {
    covered_.clear();
    covered_began_ = captured;
  }
  if (!missing.empty()) HF_TRY(undo_.load(kept_from_, missing, covered_, most_covered_));
  covered_since_point_ = std::move(since_point);
  return {};
}

Status Applier::foresee(std::span<const log::Record> slice) {
  std::map<SetNumber, ports::Touches> touches;
  for (const auto& r : slice) {
    if (is_mark(r.kind)) continue;
    SetState* set = find(r.set);
    if (!set || !set->tree->capturing() || is_check(r.kind)) continue;
    if (r.kind >= Kind::ship_node && !set->resync && !is_repair(r.kind)) continue;
    HF_TRY(predict(r, set->resync || is_repair(r.kind), set->tree->raw(), touches[r.set]));
  }
  std::uint64_t bytes = 0;
  for (const auto& [number, t] : touches) {
    HF_ASSIGN(const std::uint64_t of_set, find(number)->tree->estimate(t));
    bytes += of_set;
  }
  if (bytes != 0) HF_TRY(undo_.expect(bytes));
  for (const auto& [number, t] : touches) HF_TRY(find(number)->tree->about_to_change(t));
  return {};
}

Status Applier::stage(std::span<const log::Record> slice) {
  std::map<SetNumber, ports::Tree*> touched;
  for (const auto& r : slice) {
    if (!creates(r.kind)) continue;
    SetState* set = find(r.set);
    if (!set || !(set->resync || set->complete) || r.sequence <= set->names.done) continue;
    HF_ASSIGN(const auto there, set->tree->attributes(r.file));
    if (there) continue;
    if (set->resync && !(r.flags & log::flag_orphan) && !staged_[r.set].created.contains(r.parent)) {
      HF_ASSIGN(const auto parent, set->tree->attributes(r.parent));
      if (!parent) continue;  // shipped later, with its folder
    }
    HF_TRY(set->tree->stage(r.file, new_node(r)));
    staged_[r.set].created.insert(r.file);
    touched[r.set] = set->tree.get();
  }
  for (const auto& [number, tree] : touched) HF_TRY(tree->commit_ids());
  return {};
}

Status Applier::apply_slice(std::span<const log::Record> slice) {
  if (slice.front().kind == Kind::resync_end)
    if (SetState* set = find(slice.front().set)) HF_TRY(set->tree->commit_ids());
  if (stands_alone(slice.front())) HF_TRY(checkpoint_now());
  HF_TRY(open_batch(slice));
  Status executed = execute(slice);
  for (auto& [number, set] : sets_) set.tree->forget_digests();
  HF_TRY(std::move(executed));
  batch_is_sealed_ = again_ = false;
  staged_.clear();
  if (plan_.m_after && slice.back().sequence >= *plan_.m_after) plan_.m_after.reset();
  after_consistent_ = is_consistent(slice.back());
  {
    const std::lock_guard lock(mutex_);
    applied_ = {slice.back().epoch, slice.back().sequence};
  }
  applied_time_ns_ = slice.back().time_ns;
  dirty_ = true;
  for (const auto& r : slice) unsynced_bytes_ += r.payload.size() + log::record_header_bytes;
  if (stands_alone(slice.front())) HF_TRY(checkpoint_now());
  if (slice.front().kind == Kind::resync_end) HF_TRY(end_resync(slice.front()));
  return {};
}

Status Applier::execute(std::span<const log::Record> slice) {
  HF_TRY(stage(slice));
  std::map<SetNumber, std::unique_ptr<TreeBatch>> batches;
  ReadAhead ahead(slice, [this](const log::Record& r) {
    if (SetState* set = find(r.set); set && set->resync)
      set->tree->will_digest(r.file, r.offset, std::min(r.length, ports::most_digest_bytes));
  });
  for (std::size_t at = 0; at < slice.size(); ++at) {
    const log::Record& r = slice[at];
    ahead.before(at);
    if (is_mark(r.kind)) {
      HF_TRY(mark(r));
      continue;
    }
    SetState* set = find(r.set);
    if (!set || !(set->resync || set->complete)) {
      HF_TRY(verify(r, nullptr, nullptr));
      continue;
    }
    auto& batch = batches[r.set];
    if (!batch) batch = std::make_unique<TreeBatch>(*set->tree, set->names);
    if (is_check(r.kind) || is_repair(r.kind))
      HF_TRY(verify(r, set, batch.get()));
    else if (set->resync) {
      Staged& staged = staged_[r.set];
      staged.ids_later = !set->memory.partial && !captured(r.set, *set);
      if (r.kind == Kind::ship_dir && !batch->names_done(r.sequence))
        HF_TRY(stage_ahead(slice.subspan(at), *set->tree, set->memory, staged));
      HF_TRY(ResyncApply(*batch, set->memory, staged, hooks_.nak).apply(r));
    } else if (r.kind >= Kind::ship_node) {
      continue;  // of a resync that was given up
    } else {
      OrdinaryApply ordinary(*batch, staged_[r.set].created);
      HF_TRY(ordinary.apply(r));
      if (ordinary.unknown_file()) HF_TRY(give_up(r, *set));
    }
    if (set->complete) set->verify.note(r);
  }
  for (auto& [number, batch] : batches) HF_TRY(batch->flush());
  for (const auto& [number, staged] : staged_) {
    CHECK(staged.ahead.empty(), "a listing named less than it said");
  }
  return {};
}

}  // namespace holdfast::mirror
