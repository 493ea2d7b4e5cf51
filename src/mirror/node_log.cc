// SPDX-License-Identifier: Apache-2.0
// Opening, configuration and status; role changes are in node_role.cc.
#include "mirror/node_log.h"

#include <algorithm>
#include <chrono>

#include "base/check.h"
#include "base/log.h"
#include "log/record_fields.h"
#include "mirror/log_restart.h"

namespace holdfast::mirror {
namespace {

// The application is not to wait for a peer: when what it has not received can't be put aside either, it loses its place. A disk may take its
// time over a commit or two before that.
constexpr std::int64_t full_ring_patience_ns = 2'000'000'000, no_spill_patience_ns = 250'000'000;
constexpr std::uint64_t checkpoint_after_bytes = std::uint64_t{256} << 20;
constexpr int ack_every_ticks = 5;
constexpr int shadow_every_ticks = 50;
constexpr int active_every_ticks = 10;
constexpr int apply_linger_ms = 10;
constexpr int apply_linger_with_history_ms = 50;  // each batch is an entry of the history, and a sync
constexpr std::int64_t space_poll_ms = 1000;
constexpr int sweep_pause_ms = 20;
// Less than what a connection may be silent for.
constexpr std::int64_t drain_patience_ns = 1'000'000'000;
constexpr std::uint64_t apply_at_once_bytes = std::uint64_t{1} << 20;

}  // namespace

const char* to_string(Role role) {
  switch (role) {
    case Role::idle:
      return "idle";
    case Role::passive:
      return "passive";
    case Role::active:
      return "active";
    case Role::fenced:
      return "fenced";
  }
  return "idle";
}

NodeLog::NodeLog(NodeLogConfig config, NodeLogPorts ports, NodeLogEvents events)
    : config_(std::move(config)),
      ports_(ports),
      events_(std::move(events)),
      active_(config_.ring_bytes, ports.times),
      limits_(ports.limits, config_.node),
      log_(ports.segments, config_.segment_bytes),
      applier_(
          log_, ports.undo,
          {[this](const auto& change) { return update_state(change); }, [this](const Nak& nak) { receiver_.nak(nak); },
           [this](const Differs& differs) { receiver_.differs(differs); },
           [this](std::uint64_t bytes) {
             {
               const std::lock_guard lock(mutex_);
               applied_bytes_ =
                   applier_.applied().sequence == log_.durable() ? receiver_.appended_bytes() : applied_bytes_ + bytes;
               missing_set_ = 0;
               apply_cv_.notify_all();
             }
             receiver_.space_freed();
             if (applier_.resyncing()) receiver_.send_ack();
           },
           [this] {
             ++life_;  // else the active takes what it shipped for enough
             receiver_.disconnect();
           },
           [this](const log::Record& r, std::uint64_t batch) { return note_shadow(r, batch); },
           [this](SetNumber set) {
             const std::lock_guard lock(mutex_);
             if (missing_set_ != set)
               log_warning("the log is about set {}, which is not configured here yet: apply waits for it", set);
             missing_set_ = set;
             apply_cv_.notify_all();
           },
           [this](SetNumber set) { receiver_.settled(set); }}),
      receiver_(log_,
                {[this](const Hello& hello) { return admit(hello); },
                 [this](const Start& start, Epoch epoch, const Welcome& told) -> Status {
                   HF_TRY(drain_for_restart(start.drained, told));
                   return restart_log(
                       start.base,
                       [](NodeState& s) {
                         s.active_epoch = Epoch(0);
                         s.clean = true;
                         s.complete.clear();
                         s.resyncing.clear();
                       },
                       epoch);
                 },
                 [this] { wake_applier(); }, [this] { return applier_.announced(); },
                 [this]() -> std::uint64_t {
                   const std::uint64_t appended = receiver_.appended_bytes();
                   const std::lock_guard lock(mutex_);
                   return appended - std::min(appended, applied_bytes_);
                 },
                 [this](const Error& why) { fault(why); },
                 [this](const std::string& full) {
                   const std::lock_guard lock(mutex_);
                   receive_full_ = full;
                 },
                 &limits_},
                config_.receive_limit_bytes),
      shadows_(ports.shadows),
      compared_(ports_.compared),
      send_limit_bytes_(config_.send_limit_bytes),
      life_(config_.life),
      wants_history_(ports.undo.on()) {
  active_.on_hurry([this](Sequence to) {
    for (const auto& s : senders()) s->hurry(to);
  });
  active_.on_moved([this](SetNumber set, const FileId& id) {
    for (const auto& s : senders()) s->moved(set, id);
  });
}

NodeLog::~NodeLog() { stop(); }

Result<std::unique_ptr<NodeLog>> NodeLog::open(NodeLogConfig config, NodeLogPorts ports, NodeLogEvents events) {
  std::unique_ptr<NodeLog> made(new NodeLog(std::move(config), ports, std::move(events)));
  HF_TRY(made->recover());
  HF_TRY(made->open_hot());
  return made;
}

// Where this node stands after whatever ended its last life:
//   no log                                  -> a new node, or one whose log was given up: begins at the checkpoint
//   restarting                              -> the log was about to begin anew: finish that
//   was active (clean or not)               -> its log ends where it was promoted; nothing to redo
//   passive                                 -> redo from the checkpoint to the log's end
Status NodeLog::recover() {
  HF_ASSIGN(const Bytes stored, ports_.state.load());
  HF_ASSIGN(state_, decode_node_state(stored));
  const bool check = !state_.restarting && state_.active_epoch == Epoch(0);
  if (state_.restarting) {  // whatever is left of the log, half a segment too
    HF_TRY(log_.reset(state_.applied));
    HF_TRY(applier_.jump_held(jump_head(state_)));
    HF_TRY(update_state([](NodeState& s) { s.restarting = false; }));
  } else {
    HF_ASSIGN(const log::Recovery recovery, log_.recover(check ? state_.applied.sequence : Sequence(0)));
    if (!recovery.found) HF_TRY(log_.reset(state_.applied));
  }
  pin_point();
  if (Status read = shadows_.load(); !read) log_error("{}", read.error().to_string());
  if (Status read = limits_.load(); !read) log_warning("{}", read.error().to_string());
  HF_TRY(name_point(state_));
  keep_shadows();
  receiver_.set_sealed(state_.sealed);
  HF_TRY(applier_.begin(state_));
  if (const std::uint64_t again = log_.size_bytes() - log_.size_bytes_below(state_.applied.sequence);
      check && again != 0)
    log_info("up to {} MiB of the receive log are applied again", again >> 20);
  if (check && state_.applied.sequence.value + 1 < log_.first_kept())
    return fail(ErrorCode::corrupt,
                "the receive log begins at sequence {}, but the tree stands at {}: remove the folder of the receive "
                "log and the mirror's state, and the node resynchronizes",
                log_.first_kept(), state_.applied.sequence.value);
  if (state_.active_epoch != Epoch(0))
    log_info("this node was active in epoch {} and did not hand over: its tree may hold changes that nobody else has",
             state_.active_epoch.value);
  return {};
}

NodeState NodeLog::snapshot() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

Status NodeLog::update_state(const std::function<void(NodeState&)>& change) {
  return store_state([&](NodeState& s) {
    const std::set<SetNumber> before = s.complete;
    change(s);
    for (const SetNumber set : before)
      if (!s.complete.contains(set)) s.lost.insert(set);
    for (const SetNumber set : s.complete) s.lost.erase(set);
  });
}

Status NodeLog::store_state(const std::function<void(NodeState&)>& change) {
  const std::lock_guard one(state_mutex_);
  const NodeState before = snapshot();
  NodeState next = before;
  change(next);
  if (Status stored = ports_.state.store(encode(next)); !stored) {
    fault(stored.error());
    return stored;
  }
  {
    const std::lock_guard lock(mutex_);
    state_ = std::move(next);
  }
  pin_point();
  if (!before.point) HF_TRY(name_point(snapshot()));
  changed();
  return {};
}

void NodeLog::pin_point() {
  if (!ports_.journal) return;
  const NodeState state = snapshot();
  ports_.journal->pin("resync", state.point ? state.point->batch : 0);
  ports_.journal->pin("rewind", state.rewind ? state.rewind->batch : 0);
}

// A passive's copy is about to be replaced by another: what it stood at, and how it got there, is kept until the new one is whole.
void NodeLog::note_point(const NodeState& before, NodeState& next) const {
  if (!history() || next.point) return;
  const bool was_active = before.active_epoch != Epoch(0);
  const std::set<SetNumber>& whole = before.complete;
  if (whole.empty() || std::includes(next.complete.begin(), next.complete.end(), whole.begin(), whole.end())) return;
  next.point = PastState{ports_.journal->next_number(),
                         was_active ? Position{before.active_epoch, before.applied.sequence} : applier_.applied(),
                         before.active_epoch, before.clean, whole};
  // Of an active that died nothing tells when its last change was but that it was there: never later than it was, so the point looks no
  // fresher than it is.
  next.point_time_ns = !was_active             ? applier_.applied_time_ns()
                       : ports_.last_active_ns ? ports_.last_active_ns()
                                               : std::int64_t{0};
}

// What is durable here was acknowledged: it is applied before the log that holds it goes, so that the point is not older than need be. Where only
// what changed comes (`must`), it would be missing for ever: then the active asks again until all is applied. So would be what was skipped of a set
// that was given up on the way, while the active was told that it is whole.
Status NodeLog::drain_for_restart(bool must, const Welcome& told) {
  const NodeState state = snapshot();
  if (state.active_epoch != Epoch(0)) return {};  // its log ends where it was promoted
  if (!must && (!history() || state.complete.empty() || state.point)) return {};
  const std::int64_t patience = ports_.times.steady_ns() + drain_patience_ns;
  for (bool more = true; more;) {
    if (must && ports_.times.steady_ns() > patience) break;
    auto stepped = applier_.step();
    if (!stepped) {
      fault(stepped.error());
      return tl::unexpected(std::move(stepped).error());
    }
    more = *stepped;
  }
  if (applier_.applied().sequence < log_.durable())
    return fail(ErrorCode::busy, "this node can't apply what it holds yet: {}",
                applier_.waits_for_space() ? "it waits for space"
                : must                     ? "it has more to apply first"
                                           : "a set is missing");
  if (!must) return {};
  const NodeState now = snapshot();
  for (const auto& s : told.sets)
    if (s.complete && (!now.complete.contains(s.set) || now.resyncing.contains(s.set)))
      return fail(ErrorCode::busy, "set {} is not whole here any more: it lacks more than what changed", s.set);
  Status synced = applier_.checkpoint();
  if (!synced) fault(synced.error());  // another sync would find nothing to complain of (I7)
  return synced;
}

// The log begins anew after `base`. Crash-safe: the state says so before the log is touched, and again when it is done.
Status NodeLog::restart_log(Position base, const std::function<void(NodeState&)>& change,
                            std::optional<Epoch> unless_after) {
  const auto no_append = receiver_.hold();
  if (unless_after && receiver_.sealed() > *unless_after)
    return fail(ErrorCode::stale, "epoch {} is over", unless_after->value);
  const auto no_apply = applier_.hold();
  return restart_log_held(base, change);
}

// Both locks are held. Nobody could redo what is lost from the trees once the log is gone, and history that spans this needs it all: sync first.
Status NodeLog::restart_log_held(Position base, const std::function<void(NodeState&)>& change) {
  const NodeState before = snapshot();
  const CheckpointMark mark{before.log_life + 1, Sequence(0)};
  const auto marked = applier_.mark_held(mark);
  if (!marked) {
    fault(marked.error());
    return tl::unexpected(marked.error());
  }
  HF_TRY(update_state([&](NodeState& s) {
    change(s);
    s.log_life = mark.log_life;
    for (const SetNumber set : *marked) s.marked[set] = mark;
    s.applied = base;
    s.restarting = true;
    s.went_back.reset();
    s.led_from.reset();
    note_point(before, s);
  }));
  Status done = log_.reset(base);
  if (done) done = applier_.jump_held(jump_head(snapshot()));
  if (!done) {
    fault(done.error());
    return done;
  }
  HF_TRY(update_state([](NodeState& s) { s.restarting = false; }));
  HF_TRY(applier_.begin_held(snapshot()));
  // It led, and whoever leads now knows what may differ, or compares everything: nobody asks this node again.
  if (before.active_epoch != Epoch(0)) HF_TRY(end_hot(base));
  const std::lock_guard lock(mutex_);
  applied_bytes_ = receiver_.appended_bytes();
  return {};
}

void NodeLog::fault(const Error& why) {
  {
    const std::lock_guard lock(mutex_);
    if (!fault_.empty()) return;
    fault_ = why.to_string();
    apply_cv_.notify_all();
  }
  log_error("stopped: {}", why.to_string());
  active_.ring().close();
  if (hot_) hot_->seal();
  for (const auto& s : senders()) s->end_epoch();
  changed();
  events_.fault(why);
}

void NodeLog::changed() {
  const std::lock_guard lock(mutex_);
  ++changes_;
  changed_cv_.notify_all();
  progress_cv_.notify_all();
}

void NodeLog::wait_for_change(int timeout_ms, std::uint64_t& seen) {
  std::unique_lock lock(mutex_);
  changed_cv_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] { return changes_ != seen || stopped_; });
  seen = changes_;
}

