// SPDX-License-Identifier: Apache-2.0
// For tests only: the peer's side of ChangeRun. Included by mirror/test_change_model.h.
#pragma once

#include "mirror/test_change_model.h"

namespace holdfast::mirror::testing {

inline void ChangeRun::on_nak(const Nak& nak) {
  if (nak.length == 0) {
    const bool aside = nak.offset == nak_with_parent, known = sets_.at(nak.set)->tree->look(nak.file) != nullptr;
    note(fmt::format("   NAK {}{}{}", nak.file.to_hex().substr(0, 6), aside ? " aside" : "", known ? "" : " unknown"));
    if (aside ? options_.flaw == Flaw::aside_not_asked
              : options_.flaw == (known ? Flaw::made_not_asked : Flaw::missing_not_asked))
      return;
  }
  questions_.ask(nak);
  if (connected_) naks_.push_back(nak);
}

// open_questions.h
inline void ChangeRun::on_received(const Bytes& record) {
  questions_.answered_by(record);
  if (options_.flaw != Flaw::taken_for_answered) return;
  log::Record r = log::decode(record).value();
  if (r.kind != log::Kind::ship_node) return;
  r.kind = log::Kind::ship_dir;
  r.flags = log::flag_first_chunk;
  r.payload = {};
  questions_.answered_by(log::encode(r));
}

inline Status ChangeRun::store(const std::function<void(NodeState&)>& change) {
  NodeState next = state_;
  change(next);
  HF_TRY(cell_.store(encode(next)));
  state_ = std::move(next);
  return {};
}

inline Status ChangeRun::start_again() {
  HF_ASSIGN(const Bytes stored, cell_.load());
  HF_ASSIGN(state_, decode_node_state(stored));
  log_ = std::make_unique<log::SegmentLog>(segments_);
  if (state_.restarting) {
    HF_TRY(log_->reset(state_.applied));
    HF_TRY(store([](NodeState& s) { s.restarting = false; }));
  } else {
    HF_ASSIGN(const log::Recovery recovery, log_->recover(state_.applied.sequence));
    if (!recovery.found) return fail(ErrorCode::internal, "the receive log is gone");
  }
  Applier::Hooks hooks;
  hooks.update_state = [this](const auto& change) { return store(change); };
  hooks.nak = [this](const Nak& nak) { on_nak(nak); };
  hooks.applied = [](std::uint64_t) {};
  hooks.resync_broken = [this] {
    note("-- the resync can't be completed");
    ++report_.given_up;
    ++life_;
    cut();
  };
  hooks.unknown_set = [](SetNumber) {};
  hooks.whole = [this](SetNumber set) { questions_.settled(set); };
  applier_ = std::make_unique<Applier>(*log_, no_undo_, std::move(hooks), pick(2) ? 1 : apply_batch_bytes);
  HF_TRY(applier_->begin(state_));
  for (const auto& [number, set] : sets_) HF_TRY(applier_->add_tree(set->tree));
  return {};
}

// node_log.cc: restart_log.
inline Status ChangeRun::restart_log(Position base) {
  HF_TRY(store([&](NodeState& s) {
    s.complete.clear();
    s.resyncing.clear();
    ++s.log_life;
    s.applied = base;
    s.restarting = true;
  }));
  HF_TRY(log_->reset(base));
  HF_TRY(store([](NodeState& s) { s.restarting = false; }));
  return applier_->begin_held(state_);
}

inline Status ChangeRun::survives(const Status& status) {
  if (!fuse_.burnt) return status;
  for (;;) {
    ++report_.crashes;
    ++life_;
    questions_.clear();
    note("-- the power goes");
    cut();
    applier_.reset();
    log_.reset();
    segments_.crash(random_);
    for (const auto& [number, set] : sets_) set->tree->crash(random_);
    fuse_.burnt = false;
    fuse_.left = pick(4) == 0 ? pick(60) : UINT64_MAX;
    Status up = start_again();
    note(fmt::format("-- up again at {}, the log ends at {}", state_.applied.sequence.value,
                     log_->end().sequence.value));
    for (bool more = up.has_value(); more;) {
      auto applied = applier_->step();
      more = applied && *applied;
      if (!applied) up = tl::unexpected(std::move(applied).error()), more = false;
    }
    if (!fuse_.burnt) return up ? compare() : up;
  }
}

inline Result<bool> ChangeRun::apply() {
  HF_ASSIGN(const bool more, applier_->step());
  if (fuse_.burnt) return fail(ErrorCode::io, "the power is gone");
  HF_TRY(compare());
  return more;
}

inline Status ChangeRun::compare() {
  const auto then = history_.find(applier_->applied().sequence);
  if (then == history_.end()) return {};
  for (const auto& [number, set] : sets_) {
    if (!whole(number)) continue;
    ++report_.compared;
    const std::string difference = then->second.at(number).difference(*set->tree);
    if (!difference.empty())
      return fail(ErrorCode::internal, "set {}: the tree at sequence {} is not what the model was: {}", number,
                  then->first.value, difference);
  }
  return {};
}

}  // namespace holdfast::mirror::testing
