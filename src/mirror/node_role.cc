// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <chrono>

#include "base/check.h"
#include "base/log.h"
#include "log/record_fields.h"
#include "mirror/node_log.h"

namespace holdfast::mirror {
namespace {

// An active that died does not know its last sequence. It goes on far above anything it can have used, in a later epoch.
// The same after a fence: what stragglers did to the tree is in no log. Nobody can hold that base, so everybody is resynchronized.
constexpr std::uint64_t sequence_gap_after_death = std::uint64_t{1} << 40;

}  // namespace

Result<SealReply> NodeLog::seal(Epoch epoch, bool look_back) {
  const std::lock_guard one(transition_mutex_);
  HF_TRY(leave_ended_epoch());
  bool leads_lower = false;
  {
    const std::lock_guard lock(mutex_);
    if (role_ == Role::active && epoch < epoch_)
      return fail(ErrorCode::stale, "this node leads epoch {}", epoch_.value);
    leads_lower = role_ == Role::active && epoch > epoch_;
  }
  if (leads_lower) abort();  // a promise to another epoch: nothing of ours may be appended any more
  HF_ASSIGN(Position position, receiver_.seal(epoch, [&] {
    return update_state([&](NodeState& s) { s.sealed = std::max(s.sealed, epoch); });
  }));
  bool cut = false;
  SealReply reply;
  {
    const std::lock_guard lock(mutex_);
    if (role_ == Role::active || role_ == Role::fenced)
      position = active_.ring().last_position();
    else if (state_.went_back)
      position = {state_.active_epoch, state_.went_back->position.sequence};  // not further than who was not taken back
    else if (state_.active_epoch != Epoch(0))
      position = position_led(state_);
    cut = role_ == Role::passive && epoch > epoch_;
    reply = {position, complete_locked(), state_.clean, false, {}};
    reply.fallback = look_back && !reply.complete && leads_as_it_is_locked();
  }
  if (cut) receiver_.disconnect();  // the old active learns at once that its epoch is over here
  if (look_back && !reply.complete && !reply.fallback) {
    const Status looked = look_at_point();
    reply.fallback = looked.has_value();
    if (!looked) reply.no_fallback = looked.error().to_string();
  }
  return reply;
}

Result<Welcome> NodeLog::admit(const Hello& hello) {
  Welcome welcome;
  NodeState state;
  {
    const std::lock_guard lock(mutex_);
    if (!fault_.empty()) return fail(ErrorCode::unavailable, "this node has stopped: {}", fault_);
    if (state_.rewind) return fail(ErrorCode::busy, "this node's folders are on their way back to an earlier point");
    if (hello.cluster_id != config_.cluster_id) return fail(ErrorCode::denied, "this node belongs to another cluster");
    if (hello.node == config_.node) return fail(ErrorCode::denied, "that is this node itself");
    if (role_ != Role::passive)
      return fail(ErrorCode::unavailable, "this node is {}, and follows nobody", to_string(role_));
    if (hello.epoch != epoch_ || hello.node != follows_)
      return fail(ErrorCode::stale, "this node follows node {} in epoch {}, not node {} in epoch {}", to_hex(follows_),
                  epoch_.value, to_hex(hello.node), hello.epoch.value);
    state = state_;
  }
  welcome.highest_kind = log::highest_kind;
  welcome.features = config_.features;
  welcome.node = config_.node;
  welcome.clean = state.clean;
  welcome.life = life_;
  if (!state.clean && (hello.features & config_.features & feature_hot_return) != 0) {
    HF_ASSIGN(const auto left, left_by(state.active_epoch));
    if (left) {
      welcome.led = left->led;
      welcome.covered = left->covered;
      welcome.entries = left->entries;
    }
  }
  {
    const auto held = receiver_.hold();
    if (Status synced = log_.sync(); !synced) {
      fault(synced.error());
      return tl::unexpected(std::move(synced).error());
    }
    welcome.position = log_.end();
  }
  HF_TRY(applier_.for_each_tree([&](ports::Tree& tree) -> Status {
    PeerSetState set;
    set.set = tree.set();
    set.complete = state.complete.contains(set.set) && !state.resyncing.contains(set.set);
    set.doubted = state.doubted.contains(set.set);
    if (!set.complete) {
      HF_ASSIGN(set.empty, tree.is_empty());
    }
    welcome.sets.push_back(set);
    return {};
  }));
  return welcome;
}

Status NodeLog::follow(Epoch epoch, NodeId active) {
  const std::lock_guard one(transition_mutex_);
  HF_TRY(leave_ended_epoch());
  bool same = false;
  {
    const std::lock_guard lock(mutex_);
    if (!fault_.empty()) return fail(ErrorCode::unavailable, "this node has stopped: {}", fault_);
    if (active == config_.node) return fail(ErrorCode::invalid, "a node does not follow itself");
    if (role_ == Role::active)
      return fail(ErrorCode::busy, "this node leads epoch {}: release or abort it first", epoch_.value);
    if (epoch < receiver_.sealed())
      return fail(ErrorCode::stale, "epoch {} was promised already", receiver_.sealed().value);
    same = role_ == Role::passive && epoch_ == epoch && follows_ == active;
    role_ = Role::passive;
    epoch_ = epoch;
    follows_ = active;
  }
  // Somebody else leads: a way back that was to open an epoch here ends where it leads to.
  HF_TRY(resume_rewind());
  if (!same) {
    receiver_.disconnect();
    log_info("passive: follows node {} in epoch {}", to_hex(active), epoch.value);
    changed();
  }
  return {};
}

Status NodeLog::check_promotable(Epoch epoch, const PromoteOptions& options) const {
  const std::lock_guard lock(mutex_);
  if (!fault_.empty()) return fail(ErrorCode::unavailable, "this node has stopped: {}", fault_);
  if (role_ == Role::active) return fail(ErrorCode::busy, "this node leads epoch {} already", epoch_.value);
  if (epoch < receiver_.sealed())
    return fail(ErrorCode::stale, "epoch {} was promised already", receiver_.sealed().value);
  if (epoch <= state_.active_epoch)
    return fail(ErrorCode::stale, "this node led epoch {} before", state_.active_epoch.value);
  if (options.to_batch != 0 || state_.rewind) return check_way_back(options);
  if (options.as_origin || complete_locked()) return {};
  const bool by_point = state_.point && history() && point_has_all_locked();
  if (options.allow_older && (by_point || leads_as_it_is_locked())) return {};
  return tl::unexpected(Error{ErrorCode::refused, "this node holds no complete copy",
                              by_point ? "bring the active back, or let the copy finish; a forced failover takes "
                                         "over at the last consistent point"
                                       : "bring the active back, or let the copy finish",
                              0});
}

// mutex_ is held. A way back that stands belongs to the plan that began it; nobody else may lead with trees on their way.
Status NodeLog::check_way_back(const PromoteOptions& options) const {
  if (state_.rewind) {
    if (state_.rewind_for_epoch && options.to_batch != 0 && options.plan == state_.rewind_plan) return {};
    return fail(ErrorCode::refused, "this node's folders are on their way back to an earlier point: wait for that");
  }
  if (!wants_way_back_locked(options)) return {};
  if (!history()) return fail(ErrorCode::refused, "this node keeps no undo history");
  if (role_ == Role::fenced || state_.active_epoch != Epoch(0))
    return fail(ErrorCode::refused, "this node led an epoch and has not followed since: it can't go back");
  if (!complete_locked()) return fail(ErrorCode::refused, "this node holds no complete copy");
  return {};
}

// False: the trees stand there already, because the same plan took them there in an epoch that was lost.
bool NodeLog::wants_way_back_locked(const PromoteOptions& options) const {
  if (options.to_batch == 0) return false;
  return !(state_.went_back && !options.plan.empty() && state_.went_back->plan == options.plan);
}

Status NodeLog::drain() {
  std::unique_lock lock(mutex_);
  apply_work_ = apply_now_ = true;
  space_waits_ = 0;
  apply_cv_.notify_all();
  // The first of two tries may have begun before this asked for one.
  apply_cv_.wait(lock, [&] {
    return stopped_ || !fault_.empty() || missing_set_ != 0 || space_waits_ >= 2 ||
           applier_.applied().sequence >= log_.durable();
  });
  if (stopped_) return fail(ErrorCode::unavailable, "the mirror is stopping");
  if (!fault_.empty()) return fail(ErrorCode::unavailable, "this node has stopped: {}", fault_);
  if (missing_set_ != 0)
    return fail(ErrorCode::refused, "the log is about set {}, which is not configured here", missing_set_);
  if (applier_.applied().sequence < log_.durable())
    return tl::unexpected(
        applier_.waits_for_history()
            ? Error{ErrorCode::no_space, "there is no room for the undo history of what the receive log holds",
                    "make room in the file system of the mirror's state, then activate this node again", 0}
            : Error{ErrorCode::no_space,
                    "a protected folder of this node is full: what the receive log holds can't be applied",
                    "make room in the file system of the protected folder, then activate this node again", 0});
  return {};
}

Result<Promotion> NodeLog::promote(Epoch epoch, const PromoteOptions& options) {
  const std::lock_guard one(transition_mutex_);
  HF_TRY(leave_ended_epoch());
  HF_TRY(check_promotable(epoch, options));
  receiver_.disconnect();
  HF_ASSIGN(const Position end, receiver_.seal(epoch, [&] {
    return update_state([&](NodeState& s) { s.sealed = std::max(s.sealed, epoch); });
  }));
  Promotion promotion;
  promotion.base = end;
  Before before;
  bool older = false, back = false;
  {
    const std::lock_guard lock(mutex_);
    older = options.allow_older && !options.as_origin && !complete_locked() && !state_.rewind;
    back = state_.rewind || wants_way_back_locked(options);
    promotion.went_back = state_.went_back;
  }
  const bool by_point = older && snapshot().point;
  if (back) {
    HF_ASSIGN(promotion.base, go_back_for_epoch(options, promotion));
  } else if (by_point) {
    promotion.recovered_time_ns = snapshot().point_time_ns;
    HF_ASSIGN(promotion.base, rewind_to_point());
  } else {
    HF_TRY(drain());
    HF_TRY(check_promotable(epoch, options));  // the drained part may have begun a resync
    promotion.recovered_time_ns = applier_.applied_time_ns();
    if (!older && !options.as_origin && snapshot().active_epoch == Epoch(0) && !promotion.went_back) before.exact = end;
  }
  if (older) HF_TRY(empty_first_copies());
  if (Status done = applier_.checkpoint(); !done) {
    fault(done.error());
    return tl::unexpected(std::move(done).error());
  }
  {
    // An active that died or was fenced does not know its last sequence; nor does anybody hold what this node goes on from after it went back.
    const std::lock_guard lock(mutex_);
    const bool was_active = state_.active_epoch != Epoch(0);
    const Sequence known = std::max(
        {state_.applied.sequence, end.sequence, role_ == Role::fenced ? active_.ring().last_sequence() : Sequence(0)});
    if (was_active || older || back)
      promotion.base = {was_active ? state_.active_epoch : promotion.base.epoch,
                        Sequence(known.value + sequence_gap_after_death)};
  }
  if (epoch <= promotion.base.epoch) return fail(ErrorCode::stale, "epoch {} is in the log already", epoch.value);
  if (!older && !back && !options.as_origin && (config_.features & feature_hot_return) != 0) {
    auto left = left_by(snapshot().active_epoch);
    if (left) {
      before.left = std::move(*left);
      if (before.left)
        log_info("{} keys of what this node changed are noted since epoch {} sequence {}", before.left->entries.size(),
                 before.left->covered.epoch.value, before.left->covered.sequence.value);
    } else {
      log_warning("peers are compared as a whole: {}", left.error().to_string());
    }
  }
  if (options.given_up && options.given_up()) {
    if (back) HF_TRY(give_up_epoch());
    return fail(ErrorCode::stale, "epoch {} is not wanted any more", epoch.value);
  }
  if (promotion.went_back) promotion.went_back->epoch = epoch;
  HF_TRY(open_epoch(epoch, promotion, before, options.hold_peers));
  return promotion;
}

// One store takes the node from "passive" (or "on its way back for this epoch") to "active of this epoch": there is no state between that somebody
// could vote with.
Status NodeLog::open_epoch(Epoch epoch, const Promotion& promotion, const Before& before, bool hold_peers) {
  if (Status said = applier_.leave_history("this node became active"); !said) {
    fault(said.error());
    return said;
  }
  HF_TRY(update_state([&](NodeState& s) {
    s.active_epoch = epoch;
    s.clean = false;
    s.applied = promotion.base;
    s.resyncing.clear();
    s.point.reset();
    s.rewind.reset();
    s.reversal = 0;
    s.rewind_for_epoch = false;
    s.rewind_plan.clear();
    s.went_back = promotion.went_back;
    s.led_from = before.exact;
    const std::lock_guard lock(mutex_);
    s.complete = sets_;
    s.lost.clear();
    s.doubted.clear();
  }));
  HF_TRY(begin_hot(epoch, promotion.base));
  active_.begin_epoch();
  for (const auto& s : senders()) {
    s->cancel_resync();  // what still walks for an earlier epoch must not append to this one
    s->queue().end();    // nor do its offsets mean anything there
    s->epoch_began(before.left);
  }
  {
    const std::lock_guard lock(mutex_);
    led_from_.reset();
    if (before.exact) led_from_ = LedFrom{*before.exact, sets_};
  }
  active_.ring().open(epoch, promotion.base);
  for (const auto& s : senders()) s->begin_queue(promotion.base);  // from the first record on, connected or not
  applier_.changed_until(0);
  if (auto begun = append_mark(log::Kind::epoch_begin); !begun) return tl::unexpected(std::move(begun).error());
  {
    const std::lock_guard lock(mutex_);
    role_ = Role::active;
    ended_ = false;
    hold_peers_ = hold_peers;
    epoch_ = epoch;
    follows_ = NodeId(0);
  }
  log_info("active: epoch {} begins after epoch {} sequence {}", epoch.value, promotion.base.epoch.value,
           promotion.base.sequence.value);
  wake_applier();  // it sweeps what the history leaves
  changed();
  return {};
}

Result<Sequence> NodeLog::append_mark(log::Kind kind, std::int64_t mtime_ns, std::string_view name) {
  log::Record mark;
  mark.kind = kind;
  mark.name = name;
  mark.mtime_ns = mtime_ns;
  for (;;) {
    auto freed = std::make_shared<std::atomic<bool>>(false);
    active_.when_space([this, freed] {
      freed->store(true);
      const std::lock_guard lock(mutex_);
      changed_cv_.notify_all();
    });
    if (active_.try_reserve(0)) break;
    std::unique_lock lock(mutex_);
    changed_cv_.wait(lock, [&] { return freed->load() || stopped_ || !fault_.empty(); });
    if (stopped_ || !fault_.empty()) return fail(ErrorCode::unavailable, "the mirror is stopping");
  }
  const Sequence sequence = active_.append(mark, 0);
  active_.hurry_now();
  return sequence;
}

void NodeLog::mark_consistent(std::int64_t began_ns) {
  {
    const std::lock_guard lock(mutex_);
    if (role_ != Role::active || ended_) return;  // nothing follows the end of an epoch
  }
  const std::int64_t age = ports_.times.steady_ns() - began_ns;
  const auto mark = append_mark(log::Kind::consistent, ports_.times.realtime_ns() - age);
  if (!mark) return;
  for (const auto& s : senders()) s->pushed(*mark, began_ns);
}

Result<Position> NodeLog::end_epoch() {
  const std::lock_guard one(transition_mutex_);
  {
    const std::lock_guard lock(mutex_);
    if (role_ != Role::active) return fail(ErrorCode::invalid, "this node leads no epoch");
    if (ended_) return active_.ring().last_position();
  }
  for (const auto& s : senders()) s->cancel_resync();
  if (auto ended = append_mark(log::Kind::epoch_end); !ended) return tl::unexpected(std::move(ended).error());
  applier_.changed_until(ports_.times.realtime_ns());
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  return active_.ring().last_position();
}

Result<bool> NodeLog::wait_handed_over(NodeId successor, Position end, int timeout_ms) {
  std::shared_ptr<Sender> sender;
  for (const auto& s : senders())
    if (s->peer() == successor) sender = s;
  if (!sender) return fail(ErrorCode::not_found, "node {} is no peer of this one", to_hex(successor));
  ++progress_waits_;
  std::unique_lock lock(mutex_);
  const bool ended = progress_cv_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] {
    return stopped_ || role_ != Role::active || sender->holds(end.sequence);
  });
  --progress_waits_;
  return ended && sender->holds(end.sequence);
}

