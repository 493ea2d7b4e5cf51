// SPDX-License-Identifier: Apache-2.0
// The protected sets of a node: added in either role, removed, and whether a folder is the one that is remembered (mirror/tree_marks.h).
#include <fmt/core.h>

#include "base/log.h"
#include "mirror/node_log.h"
#include "mirror/tree_marks.h"

namespace holdfast::mirror {

Status NodeLog::add_set(std::shared_ptr<ports::Tree> tree, Epoch protected_in) {
  const std::lock_guard one(transition_mutex_);
  const SetNumber number = tree->set();
  bool is_active = false;
  {
    const std::lock_guard lock(mutex_);
    if (!sets_.insert(number).second) return fail(ErrorCode::exists, "set {} is here already", number);
    is_active = role_ == Role::active;
  }
  limits_.set_own(number, tree->limits());
  const bool whole = is_active || has_content_of(number, protected_in);
  if (Status added = is_active ? add_tree_while_active(std::move(tree)) : add_tree_at_rest(std::move(tree), whole);
      !added) {
    const std::lock_guard lock(mutex_);
    sets_.erase(number);
    return added;
  }
  HF_TRY(resume_rewind());
  if (whole) HF_TRY(update_state([&](NodeState& s) { s.complete.insert(number); }));
  if (is_active) {
    for (const auto& s : senders()) s->set_added(number);
  }
  wake_applier();
  changed();
  return {};
}

// Protected in an epoch that this node led, and never handed over: nobody else can have its content. Whoever led after this node took what it never
// had a copy of for empty.
bool NodeLog::has_content_of(SetNumber set, Epoch protected_in) const {
  const NodeState state = snapshot();
  if (protected_in == Epoch(0) || state.active_epoch != protected_in || state.rewind || state.speaks_of(set))
    return false;
  log_info("set {}: it was protected in epoch {}, which this node led", set, protected_in.value);
  return true;
}

Status NodeLog::remove_set(SetNumber set) {
  const std::lock_guard one(transition_mutex_);
  bool leaves_epoch = false;
  {
    const std::lock_guard lock(mutex_);
    leaves_epoch = sets_.contains(set) && role_ == Role::active && hot_;
  }
  // It may be here again after this node's end, should what this is about not be recorded then (a capture that could not be mounted): peers may
  // have a copy of before, and what is done to the folder from now on is in no log.
  if (leaves_epoch)
    if (Status noted = hot_->with_whole_set(set, [] { return Status{}; });
        !noted && noted.error().code != ErrorCode::stale)
      return noted;  // and it is still one of ours: who tries again notes again
  {
    const std::lock_guard lock(mutex_);
    sets_.erase(set);
  }
  for (const auto& s : senders()) s->set_removed(set);
  applier_.remove_tree(set);
  wake_applier();
  HF_TRY(limits_.forget(set));
  const NodeState state = snapshot();
  if (!state.speaks_of(set)) return {};
  HF_TRY(store_state([&](NodeState& s) { s.forget(set); }));
  return state.rewind && state.rewind->complete.contains(set) ? resume_rewind() : Status{};  // it waited for this one
}

// A set that is protected from now on: what was done to it before is in no note, and everybody else copies it from here as it is.
Status NodeLog::add_tree_while_active(std::shared_ptr<ports::Tree> tree) {
  const SetNumber set = tree->set();
  const std::lock_guard lock(marks_mutex_);
  // Remembered: this node was elected while the folder was not here.
  if (const NodeState state = snapshot(); state.marked.contains(set)) {
    HF_ASSIGN(const std::string why, why_not_remembered(*tree, state, log_.durable(), nullptr));
    if (!why.empty())
      return tl::unexpected(Error{ErrorCode::refused, fmt::format("set {}: {}, and this node leads", set, why),
                                  "put the folder back that was there, or unprotect it, and protect it anew", 0});
  }
  HF_TRY(tree->adopt_root());  // what the index may know of an earlier cluster's set is about another folder
  HF_TRY(mark_hot(*tree));
  return applier_.add_tree(std::move(tree));
}

// A tree of this epoch, or of the one that this node led last.
Status NodeLog::mark_hot(ports::Tree& tree) {
  if (!hot_) return {};
  const HotMark mark = hot_->mark_now();
  const Status marked = mark.drawn != 0 ? tree.set_mark(ports::Mark::hot, encode(mark)) : Status{};
  if (!marked && marked.error().code != ErrorCode::no_space) return marked;  // without one: copied anew after a death
  return tree.sync();
}

Status NodeLog::add_tree_at_rest(std::shared_ptr<ports::Tree> tree, bool whole) {
  HF_TRY(doubt_if_not_ours(*tree));
  HF_TRY(tree->adopt_root());
  if (whole) HF_TRY(mark_hot(*tree));  // else the next start takes it for an older state
  return applier_.add_tree(std::move(tree));
}

// What is remembered is believed only of the tree that it speaks of. What stands there instead is no copy, nor a way back to one; nothing that is in
// it is touched before the active compares it.
Status NodeLog::doubt_if_not_ours(ports::Tree& tree) {
  const SetNumber set = tree.set();
  const NodeState state = snapshot();
  const bool in_point = state.point && state.point->complete.contains(set);
  const bool known = state.complete.contains(set) || state.resyncing.contains(set) || state.marked.contains(set);
  if (!known && !in_point && !state.rewind) return {};
  const std::optional<HotHeader> hot = hot_ ? std::optional(hot_->header()) : std::nullopt;
  HF_ASSIGN(const std::string why, why_not_remembered(tree, state, log_.durable(), hot ? &*hot : nullptr));
  if (why.empty()) return {};
  if (state.rewind)
    return tl::unexpected(
        Error{ErrorCode::refused, fmt::format("set {}: {}, in the middle of a way back to an earlier point", set, why),
              "put the folder back that was there, or remove the mirror's state, and this node is copied anew", 0});
  log_warning("set {}: {}: it counts as no copy until it was compared with the active's as a whole", set, why);
  HF_TRY(update_state([&](NodeState& s) {
    s.forget(set);
    s.lost.insert(set);
    s.doubted.insert(set);
  }));
  applier_.doubt(set);
  if (events_.doubted) events_.doubted(set, why);
  return {};
}

}  // namespace holdfast::mirror