Epoch NodeLog::active_epoch() const {
  const std::lock_guard lock(mutex_);
  return role_ == Role::active ? epoch_ : Epoch(0);
}

Epoch NodeLog::dial_epoch() const {
  const std::lock_guard lock(mutex_);
  return role_ == Role::active && !hold_peers_ ? epoch_ : Epoch(0);
}

void NodeLog::let_peers_in(Epoch epoch) {
  {
    const std::lock_guard lock(mutex_);
    if (role_ != Role::active || epoch_ != epoch || !hold_peers_) return;
    hold_peers_ = false;
  }
  changed();
}

// Every set that is here is whole, and every one that is whole, or was once, is here.
bool NodeLog::complete_locked() const {
  return !state_.rewind && state_.resyncing.empty() && state_.lost.empty() && state_.complete == sets_;
}

// After each sync of the receive log, and when a set came that it may be about.
void NodeLog::wake_applier() {
  const std::uint64_t appended = receiver_.appended_bytes();
  const std::lock_guard lock(mutex_);
  apply_work_ = true;
  const bool much = appended > applied_bytes_ + apply_at_once_bytes;
  if (much) apply_now_ = true;
  if (applier_idle_ || much) apply_cv_.notify_all();
}

void NodeLog::run_applier() {
  std::int64_t last_checkpoint_ns = ports_.times.steady_ns();
  for (;;) {
    // Nothing is applied to trees that are on their way back.
    Result<bool> more = false;
    const NodeState state = snapshot();
    if (!state.rewind) more = applier_.step();
    if (!more) return fault(more.error());
    if (state.rewind && !state.rewind_for_epoch && way_back_waits_for_space_)
      if (const std::unique_lock one(transition_mutex_, std::try_to_lock); one.owns_lock()) (void)resume_rewind();
    const std::int64_t now = ports_.times.steady_ns();
    if (applier_.dirty() && (now - last_checkpoint_ns >= config_.checkpoint_ms * 1'000'000 ||
                             applier_.unsynced_bytes() >= checkpoint_after_bytes)) {
      if (Status done = applier_.checkpoint(); !done) return fault(done.error());
      // Those of a copy, so that they don't gather in memory: they have time until its end.
      if (Status ids = ports_.ids.make_ids_durable(); !ids && ids.error().code != ErrorCode::no_space)
        return fault(ids.error());
      last_checkpoint_ns = ports_.times.steady_ns();
    }
    const auto swept = sweep();
    if (!swept) return fault(swept.error());
    std::unique_lock lock(mutex_);
    if (stopped_ || !fault_.empty()) return;
    if (*more) continue;
    if (*swept != Swept::all && !applier_.waits_for_space()) {
      if (*swept == Swept::later)
        apply_cv_.wait_for(lock, std::chrono::milliseconds(sweep_pause_ms), [&] { return stopped_ || apply_work_; });
      apply_work_ = apply_now_ = false;
      continue;
    }
    if (applier_.waits_for_space()) {
      ++space_waits_;
      apply_cv_.notify_all();
    }
    applier_idle_ = true;
    const bool waits = applier_.waits_for_space() || way_back_waits_for_space_;
    const std::int64_t wait_ms = waits ? space_poll_ms : applier_.dirty() ? config_.checkpoint_ms / 4 + 1 : 60'000;
    apply_cv_.wait_for(lock, std::chrono::milliseconds(wait_ms),
                       [&] { return stopped_ || apply_work_ || !fault_.empty(); });
    applier_idle_ = false;
    // Nobody waits for it: a little company makes bigger batches, and fewer wake-ups beside the syncs that somebody does wait for.
    if (apply_work_ && !applier_.resyncing())
      apply_cv_.wait_for(lock,
                         std::chrono::milliseconds(ports_.undo.on() ? apply_linger_with_history_ms : apply_linger_ms),
                         [&] { return stopped_ || apply_now_ || !fault_.empty(); });
    apply_work_ = apply_now_ = false;
    if (stopped_) return;
  }
}

