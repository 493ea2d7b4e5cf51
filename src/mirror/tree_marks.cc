// SPDX-License-Identifier: Apache-2.0
#include "mirror/tree_marks.h"

#include <fmt/core.h>

namespace holdfast::mirror {
namespace {

constexpr std::uint8_t mark_version = 1;

}  // namespace

Bytes encode(const CheckpointMark& mark) {
  Bytes out;
  ByteWriter w(out);
  w.u8(mark_version);
  w.u64(mark.log_life);
  w.u64(mark.applied.value);
  out.resize(ports::mark_bytes);
  return out;
}

Bytes encode(const HotMark& mark) {
  Bytes out;
  ByteWriter w(out);
  w.u8(mark_version);
  w.u64(mark.epoch.value);
  w.u32(mark.drawn);
  w.u32(mark.released);
  out.resize(ports::mark_bytes);
  return out;
}

std::optional<CheckpointMark> decode_checkpoint_mark(ByteView bytes) {
  ByteReader r(bytes);
  const std::uint8_t version = r.u8();
  CheckpointMark mark;
  mark.log_life = r.u64();
  mark.applied = Sequence(r.u64());
  if (!r.ok() || version != mark_version) return {};
  return mark;
}

std::optional<HotMark> decode_hot_mark(ByteView bytes) {
  ByteReader r(bytes);
  const std::uint8_t version = r.u8();
  HotMark mark;
  mark.epoch = Epoch(r.u64());
  mark.drawn = r.u32();
  mark.released = r.u32();
  if (!r.ok() || version != mark_version) return {};
  return mark;
}

// Truth table, of what is known:
//   another root                                          another folder, whatever it carries
//   the state says what the tree carries                  that, or a later one, as far as a crash of this node can explain: nothing is applied that
//                                                         is not in the log, and a log that begins anew is said to before anything of it is
//   it led and did not hand over, notes of that epoch     their mark, at least as far as what was dropped
Result<std::string> why_not_remembered(ports::Tree& tree, const NodeState& state, Sequence log_end,
                                       const HotHeader* hot) {
  if (tree.is_another()) return std::string("another folder stands where the protected one was");
  if (const auto known = state.marked.find(tree.set()); known != state.marked.end()) {
    HF_ASSIGN(const Bytes bytes, tree.mark(ports::Mark::checkpoint));
    const auto mark = decode_checkpoint_mark(bytes);
    if (!mark || *mark < known->second)
      return fmt::format("the folder is older than what this node remembers of it (sequence {} instead of {})",
                         mark ? mark->applied.value : 0, known->second.applied.value);
    const bool same_log = mark->log_life == state.log_life;
    const CheckpointMark furthest =
        same_log ? CheckpointMark{state.log_life, log_end} : CheckpointMark{state.log_life + 1, Sequence(0)};
    if (*mark > furthest)
      return fmt::format("the folder is further than what this node has of its log (sequence {} instead of {})",
                         mark->applied.value, same_log ? log_end.value : 0);
  }
  if (state.active_epoch == Epoch(0) || !hot || hot->epoch != state.active_epoch || hot->drawn == 0)
    return std::string();
  HF_ASSIGN(const Bytes bytes, tree.mark(ports::Mark::hot));
  const auto mark = decode_hot_mark(bytes);
  if (mark && mark->epoch == hot->epoch && mark->drawn == hot->drawn && mark->released >= hot->released)
    return std::string();
  return std::string("the folder is older than what this node noted of it as the active");
}

}  // namespace holdfast::mirror
