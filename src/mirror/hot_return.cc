// SPDX-License-Identifier: Apache-2.0
#include "mirror/hot_return.h"

#include <fmt/core.h>

namespace holdfast::mirror {

ChangeSet changes_of(const std::vector<HotNote>& notes) {
  ChangeSet all;
  for (const HotNote& note : notes) {
    switch (note.kind) {
      case HotKind::file:
        all.note_file(note.set, note.id);
        break;
      case HotKind::folder:
        all.note_folder(note.set, note.id);
        break;
      case HotKind::block:
        all.note_block(note.set, IdBlock::of(note.id));
        break;
      case HotKind::set:
        all.note_set(note.set);
        break;
    }
  }
  return all;
}

//   both know of such lists, and it has one of the epoch that it led    else it can't say what differs
//   this node's trees were a log's, exactly, when its epoch began       else what they lack is in no list
//   that log ends in the very epoch                                     else another one led between, or this node never followed it
//   at or after where the list begins                                   else what was dropped from the list before may be missing here
std::string why_whole(const Welcome& peer, std::uint32_t features, const std::optional<LedFrom>& here) {
  constexpr std::uint32_t needed = feature_hot_return | feature_partial_resync;
  if ((peer.features & features & needed) != needed)
    return "one of the two nodes does not know how to say what may differ";
  if (peer.led == Epoch(0)) return "it has no notes of what it changed last";
  if (!here) return "this node's own folders were not exactly what a log says when its epoch began";
  if (here->base.epoch != peer.led)
    return fmt::format("it led epoch {}, and this node's log went on from epoch {}", peer.led.value,
                       here->base.epoch.value);
  if (here->base < peer.covered)
    return fmt::format("its notes begin at sequence {} of epoch {}, and this node went on from sequence {}",
                       peer.covered.sequence.value, peer.covered.epoch.value, here->base.sequence.value);
  return {};
}

std::string to_string(const Returned& r) {
  std::string text = fmt::format("{} was active and did not hand over", r.name);
  if (!r.why_whole.empty()) return text + ": all of it is compared, because " + r.why_whole;
  text += fmt::format(": reconciles {} files and {} folders instead of the whole tree", r.reconciled.files,
                      r.reconciled.folders);
  for (const SetNumber set : r.reconciled.whole)
    text += fmt::format("; all of set {}, in which too much was changed at once", set);
  return text;
}

namespace {

Status note(ChangeMap& map, const ChangeSet& changes, Reconciled& sum, const std::function<Status()>& between) {
  changes.for_each_object(
      [&](SetNumber, const FileId&, const ObjectChange& change) { ++(change.listing ? sum.folders : sum.files); });
  HF_TRY(map.note(changes));
  if (map.overflowed()) return fail(ErrorCode::refused, "it is too much to be listed");
  return between();
}

}  // namespace

Result<Reconciled> note_left(ChangeMap& map, ChangeSet left, const IdsOfBlock& ids,
                             const std::function<Status()>& between) {
  Reconciled sum;
  const auto blocks = left.take_blocks();
  sum.whole.insert(left.whole_sets().begin(), left.whole_sets().end());
  HF_TRY(note(map, left, sum, between));
  left.clear();
  for (const auto& [any_set, block] : blocks) {
    ChangeSet made;
    HF_TRY(ids(block, [&](SetNumber set, const FileId& id, bool folder) {
      if (folder)
        made.note_folder(set, id);
      else
        made.note_file(set, id);
    }));
    HF_TRY(note(map, made, sum, between));
  }
  return sum;
}

}  // namespace holdfast::mirror