void NodeLog::tick() {
  {
    std::unique_lock lock(mutex_);
    const bool spills = send_limit_bytes_ != 0 && ports_.open_spill;
    lock.unlock();
    active_.ring().expire(spills ? full_ring_patience_ns : no_spill_patience_ns);
  }
  if (++shadow_ticks_ >= shadow_every_ticks) {
    shadow_ticks_ = 0;
    if (const std::unique_lock one(transition_mutex_, std::try_to_lock); one.owns_lock()) turn_history();
    keep_shadows();
  }
  if (++active_ticks_ >= active_every_ticks) {
    active_ticks_ = 0;
    const Sequence last = active_.last_sequence();
    if (ports_.note_active && active_epoch() != Epoch(0) && std::exchange(noted_active_, last) != last)
      ports_.note_active();
  }
  look_for_shortages();
  note_queue_age();
  const Sequence applied = applier_.announced();
  if (applied == acked_applied_ && ++ticks_ < ack_every_ticks) return;
  ticks_ = 0;
  acked_applied_ = applied;
  receiver_.send_ack();
}

void NodeLog::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    ++changes_;
    apply_cv_.notify_all();
    changed_cv_.notify_all();
    progress_cv_.notify_all();
  }
  active_.ring().end_wait();
  if (hot_) hot_->wake();
  for (const auto& s : senders()) s->stop();
  receiver_.disconnect();
}