// An epoch that was ended in order and not handed over (the successor was too slow): nobody else holds more, so this node is clean at its end.
Status NodeLog::leave_ended_epoch() {
  {
    const std::lock_guard lock(mutex_);
    if (role_ != Role::active || !ended_) return {};
  }
  return step_down_held(active_.ring().last_position());
}

Status NodeLog::step_down(Position end) {
  const std::lock_guard one(transition_mutex_);
  return step_down_held(end);
}

Status NodeLog::step_down_held(Position end) {
  {
    const std::lock_guard lock(mutex_);
    if (role_ != Role::active || !ended_) return fail(ErrorCode::invalid, "this node has ended no epoch");
    if (active_.ring().last_position() != end)
      return fail(ErrorCode::internal, "something was appended after the epoch's end");
  }
  active_.ring().close();
  for (const auto& s : senders()) s->end_epoch();
  HF_TRY(restart_log(end, [](NodeState& s) {
    s.active_epoch = Epoch(0);
    s.clean = true;
  }));
  {
    const std::lock_guard lock(mutex_);
    role_ = Role::idle;
  }
  changed();
  return {};
}

void NodeLog::abort() {
  Epoch ended;
  {
    const std::lock_guard lock(mutex_);
    if (role_ != Role::active) return;
    role_ = Role::fenced;
    ended = epoch_;
  }
  active_.ring().close();
  if (hot_) hot_->seal();
  for (const auto& s : senders()) s->end_epoch();
  log_warning("fenced: epoch {} has ended here", ended.value);
  changed();
}

}  // namespace holdfast::mirror
