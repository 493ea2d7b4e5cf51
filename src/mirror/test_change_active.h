// SPDX-License-Identifier: Apache-2.0
// For tests only: the active's side of ChangeRun: queue, map, session, resynchronizations. Included by mirror/test_change_model.h.
#pragma once

#include "mirror/test_change_model.h"

namespace holdfast::mirror::testing {

inline void ChangeRun::remember() {
  Moment now;
  for (const auto& [number, set] : sets_) now.emplace(number, set->model);
  history_.insert_or_assign(last(), std::move(now));
}

inline void ChangeRun::append(const OwnedRecord& record) {
  const log::Record view = record.view();
  const std::size_t bytes = view.payload.size() + view.name.size() + view.name2.size();
  CHECK(active_.try_reserve(bytes), "the ring is full");
  active_.append(view, bytes);
  collect();
}

inline void ChangeRun::produce(unsigned operations) {
  for (OwnedRecord r; operations > 0; --operations) {
    const auto number = static_cast<SetNumber>(sets_.size() == 1 ? 1 : 1 + pick(2));
    RandomModelApplication& application = sets_[number]->application;
    application.allow_shifts(true);
    if (application.step(r)) append(r);
    for (const FileId& id : application.take_moved()) moved_.emplace_back(number, id);
  }
}

inline void ChangeRun::name_nameless() {
  OwnedRecord r;
  for (auto& [number, set] : sets_)
    for (int i = 0; i < 8; ++i)
      if (set->application.name_nameless(r)) append(r);
}

// Capture says so right after it appended the record: others may get in between.
inline void ChangeRun::tell_moved() {
  for (const auto& [set, id] : moved_)
    if (resync_ && resync_set_ == set) resync_->moved(id);
  moved_.clear();
}

inline void ChangeRun::trace(ByteView record) {
  if (!options_.trace) return;
  const auto r = log::decode(record).value();
  note(fmt::format("{:6} {}{}{} file {} parent {} \"{}\" parent2 {} \"{}\" offset {} length {} flags {} payload {}",
                   r.sequence.value, r.addressed_to == peer_ ? "* " : "",
                   sets_.size() > 1 ? fmt::format("set {} ", r.set) : "", log::to_string(r.kind),
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
      remember();
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
inline void ChangeRun::give_up(Sequence to) {
  if (to == released_) return;
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
  in_flight_.clear();
}

// sender_resync.cc: drop_resync, and keep_doubts by the thread that ran it.
inline void ChangeRun::drop_resync() {
  if (!resync_) return;
  resync_->cancel();
  if (partial_ && resync_->is_partial() && options_.flaw != Flaw::unsettled_forgotten)
    for (const auto& [id, folder] : resync_->unsettled()) {
      map_.note_object(resync_set_, id);
      if (!folder.is_none()) map_.note_place(resync_set_, folder);
    }
  resync_.reset();
  needs_.pop_front();
}

// sender_resync.cc: find_place, find_in_map, and what they ask of peer_queue.cc. Where the log begins anew; nothing: it goes on.
inline std::optional<Sequence> ChangeRun::find_place(Sequence at, const std::set<SetNumber>& complete, bool& drained) {
  const auto in_queue = [&](Sequence s) { return s >= released_ && s <= last(); };
  if (partial_ && at == partial_->from && options_.flaw != Flaw::given_up_trusted)
    std::erase_if(partial_->sets,
                  [&](SetNumber set) { return partial_->whole.contains(set) && !complete.contains(set); });
  if (in_queue(at)) {
    if (noted_since_ && !partial_) map_.forget();
    noted_since_.reset();
    released_ = at;
    return {};
  }
  const bool in_map = noted_since_ && at >= *noted_since_ && at <= released_;
  const bool told_before = partial_ && at >= partial_->from && at <= partial_->base;
  if (map_.overflowed() || (!in_map && !told_before)) {
    released_ = last();
    noted_since_.reset();
    map_.forget();
    partial_.reset();
    return released_;
  }
  const Sequence base = !in_map && !noted_since_ && in_queue(partial_->base) ? partial_->base : released_;
  Partial partial{complete, complete, at, base};
  if (partial_) partial.sets.insert(partial_->sets.begin(), partial_->sets.end());
  noted_since_.reset();
  if (options_.flaw != Flaw::named_not_noted) map_.begin_partial();
  partial_ = partial;
  drained = true;
  return base;
}

// node_log.cc: drain_for_restart. False: start 2 is refused; a stubborn peer makes the active come again.
inline Result<bool> ChangeRun::drain(const std::set<SetNumber>& told) {
  for (unsigned steps = pick(6); applier_->applied().sequence < log_->end().sequence;) {
    if (steps-- == 0) {
      note("-- start 2 is refused: busy");
      return false;
    }
    if (auto more = apply(); !more || !*more) {
      HF_TRY(survives(more.map([](bool) {})));
      if (fuse_.left != UINT64_MAX || !more) return false;
    }
  }
  for (const SetNumber set : told)
    if (!whole(set) && options_.flaw != Flaw::given_up_trusted) {
      note("-- start 2 is refused: a set was given up");
      return false;
    }
  if (Status done = applier_->checkpoint(); !done) {
    HF_TRY(survives(done));
    return false;
  }
  return true;
}

inline void ChangeRun::find_needs(const std::set<SetNumber>& complete, bool restart) {
  std::set<SetNumber> whole;
  if (!restart) whole = complete;
  if (restart || life_ != met_life_) {
    drop_resync();
    shipped_.clear();
  }
  met_life_ = life_;
  counts_from_ = Sequence(0);
  for (auto it = shipped_.begin(); it != shipped_.end();) {
    if (whole.contains(it->first)) {
      it = shipped_.erase(it);
      continue;
    }
    whole.insert(it->first);
    counts_from_ = std::max(counts_from_, it->second);
    ++it;
  }
  for (const auto& [number, set] : sets_) {
    const bool noted = std::any_of(needs_.begin(), needs_.end(), [&, n = number](const Need& d) { return d.set == n; });
    const bool empty = options_.wide && set->tree->is_empty().value();
    const bool partial = partial_ && partial_->sets.contains(number) && !empty;
    if (!whole.contains(number) && !noted) needs_.push_back({number, empty, partial});
  }
  complete_ = needs_.empty();
}

// sender.cc: open.
inline Status ChangeRun::connect() {
  HF_TRY(survives(log_->sync()));
  needs_.resize(resync_ ? 1 : 0);
  const Position x = log_->end();
  const std::set<SetNumber> complete = whole_sets();
  bool drained = false;
  const std::optional<Sequence> base = find_place(x.sequence, complete, drained);
  if (base) {
    if (drained && options_.flaw != Flaw::not_drained) {
      HF_ASSIGN(const bool ready, drain(complete));
      if (!ready) return {};
    }
    note(fmt::format("-- start {} at {}: the peer stands at {}", drained ? 2 : 1, base->value, x.sequence.value));
    const Position position{*base == base_.sequence ? base_.epoch : epoch_, *base};
    if (Status done = restart_log(position); !done) return survives(done);
    questions_.clear();
  }
  find_needs(complete, base.has_value());
  naks_.assign(questions_.all().begin(), questions_.all().end());
  connected_ = true;
  taken_ = base ? *base : x.sequence;
  applied_seen_ = Sequence(0);
  if (!options_.wide && !partial_ && !complete_)
    return fail(ErrorCode::internal, "it is not whole, and not in a partial resync");
  return {};
}

// sender_resync.cc: next_resync.
inline Status ChangeRun::next_resync() {
  const Need need = needs_.front();
  bool partial = need.partial;
  if (partial) {
    HF_ASSIGN(const bool all_of_it, map_.is_whole(need.set));
    partial = !all_of_it;
  }
  std::unique_ptr<ResyncPlan> plan;
  if (partial)
    plan = std::make_unique<ChangedWalk>(map_, need.set, "peer");
  else
    plan = std::make_unique<FullWalk>(need.set, need.empty);
  ++(partial ? report_.partials : report_.fulls);
  moved_.clear();
  resync_ = std::make_unique<Resync>(active_, live_, peer_, need.set, std::move(plan), chunks_);
  resync_set_ = need.set;
  return {};
}

inline Status ChangeRun::ship(unsigned steps) {
  if (!resync_) {
    if (needs_.empty() || !connected_ || pick(3) != 0) return {};
    HF_TRY(next_resync());
  }
  if (!options_.wide || pick(2) == 0) tell_moved();
  for (; steps > 0; --steps) {
    const auto turn = resync_->step();
    collect();
    if (!turn && turn.error().code == ErrorCode::unavailable) {  // it can't name any more what changed
      drop_resync();
      cut();
      return {};
    }
    if (!turn) return tl::unexpected(turn.error());
    if (*turn == Resync::Turn::waits) return {};
    if (*turn == Resync::Turn::more) continue;
    ++report_.completed;
    tell_moved();
    shipped_[resync_set_] = resync_->end();
    counts_from_ = resync_->end();
    resync_.reset();
    needs_.pop_front();
    complete_ = needs_.empty();
    if (!options_.wide) sets_[1]->application.close_all();
    return {};
  }
  return {};
}

inline Status ChangeRun::send(unsigned count) {
  if (!connected_) return {};
  for (; count > 0 && taken_ < last(); --count) {
    const Bytes& r = records_[taken_.value - base_.sequence.value];
    const log::RecordHead head = log::head_of(r.data());
    const bool gap = !resync_ && shipped_.empty(), tail = !gap;
    if (partial_ && !(gap && options_.flaw == Flaw::gap_not_folded) &&
        !(tail && options_.flaw == Flaw::tail_not_folded))
      fold(taken_, head.sequence);
    taken_ = head.sequence;
    HF_TRY(log_->append(r, 1, {head.epoch, head.sequence}));
    on_received(r);
    if (pick(12) == 0) HF_TRY(log_->rotate());
  }
  return pick(4) == 0 ? Status{} : log_->sync();
}

// NAKs first, then how far it is (receiver.cc: send_ack). Some of it arrives later, or never.
inline Status ChangeRun::acknowledge(bool all_arrives) {
  if (!connected_) return {};
  HF_TRY(log_->sync());
  const Ack ack{log_->durable(), applier_->announced()};
  in_flight_.insert(in_flight_.end(), naks_.begin(), naks_.end());
  naks_.clear();
  in_flight_.emplace_back(ack);
  std::size_t arrive = in_flight_.size();
  for (int i = 0; !all_arrives && i < (lossy_ ? 3 : 1); ++i) arrive = pick(static_cast<unsigned>(arrive + 1));
  for (; arrive > 0; --arrive) {
    const auto frame = in_flight_.front();
    in_flight_.pop_front();
    if (const Nak* nak = std::get_if<Nak>(&frame)) {
      if (resync_ && resync_set_ == nak->set) resync_->nak(*nak);
      continue;
    }
    HF_TRY(heard(std::get<Ack>(frame)));
  }
  return {};
}

// sender.cc: on_ack.
inline Status ChangeRun::heard(const Ack& ack) {
  if (ack.durable > released_) {
    released_ = ack.durable;
    if (noted_since_ && !partial_) map_.forget();
    noted_since_.reset();
  }
  applied_seen_ = std::max(applied_seen_, ack.applied);
  const bool counts = complete_ && applied_seen_ >= counts_from_;
  if (resync_) resync_->acked(ack);
  if (!counts) return {};
  if (!shipped_.empty() && ack.applied == applier_->announced() && !all_whole())
    return fail(ErrorCode::internal, "the resync has ended, and the peer is not whole");
  shipped_.clear();
  partial_.reset();
  if (!noted_since_) map_.forget();
  return {};
}

}  // namespace holdfast::mirror::testing
