// SPDX-License-Identifier: Apache-2.0
#include "mirror/applier.h"

#include "base/log.h"
#include "log/record_codec.h"
#include "mirror/file_type.h"

namespace holdfast::mirror {

using log::Kind;

namespace {

bool is_mark(Kind kind) { return kind >= Kind::epoch_begin && kind <= Kind::noop; }
// Applied alone, between two checkpoints.
bool stands_alone(const log::Record& r) {
  return r.kind == Kind::resync_begin || r.kind == Kind::resync_end || r.kind == Kind::epoch_begin ||
         (r.kind == Kind::fallocate && shifts_range(r.mode_flags));
}

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
  set.memory = {};
  HF_ASSIGN(const ports::NamesMark mark, set.tree->names_mark());
  set.names = {log_life_, mark.log == log_life_ ? mark.sequence : Sequence(0), false};
  return {};
}

Status Applier::add_tree(std::shared_ptr<ports::Tree> tree) {
  const std::lock_guard work(work_mutex_);
  const std::lock_guard lock(mutex_);
  const SetNumber number = tree->set();
  removed_.erase(number);
  SetState& set = sets_[number];
  set.tree = std::move(tree);
  return adopt_state(number, set);
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
  for (const auto& [number, set] : sets_) all.push_back(set.tree);
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

Result<bool> Applier::step() {
  std::unique_lock work(work_mutex_);
  const Sequence from = applied().sequence;
  HF_ASSIGN(const Bytes bytes, log_.read(from, apply_batch_bytes));
  std::vector<log::Record> records;
  for (ByteView rest = bytes; !rest.empty();) {
    const std::size_t length = log::head_of(rest.data()).length;
    HF_ASSIGN(const log::Record record, log::decode(rest.first(length)));
    if (record.sequence > from) records.push_back(record);
    rest = rest.subspan(length);
  }
  if (records.empty()) return false;
  for (std::size_t at = 0; at < records.size();) {
    const std::size_t end = slice_end(records, at);
    const std::span<const log::Record> slice(records.data() + at, end - at);
    for (const auto& r : slice)
      if (!is_mark(r.kind) && !find(r.set) && !removed_.contains(r.set)) {
        hooks_.unknown_set(r.set);
        return false;
      }
    HF_TRY(apply_slice(slice));
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

std::size_t Applier::slice_end(std::span<const log::Record> records, std::size_t from) const {
  if (stands_alone(records[from])) return from + 1;
  std::size_t creates_seen = 0, at = from;
  for (; at < records.size() && !stands_alone(records[at]); ++at) {
    if (creates(records[at].kind) && ++creates_seen > apply_batch_creates) break;
  }
  return at;
}

Status Applier::stage(std::span<const log::Record> slice, std::map<SetNumber, std::unordered_set<FileId>>& staged) {
  std::map<SetNumber, ports::Tree*> touched;
  for (const auto& r : slice) {
    if (!creates(r.kind)) continue;
    SetState* set = find(r.set);
    if (!set || !(set->resync || set->complete) || r.sequence <= set->names.done) continue;
    HF_ASSIGN(const auto there, set->tree->attributes(r.file));
    if (there) continue;
    if (set->resync && !(r.flags & log::flag_orphan) && !staged[r.set].contains(r.parent)) {
      HF_ASSIGN(const auto parent, set->tree->attributes(r.parent));
      if (!parent) continue;  // shipped later, with its folder
    }
    HF_TRY(set->tree->stage(r.file, new_node(r)));
    staged[r.set].insert(r.file);
    touched[r.set] = set->tree.get();
  }
  for (const auto& [number, tree] : touched) HF_TRY(tree->commit_ids());
  return {};
}

Status Applier::apply_slice(std::span<const log::Record> slice) {
  if (stands_alone(slice.front())) HF_TRY(checkpoint_now());
  if (slice.back().sequence > undo_.durable_to())
    HF_TRY(undo_.write_pre_images(slice, [this](SetNumber n) { return find(n) ? find(n)->tree.get() : nullptr; }));
  std::map<SetNumber, std::unordered_set<FileId>> staged;
  HF_TRY(stage(slice, staged));
  std::map<SetNumber, std::unique_ptr<TreeBatch>> batches;
  std::uint64_t bytes = 0;
  for (const auto& r : slice) {
    bytes += r.payload.size() + log::record_header_bytes;
    if (is_mark(r.kind)) {
      HF_TRY(mark(r));
      continue;
    }
    SetState* set = find(r.set);
    if (!set || !(set->resync || set->complete)) continue;
    auto& batch = batches[r.set];
    if (!batch) batch = std::make_unique<TreeBatch>(*set->tree, set->names);
    if (set->resync)
      HF_TRY(ResyncApply(*batch, set->memory, staged[r.set], hooks_.nak).apply(r));
    else if (r.kind >= Kind::ship_node)
      continue;  // of a resync that was given up
    else
      HF_TRY(OrdinaryApply(*batch, staged[r.set]).apply(r));
  }
  for (auto& [number, batch] : batches) HF_TRY(batch->flush());
  {
    const std::lock_guard lock(mutex_);
    applied_ = {slice.back().epoch, slice.back().sequence};
  }
  applied_time_ns_ = slice.back().time_ns;
  dirty_ = true;
  unsynced_bytes_ += bytes;
  if (stands_alone(slice.front())) HF_TRY(checkpoint_now());
  if (slice.front().kind == Kind::resync_end) HF_TRY(end_resync(slice.front()));
  return {};
}

Status Applier::mark(const log::Record& r) {
  switch (r.kind) {
    case Kind::epoch_begin:
      purge_orphans_ = true;
      return {};  // open files of earlier epochs are gone with their mounts
    case Kind::resync_begin:
      return begin_resync(r);
    default:
      return {};
  }
}

Status Applier::begin_resync(const log::Record& r) {
  if (SetState* set = find(r.set)) {
    set->resync = true;
    set->complete = false;
    set->memory = {};
  }
  log_info("set {}: resynchronization begins at sequence {}", r.set, r.sequence.value);
  HF_TRY(hooks_.update_state([&](NodeState& s) {
    s.complete.erase(r.set);
    s.resyncing.insert(r.set);
    resyncing_count_ = static_cast<int>(s.resyncing.size());
  }));
  resyncing_.insert(r.set);
  complete_.erase(r.set);
  return {};
}

// After the checkpoint that covers it: complete becomes durable, then what was displaced goes.
Status Applier::end_resync(const log::Record& r) {
  SetState* set = find(r.set);
  if (!set || !set->resync) return {};
  if (set->memory.broken) {
    log_warning("set {}: a resynchronization that was interrupted here can't be completed; it begins anew", r.set);
    hooks_.resync_broken();
    return {};
  }
  HF_TRY(hooks_.update_state([&](NodeState& s) {
    s.complete.insert(r.set);
    s.resyncing.erase(r.set);
    resyncing_count_ = static_cast<int>(s.resyncing.size());
  }));
  set->resync = false;
  set->complete = true;
  set->memory = {};
  resyncing_.erase(r.set);
  complete_.insert(r.set);
  log_info("set {}: complete at sequence {}", r.set, r.sequence.value);
  return set->tree->purge(ports::Grave::limbo);
}

Status Applier::checkpoint() {
  const std::lock_guard work(work_mutex_);
  return checkpoint_now();
}

Status Applier::checkpoint_now() {
  const Position position = applied();
  if (!dirty_) return {};
  for (auto& [number, set] : sets_) HF_TRY(set.tree->sync());
  HF_TRY(hooks_.update_state([&](NodeState& s) { s.applied = position; }));
  dirty_ = false;
  unsynced_bytes_ = 0;
  for (auto& [number, set] : sets_) {
    // In a redo over a tree that is ahead of it, the graveyard holds what later records delete, and earlier ones still write to.
    if (position.sequence < set.names.done) continue;
    HF_TRY(set.tree->purge(ports::Grave::deleted));
    if (purge_orphans_) HF_TRY(set.tree->purge(ports::Grave::orphan));
  }
  purge_orphans_ = false;
  return log_.trim(position.sequence);
}

}  // namespace holdfast::mirror