NodeLogStatus NodeLog::status() const {
  NodeLogStatus s;
  for (const auto& sender : senders()) s.peers.push_back(sender->status());
  s.receive.from = receiver_.connected_to();
  s.receive.logged = log_.durable();
  s.receive.applied = applier_.announced();
  s.receive.limit_bytes = receiver_.limit();
  s.ring_bytes = active_.ring().size_bytes();
  s.ring_used_bytes = active_.ring().used_bytes();
  if (hot_) s.hot = hot_->status();
  const Position ring_position = active_.ring().last_position();
  const std::uint64_t appended = receiver_.appended_bytes();
  // A rewind holds it for minutes, and who asks for the status must not take that for a hang.
  std::optional<Position> log_end;
  if (const auto held = receiver_.try_hold(); held.owns_lock()) log_end = log_.end();
  const std::lock_guard lock(mutex_);
  if (log_end) log_end_seen_ = *log_end;
  s.role = role_;
  s.epoch = epoch_;
  s.sealed = receiver_.sealed();
  s.sets.assign(sets_.begin(), sets_.end());
  s.receive.queue_bytes = appended - std::min(appended, applied_bytes_);
  s.receive.complete = complete_locked();
  s.receive.clean = state_.clean;
  s.receive.resyncing = !state_.resyncing.empty();
  s.receive.point = state_.point;
  s.receive.point_time_ns = state_.point_time_ns;
  s.receive.rewinding = state_.rewind.has_value();
  s.receive.waits_for_space = applier_.waits_for_space() || way_back_waits_for_space_;
  s.receive.grave_bytes = applier_.grave_bytes();
  s.receive.doomed_graves = applier_.doomed_graves();
  s.receive.graves_aside = applier_.graves_aside();
  s.receive.why_aside = applier_.why_aside();
  s.receive.first_copies = first_copies_locked();
  s.receive.doubted = state_.doubted;
  s.receive.leads_as_it_is = !s.receive.complete && leads_as_it_is_locked();
  s.went_back = state_.went_back;
  s.shortages = shortages_;
  if (s.receive.queue_bytes != 0 && !marks_.empty())
    s.receive.queue_age_ns = std::max<std::int64_t>(0, ports_.times.steady_ns() - marks_.front().at_ns);
  if (role_ == Role::active || role_ == Role::fenced)
    s.position = ring_position;
  else if (state_.active_epoch != Epoch(0))
    s.position = {state_.active_epoch, state_.applied.sequence};
  else
    s.position = log_end_seen_;
  s.fault = fault_;
  return s;
}

}  // namespace holdfast::mirror
