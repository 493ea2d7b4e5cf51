// SPDX-License-Identifier: Apache-2.0
// The history after a crash: which batches need no undo any more, which one stopped half-way, and what it has covered.
#include "mirror/undo_journal.h"

namespace holdfast::mirror {

using log::Kind;

const UndoBatch* UndoJournal::last_batch() const {
  for (auto it = batches_.rbegin(); it != batches_.rend(); ++it)
    if (it->head.why != BatchWhy::resume) return &*it;
  return nullptr;
}

// Truth table (m = the last sealed batch):
//   no batch; or a gap after m                        -> pass to the log's end: it may be mixed, and has no old values
//   m is of another life, or out of step              -> the same, and a gap: something is missing
//   m ends at the checkpoint                          -> nothing to redo for undo: capture at once
//   m ends after it                                   -> pass to m's start, m again, then on
Result<RedoPlan> UndoJournal::redo(Position checkpoint, std::uint64_t life, Position log_end) {
  if (!on_) return RedoPlan{};
  is_open_ = resuming_ = false;
  group_.clear();
  group_count_ = 0;
  RedoPlan suppress{log_end.sequence, {}, 0};
  UndoBatch m;
  bool any = false;
  {
    const std::lock_guard lock(mutex_);
    if (const UndoBatch* last = last_batch()) m = *last, any = true;
    if (any && m.head.why != BatchWhy::rewind)
      for (const UndoBatch& b : batches_)
        if (b.head.life != life || b.head.after.sequence <= checkpoint.sequence) suppress.covered = b.number;
  }
  const std::uint64_t covered = suppress.covered;
  if (!any || last_is_gap_) return suppress;
  const UndoHead& head = m.head;
  // A rewind is under way, and gone on with before anything is applied; when it is done, a jump follows.
  if (head.why == BatchWhy::rewind) return suppress;
  if (head.life == life && head.after == checkpoint) return RedoPlan{checkpoint.sequence, {}, covered};
  const bool of_the_log = head.why == BatchWhy::apply || head.why == BatchWhy::resync;
  if (of_the_log && head.life == life && head.before >= checkpoint && head.after.sequence <= log_end.sequence)
    return RedoPlan{head.before.sequence, head.after.sequence, covered};
  Status said = gap(0, fmt::format("history ends at sequence {}, the tree stands at {}", head.after.sequence.value,
                                   checkpoint.sequence.value));
  if (!said && said.error().code == ErrorCode::no_space) said = begin_anew("there is no room to say that it has a gap");
  HF_TRY(said);
  return suppress;
}

Status UndoJournal::resume(Covered& covered) {
  std::uint64_t m = 0;
  std::set<SetNumber> sets;
  {
    const std::lock_guard lock(mutex_);
    m = last_batch()->number;
    sets = last_batch()->head.sets;
    sets.insert(last_batch()->head.partial.begin(), last_batch()->head.partial.end());
  }
  resuming_ = true;
  is_open_ = false;
  return load(m, sets, covered, std::numeric_limits<std::size_t>::max());
}

Status UndoJournal::load(std::uint64_t from, const std::set<SetNumber>& sets, Covered& covered, std::size_t most) {
  std::size_t cells = 0;
  HF_TRY(read(from, [&](const UndoBatch&, const log::Record& r) -> Status {
    if (!sets.contains(r.set) || ++cells > most) return {};
    CoveredSet& set = covered[r.set];
    switch (r.kind) {
      case Kind::undo_object:
        set.objects.try_emplace(r.file, CoveredSet::Object{(r.flags & log::flag_absent) != 0, r.length, {}});
        return {};
      case Kind::undo_name:
        set.names[r.parent].emplace(r.name);
        return {};
      case Kind::undo_bytes:
      case Kind::undo_hole:
        // Its object's cell may be in an earlier batch, and not loaded: without the old size nothing can be said of ranges.
        if (const auto it = set.objects.find(r.file); it != set.objects.end())
          it->second.data.add(r.offset, r.offset + (r.kind == Kind::undo_bytes ? r.payload.size() : r.length));
        return {};
      default:
        return {};
    }
  }));
  // Half of it would be worse than nothing: an old size without the ranges that were kept below it.
  if (cells > most)
    for (const SetNumber set : sets) covered.erase(set);
  return {};
}

}  // namespace holdfast::mirror
