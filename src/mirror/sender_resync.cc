// SPDX-License-Identifier: Apache-2.0
// What a sender does for a peer that is not whole, or that fell behind further than its queue.
#include <algorithm>
#include <chrono>

#include "base/log.h"
#include "mirror/changed_walk.h"
#include "mirror/full_walk.h"
#include "mirror/sender.h"

namespace holdfast::mirror {
namespace {

constexpr std::chrono::seconds map_look_every{1};

}  // namespace

// Truth table of where a session begins (the queue knows the history of this epoch and what it continues):
//   tree clean, position in the queue          -> go on there; sets that are not complete are resynchronized
//   tree clean, position in the map            -> restart where the map ends, the tree drained: sets that were complete get what changed
//   tree clean, position elsewhere             -> restart: the log begins anew at the ring's end, all sets are resynchronized
//   tree not clean (a fenced or dead active)   -> by what it lists (sender_return.cc): restart where this epoch began, with what is listed and what
//                                                 changed since; when that can't be enough: restart
Result<std::optional<Returned>> Sender::find_place(const Visit& visit, Start& start) {
  const Welcome& welcome = visit.welcome;
  std::optional<Returned> returned;
  trust_only_whole(welcome);
  PeerQueue::Source source = PeerQueue::Source::stale;
  if (welcome.clean) source = queue_.resume(welcome.position);
  if (!welcome.clean) returned = Returned{peer_, name_, welcome.led, {}, {}};
  bool found = source == PeerQueue::Source::queue;
  if (found) {
    start = {false, welcome.position, false};
  } else if (returned) {
    HF_ASSIGN(found, find_by_list(visit, start, *returned));
  } else {
    HF_ASSIGN(found, find_in_map(visit, start, source));
  }
  if (!found) {
    std::string why = queue_.status().given_up;
    if (const auto noted = queue_.covered(); noted && why.empty())
      why = fmt::format("what changed is noted since epoch {} sequence {} only", noted->since.epoch.value,
                        noted->since.sequence.value);
    start = {true, queue_.restart(), false};
    {
      const std::lock_guard lock(mutex_);
      partial_.reset();
    }
    if (!returned)
      log_info("peer {}: epoch {} sequence {} is not in its queue{}{}: it is resynchronized", name_,
               welcome.position.epoch.value, welcome.position.sequence.value, why.empty() ? "" : ": ", why);
  }
  find_needs(welcome, start);
  return returned;
}

// A tree that is empty, or another one, lacks more than what changed since the peer was told so, whatever happens to it next.
// Once its log begins anew no set is complete, so what was told before counts. Where it still stands where it was told so, it did not do that: a
// set that is not complete any more was given up there, and it has skipped records that are in no map.
void Sender::trust_only_whole(const Welcome& welcome) {
  const std::lock_guard lock(mutex_);
  if (!partial_) return;
  for (const auto& s : welcome.sets)
    if (s.empty || s.doubted || (welcome.position == partial_->from && !s.complete && partial_->whole.contains(s.set)))
      partial_->sets.erase(s.set);
}

// The map says what the peer lacks after its position: it stands where the map begins or after, or where it stood when it was told so before.
Result<bool> Sender::find_in_map(const Visit& visit, Start& start, PeerQueue::Source source) {
  const Welcome& welcome = visit.welcome;
  if (!map_ || (welcome.features & shared_.features & feature_partial_resync) == 0 || map_->overflowed()) return false;
  const auto base = find_base(welcome, source);
  if (!base) return false;
  std::shared_ptr<const HotLeft> left;
  {
    const std::lock_guard lock(mutex_);
    left = left_;
  }
  log_info("peer {}: it is too far behind for its queue: it gets what changed since epoch {} sequence {}", name_,
           welcome.position.epoch.value, welcome.position.sequence.value);
  begin_partial(welcome, *base, nullptr, left != nullptr);  // first, as for one that lists (sender_return.cc)
  HF_ASSIGN(const bool noted, note_own_left(visit, left));
  if (!noted) return false;
  start = {true, *base, true};
  return true;
}

// Where its log begins anew; all that changed up to there is in the map, or will be when what is taken is folded. `asked`: what the queue was
// asked for, when that is not where the peer says it stands.
std::optional<Position> Sender::find_base(const Welcome& welcome, PeerQueue::Source source,
                                          std::optional<Position> asked) {
  std::optional<Partial> before;
  {
    const std::lock_guard lock(mutex_);
    before = partial_;
  }
  Position base = asked.value_or(welcome.position);
  // It was told so already, and was not ready, or never heard it.
  if (source == PeerQueue::Source::stale && before && welcome.position == before->from) {
    base = before->base;
    source = queue_.resume(base);
  }
  if (source == PeerQueue::Source::map) {
    const auto from_map = queue_.resume_from_map();
    if (!from_map) return {};
    return *from_map;
  }
  if (source != PeerQueue::Source::queue) return {};
  queue_.keep_noted();
  return base;
}

void Sender::begin_partial(const Welcome& welcome, Position base, const std::set<SetNumber>* sets, bool after_death) {
  map_->begin_partial();
  queue_.fold_taken_until(Sequence(~std::uint64_t{0}));
  const std::lock_guard lock(mutex_);
  Partial partial{{}, {}, welcome.position, base, after_death};
  if (partial_) {
    partial.sets = std::move(partial_->sets);
    partial.after_death = after_death || partial_->after_death;
  }
  for (const auto& s : welcome.sets) {
    if (!s.complete || (sets && !sets->contains(s.set))) continue;
    partial.sets.insert(s.set);
    partial.whole.insert(s.set);
  }
  partial_ = std::move(partial);
}

// What the peer lacks. A resynchronization outlives its connection: its records wait in the queue, and the peer repeats what it asked for. It
// does not outlive the peer's process, which forgets that, nor a log that begins anew.
void Sender::find_needs(const Welcome& welcome, const Start& start) {
  std::set<SetNumber> whole, empty;
  for (const auto& s : welcome.sets) {
    if (s.complete && !start.restart) whole.insert(s.set);
    if (s.empty) empty.insert(s.set);
  }
  const std::set<SetNumber> protected_here = shared_.sets();
  const std::lock_guard lock(mutex_);
  if (start.restart || welcome.life != life_) {
    drop_resync();
    shipped_.clear();
  }
  life_ = welcome.life;
  sent_ = acked_ = start.base.sequence;
  applied_ = Sequence(0);
  caught_up_at_ = shared_.log.ring().last_sequence();
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
  // What set_added() put there since open() began stays: `protected_here` may be older.
  for (const SetNumber set : protected_here) {
    const bool noted = std::any_of(needs_.begin(), needs_.end(), [&](const Need& n) { return n.set == set; });
    const bool partial = partial_ && partial_->sets.contains(set) && !empty.contains(set);
    if (!whole.contains(set) && !noted) needs_.push_back({set, empty.contains(set), partial});
  }
  complete_ = needs_.empty();
  if (!complete_ || counts_from_ != Sequence(0)) shared_.log.incomplete(peer_);
}

// mutex_ is held.
void Sender::drop_resync() {
  ++needs_found_;
  if (!resync_ || !resync_counts_) return;
  resync_counts_ = false;
  resync_->cancel();
  if (!needs_.empty()) needs_.pop_front();
}

// The peer is whole again, and nothing that was noted concerns it any more.
void Sender::partial_ends() {
  {
    const std::lock_guard lock(mutex_);
    if (!partial_) return;
    partial_.reset();
  }
  queue_.fold_taken_until(Sequence(0));
  queue_.settled();
}

// May wait for the disk of the map. One that can't be read or written is no reason to be without a copy.
bool Sender::map_suffices(const Need& need) {
  if (!need.partial) return false;
  const auto whole = map_->is_whole(need.set);
  if (!whole) map_->give_up(whole.error());
  return whole && !*whole;
}

// Meanwhile what is noted of a peer that is away moves from memory to the disk. False: it is over.
bool Sender::wait_for_need(Need& need, std::uint64_t& asked) {
  std::unique_lock lock(mutex_);
  const auto wanted = [&] { return stopped_ || (connected_ && !resync_barred_ && !needs_.empty()); };
  if (!map_) resync_work_.wait(lock, wanted);
  while (map_ && !resync_work_.wait_for(lock, map_look_every, wanted)) {
    if (!map_->wants_flush()) continue;
    lock.unlock();
    const Status flushed = map_->flush();
    lock.lock();
    if (!flushed && !flush_failed_)
      log_warning("peer {}: what changed can't be put on disk: {}", name_, flushed.error().to_string());
    flush_failed_ = !flushed;
  }
  if (stopped_) return false;
  need = needs_.front();
  asked = needs_found_;
  return true;
}

// Nothing: it is over.
std::shared_ptr<Resync> Sender::next_resync() {
  for (;;) {
    Need need{};
    std::uint64_t asked = 0;
    if (!wait_for_need(need, asked)) return nullptr;
    if (!shared_.sets().contains(need.set)) {  // removed while a session began
      set_removed(need.set);
      continue;
    }
    std::unique_ptr<ResyncPlan> plan;
    if (map_suffices(need))
      plan = std::make_unique<ChangedWalk>(*map_, need.set, name_);
    else
      plan = std::make_unique<FullWalk>(need.set, need.empty);
    const std::lock_guard lock(mutex_);
    if (asked != needs_found_ || stopped_ || resync_barred_ || needs_.empty()) continue;  // it is another peer by now
    resync_ = std::make_shared<Resync>(shared_.log, shared_.live, peer_, need.set, std::move(plan));
    resync_counts_ = true;
    ++resyncs_;
    return resync_;
  }
}

// mutex_ is held.
void Sender::add_up(const ResyncProgress& progress) {
  if (std::exchange(whole_since_, false)) {
    last_resync_ = {};
    last_resync_.partial = true;
  }
  last_resync_.done += progress.done;
  last_resync_.total += progress.total;
  last_resync_.bytes += progress.bytes;
  last_resync_.sent_bytes += progress.sent_bytes;
  last_resync_.opened += progress.opened;
  last_resync_.partial = last_resync_.partial && progress.partial;
}

// What the peer may lack beyond what is noted: the next one ships it.
void Sender::keep_doubts(const Resync& resync) {
  {
    const std::lock_guard lock(mutex_);
    if (!partial_ || !resync.is_partial()) return;
  }
  for (const auto& [id, folder] : resync.unsettled()) {
    map_->note_object(resync.set(), id);
    if (!folder.is_none()) map_->note_place(resync.set(), folder);
  }
}

void Sender::resync_loop() {
  while (const std::shared_ptr<Resync> resync = next_resync()) {
    update_state();
    log_info("peer {}: set {} is being {}", name_, resync->set(),
             resync->is_partial() ? "brought up to date with what changed" : "copied");
    Status done = resync->run();
    keep_doubts(*resync);
    bool counts = false, after_death = false;
    {
      const std::lock_guard lock(mutex_);
      after_death = partial_ && partial_->after_death;
      add_up(resync->progress());
      resync_.reset();
      resync_work_.notify_all();
      counts = std::exchange(resync_counts_, false) && done;
      if (counts) {
        needs_.pop_front();
        ++needs_found_;
        shipped_[resync->set()] = resync->end();
      }
      if (counts && needs_.empty()) {
        complete_ = whole_since_ = true;
        left_.reset();  // it has all of it
        counts_from_ = resync->end();
        caught_up_at_ = shared_.log.last_sequence();
      }
    }
    if (!done && done.error().code != ErrorCode::unavailable) {
      log_error("peer {}: the copy of set {} failed: {}", name_, resync->set(), done.error().message);
      shared_.fault(done.error());
      return;
    }
    // What a comparison found is in no map.
    if (counts && !resync->is_partial()) verifier_.copied(resync->set());
    if (counts && resync->is_partial() && after_death) verifier_.look_again(resync->set());
    update_state();
  }
}

// Before its folder goes: a walk would take all that is in it for gone, and say so. What the peer needs now, and whether it is whole, the next
// session finds out.
void Sender::set_removed(SetNumber set) {
  std::unique_lock lock(mutex_);
  if (partial_) partial_->sets.erase(set);
  const bool needed = std::any_of(needs_.begin(), needs_.end(), [&](const Need& n) { return n.set == set; });
  if (resync_ && resync_->set() == set) drop_resync();
  std::erase_if(needs_, [&](const Need& n) { return n.set == set; });
  if (needed) {
    ++needs_found_;
    ending_ = true;
    queue_.kick();
  }
  resync_work_.wait(lock, [&] { return !resync_ || resync_->set() != set; });
}

void Sender::cancel_resync() {
  verifier_.bar();
  std::unique_lock lock(mutex_);
  resync_barred_ = true;
  drop_resync();
  resync_work_.wait(lock, [&] { return !resync_; });
}

void Sender::end_epoch() {
  ++epochs_;
  end_session();
  {
    const std::lock_guard lock(mutex_);
    resync_barred_ = true;
    drop_resync();
  }
  queue_.end();
}

}  // namespace holdfast::mirror
